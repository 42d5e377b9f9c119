//! What the thread that fetches and the one that waits for it know of each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
    /// libgit2 receives the server's list of references, of which it says nothing before it has all.
    listing: AtomicBool,
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

    /// The list of references begins or ends.
    pub(super) fn set_listing(&self, listing: bool) {
        self.listing.store(listing, Ordering::Relaxed);
    }
}

/// Why a fetch is given up.
pub(super) enum GiveUp {
    /// No data came for too long.
    Silent,
    /// The list of references takes too much memory.
    LongList,
}

/// Watches a fetch for the one that waits for it.
pub(super) struct Watchdog<'a> {
    heartbeat: &'a Heartbeat,
    timeout: Duration,
    /// The largest growth of this process, in bytes, while a list is received.
    max_list: u64,
    /// The count of beats, and since when it has been so.
    seen: (u64, Instant),
    /// The memory of this process at the beginning, in bytes.
    memory: Option<u64>,
}

impl<'a> Watchdog<'a> {
    pub(super) fn new(heartbeat: &'a Heartbeat, timeout: Duration, max_list: u64) -> Self {
        Self { heartbeat, timeout, max_list, seen: (0, Instant::now()), memory: resident() }
    }

    /// The time from one check to the next.
    pub(super) fn interval(&self) -> Duration {
        self.timeout.min(Duration::from_millis(250))
    }

    /// Checks the fetch, and gives it up if it must be.
    pub(super) fn check(&mut self) -> Result<(), GiveUp> {
        let beats = self.heartbeat.beats();
        if beats != self.seen.0 {
            self.seen = (beats, Instant::now());
        }
        let why = if self.heartbeat.listing.load(Ordering::Relaxed) && self.growth() > self.max_list {
            GiveUp::LongList
        } else if self.seen.1.elapsed() >= self.timeout {
            GiveUp::Silent
        } else {
            return Ok(());
        };
        self.heartbeat.abandon();
        Err(why)
    }

    /// By how many bytes this process has grown. Zero where `/proc` does not say.
    fn growth(&self) -> u64 {
        self.memory.zip(resident()).map_or(0, |(before, now)| now.saturating_sub(before))
    }
}

/// The memory of this process, in bytes (`proc_pid_status(5)`).
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}
