//! Why referrers of an image could not be read or written.

use std::path::PathBuf;

use crate::error::{ExitKind, UserError};
use crate::layout::LayoutError;
use crate::registry::RegistryError;

/// An error about the referrers of an image.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The registry that has the image.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The layout or archive that has the image.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Referrers cannot be added to an archive, which is written once.
    #[error("cannot attach a referrer to an image in the archive `{}`", .0.display())]
    Archive(PathBuf),
}

impl AttestError {
    /// Whether the stored bytes are wrong, so that asking again does not help.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Registry(error) => {
                matches!(
                    error,
                    RegistryError::Blob { .. } | RegistryError::Image { .. } | RegistryError::TooLarge { .. }
                )
            }
            Self::Layout(error) => matches!(
                error,
                LayoutError::Blob { .. }
                    | LayoutError::Image { .. }
                    | LayoutError::MissingBlob { .. }
                    | LayoutError::NotRegular { .. }
            ),
            Self::Archive(_) => false,
        }
    }
}

impl UserError for AttestError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Registry(error) => error.exit_kind(),
            Self::Layout(error) => error.exit_kind(),
            Self::Archive(_) => ExitKind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Layout(error) => error.hint(),
            Self::Archive(_) => Some("copy the image to a registry or a layout directory, and test it there".into()),
        }
    }
}
