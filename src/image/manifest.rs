//! Descriptors, manifests, indexes, and images: their exact bytes together with the parsed values.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use phial_layers::{Compression, DiffId, Digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::blob_error::BlobError;
use super::config::Config;
use super::error::{ImageError, shown};
use super::json::{canonical_json, from_value, null_is_empty, read_json, strict_value};
use super::media::{
    DOCKER_LIST, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, is_image_config, layer_compression,
};
use super::platform::Platform;

/// The largest manifest, index or config that is read, in bytes.
pub const MAX_MANIFEST_PULL: u64 = 8 << 20;
/// The largest manifest that every registry accepts, in bytes (distribution specification, "pushing manifests").
pub const MAX_MANIFEST_PUSH: u64 = 4 << 20;
/// Larger numbers are not exact in all JSON readers (RFC 7493, 2.2).
const MAX_SIZE: u64 = 1 << 53;
/// Entries of an index that are read at most.
const MAX_ENTRIES: usize = 1000;

/// Type, digest and size of a blob (`descriptor.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Free text by reverse domain names.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Other locations of the blob. They are never fetched (CVE-2020-15157).
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// The platform of an image; only in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// An image manifest (`manifest.md`), in OCI's or Docker's form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u8,
    /// The manifest's own type; absent in some old ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of an artifact; `None` for an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// Lowest first.
    #[serde(deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text by reverse domain names.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image index (`image-index.md`) or Docker's manifest list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u8,
    /// The index's own type; absent in some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Images, artifacts, or more indexes.
    #[serde(deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
    /// Free text by reverse domain names.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a digest or tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// One image, or an artifact.
    Manifest(Box<Manifest>),
    /// A list of manifests.
    Index(Index),
}

/// An image: its documents as bytes and parsed. The bytes are never serialized again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The manifest as stored and sent.
    pub manifest_bytes: Vec<u8>,
    /// Digest of those bytes: the image's name.
    pub manifest_digest: Digest,
    /// The manifest, parsed.
    pub manifest: Manifest,
    /// The config as stored and sent.
    pub config_bytes: Vec<u8>,
    /// The config, parsed.
    pub config: Config,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer<'a> {
    /// The descriptor of its blob.
    pub descriptor: &'a Descriptor,
    /// The digest of its uncompressed tar.
    pub diff_id: &'a DiffId,
    /// How the tar is compressed.
    pub compression: Compression,
}

impl Descriptor {
    /// A descriptor with its three required fields only.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let (annotations, urls) = (BTreeMap::new(), Vec::new());
        Self { media_type: media_type.into(), digest, size, annotations, urls, platform: None, artifact_type: None }
    }

    /// Checks the bytes of a blob. Of a blob that is too long, `size + 1` bytes are enough.
    pub fn check(&self, bytes: &[u8]) -> Result<(), BlobError> {
        let (digest, expected, actual) = (&self.digest, self.size, bytes.len() as u64);
        match actual.cmp(&expected) {
            Ordering::Less => Err(BlobError::Short { digest: digest.clone(), expected, actual }),
            Ordering::Greater => Err(BlobError::Long { digest: digest.clone(), expected }),
            Ordering::Equal => BlobError::check(digest, bytes),
        }
    }

    /// The descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

impl Default for Index {
    fn default() -> Self {
        let (manifests, annotations) = (Vec::new(), BTreeMap::new());
        Self { schema_version: 2, media_type: Some(OCI_INDEX.into()), manifests, annotations }
    }
}

/// Reads a manifest or index, OCI's or Docker's. `announced` is the `Content-Type` or the descriptor's type, with or
/// without parameters; it must agree with the document.
pub fn read_manifest(bytes: &[u8], announced: Option<&str>) -> Result<ManifestOrIndex, ImageError> {
    let what = "the manifest";
    if bytes.len() as u64 > MAX_MANIFEST_PULL {
        return Err(ImageError::TooLarge { what, size: bytes.len() as u64, limit: MAX_MANIFEST_PULL });
    }
    let value = strict_value(what, bytes)?;
    let has = |key: &str| value.get(key).is_some();
    let schema = value.get("schemaVersion");
    if value.is_object() && schema.and_then(Value::as_u64) != Some(2) {
        let found = schema.map_or_else(|| "none".into(), |found| shown(&found.to_string()));
        return Err(ImageError::SchemaVersion { found });
    }
    let is_index = match (has("manifests"), has("layers") || has("config")) {
        (true, true) => return Err(ImageError::Ambiguous { why: "it has both `manifests` and `layers` or `config`" }),
        (false, false) => return Err(ImageError::Ambiguous { why: "it has neither `manifests` nor `layers`" }),
        (is_index, _) => is_index,
    };
    let own = value.get("mediaType").and_then(Value::as_str).map(str::to_owned);
    check_type(is_index, own.as_deref(), announced)?;
    if is_index {
        let index: Index = from_value(what, value)?;
        if index.manifests.len() > MAX_ENTRIES {
            return Err(ImageError::Ambiguous { why: "it has more than 1000 entries" });
        }
        index.manifests.iter().try_for_each(check_size)?;
        return Ok(ManifestOrIndex::Index(index));
    }
    let manifest: Box<Manifest> = from_value(what, value)?;
    manifest.layers.iter().chain([&manifest.config]).chain(&manifest.subject).try_for_each(check_size)?;
    Ok(ManifestOrIndex::Manifest(manifest))
}

