//! An entry of the deps cache as a value: an image of one layer whose config is a function of the key and the layer alone. So a
//! build can record the config's digest whether it found the entry, made it, or has no cache at all. When the entry was
//! made stands in an annotation of its manifest.

use std::collections::{BTreeMap, BTreeSet};

use phial_layers::Digest;

use crate::image::{Image, ImageOptions, NewLayer, PackedLayer, Platform, assemble, from_rfc3339, rfc3339};
use crate::store::Key;

/// What the manifest is, for who lists artifacts. The config is an image's config all the same: what copies, mounts and
/// cleans images does so with entries, too.
const ARTIFACT_TYPE: &str = "application/vnd.phial.deps-cache.v1";
/// The label of an entry that holds its key: the hex name, which no other inputs have.
const KEY: &str = "dev.phial.cache.key";
/// The label that holds the inputs in clear, without values of variables.
const INPUTS: &str = "dev.phial.cache.inputs";
/// The label that holds the layer as it is kept.
const LAYER: &str = "dev.phial.cache.layer";
/// The annotation that says when it was made (image-spec, annotations.md).
const CREATED: &str = "org.opencontainers.image.created";

/// The annotation that names the packages in which compiling changed nothing.
const UNTOUCHED: &str = "dev.phial.cache.untouched";

/// What the manifest alone says of an entry.
#[derive(Default)]
pub(super) struct Notes {
    /// When it was made, in seconds since 1970.
    pub(super) made: i64,
    /// The packages of Hex in which compiling changed nothing.
    pub(super) untouched: BTreeSet<String>,
}

/// The entry of a layer.
pub(super) fn entry(key: &Key, layer: &PackedLayer, notes: Notes) -> Image {
    let mut annotations = BTreeMap::from([(CREATED.to_owned(), rfc3339(notes.made))]);
    if !notes.untouched.is_empty() {
        annotations.insert(UNTOUCHED.into(), notes.untouched.into_iter().collect::<Vec<_>>().join(" "));
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

/// The digest of the config that an entry of this layer has, wherever and whenever it is made.
pub(crate) fn entry_digest(key: &Key, layer: &PackedLayer) -> Digest {
    entry(key, layer, Notes::default()).manifest.config.digest
}

/// The layer of an entry, if it is one for this key: its config is the one that this key and this layer make.
pub(super) fn read(image: &Image, key: &Key) -> Option<PackedLayer> {
    layer(image).filter(|layer| image.manifest.config.digest == entry_digest(key, layer))
}

/// The layer of an entry for whatever key, and the packages in which compiling changed nothing.
pub(super) fn read_any(image: &Image) -> Option<(PackedLayer, BTreeSet<String>)> {
    let untouched = untouched(image)?;
    Some((layer(image)?, untouched))
}

fn layer(image: &Image) -> Option<PackedLayer> {
    let layer: PackedLayer = serde_json::from_str(image.config.config.labels.get(LAYER)?).ok()?;
    let [found] = &image.manifest.layers[..] else { return None };
    let fits = found.digest == layer.digest && found.size == layer.size;
    (fits && image.config.rootfs.diff_ids[..] == [layer.diff_id.clone()]).then_some(layer)
}

/// What an entry says of itself.
pub(super) struct Description {
    /// The key's hex name.
    pub(super) name: String,
    /// The key as far as it is told, without values of variables.
    pub(super) key: Option<Key>,
    pub(super) notes: Notes,
}

/// What it says, if this is an entry.
pub(super) fn describe(image: &Image) -> Option<Description> {
    let labels = &image.config.config.labels;
    let annotations = &image.manifest.annotations;
    let made = annotations.get(CREATED).and_then(|time| from_rfc3339(time)).unwrap_or(0) / 1000;
    let key = labels.get(INPUTS).and_then(|text| serde_json::from_str(text).ok());
    Some(Description {
        name: labels.get(KEY)?.clone(),
        key,
        notes: Notes { made, untouched: untouched(image).unwrap_or_default() },
    })
}

fn untouched(image: &Image) -> Option<BTreeSet<String>> {
    Some(image.manifest.annotations.get(UNTOUCHED)?.split(' ').map(str::to_owned).collect())
}
