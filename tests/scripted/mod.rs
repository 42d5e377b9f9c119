//! Doubles on loopback that do what real servers do on bad days: the whole distribution API in memory, with a journal of
//! every request, faults by kind and ordinal, and the quirks of the registries that users have.

#![allow(dead_code, reason = "a helper stays when the last test that used it goes")]

mod api;
mod auth;
mod fault;
pub(crate) mod http;
mod journal;
mod quirks;
mod registry;
mod uploads;

use std::time::Duration;

use phial::registry::RetryPolicy;

pub(crate) use auth::PASSWORD;
pub(crate) use fault::{Fault, Kind, When};
pub(crate) use http::{Answer, Asked, Server, answer};
pub(crate) use journal::Entry;
pub(crate) use quirks::{Head, Quirks};
pub(crate) use registry::Registry;

/// A client's patience for a test: the same tries, hardly a pause.
pub(crate) fn quick() -> RetryPolicy {
    RetryPolicy { pause: Duration::from_millis(1), ..RetryPolicy::USUAL }
}

/// The same for servers that stand still.
pub(crate) fn hasty() -> RetryPolicy {
    RetryPolicy { silence: Duration::from_millis(500), ..quick() }
}
