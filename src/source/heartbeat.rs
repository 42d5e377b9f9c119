//! What the thread that fetches and the one that waits for it know of each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A fetch that is running.
#[derive(Default)]
pub(super) struct Heartbeat {
    /// Counts the times that data arrived.
    beats: AtomicU64,
    /// Bytes of the server's messages.
    messages: AtomicU64,
    /// Nobody waits any more.
    abandoned: AtomicBool,
    /// More bytes came than may.
    exceeded: AtomicBool,
}

impl Heartbeat {
    /// Records that data arrived, `objects` bytes of objects until now and `messages` new bytes of messages. False if the fetch is to end:
    /// nobody waits any more, or more than `limit` bytes came.
    pub(super) fn beat(&self, objects: u64, messages: u64, limit: u64) -> bool {
        self.beats.fetch_add(1, Ordering::Relaxed);
        let messages = self.messages.fetch_add(messages, Ordering::Relaxed).saturating_add(messages);
        if objects.saturating_add(messages) > limit {
            self.exceeded.store(true, Ordering::Relaxed);
        }
        !self.abandoned.load(Ordering::Relaxed) && !self.exceeded()
    }

    /// How many times data arrived.
    pub(super) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Whether more bytes came than may.
    pub(super) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    /// Nobody waits any more.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}
