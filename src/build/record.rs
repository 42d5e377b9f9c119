//! Records of builds for `phial explain`, in the store: the last ten of each repository. Not to be confused with the record
//! in an image ([`crate::image::Provenance`]).

use phial_layers::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use super::{BuildRequest, Built};
use crate::context::Context;
use crate::image::Target;
use crate::repository::{from_here, repository_name};
use crate::store::CacheKey;

/// Number of records of each repository.
const KEPT: usize = 10;

/// A build that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Digest of the image's manifest.
    pub image: Digest,
    /// Where the image was written to.
    pub targets: Vec<String>,
    /// The repository: an absolute path, or a URL without user information.
    pub source: String,
    /// The commit's object id, 40 hex digits.
    pub commit: String,
    /// The directory of the app in the repository; empty for the root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// When the build ended, in seconds since 1970.
    pub time: i64,
    /// Whether cached results were ignored.
    pub no_cache: bool,
    /// The layers above those of the base image, lowest first.
    pub layers: Vec<LayerRecord>,
}

/// One layer of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// `deps`, `app` or `build ENV`.
    pub name: String,
    /// Digest of the blob; `None` if the step changed nothing.
    pub digest: Option<Digest>,
    /// Digest of the tar.
    pub diff_id: Option<DiffId>,
    /// The cache key; variables have the digest of their value in place of it.
    pub key: CacheKey,
    /// Whether the result was cached.
    #[serde(alias = "recalled")] // the name in records of earlier versions
    pub cached: bool,
    /// Wall clock in milliseconds of running the step, or of finding its result.
    pub millis: u64,
}

/// Writes the record of a build. The image is published already, so a failure is only a notice.
pub(super) fn keep(request: &BuildRequest, built: &Built, context: &Context<'_>) {
    let layers = built.layers.iter().map(|layer| LayerRecord {
        name: layer.name.clone(),
        digest: layer.layer.as_ref().map(|packed| packed.digest.clone()),
        diff_id: layer.layer.as_ref().map(|packed| packed.diff_id.clone()),
        key: layer.key.without_values(),
        cached: layer.cached,
        millis: layer.millis,
    });
    let record = BuildRecord {
        image: built.digest.clone(),
        targets: built.targets.iter().map(Target::without_digest).collect(),
        source: from_here(&request.location, context).to_string(),
        commit: built.commit.clone(),
        app: built.app.path().to_owned(),
        time: context.host.unix_time(),
        no_cache: request.no_cache,
        layers: layers.collect(),
    };
    let written = repository_name(&request.location, &built.app, context)
        .map_err(|e| e.to_string())
        .and_then(|name| context.store.append_history(&name, &record, KEPT).map_err(|e| e.to_string()));
    if let Err(why) = written {
        let text = format!("`phial explain` cannot explain this build, since its record cannot be written: {why}");
        context.notice(text);
    }
}
