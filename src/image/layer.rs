//! A packed layer: the one type for it between packing, the store, the deps cache and the image.

use phial_layers::{CompressedTar, Compression, DiffId, Digest, Packed};
use serde::{Deserialize, Serialize};

use super::manifest::Descriptor;
use super::media::layer_media_type;

/// A packed layer without its bytes. Sizes are bytes. Its JSON is part of the format of deps cache entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size: u64,
    /// Size of the tar.
    pub tar_size: u64,
    /// Number of tar entries, whiteouts included; `None` if the layer is a tar that was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// How the blob is compressed.
    pub compression: Compression,
}

impl PackedLayer {
    /// What `phial_layers::pack` returned for a blob of this compression.
    pub fn new(packed: Packed, compression: Compression) -> Self {
        let Packed { diff_id, digest, size, tar_size, entries } = packed;
        Self { diff_id, digest, size, tar_size, entries: Some(entries), compression }
    }

    /// What `phial_layers::compress` returned for a blob of this compression.
    pub fn from_tar(tar: CompressedTar, compression: Compression) -> Self {
        let CompressedTar { diff_id, digest, size, tar_size } = tar;
        Self { diff_id, digest, size, tar_size, entries: None, compression }
    }

    /// Its descriptor in a manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(layer_media_type(self.compression), self.digest.clone(), self.size)
    }
}
