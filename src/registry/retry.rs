//! When a request is tried again, and how long anything is waited for.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::error::RegistryError;

/// Tries in all if no connection is made: a closed port or an unknown name seldom changes soon.
const MAX_CONNECTS: u32 = 3;

/// How often a request is tried, and how long is waited.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries of one request, the first included.
    pub tries: u32,
    /// The pause after the first try. Each further pause is twice as long, give or take a fifth.
    pub pause: Duration,
    /// A registry that asks for a longer pause is not tried again.
    pub longest_pause: Duration,
    /// How long a transfer may stand still.
    pub stall_timeout: Duration,
    /// Fewer bytes a second over that time count as standing still.
    pub min_speed: u64,
}

impl RetryPolicy {
    /// The policy of all commands.
    pub const USUAL: Self = Self {
        tries: 5,
        pause: Duration::from_millis(500),
        longest_pause: Duration::from_secs(60),
        stall_timeout: Duration::from_secs(60),
        min_speed: 1 << 10,
    };

    /// Whether so many bytes in so much time count as standing still.
    pub(super) fn is_too_slow(&self, moved: u64, during: Duration) -> bool {
        u128::from(moved) * 1000 < u128::from(self.min_speed) * during.as_millis()
    }

    /// The pause after try `n`, counted from 1. It is partly random, so that clients which were refused together do not
    /// return together.
    pub(super) fn pause(&self, n: u32) -> Duration {
        let whole = self.pause * 2_u32.saturating_pow(n - 1);
        let random = u32::try_from(RandomState::new().hash_one(Instant::now()) % 400).unwrap_or(200);
        whole.min(self.longest_pause) * (800 + random) / 1000
    }

    /// Does `work`, and again while its error is transient. A pause that the registry asks for (`Retry-After`) wins over the
    /// policy's.
    pub(super) fn retry<T>(&self, mut work: impl FnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut tried = 0;
        loop {
            let error = match work() {
                Err(error) if error.is_transient() => error,
                result => return result,
            };
            tried += 1;
            let pause = self.pause_after(&error, tried);
            if tried >= self.tries || error.is_connect_error() && tried >= MAX_CONNECTS {
                return Err(error);
            }
            match pause {
                Some(pause) => sleep(pause),
                None => return Err(error),
            }
        }
    }

    /// The pause after try `tried`, which failed with `error`; `None` if the registry asks for more than `longest_pause`.
    pub(super) fn pause_after(&self, error: &RegistryError, tried: u32) -> Option<Duration> {
        match error {
            RegistryError::Status { retry_after: Some(asked), .. } => (*asked <= self.longest_pause).then_some(*asked),
            _ => Some(self.pause(tried)),
        }
    }
}

/// Does `work`, and once more if other bytes came than were requested: a proxy on the way may have sent a page of its own.
pub(super) fn retry_once_if_corrupt<T>(mut work: impl FnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
    match work() {
        Err(RegistryError::Blob { .. } | RegistryError::Image { .. } | RegistryError::NotARegistry { .. }) => work(),
        result => result,
    }
}
