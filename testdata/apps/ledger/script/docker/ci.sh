#!/bin/sh
# The tests as CI runs them, on a database of their own.
set -eu

mix do ledger.drop + ledger.create + ledger.migrate
mix test "$@"
