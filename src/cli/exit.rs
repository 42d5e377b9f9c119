//! The exit code of a command that a signal ended; all others are in [`crate::error::ExitKind`].

use std::process::ExitCode;

/// A command that ended by a signal, as shells count it.
pub(super) fn of_signal(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
}
