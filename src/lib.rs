//! Phial puts an Elixir app into an OCI image, without a daemon and without root.
//!
//! The modules stand in the order in which data flows through them: a module imports only those before it, and
//! `tests/architecture.rs` holds that. `docs/architecture.md` explains the whole.

pub mod error;
pub mod event;
pub mod host;
pub mod secret;
pub mod tree;
pub mod image;
pub mod store;
pub mod layout;
pub mod registry;
pub mod elixir;
pub mod compare;
pub mod source;
pub mod recipe;
pub mod determinism;
pub mod sandbox;
pub mod rootfs;
pub mod config;
pub mod context;
pub mod repository;
pub mod runtime;
pub mod publish;
pub mod base_image;
pub mod remote_cache;
pub mod build;
pub mod run;
pub mod lock;
pub mod verify;
pub mod diff;
pub mod explain;
pub mod attest;
pub mod app_test;
pub mod release;
pub mod cli;
