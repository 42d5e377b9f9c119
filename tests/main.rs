//! What a user sees: one file per command or subject, against real registries, readers and apps. See `docs/testing.md`.

mod harness;
mod scripted;

mod app_test;
mod architecture;
mod bad_input;
mod base;
mod build;
mod build_matrix;
mod build_push;
mod builtin_script;
mod cache;
mod callers_secrets;
mod cargo_deny;
mod committed_files;
mod deps_reuse;
mod diff;
mod docs;
mod explain;
mod fixtures;
mod golden;
mod help;
mod interop;
mod left_behind;
mod lock;
mod mix_up_to_date;
mod node_app;
mod passed_variables;
mod progress;
mod registry;
mod release;
mod remote_cache;
mod reproducibility;
mod run;
mod sandbox;
mod source;
