//! Why two images or layers cannot be compared.

use std::io;

use phial_layers::{DiffId, UnpackError};

use super::comparison::LayerId;
use crate::error::{ExitKind, UserError};
use crate::image::{BlobSourceError, ImageError, read_exit_kind};

/// Why two images or layers cannot be compared. `layer` is the layer's name and, if known, digest.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The blob of a layer is not available.
    #[error("cannot open the layer {layer}")]
    Open {
        /// The layer.
        layer: String,
        /// Why not.
        #[source]
        source: BlobSourceError,
    },
    /// The stream of a layer fails, or has other bytes than its digest says.
    #[error("cannot read the layer {layer}")]
    Read {
        /// The layer.
        layer: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A layer is not a valid tar, or is not compressed as its media type says.
    #[error("cannot read the layer {layer}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why not.
        #[source]
        source: UnpackError,
    },
    /// The tar in a layer does not have the diff ID of the image's config.
    #[error("the layer {layer} is not the tar `{expected}` that the image's config names")]
    DiffId {
        /// The layer.
        layer: String,
        /// The diff ID in the config.
        expected: DiffId,
    },
    /// A manifest or config cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// `--layer` names a layer that does not exist.
    #[error("no layer is named `{wanted}`; the layers are {}", quoted(offered))]
    NoLayer {
        /// The value of `--layer`.
        wanted: String,
        /// The names of the layers, lowest first.
        offered: Vec<String>,
    },
    /// An image cannot be compared with a single layer.
    #[error("the {image} argument is an image and the {layer} one is a layer")]
    Unlike {
        /// Which one is the image.
        image: &'static str,
        /// Which one is the layer.
        layer: &'static str,
    },
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

impl CompareError {
    pub(super) fn layer(layer: &LayerId, source: UnpackError) -> Self {
        let layer = layer.to_string();
        match source {
            UnpackError::Read(source) => Self::Read { layer, source },
            source => Self::Layer { layer, source },
        }
    }
}

impl UserError for CompareError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Open { source: BlobSourceError::Missing, .. } | Self::DiffId { .. } => ExitKind::Refused,
            Self::Open { source, .. } => source.exit_kind(),
            Self::Read { source, .. } => match read_exit_kind(source) {
                Some(kind) => kind,
                None if source.kind() == io::ErrorKind::NotFound => ExitKind::Refused,
                None => ExitKind::Unavailable,
            },
            Self::Layer { source, .. } => source.exit_kind(),
            Self::Image(source) => source.exit_kind(),
            Self::NoLayer { .. } | Self::Unlike { .. } => ExitKind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                Some("copy or build the image again".into())
            }
            Self::Layer { source, .. } => UserError::hint(source),
            Self::DiffId { .. } => Some("copy or build the image again".into()),
            Self::Image(source) => source.hint(),
            Self::Unlike { .. } => Some("name a layer of the image with `--layer`".into()),
            Self::NoLayer { .. } => Some("`--layer` takes a name, a number from below, or a digest".into()),
            Self::Open { source, .. } => source.hint(),
            Self::Read { .. } => None,
        }
    }
}
