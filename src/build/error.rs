//! Why a build stops, as far as only the build knows; other modules' errors are passed on as they are.

use phial_layers::Digest;

use crate::error::{Error, ExitKind, UserError};
use crate::sandbox::Exit;

/// Why a build stops.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A step failed.
    #[error("the step `{step}` {}", exit.describe())]
    StepFailed {
        /// The step.
        step: String,
        /// How its command ended.
        exit: Exit,
        /// The last lines of its output.
        output: Vec<String>,
    },
    /// The digest that `phial.lock` pins cannot be had.
    #[error("`phial.lock` pins the base to `{pinned}`")]
    Pinned {
        /// The digest in `phial.lock`.
        pinned: Digest,
        /// Why it cannot be had.
        #[source]
        source: Error,
    },
    /// Something that an earlier step must have made is not there.
    #[error("the build has no `{0}`")]
    Missing(String),
}

impl UserError for BuildError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::StepFailed { .. } => ExitKind::Failed,
            Self::Pinned { source, .. } => source.exit_kind(),
            Self::Missing(_) => ExitKind::Machine,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::StepFailed { exit: Exit::Signal(9), .. } => Some("the machine may be out of memory".into()),
            Self::StepFailed { .. } | Self::Missing(_) => None,
            Self::Pinned { .. } => Some("to move to another base, run `phial lock` and commit `phial.lock`".into()),
        }
    }

    fn output(&self) -> &[String] {
        match self {
            Self::StepFailed { output, .. } => output,
            _ => &[],
        }
    }
}
