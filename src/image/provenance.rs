//! The build record in an image: enough to build it again, and nothing about the machine that built it.

use std::collections::BTreeMap;

use phial_layers::Digest;
use serde::{Deserialize, Serialize};

use super::manifest::Image;

/// The label of the config that holds the whole record as JSON. Labels survive where annotations do not: Docker's archives
/// and old registries have no annotations.
pub const LABEL: &str = "dev.phial.record";

/// How an image was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The format version that its bytes follow.
    pub format: u32,
    /// The full SHA of the commit.
    pub commit: String,
    /// The repository's URL on the web; `None` for a local repository.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
    /// The directory of the app in the repository; `None` for the root.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<String>,
    /// The base image's name in a registry, with its tag; `None` for a layout or an archive.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<String>,
    /// The digest of the base's manifest.
    pub base_digest: Digest,
    /// The environments, in the order of their layers.
    pub envs: Vec<String>,
    /// How layers are compressed.
    pub compression: String,
    /// The network of the steps: `host` or `none`.
    pub network: String,
    /// The digest of all settings that change the image.
    pub settings: Digest,
    /// The build script: the built-in one and its digest, or a path in the commit.
    pub script: String,
    /// The digest of `mix.lock`, if the commit has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lock: Option<Digest>,
    /// The digest of the config of the deps layer's entry in a deps cache, whether or not such a cache was used; `None` without
    /// a deps layer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deps_cache: Option<Digest>,
}

/// The build record of an image, as far as it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Its record.
    Here(Box<Provenance>),
    /// It has a record of another format version.
    Format(u32),
    /// It has none, or one that cannot be read.
    Not,
}

impl Provenance {
    /// The record in the label of an image; `format` is the version that the caller can read.
    pub fn of(image: &Image, format: u32) -> Recorded {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Some(text) = image.config.config.labels.get(LABEL) else {
            // Format 1 had an annotation alone.
            let version = image.manifest.annotations.get("dev.phial.format").and_then(|text| text.parse().ok());
            return version.map_or(Recorded::Not, Recorded::Format);
        };
        match serde_json::from_str::<Version>(text) {
            Ok(version) if version.format != format => Recorded::Format(version.format),
            Ok(_) => serde_json::from_str(text).map_or(Recorded::Not, |record| Recorded::Here(Box::new(record))),
            Err(_) => Recorded::Not,
        }
    }

    /// The record as JSON: fields in the order above, since that is what reaches the image's bytes.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The record as annotations of the manifest: those of image-spec, `annotations.md`, and Phial's own.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = BTreeMap::from([
            ("org.opencontainers.image.revision".to_owned(), self.commit.clone()),
            ("org.opencontainers.image.base.digest".to_owned(), self.base_digest.to_string()),
            ("dev.phial.format".to_owned(), self.format.to_string()),
            ("dev.phial.settings".to_owned(), self.settings.to_string()),
            ("dev.phial.script".to_owned(), self.script.clone()),
        ]);
        let more = [
            ("org.opencontainers.image.source", self.source.clone()),
            ("org.opencontainers.image.base.name", self.base.clone()),
            ("dev.phial.root", self.root.clone()),
            ("dev.phial.lock", self.lock.as_ref().map(Digest::to_string)),
            ("dev.phial.deps-cache", self.deps_cache.as_ref().map(Digest::to_string)),
        ];
        annotations.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        annotations
    }
}
