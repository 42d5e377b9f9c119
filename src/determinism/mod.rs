//! Why two builds of the same inputs have the same digest: everything that makes compilers, Mix, Hex and git write the
//! same bytes twice.
//!
//! The digest of an image is a function of the commit, the digest of the base image, the settings and the format version.
//! Most of that is arranged elsewhere, by giving every step the same surroundings: a fixed working directory, host name,
//! umask, locale and time zone (`recipe`, `sandbox`); sources with their final modification time before anything is
//! compiled (`source`); owners and modes from rules (`rootfs`); sorted entries and a pinned compressor (`phial-layers`);
//! sorted JSON (`image`). What compilers leave to chance in spite of that is settled here, in two ways:
//!
//! - [`shims`] change what a step *sees* while it runs: a clock that stands still (`clock.c`, preloaded), a boot file that
//!   makes all atoms in one order before the Erlang VM loads anything (the order of a map's atom keys follows the order in
//!   which atoms are made, OTP 26 and later), an Elixir whose counter of macro variables starts at zero for each file, and
//!   memory that is zeroed (PCRE writes what was in memory into compiled regular expressions, OTP up to 27).
//! - [`normalize`] rewrites what a step *left*: times and orders in Mix's manifests, Hex's markers, the `.git`
//!   directories of dependencies, modes and modification times. Mix finds the result up to date and compiles nothing.
//!
//! [`etf`] reads and writes Erlang's external term format, in which manifests, markers and chunks of BEAM files are stored.
//!
//! A new cause of difference is settled where it arises: if it is something that a program asks for (time, order, a
//! counter), by a shim; if it is written into a file that does not matter to the app, by a normalizer. Whatever changes
//! bytes raises [`crate::recipe::FORMAT`]. `phial build --twice` and `phial verify` find causes that are not settled.

pub(crate) mod etf;
pub mod normalize;
pub mod shims;
