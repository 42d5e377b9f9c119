//! Fuzz targets: each feeds bytes to one parser of untrusted input and panics if a property that must hold does not.
//!
//! `cargo test -p phial-fuzz` replays the seeds and regressions and tries mutations for seconds; `just fuzz [TARGET]
//! [SECONDS]` runs libFuzzer, guided by coverage, on stable Rust. To add a target: a function in a module here, a row in
//! [`TARGETS`]. An input that failed is kept, once the bug is fixed, as `fuzz/regressions/TARGET/NAME`.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a target reports a bug")]

mod documents;
mod elixir;
mod layers;
pub mod mutate;
mod registry;
mod settings;
mod source;

#[path = "../../layers/tests/hostile_cases.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests of the crate")]
mod hostile_cases;
#[path = "../../layers/tests/tars.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests of the crate")]
mod tars;

/// A parser under test.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Runs the parser on any bytes; panics if it finds a bug.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "layer-list", seeds: layers::tars, run: layers::list_tar },
    Target { name: "layer-unpack", seeds: layers::tars, run: layers::unpack_tar },
    Target { name: "layer-gzip", seeds: layers::gzips, run: layers::gzip },
    Target { name: "layer-zstd", seeds: layers::zstds, run: layers::zstd },
    Target { name: "layer-metadata", seeds: layers::metadata_documents, run: layers::metadata },
    Target { name: "etf", seeds: elixir::terms, run: elixir::etf },
    Target { name: "beam", seeds: elixir::modules, run: elixir::beam },
    Target { name: "mix-lock", seeds: elixir::locks, run: elixir::mix_lock },
    Target { name: "mix-manifest", seeds: elixir::manifests, run: elixir::mix_manifest },
    Target { name: "git-config", seeds: elixir::git_configs, run: elixir::git_config },
    Target { name: "git-attributes", seeds: source::attributes, run: source::git_attributes },
    Target { name: "git-modules", seeds: source::modules, run: source::git_modules },
    Target { name: "json", seeds: documents::documents, run: documents::json },
    Target { name: "junit", seeds: documents::reports, run: documents::junit },
    Target { name: "challenge", seeds: registry::challenges, run: registry::challenge },
    Target { name: "registries-conf", seeds: registry::confs, run: registry::registries_conf },
    Target { name: "settings", seeds: settings::files, run: settings::settings },
];

/// The target with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
