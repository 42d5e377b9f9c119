//! The result of a comparison as a value, which `phial diff --json` prints.

use phial_layers::{Compression, DiffId, Digest};
use serde::Serialize;

use super::fields::Field;
use super::files::FileDiff;
use super::lock::Dependency;

/// A layer as its manifest, config and history describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerId {
    /// `deps`, `app` or `build ENV` for layers that Phial built; `layer N` for others; the path of a layer's file.
    pub name: String,
    /// Number from below; the lowest layer is 1.
    #[serde(rename = "place")]
    pub number: usize,
    /// Digest of its blob; `None` for a layer's file.
    pub digest: Option<Digest>,
    /// Digest of its tar; `None` for a layer's file.
    pub diff_id: Option<DiffId>,
    /// Size of its blob in bytes; `None` for a layer's file.
    pub size: Option<u64>,
    /// `created_by` of its history entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The compression of its blob.
    pub compression: Compression,
}

/// All differences of two images or two layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Fields of the manifest that differ, except those about layers and config.
    pub manifest: Vec<Field>,
    /// Fields of the config that differ, except the diff IDs.
    pub config: Vec<Field>,
    /// All layers of both sides, lowest first.
    pub layers: Vec<LayerDiff>,
    /// Dependencies in `mix.lock` that differ, by name.
    pub dependencies: Vec<Dependency>,
}

/// A layer of one side, of the other, or of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerDiff {
    /// The name of the right layer, or else of the left one.
    pub name: String,
    /// How the two compare.
    pub status: Status,
    /// The layer of the left side.
    pub left: Option<LayerId>,
    /// The layer of the right side.
    pub right: Option<LayerId>,
    /// Differences of the layer as a whole.
    #[serde(rename = "why")]
    pub differences: Vec<LayerDifference>,
    /// The files that differ, by path.
    pub files: Vec<FileDiff>,
}

/// How two layers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The same tar.
    Same,
    /// Two different tars.
    Changed,
    /// Only the right side has it.
    Added,
    /// Only the left side has it.
    Removed,
}

/// A difference of two layers as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum LayerDifference {
    /// The same tar in another blob.
    Blob,
    /// The order of the layers that both images have is another one.
    Order,
    /// Another name.
    Name {
        /// On the left.
        left: String,
        /// On the right.
        right: String,
    },
    /// A field of its descriptor in the manifest.
    Descriptor {
        /// The field.
        field: Field,
    },
    /// The same entries in another order.
    EntryOrder,
    /// The same entries in the same order: tar headers have another encoding, or bytes after the end of the tar differ.
    Headers,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        let layers = self.layers.iter().all(|layer| layer.status == Status::Same && layer.differences.is_empty());
        layers && self.manifest.is_empty() && self.config.is_empty()
    }

    /// Number of files that differ.
    pub fn files(&self) -> usize {
        self.layers.iter().map(|layer| layer.files.len()).sum()
    }
}
