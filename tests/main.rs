//! What a user sees: one file per command, against real registries, readers and apps.

mod world;

mod bad_input;
mod base;
mod build;
mod fixtures;
mod prepare_script;
mod registry;
mod rooms;
mod sandbox;
mod source;
