//! A scripted registry: the whole distribution API in memory, on loopback, with a journal of
//! every request, faults by kind and ordinal, and the quirks of each vendor.

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
pub(crate) use http::{Request, Response, Server, respond};
pub(crate) use journal::Entry;
pub(crate) use quirks::{Head, Quirks};
pub(crate) use registry::Registry;

/// The usual number of tries, with hardly a pause.
pub(crate) fn quick_retries() -> RetryPolicy {
    RetryPolicy { pause: Duration::from_millis(1), ..RetryPolicy::USUAL }
}

/// The same with a short timeout, for servers that stall.
pub(crate) fn quick_timeouts() -> RetryPolicy {
    RetryPolicy { stall_timeout: Duration::from_millis(500), ..quick_retries() }
}
