//! What all commands work with: facts about the process, the store, the registry client, the receiver of events.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::event::{Event, Watch};
use crate::host::Host;
use crate::registry::Client;
use crate::store::Store;

/// What one command works with.
pub struct Context<'a> {
    /// Clock, environment, working directory and cores of this process.
    pub host: &'a Host,
    /// Blobs, trees and results on disk.
    pub store: &'a Store,
    /// The client of all registries.
    pub client: &'a Client,
    /// The receiver of events.
    pub watch: Watch<'a>,
    /// Set when the user interrupts the command.
    pub cancel: &'a AtomicBool,
}

impl Context<'_> {
    /// Reports the start of a step, and returns its time for [`Context::step_finished`].
    pub(crate) fn step_started(&self, step: &str) -> Instant {
        (self.watch)(Event::StepStarted { step: step.into() });
        Instant::now()
    }

    /// Reports the end of a step. `note` is its result: `cached`, `3 files`, a digest. Without `start` no time is shown.
    pub(crate) fn step_finished(&self, step: &str, note: &str, start: Option<Instant>) {
        let millis = start.map_or(0, |start| u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        (self.watch)(Event::StepFinished { step: step.into(), note: note.into(), millis });
    }

    /// Reports something that the user should know and that is not an error, in one sentence without a period.
    pub(crate) fn notice(&self, text: impl Into<String>) {
        (self.watch)(Event::Notice { text: text.into() });
    }
}
