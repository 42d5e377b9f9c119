//! From a manifest or index to an image: an index is followed to the entry for a platform, and the config is read.

use phial_layers::Digest;

use super::error::{ImageError, shown};
use super::manifest::{Descriptor, Image, Index, ManifestOrIndex, read_manifest};
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

impl Platform {
    /// The one image of `index` for this platform. An image for the plain architecture wins over its variants; two
    /// images that fit equally are an error, and so is none.
    pub fn select<'a>(&self, index: &'a Index) -> Result<&'a Descriptor, ImageError> {
        let mut fitting: Vec<&Descriptor> = index.manifests.iter().filter(|d| self.fits(d, index)).collect();
        fitting.dedup_by(|a, b| a.digest == b.digest);
        let exact: Vec<&Descriptor> = fitting
            .iter()
            .copied()
            .filter(|d| d.platform.as_ref().is_none_or(|p| p.special() == self.special()))
            .collect();
        let candidates = if exact.is_empty() && self.special().is_none() { &fitting } else { &exact };
        if let [only] = candidates.as_slice() {
            return Ok(only);
        }
        let found = if candidates.is_empty() { "no".into() } else { candidates.len().to_string() };
        let offered: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|d| d.platform.as_ref())
            .take(20)
            .map(|p| shown(&p.to_string()))
            .collect();
        let offered = if offered.is_empty() { "none with a platform".into() } else { offered.join(", ") };
        Err(ImageError::Platform { wanted: self.to_string(), found, offered })
    }

    fn fits(&self, descriptor: &Descriptor, index: &Index) -> bool {
        match &descriptor.platform {
            Some(platform) => platform.os == self.os && platform.architecture == self.architecture,
            None => index.manifests.len() == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phial_layers::Digest;
    use std::collections::BTreeMap;

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> Index {
        let manifests = platforms.iter().map(|(os, architecture, variant)| {
            let platform = Platform {
                os: (*os).into(),
                architecture: (*architecture).into(),
                variant: variant.map(str::to_owned),
            };
            let digest = Digest::of(format!("{platform:?}").as_bytes());
            Descriptor { platform: Some(platform), ..Descriptor::new(crate::image::OCI_MANIFEST, digest, 2) }
        });
        Index { manifests: manifests.collect(), annotations: BTreeMap::new(), ..Index::default() }
    }

    #[test]
    fn exactly_one_image_is_chosen_from_an_index() {
        let many = index(&[("linux", "amd64", None), ("linux", "arm64", Some("v8")), ("unknown", "unknown", None)]);
        assert_eq!(Platform::linux("arm64").select(&many).unwrap().digest, many.manifests[1].digest);
        assert_eq!(Platform::linux("amd64").select(&many).unwrap().digest, many.manifests[0].digest);
        let error = Platform::linux("s390x").select(&many).unwrap_err().to_string();
        assert!(error.contains("no images for `linux/s390x`") && error.contains("linux/arm64"), "{error}");
    }

    #[test]
    fn the_plain_architecture_wins_over_its_variants_and_a_tie_is_refused() {
        let levels = index(&[("linux", "amd64", Some("v3")), ("linux", "amd64", None)]);
        assert_eq!(Platform::linux("amd64").select(&levels).unwrap().digest, levels.manifests[1].digest);
        let tie = index(&[("linux", "arm", Some("v6")), ("linux", "arm", Some("v7"))]);
        assert!(Platform::linux("arm").select(&tie).unwrap_err().to_string().starts_with("2 images"));
    }
}
