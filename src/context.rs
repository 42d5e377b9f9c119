//! What every verb works with: the process's facts, the store, the registry client, and whoever watches.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::event::{Event, Watch};
use crate::host::Host;
use crate::registry::Client;
use crate::store::Store;

/// The surroundings of one command.
pub struct Context<'a> {
    /// Clock, environment, working directory, cores.
    pub host: &'a Host,
    /// Blobs, trees and results on disk.
    pub store: &'a Store,
    /// The client of all registries.
    pub client: &'a Client,
    /// Where events go.
    pub watch: Watch<'a>,
    /// Becomes true when the user interrupts the command.
    pub cancel: &'a AtomicBool,
}

impl Context<'_> {
    /// Reports that a step of the work begins, and when that is.
    pub(crate) fn step_started(&self, step: &str) -> Instant {
        (self.watch)(Event::StepStarted { step: step.into() });
        Instant::now()
    }

    /// Reports that a step is over. Without `start` no time is shown.
    pub(crate) fn step_finished(&self, step: &str, note: &str, start: Option<Instant>) {
        let millis = start.map_or(0, |start| u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        (self.watch)(Event::StepFinished { step: step.into(), note: note.into(), millis });
    }

    /// Reports something that a user should know and that is not an error: one sentence without a period.
    pub(crate) fn notice(&self, text: impl Into<String>) {
        (self.watch)(Event::Notice { text: text.into() });
    }
}
