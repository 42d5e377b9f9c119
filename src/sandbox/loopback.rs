//! A network of one loopback interface that several sandboxes share, and nobody else.

use std::path::Path;
use std::process::Stdio;

use super::error::SandboxError;
use super::protocol::Job;
use super::run::Running;
use super::spec::{Ids, Network};

/// Holds the network. Dropped, or with the end of the *thread* that opened it, it takes no more sandboxes; those that are
/// in it stay.
pub struct Loopback(Running);

impl Loopback {
    /// Opens one. Sandboxes in it have the same user namespace, so the same `ids`.
    pub fn open(exe: &Path, ids: Ids) -> Result<Self, SandboxError> {
        let mut running = Running::launch(exe, Job::Net { ids }, [Stdio::null(), Stdio::null(), Stdio::null()])?;
        running.until_ready()?;
        Ok(Self(running))
    }

    /// For orders.
    pub fn network(&self) -> Network {
        Network::Shared(self.0.child.id().cast_signed())
    }
}
