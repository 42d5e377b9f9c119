//! File formats of Erlang, Elixir and Mix: terms, compiled modules, `mix.lock`, Mix's manifests, and Hex's marker in a
//! fetched package.
//!
//! The readers accept hostile input: they have limits, never panic, and report what they do not understand as absent.

pub mod beam;
pub mod etf;
pub mod hex_marker;
pub mod mix_lock;
pub mod mix_manifest;
