# What Phial takes from the base to give its compilers equal circumstances: Erlang's boot file, and Elixir's module of
# counters with one function changed. Called once for a base, as `sh -c THIS toolchain COUNTER_EXS OUT`.
set -eu
mkdir -p "$2"
command -v erl >/dev/null || exit 0
OUT="$2" erl -noshell -eval '
    Boot = filename:join([code:root_dir(), "bin", "start.boot"]),
    _ = file:copy(Boot, filename:join(os:getenv("OUT"), "start.boot")),
    halt().'
command -v elixir >/dev/null || exit 0
elixir -e "$1" "$2/elixir_module.beam"
