#!/bin/sh
# Prepares an Elixir (Mix) app inside its image. Phial calls it in the app's directory, in this order:
#
#   prepare_code deps        fetch what the lock file names. In sight are, of every directory, mix.exs, mix.lock, rebar.config,
#                            rebar.lock, .tool-versions and config/ (without runtime.exs); committed dependencies; and
#                            `prepare.inputs`
#   prepare_code deps ENV    compile those dependencies for ENV; needs no network
#   prepare_code build ENV   compile the app itself for ENV; the whole source is in sight; needs no network
#
# A repository's own script (`prepare.script` in phial.toml) is called as `deps` and as `build ENV`, and compiles its
# dependencies in `deps`. Exit codes of mix are passed on. The output of mix is not read here, so a process that mix leaves
# behind holds nothing up.

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

# What the base has in a home, where `mix local.hex` and `mix local.rebar` put it: the image looks in MIX_HOME. The home is that
# of the base's user, else root's.
use_home_of_base() {
    if [ -z "${MIX_HOME:-}" ]; then return 0; fi
    for home in "${PHIAL_BASE_HOME:-${HOME:-/root}}/.mix" "${HOME:-/root}/.mix"; do
        if [ ! -d "$home" ]; then continue; fi
        if [ ! -e "$MIX_HOME" ]; then
            mkdir -p "$MIX_HOME"
            cp -R "$home/." "$MIX_HOME"
        fi
        copy_missing "$home" "archives/hex*"
        copy_missing "$home" "elixir/*/rebar3"
    done
}

# Copies what a home has at a pattern, if MIX_HOME has nothing there.
copy_missing() {
    for path in "$MIX_HOME"/$2; do
        if [ -e "$path" ]; then return 0; fi
    done
    for path in "$1"/$2; do
        if [ ! -e "$path" ]; then continue; fi
        to=$MIX_HOME/${path#"$1"/}
        mkdir -p "${to%/*}"
        cp -R "$path" "$to"
    done
}

# Hex: the base's (an archive, or on Elixir's own code path), else `prepare.hex`, else the newest.
ensure_hex() {
    grep -q '{:hex,' "$lock" 2>/dev/null || return 0
    mix local.hex ${PHIAL_HEX:+"$PHIAL_HEX"} --force --if-missing
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

# Whether every dependency is there as the lock names it, since all are committed: then no server is asked.
has_all_deps() {
    list=${TMPDIR:-/tmp}/phial-deps
    for dep in deps/*/; do
        if [ ! -d "$dep" ] || ! mix deps --all >"$list" 2>&1; then return 1; fi
        if grep -Eq 'mix deps\.(get|update|unlock)' "$list"; then return 1; fi
        return 0
    done
}

fetch_deps() {
    if grep -q '{:git,' "$lock" 2>/dev/null; then need git "a git dependency"; fi
    use_home_of_base
    ensure_hex
    find_rebar3 || : # `mix deps.get` downloads one for a dependency that is built by rebar3
    if ! has_all_deps; then mix deps.get --check-locked; fi
    if uses_rebar3 && ! find_rebar3; then mix local.rebar --force --if-missing; fi
}

# Whether there is something to compile: the lock names it, or it is there.
has_deps() {
    for dep in deps/*/; do
        if [ -d "$dep" ]; then return 0; fi
    done
    grep -q '{:' "$lock" 2>/dev/null
}

compile_deps() {
    # To start Mix for nothing is a quarter of the time of a small app.
    if ! has_deps; then return 0; fi
    find_rebar3 || :
    mix deps.compile --skip-local-deps --skip-umbrella-children
}

call=${1:-}
env=${2:-}
lock=${PHIAL_LOCKFILE:-mix.lock}

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
    mix compile
    ;;
*)
    echo "usage: prepare_code deps [ENV] | prepare_code build ENV" >&2
    exit 2
    ;;
esac
