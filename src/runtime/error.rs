//! Why a program cannot be started in an image.

use std::error::Error as _;

use phial_layers::{Digest, UnpackError};

use crate::error::{ExitKind, UserError};
use crate::rootfs::Isolation;
use crate::sandbox::SandboxError;

/// Why a program cannot be started in an image.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A layer cannot be unpacked.
    #[error("the layer `{digest}` cannot be unpacked")]
    Unpack {
        /// Digest of the blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: UnpackError,
    },
    /// The tar in a layer does not have the diff ID of the image's config.
    #[error("the layer `{digest}` does not unpack to the diff ID `{expected}` of the image's config")]
    DiffId {
        /// Digest of the blob.
        digest: Digest,
        /// The diff ID in the config.
        expected: Digest,
    },
    /// None of the requested isolations works on this machine; each with the reason, the best first.
    #[error("this machine allows no isolation for the steps{}", reasons(.0))]
    NoIsolation(Vec<(Isolation, SandboxError)>),
    /// The image's `User` is not in its `/etc/passwd` or `/etc/group`.
    #[error("the image's user `{0}` is not in its `/etc/passwd` or `/etc/group`")]
    UnknownUser(String),
    /// Programs of another processor.
    #[error("the image is for `{image}`, and this machine is `{machine}`")]
    Platform {
        /// The platform of the image's config.
        image: String,
        /// Of this machine.
        machine: String,
    },
    /// A layer whose diff ID is of an algorithm that trees are not named by.
    #[error("the layer `{digest}` has a diff ID of `{algorithm}`, and only `sha256` can be unpacked")]
    DiffIdAlgorithm {
        /// Digest of the blob.
        digest: Digest,
        /// The algorithm.
        algorithm: String,
    },
    /// The image has neither entry point nor command.
    #[error("the image has no command")]
    NoCommand,
}

fn reasons(tried: &[(Isolation, SandboxError)]) -> String {
    let why = |error: &SandboxError| match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    tried.iter().fold(String::new(), |text, (isolation, error)| format!("{text}; {isolation}: {}", why(error)))
}

impl UserError for RuntimeError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Unpack { source, .. } => source.exit_kind(),
            Self::DiffId { .. } | Self::DiffIdAlgorithm { .. } | Self::Platform { .. } | Self::UnknownUser(_) => {
                ExitKind::Refused
            }
            Self::NoIsolation(_) => ExitKind::Machine,
            Self::NoCommand => ExitKind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unpack { source, .. } => UserError::hint(source),
            Self::NoIsolation(tried) => tried.iter().find_map(|(_, error)| error.hint()),
            Self::NoCommand => Some("name a command after `--`".into()),
            Self::Platform { machine, .. } => Some(format!(
                "name an image for `{machine}`: an index of several platforms, or the digest of that image in it"
            )),
            Self::DiffIdAlgorithm { .. } => {
                Some("write the image again with another tool, such as `skopeo copy`".into())
            }
            Self::DiffId { .. } => Some("copy or build the image again".into()),
            Self::UnknownUser(_) => {
                Some("name a user that it has, or a number: with `--user`, or as `image.user` for a new image".into())
            }
        }
    }
}
