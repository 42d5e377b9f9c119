//! The distribution API (opencontainers/distribution-spec): resolve, pull, push, mount and tag.
//!
//! What comes is hashed here, never believed; credentials go to the registry they are for and nowhere else; a tag moves
//! last. Plain http is for loopback and for hosts that were named for it, and nothing else falls back to it.

mod auth;
mod auth_file;
mod certs;
mod challenge;
mod client;
mod client_pool;
mod credentials;
mod error;
mod helper;
mod http;
mod mirrors;
mod network;
mod no_proxy;
mod body_stream;
mod probe;
mod pull;
mod push;
mod manifests;
mod referrers;
mod registries;
mod retry;
mod secret;
mod upload_session;
mod upload_journal;
mod tags;
mod warnings;
mod upload;
mod http_runtime;

pub use client::{Client, Resolved};
pub use credentials::{Credentials, Login, LookupResult, LookupStep};
pub use error::RegistryError;
pub use network::NetworkOptions;
pub use probe::{DoctorReport, Finding, Mirrored};
pub use push::{Outcome, Push};
pub use referrers::Keeping;
pub use retry::RetryPolicy;
pub use secret::Secret;
pub use upload::Pushed;
