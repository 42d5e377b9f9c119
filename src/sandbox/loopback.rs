//! A network namespace with only a loopback interface, which several sandboxes share.

use std::path::Path;
use std::process::Stdio;

use super::error::SandboxError;
use super::protocol::Job;
use super::run::Running;
use super::spec::{Ids, Network};

/// Holds the network. No sandbox can join it once this is dropped or the *thread* that opened it has ended; sandboxes
/// in it keep it.
pub struct Loopback(Running);

impl Loopback {
    /// Creates the network. Sandboxes in it share its user namespace and must have the same `ids`.
    pub fn open(exe: &Path, ids: Ids) -> Result<Self, SandboxError> {
        let mut running =
            Running::launch(exe, Job::HoldNetwork { ids }, [Stdio::null(), Stdio::null(), Stdio::null()])?;
        running.wait_until_ready()?;
        Ok(Self(running))
    }

    /// The network of sandboxes that join it, for their specs.
    pub fn network(&self) -> Network {
        Network::Shared(self.0.child.id().cast_signed())
    }
}
