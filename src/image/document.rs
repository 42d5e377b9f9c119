//! From a manifest or index to an image: an index is followed to the entry for a platform, and the config is read.

use phial_layers::Digest;

use super::error::ImageError;
use super::manifest::{Descriptor, Image, ManifestOrIndex, read_manifest};
use super::platform::Platform;

/// Indexes inside an index that are followed.
const MAX_DEPTH: usize = 3;

/// A manifest or index: its bytes, and the media type that it was announced with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The bytes as stored.
    pub bytes: Vec<u8>,
    /// The media type of the descriptor or of the `Content-Type`.
    pub media_type: String,
}

/// Where manifests and configs are read: a repository of a registry, or a layout. The bytes that it returns have the
/// digest of the descriptor.
pub trait DocumentSource {
    /// The error of the registry or layout.
    type Error;

    /// The manifest or index of an entry of an index.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Document, Self::Error>;

    /// The config of a manifest.
    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Self::Error>;

    /// The error for a document that is refused. `digest` is the one of the index's entry; `None` for the first document.
    fn refused(&self, digest: Option<&Digest>, error: ImageError) -> Self::Error;
}

impl Document {
    /// The image of this manifest; through an index the one for `platform`, whose config must agree.
    pub fn into_image<S: DocumentSource>(self, platform: &Platform, source: &S) -> Result<Image, S::Error> {
        let mut document = self;
        let mut digest: Option<Digest> = None;
        for _ in 0..=MAX_DEPTH {
            let refused = |error| source.refused(digest.as_ref(), error);
            match read_manifest(&document.bytes, Some(&document.media_type)).map_err(refused)? {
                ManifestOrIndex::Manifest(manifest) => {
                    manifest.check_image().map_err(refused)?;
                    let config = source.config(&manifest.config)?;
                    let image = Image::read(document.bytes, Some(&document.media_type), config).map_err(refused)?;
                    if digest.is_some() {
                        image.check_platform(platform).map_err(refused)?;
                    }
                    return Ok(image);
                }
                ManifestOrIndex::Index(index) => {
                    let entry = platform.select(&index).map_err(refused)?;
                    document = source.manifest(entry)?;
                    digest = Some(entry.digest.clone());
                }
            }
        }
        Err(source.refused(digest.as_ref(), ImageError::NestedIndexes { limit: MAX_DEPTH }))
    }
}
