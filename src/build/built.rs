//! What a build results in.

use std::collections::{BTreeMap, BTreeSet};

use phial_layers::Digest;

use crate::image::{Image, PackedLayer, Reference, Target};
use crate::recipe::AppDir;
use crate::remote_cache::RemoteCache;
use crate::rootfs::Isolation;
use crate::runtime::ResolvedImage;
use crate::store::CacheKey;

/// A finished build.
#[derive(Debug)]
pub struct Built {
    /// Digest of the image's manifest.
    pub digest: Digest,
    /// Where the image was written to.
    pub targets: Vec<Target>,
    /// The commit's object id, 40 hex digits.
    pub commit: String,
    /// The directory of the app in the repository.
    pub app: AppDir,
    /// Digest of the base image's manifest.
    pub base: Digest,
    /// The layers above those of the base image, lowest first.
    pub layers: Vec<BuiltLayer>,
    /// Number of layers of the base image.
    pub base_layers: usize,
    /// The isolation of the steps; `None` if no step ran.
    pub isolation: Option<Isolation>,
    /// Manifests of Mix whose version is not known, with the version, in the layers that were not cached.
    pub unknown_manifests: BTreeSet<(String, i64)>,
    /// The version of `hex` and the digest of `rebar3`, if they were downloaded for layers that were not cached.
    pub downloads: BTreeMap<&'static str, String>,
}

/// One layer of a finished build.
#[derive(Clone, Debug)]
pub struct BuiltLayer {
    /// `deps`, `app` or `build ENV`.
    pub name: String,
    /// The layer; `None` if the step changed nothing.
    pub layer: Option<PackedLayer>,
    /// Whether the result was cached.
    pub cached: bool,
    /// The cache key.
    pub key: CacheKey,
    /// Wall clock in milliseconds of running the step, or of finding its result.
    pub millis: u64,
}

/// An image whose layers are in the store or the remote cache, before it is published.
pub(crate) struct UnpublishedImage<'a> {
    pub(crate) built: Built,
    pub(crate) image: Image,
    pub(crate) base: ResolvedImage,
    /// The base image's name with its digest.
    pub(super) base_name: Reference,
    pub(super) remote_cache: RemoteCache<'a>,
}
