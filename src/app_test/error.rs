//! Why a test could not be run, or was not run to its end.

use crate::attest::AttestError;
use crate::error::{Error, ExitKind, UserError};

/// A test that said nothing of the image. What a failing test says is in its [`Run`](crate::attest::Run).
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The image of a service.
    #[error("cannot use the service `{name}`")]
    Service {
        /// Which one.
        name: String,
        /// Why not.
        #[source]
        source: Error,
    },
    /// The record was not stored.
    #[error("the record of the test is not stored")]
    Record(#[source] AttestError),
    /// Nothing to run.
    #[error("nothing says how the image is tested: it has no `script/docker/ci.sh` and no `mix.exs`")]
    NoTests,
    /// `test.entrypoint` without one.
    #[error("`test.entrypoint` is set, and the image has no entrypoint")]
    NoEntrypoint,
    /// A part of the tests that there is not.
    #[error("`{from}` is `{text}`, but a part is `NTH/OF`, counted from 1")]
    Partition {
        /// The flag or the variables.
        from: &'static str,
        /// What it says.
        text: String,
    },
    /// Services on the lowest rung.
    #[error("services of tests need namespaces, and this isolation has none")]
    NoNamespaces,
    /// A service did not get ready.
    #[error("the service `{name}` was not ready within {seconds} s")]
    NotReady {
        /// Which one.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A service ended while it was needed.
    #[error("the service `{name}` ended ({how})")]
    Ended {
        /// Which one.
        name: String,
        /// How.
        how: String,
    },
}

impl UserError for TestError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Service { source: error, .. } => error.exit_kind(),
            Self::Record(error) => error.exit_kind(),
            Self::NotReady { .. } | Self::Ended { .. } => ExitKind::Failed,
            Self::NoTests | Self::NoEntrypoint | Self::Partition { .. } => ExitKind::Usage,
            Self::NoNamespaces => ExitKind::Machine,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Service { source: error, .. } => return error.hint(),
            Self::Record(error) => return error.hint(),
            Self::NoTests => "set `test.command` in `phial.toml`, or give a command after `--`".into(),
            Self::NoEntrypoint => "set `image.entrypoint`, or `test.command` in place of `test.entrypoint`".into(),
            Self::NoNamespaces => "use `--isolation auto` on a machine with user namespaces".into(),
            Self::NotReady { name, .. } => {
                format!("its last lines are above; `test.services.{name}.timeout` gives it more time")
            }
            Self::Ended { .. } => "its last lines are above".into(),
            Self::Partition { .. } => return None,
        })
    }
}
