//! Exit codes that no error brings along; the whole table is in the README.

use std::process::ExitCode;

/// The tests failed.
pub(super) const FAILED: u8 = 1;

/// Usage or configuration.
pub(super) const USAGE: u8 = 2;

/// `phial diff` found a difference.
pub(super) const DIFFERENT: u8 = 1;

/// A fault of ours.
pub(super) const FAULT: u8 = 70;

/// A command that ended by a signal, as shells count it.
pub(super) fn of_signal(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
}
