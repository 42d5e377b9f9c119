# What Phial takes from the base to give its compilers the same starting state: Erlang's boot file, and Elixir's module of
# counters with one function changed. Besides, the versions of both. Called once for a base, as `sh -c THIS toolchain COUNTER_EXS OUT`.
set -eu
mkdir -p "$2"
command -v erl >/dev/null || exit 0
OUT="$2" erl -noshell -eval '
    Boot = filename:join([code:root_dir(), "bin", "start.boot"]),
    Out = fun(Name) -> filename:join(os:getenv("OUT"), Name) end,
    _ = file:copy(Boot, Out("start.boot")),
    Release = erlang:system_info(otp_release),
    Version = filename:join([code:root_dir(), "releases", Release, "OTP_VERSION"]),
    case file:copy(Version, Out("erlang-version")) of
        {ok, _} -> ok;
        _ -> file:write_file(Out("erlang-version"), Release)
    end,
    halt().'
command -v elixir >/dev/null || exit 0
OUT="$2" elixir -e 'File.write!(Path.join(System.get_env("OUT"), "elixir-version"), System.version())' -e "$1" "$2/elixir_module.beam"
