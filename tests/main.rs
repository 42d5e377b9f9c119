//! What a user sees: one file per command, against real registries, readers and apps.
mod registry;

mod source;

mod base;
mod fixtures;
mod rooms;

mod prepare_script;

mod sandbox;
mod world;
