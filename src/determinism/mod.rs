//! Why two builds of the same inputs have the same digest: everything that makes compilers, Mix, Hex and git write the
//! same bytes twice.
//!
//! The digest of an image is a function of the commit, the digest of the base image, the settings and the format
//! version. Most of that is arranged elsewhere, by the same environment for every step: a fixed working directory, host
//! name, umask, locale and time zone (`recipe`, `sandbox`); sources with their final modification time before anything
//! is compiled (`source`); owners and modes from rules (`rootfs`); sorted entries and a pinned compressor
//! (`phial-layers`); sorted JSON (`image`). What still differs from run to run is fixed here, in two ways:
//!
//! - [`shims`] change what a step *sees* while it runs: a fixed clock (`clock.c`, preloaded), a boot file that creates
//!   all atoms in one order before the Erlang VM loads anything (the order of a map's atom keys follows the order in
//!   which atoms are created, OTP 26 and later), an Elixir whose counter of macro variables starts at zero for each
//!   file, and cleared memory (PCRE writes uninitialized memory into compiled regular expressions, OTP up to 27; over musl
//!   by `memory.c`, preloaded).
//! - [`normalize`] rewrites what a step *wrote*: times and orders in Mix's manifests, Hex's markers, the `.git`
//!   directories of dependencies, modes and modification times. Mix finds the result up to date and compiles nothing.
//!
//! The file formats themselves are in [`crate::elixir`].
//!
//! A new cause of difference is fixed where it arises: if a program asks for something that varies (time, order, a
//! counter), by a shim; if it is written to a file that does not matter to the app, by a normalizer. Whatever changes
//! bytes raises [`crate::recipe::FORMAT`]. `phial build --twice` and `phial verify` find causes that are not fixed yet.

pub mod normalize;
pub mod shims;
