//! What a build leaves behind for `phial explain`: a short record in the cache, the last ten of each repository.

use std::path::PathBuf;

use phial_layers::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use super::{BuildRequest, Built};
use crate::context::Context;
use crate::image::Target;
use crate::source::{self, Location, SourceError, web_address};
use crate::store::Key;

/// How many builds of a repository are remembered.
const KEPT: usize = 10;

/// One build that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// The image.
    pub image: Digest,
    /// Where it went.
    pub targets: Vec<String>,
    /// The repository as it was given, without user information.
    pub source: String,
    /// Full SHA.
    pub commit: String,
    /// When it ended, seconds since 1970.
    pub time: i64,
    /// Whether nothing was to be cached.
    pub no_cache: bool,
    /// Its layers, lowest first, without those of the base.
    pub layers: Vec<LayerRecord>,
}

/// One layer of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// `deps`, `app`, `build prod`.
    pub name: String,
    /// Digest of its blob; none if the step changed nothing.
    pub digest: Option<Digest>,
    /// Digest of its tar.
    pub diff_id: Option<DiffId>,
    /// The key it was made under; of variables the digest of their value.
    pub key: Key,
    /// Whether it was cached.
    #[serde(alias = "recalled")] // the name in records of earlier versions
    pub cached: bool,
    /// Wall clock, in milliseconds.
    pub millis: u64,
}

/// Keeps the record of a build. The image is where it should be by now, so that a failure is no more than worth a word.
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
        targets: built.targets.iter().map(Target::place).collect(),
        source: absolute(&request.location, context),
        commit: built.commit.clone(),
        time: context.host.unix_time(),
        no_cache: request.no_cache,
        layers: layers.collect(),
    };
    let kept = repository_name(&request.location, context)
        .map_err(|e| e.to_string())
        .and_then(|name| context.store.append_history(&name, &record, KEPT).map_err(|e| e.to_string()));
    if let Err(why) = kept {
        let text = format!("`phial explain` will not know of this build, since its record could not be kept: {why}");
        context.notice(text);
    }
}

/// The name under which the builds of a repository are remembered: its address on the web, the same whichever way it was
/// cloned; for one that has none, its URL or its real path.
pub fn repository_name(location: &Location, context: &Context<'_>) -> Result<String, SourceError> {
    let name = source::identity(&from_here(location, context))?;
    Ok(if name.starts_with('/') { name } else { web_address(&name).unwrap_or(name) })
}

/// A local path from the caller's working directory, however it was given.
fn from_here(location: &Location, context: &Context<'_>) -> Location {
    let absolute = |path| context.host.cwd.join(path).components().collect::<PathBuf>();
    let local = location.local().and_then(|path| absolute(path).to_string_lossy().parse().ok());
    local.unwrap_or_else(|| location.clone())
}

fn absolute(location: &Location, context: &Context<'_>) -> String {
    from_here(location, context).to_string()
}
