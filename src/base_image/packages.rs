//! What a Debian base image is made of.

/// The day Debian trixie was released, in seconds since 1970: what `phial base debian` clamps file times to by
/// default. It must be later than the year 2000 (Mix takes older times for "missing") and must not lie in the future.
pub const EPOCH: i64 = 1_754_697_600;

/// What compiles and runs an Elixir app: Elixir, Hex and rebar3, what releases and tests commonly use of OTP, and the tools
/// that dependencies with C or C++ code need.
pub const ELIXIR_PACKAGES: [&str; 16] = [
    "ca-certificates",
    "elixir",
    "erlang-hex",
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

/// What a Debian base image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Compiling and running Elixir apps: [`ELIXIR_PACKAGES`].
    Elixir,
    /// Anything else: only the packages that are named.
    Minimal,
}

impl Purpose {
    /// Its packages, and `more` after them. The order does not reach the bytes.
    pub fn packages(self, more: &[String]) -> Vec<String> {
        let own: &[&str] = match self {
            Self::Elixir => &ELIXIR_PACKAGES,
            Self::Minimal => &[],
        };
        own.iter().map(ToString::to_string).chain(more.iter().filter(|name| !name.is_empty()).cloned()).collect()
    }
}

/// What a Debian root filesystem is made of. All of it reaches the bytes but `mirrors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debian {
    /// The release, such as `trixie`.
    pub suite: String,
    /// Packages beside the essential ones. `rebar3` is unpacked without what it depends on for its graphical tools.
    pub packages: Vec<String>,
    /// Lines of a sources.list; with none, this machine's own Debian sources with the suite replaced.
    pub mirrors: Vec<String>,
    /// No file is newer than this, in seconds since 1970.
    pub epoch: i64,
}
