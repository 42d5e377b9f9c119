//! What a build leaves behind for `phial explain`: a short record in the cache, the last ten of each repository.

use std::path::PathBuf;

use phial_layers::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use super::finish::web_address;
use super::{Built, Request, World};
use crate::event::Event;
use crate::image::Target;
use crate::source::{self, Place, SourceError};
use crate::store::Key;

/// How many builds of a repository are remembered.
const KEPT: usize = 10;
/// How a key names an input that is a variable of the settings.
pub(super) const VARIABLE: &str = "env ";

/// One build that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
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
    /// Whether nothing was to be recalled.
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
    /// Whether it was recalled.
    pub recalled: bool,
    /// Wall clock, in milliseconds.
    pub millis: u64,
}

/// Keeps the record of a build. The image is where it should be by now, so that a failure is no more than worth a word.
pub(super) fn keep(request: &Request, built: &Built, world: &World<'_>) {
    let layers = built.layers.iter().map(|report| LayerRecord {
        name: report.name.clone(),
        digest: report.layer.as_ref().map(|layer| layer.digest.clone()),
        diff_id: report.layer.as_ref().map(|layer| layer.diff_id.clone()),
        key: without_values(&report.key),
        recalled: report.recalled,
        millis: report.millis,
    });
    let record = Record {
        image: built.digest.clone(),
        targets: built.targets.iter().map(Target::place).collect(),
        source: absolute(&request.place, world),
        commit: built.commit.clone(),
        time: world.host.clock(),
        no_cache: request.no_cache,
        layers: layers.collect(),
    };
    let kept = repository(&request.place, world)
        .map_err(|e| e.to_string())
        .and_then(|name| world.store.remember(&name, &record, KEPT).map_err(|e| e.to_string()));
    if let Err(why) = kept {
        let text = format!("`phial explain` will not know of this build, since its record could not be kept: {why}");
        (world.watch)(Event::Notice { text });
    }
}

/// The name under which the builds of a repository are remembered: its address on the web, the same whichever way it was
/// cloned; for one that has none, its URL or its real path.
pub(super) fn repository(place: &Place, world: &World<'_>) -> Result<String, SourceError> {
    let name = source::identity(&from_here(place, world))?;
    Ok(if name.starts_with('/') { name } else { web_address(&name).unwrap_or(name) })
}

/// A local path from the caller's working directory, however it was given.
fn from_here(place: &Place, world: &World<'_>) -> Place {
    let absolute = |path| world.host.cwd.join(path).components().collect::<PathBuf>();
    let local = place.local().and_then(|path| absolute(path).to_string_lossy().parse().ok());
    local.unwrap_or_else(|| place.clone())
}

fn absolute(place: &Place, world: &World<'_>) -> String {
    from_here(place, world).to_string()
}

/// A value of a variable may be short enough to be guessed from its digest, but it is not lying open.
pub(super) fn without_values(key: &Key) -> Key {
    let mut key = key.clone();
    for (name, value) in &mut key.inputs {
        if name.starts_with(VARIABLE) {
            *value = Digest::of(value.as_bytes()).to_string();
        }
    }
    key
}
