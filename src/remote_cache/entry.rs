//! An entry of the deps cache: an image of one layer whose config depends on nothing but the key and the layer. So a build
//! records the same config digest whether it found the entry, made it or uses no cache. That ids were mapped is in the tag
//! alone: a layer that needs none is the same on a machine that maps none, and so is the image. The time at which the entry was made
//! is an annotation of the manifest.

use std::collections::{BTreeMap, BTreeSet};

use phial_layers::Digest;

use crate::image::{Image, ImageOptions, NewLayer, PackedLayer, Platform, assemble, from_rfc3339, rfc3339};
use crate::store::CacheKey;

/// The step whose layers are cached. Those of other steps depend on the commit, which is seldom built twice.
pub(crate) const STEP: &str = "deps";

/// `artifactType` of the manifest. The config is that of an image, so that tools that copy and delete images do so with
/// entries too.
const ARTIFACT_TYPE: &str = "application/vnd.phial.deps-cache.v1";
/// The label with the key's hex digest.
const KEY: &str = "dev.phial.cache.key";
/// The label with the inputs of the key as JSON; variables have the digest of their value in place of it.
const INPUTS: &str = "dev.phial.cache.inputs";
/// The label with the [`PackedLayer`] as JSON.
const LAYER: &str = "dev.phial.cache.layer";
/// The annotation with the time at which the entry was made (image-spec, annotations.md).
const CREATED: &str = "org.opencontainers.image.created";
/// The annotation that lists the packages in which compiling changed nothing.
const UNTOUCHED: &str = "dev.phial.cache.untouched";

/// What only the manifest of an entry holds.
#[derive(Default)]
pub(super) struct EntryAnnotations {
    /// When it was made, in seconds since 1970.
    pub(super) made: i64,
    /// The Hex packages in which compiling changed no file.
    pub(super) untouched: BTreeSet<String>,
}

/// The entry of a layer.
pub(super) fn entry(key: &CacheKey, layer: &PackedLayer, made_here: EntryAnnotations) -> Image {
    let mut key = key.clone();
    key.inputs.remove(CacheKey::IDS);
    let mut annotations = BTreeMap::from([(CREATED.to_owned(), rfc3339(made_here.made))]);
    if !made_here.untouched.is_empty() {
        annotations.insert(UNTOUCHED.into(), made_here.untouched.into_iter().collect::<Vec<_>>().join(" "));
    }
    let text = |json: Result<String, serde_json::Error>| json.unwrap_or_default();
    let labels = BTreeMap::from([
        (KEY.to_owned(), key.hex()),
        (INPUTS.to_owned(), text(serde_json::to_string(&key.without_values()))),
        (LAYER.to_owned(), text(serde_json::to_string(layer))),
    ]);
    let new = NewLayer { layer: layer.clone(), created_by: "phial deps".into() };
    let options = ImageOptions {
        created: key.inputs.get("mtime").and_then(|mtime| mtime.parse().ok()).unwrap_or(0),
        entrypoint: None,
        cmd: None,
        env: BTreeMap::new(),
        working_dir: None,
        user: None,
        labels,
        annotations,
    };
    assemble(&Image::scratch(&Platform::host()), &[new], &options).of_type(ARTIFACT_TYPE)
}

/// Digest of the config of a layer's entry, on every machine and at any time.
pub(crate) fn entry_digest(key: &CacheKey, layer: &PackedLayer) -> Digest {
    entry(key, layer, EntryAnnotations::default()).manifest.config.digest
}

/// The layer of an image that is the entry of this key: its config is the one that this key and this layer result in.
pub(super) fn read(image: &Image, key: &CacheKey) -> Option<PackedLayer> {
    layer(image).filter(|layer| image.manifest.config.digest == entry_digest(key, layer))
}

/// The layer of an image that is an entry of any key, and the Hex packages in which compiling changed no file.
pub(super) fn read_any(image: &Image) -> Option<(PackedLayer, BTreeSet<String>)> {
    let untouched = untouched(image)?;
    Some((layer(image)?, untouched))
}

fn layer(image: &Image) -> Option<PackedLayer> {
    let layer: PackedLayer = serde_json::from_str(image.config.config.labels.get(LAYER)?).ok()?;
    let [descriptor] = &image.manifest.layers[..] else { return None };
    let fits = descriptor.digest == layer.digest && descriptor.size == layer.size;
    (fits && image.config.rootfs.diff_ids[..] == [layer.diff_id.clone()]).then_some(layer)
}

/// What the labels and annotations of an entry hold.
pub(super) struct EntryDescription {
    /// The key's hex digest.
    pub(super) name: String,
    /// The key, without values of variables; `None` if the label is missing or broken.
    pub(super) key: Option<CacheKey>,
    pub(super) annotations: EntryAnnotations,
}

/// Reads the labels and annotations of an entry; `None` if the image is not an entry.
pub(super) fn describe(image: &Image) -> Option<EntryDescription> {
    let labels = &image.config.config.labels;
    let annotations = &image.manifest.annotations;
    let made = annotations.get(CREATED).and_then(|time| from_rfc3339(time)).unwrap_or(0) / 1000;
    let key = labels.get(INPUTS).and_then(|text| serde_json::from_str(text).ok());
    Some(EntryDescription {
        name: labels.get(KEY)?.clone(),
        key,
        annotations: EntryAnnotations { made, untouched: untouched(image).unwrap_or_default() },
    })
}

fn untouched(image: &Image) -> Option<BTreeSet<String>> {
    Some(image.manifest.annotations.get(UNTOUCHED)?.split(' ').map(str::to_owned).collect())
}
