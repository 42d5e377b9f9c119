//! References, platforms, configs, manifests and indexes as values, and canonical JSON.
//!
//! Input is parsed strictly, once: [`Reference`], [`read_manifest`], [`Image::read`]. Output is written by [`canonical_json`]
//! alone, so that the same value has the same bytes everywhere. Nothing here uses a clock, the disk or the network.
//!
//! The types are our own and not those of `oci-spec`: its annotations and labels are unordered maps, it accepts duplicate keys
//! and ambiguous manifests, and it drops fields of a base image's config that must be kept. Canonical JSON is our own because
//! its bytes are part of every digest.

mod artifact;
mod assemble;
mod blob_error;
mod blobs;
mod config;
mod document;
mod error;
mod json;
mod layer;
mod manifest;
mod media;
mod platform;
mod provenance;
mod reference;
mod time;
mod verified;

pub use artifact::{Artifact, EMPTY_BYTES, fallback_tag};
pub use assemble::{ImageOptions, NewLayer, assemble};
pub use blob_error::BlobError;
pub use blobs::{BlobReader, BlobSourceError, Blobs, read_exit_kind, stream_error};
pub use config::{Config, Execution, History, RootfsConfig};
pub use document::{Document, DocumentSource};
pub use error::{ImageError, shown};
pub use json::{canonical_json, read_json};
pub use layer::PackedLayer;
pub use manifest::{
    Descriptor, Image, Index, Layer, MAX_MANIFEST_PULL, MAX_MANIFEST_PUSH, Manifest, ManifestOrIndex, read_manifest,
};
pub use media::{
    DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD, DOCKER_LIST, DOCKER_MANIFEST, EMPTY, IN_TOTO,
    OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST, layer_compression,
    layer_media_type,
};
pub use platform::Platform;
pub use provenance::{LABEL, Provenance, Recorded};
pub use reference::{Reference, RegistryRef, Target};
pub use time::{from_rfc3339, rfc3339, rfc3339_millis};
pub use verified::Verified;

/// `PATH` of a program in an image whose config sets none, as container runtimes have it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests;
