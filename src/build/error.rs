//! Errors that only a build has; those of other modules are passed on as they are.

use phial_layers::Digest;

use crate::error::{Error, ExitKind, UserError};
use crate::sandbox::Exit;

/// Why a build stops.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The command of a step failed.
    #[error("the step `{step}` {}", exit.describe())]
    StepFailed {
        /// The step: `deps`, `build prod`.
        step: String,
        /// The command's exit code or signal.
        exit: Exit,
        /// The last lines of its output.
        output: Vec<String>,
    },
    /// The digest in `phial.lock` is not available.
    #[error("the base image `{pinned}` that `phial.lock` pins is not available")]
    Pinned {
        /// The digest in `phial.lock`.
        pinned: Digest,
        /// Why not.
        #[source]
        source: Error,
    },
    /// A step has nothing to work on, such as an empty `/app`.
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
            Self::Pinned { .. } => Some("to use the present digest, run `phial lock` and commit `phial.lock`".into()),
        }
    }

    fn output(&self) -> &[String] {
        match self {
            Self::StepFailed { output, .. } => output,
            _ => &[],
        }
    }
}
