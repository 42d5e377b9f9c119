#!/bin/sh
set -eu

mix format --check-formatted
mix compile --warnings-as-errors
