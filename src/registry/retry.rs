//! The one place that tries again.

use std::thread::sleep;
use std::time::Duration;

use super::error::RegistryError;

const TRIES: u32 = 4;
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// A registry that asks for more than this gets no further try.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Does `work` again while its error is one that passes: connection, 408, 429, 5xx. The registry's own wish for a delay
/// (RFC 9110, `Retry-After` in seconds) wins over the doubling one.
pub(super) fn patiently<T>(mut work: impl FnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
    let mut delay = FIRST_DELAY;
    for _ in 1..TRIES {
        let error = match work() {
            Err(error) if error.is_transient() => error,
            result => return result,
        };
        let asked = if let RegistryError::Status { retry_after, .. } = &error { *retry_after } else { None };
        if asked.is_some_and(|asked| asked > MAX_DELAY) {
            return Err(error);
        }
        sleep(asked.unwrap_or(delay));
        delay *= 2;
    }
    work()
}
