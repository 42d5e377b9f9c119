//! The distribution API (opencontainers/distribution-spec): resolve, pull, push, mount and tag.
//!
//! What comes is hashed here, never believed; credentials go to the registry they are for and nowhere else; a tag moves
//! last. Plain http is for loopback and for hosts that were named for it, and nothing else falls back to it.

mod auth;
mod auth_file;
mod certs;
mod challenge;
mod client;
mod clients;
mod credentials;
mod error;
mod helper;
mod http;
mod mirrors;
mod network;
mod no_proxy;
mod pipe;
mod probe;
mod pull;
mod push;
mod put;
mod referrers;
mod registries;
mod retry;
mod secret;
mod send;
mod sessions;
mod tags;
mod teller;
mod upload;
mod wire;

pub use client::{Client, Resolved};
pub use credentials::{Credentials, Login, Look, Sight};
pub use error::RegistryError;
pub use network::Wishes;
pub use probe::{Examination, Finding, Mirrored};
pub use push::{Outcome, Push};
pub use referrers::Keeping;
pub use retry::Patience;
pub use secret::Secret;
pub use upload::Pushed;
