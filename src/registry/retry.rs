//! The one place that tries again, and for how long anything is waited for.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::error::RegistryError;

/// Tries to connect in all: nobody at the port, or no such name, seldom becomes better soon.
const CONNECTS: u32 = 3;

/// How often is tried, and how long is waited.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries of one request in all.
    pub tries: u32,
    /// The pause after the first; each further one is twice as long, a fifth more or less.
    pub pause: Duration,
    /// A registry that asks for a longer pause gets no further try.
    pub longest_pause: Duration,
    /// How long nothing may move.
    pub silence: Duration,
    /// Fewer bytes a second over that time are as good as nothing.
    pub slowest: u64,
}

impl RetryPolicy {
    /// For registries of this context.
    pub const USUAL: Self = Self {
        tries: 5,
        pause: Duration::from_millis(500),
        longest_pause: Duration::from_secs(60),
        silence: Duration::from_secs(60),
        slowest: 1 << 10,
    };

    pub(super) fn is_too_slow(&self, moved: u64, during: Duration) -> bool {
        u128::from(moved) * 1000 < u128::from(self.slowest) * during.as_millis()
    }

    /// The pause after try number `n`, counted from 1. Many that were refused at once do not come back at once.
    pub(super) fn pause(&self, n: u32) -> Duration {
        let whole = self.pause * 2_u32.saturating_pow(n - 1);
        let random = u32::try_from(RandomState::new().hash_one(Instant::now()) % 400).unwrap_or(200);
        whole.min(self.longest_pause) * (800 + random) / 1000
    }

    /// Does `work` again while its error is one that passes: connection, 408, 429, 5xx. The registry's own wish for a pause
    /// (RFC 9110, `Retry-After`) wins over ours.
    pub(super) fn retry<T>(&self, mut work: impl FnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut tried = 0;
        loop {
            let error = match work() {
                Err(error) if error.is_transient() => error,
                result => return result,
            };
            tried += 1;
            let pause = self.before_next(&error, tried);
            if tried >= self.tries || error.is_about_connecting() && tried >= CONNECTS {
                return Err(error);
            }
            match pause {
                Some(pause) => sleep(pause),
                None => return Err(error),
            }
        }
    }

    /// How long to wait after try number `tried`; `None` if the registry wants a longer pause than is worth it.
    pub(super) fn before_next(&self, error: &RegistryError, tried: u32) -> Option<Duration> {
        match error {
            RegistryError::Status { retry_after: Some(asked), .. } => (*asked <= self.longest_pause).then_some(*asked),
            _ => Some(self.pause(tried)),
        }
    }
}

/// Does `work` once more if other bytes came than were asked for: something between us and the registry may have had a bad
/// moment.
pub(super) fn retry_once_if_corrupt<T>(mut work: impl FnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
    match work() {
        Err(RegistryError::Blob { .. } | RegistryError::Image { .. } | RegistryError::NotARegistry { .. }) => work(),
        result => result,
    }
}
