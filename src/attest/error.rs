//! What can go wrong with what stands beside an image.

use std::path::PathBuf;

use crate::error::{ExitKind, UserError};
use crate::layout::LayoutError;
use crate::registry::RegistryError;

/// Why something was not read or written beside an image.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layout or archive.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// An archive is written once.
    #[error("nothing can be put beside an image in the archive `{}`", .0.display())]
    Archive(PathBuf),
}

impl AttestError {
    /// Whether what is stored there is not what it should be, whoever asks and how often.
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
