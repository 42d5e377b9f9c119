//! Errors of references, manifests, indexes and configs.

use phial_layers::Digest;

use super::blob_error::BlobError;
use crate::error::{ExitKind, UserError};

/// Why a reference or an image was refused.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A reference that does not parse. `why` names the bad part.
    #[error("`{text}` is not an image reference: {why}")]
    Reference {
        /// The reference as given, escaped.
        text: String,
        /// The bad part and the rule it breaks.
        why: String,
        /// What to write instead, if that is known.
        remedy: Option<String>,
    },
    /// Not I-JSON (RFC 7493), or not of the form in the specification.
    #[error("{what} is not valid JSON of its kind")]
    Json {
        /// Which document.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A document above the size limit.
    #[error("{what} has {size} bytes, more than {limit}")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// `schemaVersion` is not 2.
    #[error("the manifest has schema version {found}; only 2 is read")]
    SchemaVersion {
        /// The version in the document, escaped.
        found: String,
    },
    /// A document that could be a manifest and an index at once (CVE-2021-41190), or neither.
    #[error("the manifest is ambiguous: {why}")]
    Ambiguous {
        /// Which keys are there, or missing.
        why: &'static str,
    },
    /// The media type in the document differs from the announced one.
    #[error("the manifest was announced as `{announced}` but is `{found}`")]
    MediaType {
        /// The type from the `Content-Type` or the descriptor.
        announced: String,
        /// The type of the document.
        found: String,
    },
    /// A size that no blob can have.
    #[error("the size {size} of `{digest}` is out of range")]
    Size {
        /// The blob.
        digest: Digest,
        /// The size as stated.
        size: u64,
    },
    /// A layer that cannot be unpacked.
    #[error("layer of type `{media_type}` refused: {why}")]
    LayerType {
        /// The layer's media type, escaped.
        media_type: String,
        /// Foreign, encrypted or unknown.
        why: &'static str,
    },
    /// The manifest's config is not the config of a container image.
    #[error("`{media_type}` is not the config of a container image")]
    NotAnImage {
        /// The config's media type, escaped.
        media_type: String,
    },
    /// An index where an image was expected.
    #[error("`{digest}` is an index, not an image")]
    IndexNotImage {
        /// Digest of the index.
        digest: Digest,
    },
    /// The config's `diff_ids` and the manifest's `layers` do not fit together.
    #[error("the config lists {diff_ids} diff ids for {layers} layers")]
    DiffIds {
        /// How many `layers`.
        layers: usize,
        /// How many `rootfs.diff_ids`.
        diff_ids: usize,
    },
    /// A field of the config that is not supported.
    #[error("the config's `{field}` is refused: {why}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// Its value and why that is refused.
        why: String,
    },
    /// Bytes without the expected digest.
    #[error("{what} does not match its digest")]
    Blob {
        /// Which document.
        what: &'static str,
        /// Expected and found.
        #[source]
        source: BlobError,
    },
    /// Indexes inside indexes.
    #[error("indexes are nested deeper than {limit}")]
    NestedIndexes {
        /// The levels that are followed.
        limit: usize,
    },
    /// No image for this platform, or more than one.
    #[error("{found} images for `{wanted}` in the index; it has {offered}")]
    Platform {
        /// The platform asked for.
        wanted: String,
        /// `no`, or the number of images.
        found: String,
        /// The platforms that are there.
        offered: String,
    },
}

impl UserError for ImageError {
    fn exit_kind(&self) -> ExitKind {
        if matches!(self, Self::Reference { .. }) { ExitKind::Usage } else { ExitKind::Refused }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Reference { remedy, .. } => remedy.clone(),
            Self::LayerType { .. } => {
                Some("convert the image, for example by `skopeo copy`, or choose another base".into())
            }
            Self::Platform { .. } => Some("name the image by the digest of one platform: `repo@sha256:...`".into()),
            // The image is not what its format says: only who made it can make it right.
            Self::Json { .. }
            | Self::TooLarge { .. }
            | Self::SchemaVersion { .. }
            | Self::Ambiguous { .. }
            | Self::MediaType { .. }
            | Self::Size { .. }
            | Self::NotAnImage { .. }
            | Self::IndexNotImage { .. }
            | Self::DiffIds { .. }
            | Self::Config { .. }
            | Self::Blob { .. }
            | Self::NestedIndexes { .. } => None,
        }
    }
}

/// Untrusted text for messages: control characters escaped, at most 512 characters.
pub fn shown(text: &str) -> String {
    let mut out = String::new();
    let mut left = 512_usize;
    for c in text.chars() {
        let piece: String = if c.is_control() || is_deceptive(c) { c.escape_unicode().collect() } else { c.into() };
        let Some(rest) = left.checked_sub(piece.chars().count()) else { break };
        left = rest;
        out.push_str(&piece);
    }
    out
}

/// Characters that change the direction of text or are invisible.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
