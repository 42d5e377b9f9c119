//! Why two things could not be compared.

use std::io;

use phial_layers::{DiffId, UnpackError};

use super::LayerId;
use crate::error::{ExitKind, UserError, unpack_exit_kind};
use crate::image::{BlobSourceError, ImageError, read_exit_kind};

/// Why two things could not be compared. `layer` is the layer's name and digest.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The blob of a layer cannot be had.
    #[error("cannot open the layer {layer}")]
    Open {
        /// The layer.
        layer: String,
        /// Why not.
        #[source]
        source: BlobSourceError,
    },
    /// The bytes of a layer do not come, or are not those of its digest.
    #[error("cannot read the layer {layer}")]
    Read {
        /// The layer.
        layer: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A layer is damaged.
    #[error("cannot read the layer {layer}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why not.
        #[source]
        source: UnpackError,
    },
    /// A layer's tar is not the one that its config names.
    #[error("the layer {layer} is not the tar `{expected}` that the image's config names")]
    DiffId {
        /// The layer.
        layer: String,
        /// What the config says.
        expected: DiffId,
    },
    /// A document of an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// No layer answers to that.
    #[error("there is no layer `{wanted}`; there are {}", named(offered))]
    NoLayer {
        /// What was asked for.
        wanted: String,
        /// The names of those there are, lowest first.
        offered: Vec<String>,
    },
    /// An image and a layer have nothing to be compared by.
    #[error("the {image} of the two is an image and the {layer} one is a layer")]
    Unlike {
        /// Which one is the image.
        image: &'static str,
        /// Which one is the layer.
        layer: &'static str,
    },
}

fn named(names: &[String]) -> String {
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
            Self::Open { source: BlobSourceError::Missing, .. } => ExitKind::Refused,
            Self::Open { source, .. } => source.exit_kind(),
            Self::Read { source, .. } => match read_exit_kind(source) {
                Some(kind) => kind,
                None if source.kind() == io::ErrorKind::NotFound => ExitKind::Refused,
                None => ExitKind::Unavailable,
            },
            Self::Layer { source, .. } => unpack_exit_kind(source),
            Self::DiffId { .. } => ExitKind::Refused,
            Self::Image(source) => source.exit_kind(),
            Self::NoLayer { .. } | Self::Unlike { .. } => ExitKind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                Some("copy or build the image again".into())
            }
            Self::Layer { source, .. } => source.hint(),
            Self::DiffId { .. } => Some("copy or build the image again".into()),
            Self::Image(source) => source.hint(),
            Self::Unlike { .. } => Some("name a layer of the image with `--layer`".into()),
            Self::NoLayer { .. } => Some("`--layer` takes a name, a number from below, or a digest".into()),
            Self::Open { source, .. } => source.hint(),
            Self::Read { .. } => None,
        }
    }
}
