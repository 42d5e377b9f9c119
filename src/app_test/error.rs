//! Why tests could not be run, or not to their end.

use quick_junit::SerializeError;

use crate::attest::AttestError;
use crate::error::{Error, ExitKind, UserError};

/// Tests that could not be run. The result of tests that ran is a [`TestRun`](crate::attest::TestRun), a failure included.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The sandbox of a service failed.
    #[error("cannot run the service `{name}`")]
    Service {
        /// Its name in `test.services`.
        name: String,
        /// Why not.
        #[source]
        source: Error,
    },
    /// The tests ran, and their record could not be stored.
    #[error("cannot store the test record")]
    Record(#[source] AttestError),
    /// The `JUnit` report of the commands could not be made.
    #[error("cannot write the commands as a JUnit report")]
    Report(#[source] SerializeError),
    /// More than is copied.
    #[error("the files of `test.artifacts` have more than {limit_gib} GiB, up to and with `{path}`; none was copied")]
    ArtifactsTooLarge {
        /// The path in `test.artifacts` where the limit was reached.
        path: String,
        /// The limit.
        limit_gib: u64,
    },
    /// Neither settings nor image say what to run.
    #[error(
        "there is no test command: the settings have none, and the app has neither `script/docker/ci.sh` nor `mix.exs`"
    )]
    NoTests,
    /// `test.entrypoint = true` for an image without one.
    #[error("`test.entrypoint` is set, but the image has no entrypoint")]
    NoEntrypoint,
    /// A partition that is not within its bounds.
    #[error("`{from}` is `{text}`, which is not `NTH/OF` with NTH from 1 to OF")]
    Partition {
        /// The flag or the variable.
        from: &'static str,
        /// Its value.
        text: String,
    },
    /// Services together with the isolation `chroot`.
    #[error("services need namespaces, which the isolation `chroot` does without")]
    NoNamespaces,
    /// A service did not get ready.
    #[error("the service `{name}` was not ready within {seconds} s")]
    NotReady {
        /// Its name in `test.services`.
        name: String,
        /// Its timeout.
        seconds: u64,
    },
    /// A service ended before the tests did.
    #[error("the service `{name}` ended ({outcome})")]
    ServiceEnded {
        /// Its name in `test.services`.
        name: String,
        /// Such as `exit code 1`.
        outcome: String,
    },
}

impl TestError {
    /// Whether a service is at fault, and not Phial or the machine: then the tests have failed.
    pub(super) fn is_service_failure(&self) -> bool {
        matches!(self, Self::NotReady { .. } | Self::ServiceEnded { .. })
    }
}

impl UserError for TestError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Service { source: error, .. } => error.exit_kind(),
            Self::Record(error) => error.exit_kind(),
            Self::Report(_) => ExitKind::Internal,
            Self::NotReady { .. } | Self::ServiceEnded { .. } => ExitKind::Failed,
            Self::ArtifactsTooLarge { .. } => ExitKind::Refused,
            Self::NoTests | Self::NoEntrypoint | Self::Partition { .. } => ExitKind::Usage,
            Self::NoNamespaces => ExitKind::Machine,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Service { source: error, .. } => return error.hint(),
            Self::Record(error) => return error.hint(),
            Self::Report(_) => return None,
            Self::ArtifactsTooLarge { .. } => {
                "name fewer files, or let the tests pack or remove the largest; a file or directory counts at least 4 KiB".into()
            }
            Self::NoTests => "set `test.command` in `phial.toml`, or give a command after `--`".into(),
            Self::NoEntrypoint => "set `image.entrypoint`, or `test.command` in place of `test.entrypoint`".into(),
            Self::Partition { .. } => "write `1/4` for the first of four parts".into(),
            Self::NoNamespaces => "use `--isolation auto` on a machine with user namespaces".into(),
            Self::NotReady { name, .. } => {
                format!("its last lines are above; `test.services.{name}.timeout` gives it more time")
            }
            Self::ServiceEnded { .. } => "its last lines are above".into(),
        })
    }
}
