//! The exit code of a process that a signal ended; all others are in [`crate::error::ExitKind`].

use std::process::ExitCode;

/// 128 + the number of the signal, as shells have it.
pub(super) fn of_signal(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
}
