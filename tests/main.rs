//! What a user sees: one file per command, against real registries, readers and apps.

mod scripted;
mod world;

mod bad_input;
mod base;
mod build;
mod cache;
mod dependencies;
mod diff;
mod explain;
mod far;
mod fixtures;
mod golden;
mod lock;
mod matrix;
mod near;
mod node;
mod prepare_script;
mod progress;
mod proof;
mod push;
mod readers;
mod registry;
mod release;
mod rooms;
mod run;
mod sandbox;
mod source;
mod trial;
mod variables;
mod ssh;
mod works;
