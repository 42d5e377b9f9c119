//! The isolation and the id mapping of a build's steps, found out when the first step runs: a build whose results are all
//! cached needs neither.

use std::sync::OnceLock;

use crate::context::Context;
use crate::error::Error;
use crate::rootfs::Isolation;
use crate::runtime::{IsolationChoice, choose, userns_helper};
use crate::sandbox::Ids;

/// The isolation of all steps of a build.
pub(super) struct LazyIsolation {
    choice: IsolationChoice,
    isolation: OnceLock<Isolation>,
    ids: OnceLock<Ids>,
}

impl LazyIsolation {
    pub(super) fn new(choice: IsolationChoice) -> Self {
        Self { choice, isolation: OnceLock::new(), ids: OnceLock::new() }
    }

    /// The isolation, if a step has run.
    pub(super) fn used(&self) -> Option<Isolation> {
        self.isolation.get().copied()
    }

    /// The isolation; the first call tries what works on this machine.
    pub(super) fn get(&self, context: &Context<'_>) -> Result<Isolation, Error> {
        if let Some(isolation) = self.used() {
            return Ok(isolation);
        }
        let isolation = choose(self.choice, context)?;
        Ok(*self.isolation.get_or_init(|| isolation))
    }

    /// A range of ids if the machine maps one, else a single id. The digest of the image is the same.
    pub(super) fn ranges(&self, context: &Context<'_>) -> Ids {
        if self.used() == Some(Isolation::Chroot) {
            return Ids::Single;
        }
        *self.ids.get_or_init(|| match userns_helper::try_ranges() {
            Ok(()) => Ids::Ranges,
            Err(error) => {
                context.notice(format!("only one id is mapped, since this machine maps no range: {error}"));
                Ids::Single
            }
        })
    }
}