/// `own` is the document's `mediaType`. One of the two may be absent; they must agree with each other and with the keys.
fn check_type(is_index: bool, own: Option<&str>, announced: Option<&str>) -> Result<(), ImageError> {
    let allowed = if is_index { [OCI_INDEX, DOCKER_LIST] } else { [OCI_MANIFEST, DOCKER_MANIFEST] };
    let kind = own.unwrap_or(allowed[0]);
    let announced = announced.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let agreed = match &announced {
        Some(announced) if own.is_some() => announced == kind,
        Some(announced) => allowed.contains(&announced.as_str()),
        None => true,
    };
    if agreed && allowed.contains(&kind) {
        return Ok(());
    }
    let keys = if is_index { "an index by its keys" } else { "a manifest by its keys" };
    let announced = announced.unwrap_or_else(|| keys.to_owned());
    let found = if allowed.contains(&kind) { kind.to_owned() } else { format!("{kind}, {keys}") };
    Err(ImageError::MediaType { announced: shown(&announced), found: shown(&found) })
}

fn check_size(descriptor: &Descriptor) -> Result<(), ImageError> {
    if descriptor.size <= MAX_SIZE {
        return Ok(());
    }
    Err(ImageError::Size { digest: descriptor.digest.clone(), size: descriptor.size })
}

impl Manifest {
    /// The type that the manifest is stored and sent as.
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(OCI_MANIFEST)
    }

    /// Refuses what is not a container image, or has a layer that cannot be unpacked.
    pub fn check_image(&self) -> Result<(), ImageError> {
        if !is_image_config(&self.config.media_type) {
            return Err(ImageError::NotAnImage { media_type: shown(&self.config.media_type) });
        }
        if self.config.size > MAX_MANIFEST_PULL {
            let size = self.config.size;
            return Err(ImageError::TooLarge { what: "the config", size, limit: MAX_MANIFEST_PULL });
        }
        self.layers.iter().try_for_each(|layer| layer_compression(&layer.media_type).map(drop))
    }
}

impl Image {
    /// An image from its two documents: everything that can be checked without the layers is checked. The caller has
    /// compared `manifest_bytes` with the digest it asked for.
    pub fn read(manifest_bytes: Vec<u8>, announced: Option<&str>, config_bytes: Vec<u8>) -> Result<Self, ImageError> {
        let manifest_digest = Digest::of(&manifest_bytes);
        let ManifestOrIndex::Manifest(manifest) = read_manifest(&manifest_bytes, announced)? else {
            return Err(ImageError::IndexNotImage { digest: manifest_digest });
        };
        manifest.check_image()?;
        let blob = |source| ImageError::Blob { what: "the config", source };
        BlobError::check(&manifest.config.digest, &config_bytes).map_err(blob)?;
        if config_bytes.len() as u64 != manifest.config.size {
            return Err(ImageError::Size { digest: manifest.config.digest, size: manifest.config.size });
        }
        let config: Config = read_json("the config", &config_bytes)?;
        config.check(manifest.layers.len())?;
        Ok(Self { manifest_bytes, manifest_digest, manifest: *manifest, config_bytes, config })
    }

    /// An image from its config, its layers and the other fields of its manifest, written as canonical JSON.
    pub(super) fn write(
        config: Config,
        layers: Vec<Descriptor>,
        artifact_type: Option<String>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        let config_bytes = canonical_json(&config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.into()),
            artifact_type,
            config: Descriptor::of(OCI_CONFIG, &config_bytes),
            layers,
            subject: None,
            annotations,
        };
        let manifest_bytes = canonical_json(&manifest);
        Self { manifest_digest: Digest::of(&manifest_bytes), manifest_bytes, manifest, config_bytes, config }
    }

    /// An image without layers.
    pub fn scratch(platform: &Platform) -> Self {
        Self::write(Config::scratch(platform), Vec::new(), None, BTreeMap::new())
    }

    /// The same image with an `artifactType` (`manifest.md`), which marks it as not runnable.
    #[must_use]
    pub fn of_type(self, artifact_type: &str) -> Self {
        Self::write(self.config, self.manifest.layers, Some(artifact_type.into()), self.manifest.annotations)
    }

    /// The descriptor of the manifest for an index.
    pub fn descriptor(&self) -> Descriptor {
        let size = self.manifest_bytes.len() as u64;
        Descriptor::new(self.manifest.media_type(), self.manifest_digest.clone(), size)
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> impl Iterator<Item = Layer<'_>> {
        self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids).map(|(descriptor, diff_id)| {
            let compression = layer_compression(&descriptor.media_type).unwrap_or(Compression::None); // checked by `read`
            Layer { descriptor, diff_id, compression }
        })
    }

    /// The platform of the image.
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }

    /// Refuses an image for another platform than `wanted`.
    pub fn check_platform(&self, wanted: &Platform) -> Result<(), ImageError> {
        let (own, wanted_text) = (self.platform(), wanted.to_string());
        if own.os == wanted.os && own.architecture == wanted.architecture {
            return Ok(());
        }
        Err(ImageError::Platform { wanted: wanted_text, found: "no".into(), offered: shown(&own.to_string()) })
    }
}
