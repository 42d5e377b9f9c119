//! Which isolation works on this machine, found out by trying.

use super::RuntimeError;
use crate::context::Context;
use crate::error::Error;
use crate::rootfs::Isolation;
use crate::sandbox::{OURSELVES, Probe};

/// The isolation that the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationChoice {
    /// The best that works on this machine.
    Auto,
    /// This one or none.
    Only(Isolation),
}

/// The best isolation that works, or the one that was asked for if it works. Nothing below the first that works is tried.
pub(crate) fn choose(choice: IsolationChoice, context: &Context<'_>) -> Result<Isolation, Error> {
    let scratch = context.store.scratch()?;
    let probe = Probe { exe: OURSELVES.as_ref(), scratch: scratch.path() };
    let wanted = |isolation: &Isolation| choice == IsolationChoice::Auto || choice == IsolationChoice::Only(*isolation);
    let mut tried = vec![];
    for isolation in [Isolation::Overlay, Isolation::Copy, Isolation::Chroot].into_iter().filter(wanted) {
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
            Err(why) => tried.push((isolation, why)),
        }
    }
    Err(RuntimeError::NoIsolation(tried).into())
}

/// Tells the user which isolation is used.
pub(crate) fn report(isolation: Isolation, context: &Context<'_>) {
    context.notice(format!("isolation: {isolation}"));
}
