//! The distribution API (opencontainers/distribution-spec): resolve, pull, push, mount and tag, list and delete.
//!
//! Everything that is received is checked against its digest. Credentials go only to the registry that they are for, or to its
//! token server. A tag is set last. Plain http is for loopback and for hosts that were named for it.
//!
//! The client is our own: `oci-client` does not resume transfers, has no mirrors, and does not report why a registry refuses.

mod access;
mod auth;
mod auth_file;
mod body_stream;
mod certs;
mod challenge;
mod client;
mod client_pool;
mod credentials;
mod ecr;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod helper;
mod http;
mod http_runtime;
mod login;
mod manifests;
mod mirrors;
mod network;
mod no_proxy;
mod paging;
mod probe;
mod pull;
mod push;
mod referrers;
mod registries;
mod retry;
mod tags;
mod upload;
mod upload_journal;
mod upload_session;
mod url;
mod warnings;

pub use client::{Client, ResolvedManifest};
pub use credentials::{Credentials, LookupResult, LookupStep};
pub use error::{LoginUse, RegistryError};
pub use login::Login;
pub use network::NetworkOptions;
pub use probe::{DoctorReport, Finding, MirrorReport};
pub use push::{BaseLayers, Push, PushOutcome};
pub use referrers::{ArtifactPush, ReferrersSupport};
pub use retry::RetryPolicy;
pub use upload::Pushed;
