//! What a Debian base image is made of.

/// The day Debian trixie was released, in seconds since 1970: what `phial base debian` clamps file times to by
/// default. It must be later than the year 2000 (Mix takes older times for "missing") and must not lie in the future.
pub const EPOCH: i64 = 1_754_697_600;

/// What compiles and runs an Elixir app: Elixir, Hex and rebar3, what releases and tests commonly use of OTP, and the tools
/// that dependencies with C or C++ code need.
pub const ELIXIR_PACKAGES: [&str; 16] = [
    "ca-certificates",
    "elixir",
    HEX,
    "erlang-mnesia",
    "erlang-os-mon",
    "erlang-runtime-tools",
    "erlang-snmp",
    "erlang-ssh",
    "g++",
    "gcc",
    "git",
    "libc6-dev",
    "make",
    "openssl",
    "procps",
    "rebar3",
];

/// Hex, which Debian has since trixie. Over an older suite the first build downloads it.
const HEX: &str = "erlang-hex";

/// What runs a release of an Elixir app that brings its own Erlang: the libraries that Debian's Erlang and native code of
/// dependencies load, certificates, and `openssl`, on which the library of this suite's version follows.
pub(super) const RUNTIME_PACKAGES: [&str; 6] =
    ["ca-certificates", "libstdc++6", "libsystemd0", "libtinfo6", "openssl", "zlib1g"];

/// What a Debian base image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Compiling and running Elixir apps: [`ELIXIR_PACKAGES`].
    Elixir,
    /// Running releases: [`RUNTIME_PACKAGES`].
    Runtime,
    /// A `PostgreSQL` server for tests, of the suite's version.
    Postgres,
    /// A Redis server for tests.
    Redis,
    /// Anything else: only the packages that are named.
    Minimal,
}

impl Purpose {
    /// Its packages in a suite, and `more` after them. The order does not reach the bytes.
    pub fn packages(self, suite: &str, more: &[String]) -> Vec<String> {
        let own: &[&str] = match self {
            Self::Elixir => &ELIXIR_PACKAGES,
            Self::Runtime => &RUNTIME_PACKAGES,
            Self::Postgres => &["postgresql"],
            Self::Redis => &["redis-server"],
            Self::Minimal => &[],
        };
        let own = own.iter().filter(|name| !(**name == HEX && matches!(suite, "bullseye" | "bookworm")));
        own.map(ToString::to_string).chain(more.iter().filter(|name| !name.is_empty()).cloned()).collect()
    }
}

/// What a Debian root filesystem is made of. All of it reaches the bytes but `mirrors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debian {
    /// The release's name, such as `trixie`: see [`suite`].
    pub suite: String,
    /// Packages beside the essential ones. `rebar3` is unpacked without what it depends on for its graphical tools.
    pub packages: Vec<String>,
    /// Lines of a sources.list; with none, this machine's own Debian sources with the suite replaced.
    pub mirrors: Vec<String>,
    /// No file is newer than this, in seconds since 1970.
    pub epoch: i64,
}

/// The name of a Debian release that is given by its version (`13`, `13.2`) or by its name.
pub fn suite(given: &str) -> &str {
    let version = given.split_once('.').map_or(given, |(version, _)| version);
    match version {
        "11" => "bullseye",
        "12" => "bookworm",
        "13" => "trixie",
        "14" => "forky",
        "unstable" => "sid",
        _ => given,
    }
}
