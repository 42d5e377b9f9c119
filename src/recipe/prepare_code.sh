#!/bin/sh
# Prepares an Elixir (Mix) app inside its image. Phial calls it in /app, in this order:
#
#   prepare_code deps        fetch what mix.lock names; only mix.exs, mix.lock, config/ and `prepare.inputs` are in sight
#   prepare_code deps ENV    compile those dependencies for ENV; needs no network
#   prepare_code build ENV   compile the app itself for ENV; the whole source is in sight; needs no network
#
# A repository's own script (`prepare.script` in phial.toml) is called as `deps` and as `build ENV`, and compiles its
# dependencies in `deps`. Exit codes of mix are passed on.

set -eu

fail() {
    echo "error: $1" >&2
    if [ $# -gt 1 ]; then echo "hint: $2" >&2; fi
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

need() {
    have "$1" || fail "the base image has no \`$1\`, which $2 needs" "add \`$1\` to the base image"
}

# Runs `mix ARGUMENTS`; its output appears as it comes. When it fails, says what is missing and exits with its code.
run_mix() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    echo 0 >"$scratch/code"
    { mix "$@" 2>&1 || echo $? >"$scratch/code"; } | tee "$scratch/log"
    code=$(cat "$scratch/code")
    if [ "$code" -ne 0 ]; then
        explain "$scratch/log"
        exit "$code"
    fi
    if grep -q '^warning: missing dependency ' "$scratch/log"; then hint_inputs; fi
    rm -rf "$scratch"
}

# One line on stderr for a failure whose own message does not say what to do about it.
explain() {
    for tool in git make cc gcc c++ g++ cmake cargo; do
        have "$tool" && continue
        name=$(printf '%s' "$tool" | sed 's/+/\\+/g')
        if grep -Eq "(^|[ :/])\"?$name\"?:? (command )?not found|(^|[ :/])$name: No such file" "$1"; then
            fail "the base image has no \`$tool\`, which a dependency needs" "add \`$tool\` to the base image"
        fi
    done
    for tool in Hex Rebar; do
        if grep -q "Could not install $tool" "$1"; then
            fail "the base image has no $tool, and it could not be downloaded" "add Hex and rebar3 to the base image"
        fi
    done
    if grep -q 'Could not find "rebar3" to compile' "$1"; then
        fail "the base image has no \`rebar3\`, which a dependency needs" "add \`rebar3\` to the base image"
    fi
    if [ "$call" = deps ] && [ ! -f mix.lock ] && grep -q 'mix.lock is out of date' "$1"; then
        fail "mix.exs names dependencies, but there is no mix.lock" "run \`mix deps.get\` and commit mix.lock"
    fi
    if [ "$call" = deps ] && grep -Eqi 'no such file or directory|enoent|could not load |dependency is not available' "$1"; then
        hint_inputs
    fi
}

hint_inputs() {
    echo "hint: the deps step sees only mix.exs, mix.lock and config/;" \
        "name other files it reads in \`prepare.inputs\` in phial.toml" >&2
}

# Hex: the base's (an archive, or on Elixir's own code path), else the newest.
ensure_hex() {
    grep -q '{:hex,' mix.lock 2>/dev/null || return 0
    run_mix local.hex --force --if-missing
}

# rebar3: MIX_REBAR3, the one in MIX_HOME, the one on PATH.
find_rebar3() {
    if [ -n "${MIX_REBAR3:-}" ]; then return 0; fi
    for path in "${MIX_HOME:-${HOME:-/root}/.mix}"/elixir/*/rebar3; do
        if [ -x "$path" ]; then MIX_REBAR3=$path; fi
    done
    if [ -z "${MIX_REBAR3:-}" ]; then MIX_REBAR3=$(command -v rebar3) || return 1; fi
    export MIX_REBAR3
}

# Whether a fetched dependency is built by rebar3: it has Erlang's files and none of Mix.
uses_rebar3() {
    for dep in deps/*/; do
        if [ -f "$dep/mix.exs" ]; then continue; fi
        if [ -f "$dep/rebar.config" ] || [ -f "$dep/rebar.config.script" ] || [ -f "$dep/rebar.lock" ]; then return 0; fi
        for app in "$dep"src/*.app.src; do
            if [ -f "$app" ]; then return 0; fi
        done
    done
    return 1
}

fetch_deps() {
    if grep -q '{:git,' mix.lock 2>/dev/null; then need git "a git dependency"; fi
    ensure_hex
    run_mix deps.get --check-locked
    if uses_rebar3 && ! find_rebar3; then run_mix local.rebar --force --if-missing; fi
}

compile_deps() {
    find_rebar3 || :
    run_mix deps.compile --skip-local-deps --skip-umbrella-children
}

call=${1:-}
env=${2:-}

if [ ! -f mix.exs ]; then
    fail "there is no mix.exs in $(pwd)" "for an app that is not a Mix project, name a script in \`prepare.script\` in phial.toml"
fi
need erl mix
need mix "a Mix project"
export GIT_TERMINAL_PROMPT=0

case "$call:$env" in
deps:)
    # Mix fetches for all envs at once, whatever MIX_ENV is; config/dev.exs often reads files that are in no commit.
    export MIX_ENV="${MIX_ENV:-prod}"
    fetch_deps
    ;;
deps:*)
    export MIX_ENV="$env"
    compile_deps
    ;;
build:?*)
    export MIX_ENV="$env"
    find_rebar3 || :
    run_mix compile
    ;;
*)
    echo "usage: prepare_code deps [ENV] | prepare_code build ENV" >&2
    exit 2
    ;;
esac
