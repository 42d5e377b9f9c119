//! Which isolation works on this machine: they are tried, the best first.

use super::RuntimeError;
use crate::context::Context;
use crate::error::Error;
use crate::rootfs::Isolation;
use crate::sandbox::{OURSELVES, Probe};

/// The value of `--isolation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationChoice {
    /// The best that works on this machine.
    Auto,
    /// This one; an error if it does not work.
    Only(Isolation),
}

/// The best isolation that works, or the requested one if it works. Worse ones than the first that works are not tried.
pub(crate) fn choose(choice: IsolationChoice, context: &Context<'_>) -> Result<Isolation, Error> {
    let scratch = context.store.scratch()?;
    let probe = Probe { exe: OURSELVES.as_ref(), scratch: scratch.path() };
    let is_allowed =
        |isolation: &Isolation| choice == IsolationChoice::Auto || choice == IsolationChoice::Only(*isolation);
    let mut tried = vec![];
    for isolation in [Isolation::Overlay, Isolation::Copy, Isolation::Chroot].into_iter().filter(is_allowed) {
        let works = match isolation {
            Isolation::Overlay => probe.overlay(),
            Isolation::Copy => probe.namespaces(),
            Isolation::Chroot => probe.chroot(),
        };
        match works {
            Ok(()) => {
                report(isolation, context);
                return Ok(isolation);
            }
            Err(error) => tried.push((isolation, error)),
        }
    }
    Err(RuntimeError::NoIsolation(tried).into())
}

/// Notifies the user of the isolation that is used.
pub(crate) fn report(isolation: Isolation, context: &Context<'_>) {
    context.notice(format!("isolation: {isolation}"));
}
