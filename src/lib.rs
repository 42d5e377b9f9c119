//! Phial puts an Elixir app into a container image, without a daemon and without root.
//!
//! `phial build` takes a git commit to an image digest; the rooms below stand in the order in which data walks through
//! them, and a room knows only those before it. `tests/architecture.rs` holds the allowed edges.

pub mod event;
pub mod host;
pub mod image;
pub mod store;
pub mod layout;
pub mod registry;
pub mod compare;
pub mod source;
pub mod prepare;
mod etf;
pub mod normal;
pub mod steady;
pub mod sandbox;
pub mod rootfs;
pub mod base;
pub mod config;
pub mod pipeline;
pub mod attest;
pub mod trial;
pub mod release;
pub mod cli;
