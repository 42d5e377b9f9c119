//! Why a command failed, whichever room says so: what was tried, on what, why not, the remedy and the exit code.

use std::error::Error;

use crate::pipeline::BuildError;
use crate::release::ReleaseError;
use crate::trial::TrialError;

/// An error as it is told.
pub(super) struct Failure {
    /// All causes in one line, and a script's last lines below.
    pub(super) text: String,
    /// The remedy, where there is one.
    pub(super) hint: Option<String>,
    /// The exit code of the command.
    pub(super) code: u8,
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self { text: with_last_lines(&error), hint: error.hint(), code: error.exit_code() }
    }
}

impl From<TrialError> for Failure {
    fn from(error: TrialError) -> Self {
        let text = if let TrialError::Build(error) = &error { with_last_lines(error) } else { chain(&error) };
        Self { text, hint: error.hint(), code: error.exit_code() }
    }
}

fn with_last_lines(error: &BuildError) -> String {
    let mut text = chain(error);
    if let BuildError::Script { tail, .. } = error
        && !tail.is_empty()
    {
        text = format!("{text}; its last lines:");
        for line in tail {
            text = format!("{text}\n  | {line}");
        }
    }
    text
}

impl From<ReleaseError> for Failure {
    fn from(error: ReleaseError) -> Self {
        Self { text: chain(&error), hint: error.hint(), code: error.exit_code() }
    }
}

/// The error and its causes in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
