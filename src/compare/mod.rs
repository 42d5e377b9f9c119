//! What differs between two images or two layers, and why.
//!
//! ```text
//! let (left, right) = (Side::image(&one, &blobs_of_one), Side::image(&other, &blobs_of_the_other));
//! let found = compare(&left, &right)?;
//! if let Some(culprit) = found.first() { /* "layer `build prod`: `app/..`: chunk `Dbgi`" */ }
//! ```
//!
//! Layers are streams: nothing is unpacked to disk, a layer that both sides have is not read at all, and contents are
//! hashed while they pass by. Of a layer that differs, the facts about its entries are held, not their bytes; only a
//! `.beam` file, one at a time, and `mix.lock` are looked into.

mod beam;
mod error;
mod fields;
mod files;
mod lock;
mod pairs;
mod render;

use phial_layers::{Compression, DiffId, Digest};
use serde::Serialize;

pub use error::CompareError;
pub use fields::Field;
pub use files::{Change, Elsewhere, FileDiff, Why};
pub use lock::{Dependency, dependencies};
pub use render::{Culprit, Section};

use self::files::Listing;
use self::pairs::Pair;
use crate::error::Error;
use crate::image::{BlobReader, BlobSourceError, Blobs, Image};

/// Opens a layer's blob; `None` if it is not there.
type Open<'a> = Box<dyn Fn(&LayerId) -> Result<Option<BlobReader>, Error> + Sync + 'a>;

/// One side of a comparison: an image, one layer of it, or a layer by itself.
pub struct Side<'a> {
    image: Option<&'a Image>,
    layers: Vec<LayerId>,
    open: Open<'a>,
}

/// A layer, as far as its manifest and config tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerId {
    /// `deps`, `app`, `build prod` for layers of Phial's; `layer N` for others; a file's own name.
    pub name: String,
    /// Counted from the lowest one, which is 1.
    pub place: usize,
    /// Digest of its blob; none for a file.
    pub digest: Option<Digest>,
    /// Digest of its tar; none for a file.
    pub diff_id: Option<DiffId>,
    /// Size of its blob in bytes; none for a file.
    pub size: Option<u64>,
    /// How it came about, by the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// What is between tar and blob.
    pub compression: Compression,
}

/// What came of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Fields of the manifest that differ, layers and config left aside.
    pub manifest: Vec<Field>,
    /// Fields of the config that differ, diff ids left aside.
    pub config: Vec<Field>,
    /// Every layer of both sides, lowest first.
    pub layers: Vec<LayerDiff>,
    /// Dependencies in `mix.lock` that differ.
    pub dependencies: Vec<Dependency>,
}

/// A layer of one side, of the other, or of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerDiff {
    /// What the layer is called.
    pub name: String,
    /// How the two compare.
    pub status: Status,
    /// The layer of the left side.
    pub left: Option<LayerId>,
    /// The layer of the right side.
    pub right: Option<LayerId>,
    /// What differs about the layer as a whole.
    pub why: Vec<LayerWhy>,
    /// Its files that differ, by path.
    pub files: Vec<FileDiff>,
}

/// How two layers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The same tar.
    Same,
    /// Both sides have it, with different tars.
    Changed,
    /// Only the right side has it.
    Added,
    /// Only the left side has it.
    Removed,
}

/// What differs about a layer as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum LayerWhy {
    /// The same tar in another blob.
    Blob,
    /// It stands elsewhere among the layers that both have.
    Spec,
    /// It is called otherwise.
    Name {
        /// On the left.
        left: String,
        /// On the right.
        right: String,
    },
    /// Its descriptor in the manifest says something else.
    Descriptor {
        /// The field.
        field: Field,
    },
    /// The same entries in another order.
    EntryOrder,
    /// The same entries in the same order; headers that say no more, or what follows the tar's end, differ.
    Headers,
}

impl<'a> Side<'a> {
    /// An image whose layers' blobs come from `blobs`.
    pub fn image(image: &'a Image, blobs: Blobs<'a>) -> Self {
        let open = move |layer: &LayerId| match &layer.digest {
            Some(digest) => blobs(digest),
            None => Ok(None),
        };
        Self { image: Some(image), layers: pairs::layers(image), open: Box::new(open) }
    }

    /// A layer by itself.
    pub fn layer(
        name: &str,
        compression: Compression,
        open: impl Fn() -> Result<BlobReader, Error> + Sync + 'a,
    ) -> Self {
        let (digest, diff_id, size, created_by) = (None, None, None, None);
        let layer = LayerId { name: name.into(), place: 1, digest, diff_id, size, created_by, compression };
        Self { image: None, layers: vec![layer], open: Box::new(move |_| open().map(Some)) }
    }

    /// One layer alone: by its number from below, its name, or the digest of its blob or tar.
    pub fn only(mut self, wanted: &str) -> Result<Self, CompareError> {
        let is_it = |layer: &LayerId| {
            let digest = layer.digest.as_ref().is_some_and(|digest| digest.as_str() == wanted);
            let tar = layer.diff_id.as_ref().is_some_and(|diff_id| diff_id.0.as_str() == wanted);
            layer.name == wanted || digest || tar
        };
        let by_place = wanted.parse::<usize>().ok().and_then(|place| self.layers.iter().find(|l| l.place == place));
        // Where two layers have a name, the upper one is meant.
        let Some(found) = self.layers.iter().rev().find(|layer| is_it(layer)).or(by_place).cloned() else {
            let offered = self.layers.iter().map(|layer| layer.name.clone()).collect();
            return Err(CompareError::NoLayer { wanted: wanted.into(), offered });
        };
        self.layers = vec![found];
        self.image = None;
        Ok(self)
    }

    /// What the layer holds. Its tar must be the one that the config names.
    fn list(&self, layer: &LayerId) -> Result<Listing, CompareError> {
        let opened = (self.open)(layer).map_err(BlobSourceError::from);
        let blob = opened.and_then(|blob| blob.ok_or(BlobSourceError::Missing));
        let blob = blob.map_err(|source| CompareError::Open { layer: layer.to_string(), source })?;
        let listing = files::list(blob, layer.compression).map_err(|source| CompareError::layer(layer, source))?;
        match &layer.diff_id {
            Some(expected) if listing.diff_id != *expected => {
                Err(CompareError::DiffId { layer: layer.to_string(), expected: expected.clone() })
            }
            _ => Ok(listing),
        }
    }
}

/// Compares two images, or two layers.
pub fn compare(left: &Side<'_>, right: &Side<'_>) -> Result<Comparison, CompareError> {
    let (manifest, config, pairs) = match (left.image, right.image) {
        (Some(one), Some(other)) if one.manifest_digest == other.manifest_digest => {
            (vec![], vec![], pairs::pairs(&left.layers, &right.layers))
        }
        (Some(one), Some(other)) => {
            (fields::manifests(one, other)?, fields::configs(one, other)?, pairs::pairs(&left.layers, &right.layers))
        }
        (None, None) => (vec![], vec![], vec![Pair::Both(left.layers[0].clone(), right.layers[0].clone())]),
        (Some(_), None) => return Err(CompareError::Unlike { image: "first", layer: "second" }),
        (None, Some(_)) => return Err(CompareError::Unlike { image: "second", layer: "first" }),
    };
    let mut locks = lock::Locks::default();
    let mut layers = Vec::new();
    for pair in pairs {
        layers.push(match pair {
            Pair::Both(one, other) => both(left, right, (one, other), &mut locks)?,
            Pair::Left(one) => {
                let listing = left.list(&one)?;
                locks.left(&listing);
                let files = files::one_sided(&listing, Change::Removed);
                let (name, status) = (one.name.clone(), Status::Removed);
                LayerDiff { name, status, left: Some(one), right: None, why: vec![], files }
            }
            Pair::Right(other) => {
                let listing = right.list(&other)?;
                locks.right(&listing);
                let files = files::one_sided(&listing, Change::Added);
                let (name, status) = (other.name.clone(), Status::Added);
                LayerDiff { name, status, left: None, right: Some(other), why: vec![], files }
            }
        });
    }
    if let (Some(one), Some(other)) = (left.image, right.image) {
        pairs::whole(one, other, &mut layers);
    }
    files::find_moved(&mut layers);
    let mut found = Comparison { manifest, config, layers, dependencies: locks.dependencies() };
    if let (Some(one), Some(other)) = (left.image, right.image) {
        fields::account_for_the_rest(one, other, &mut found);
    }
    Ok(found)
}

/// Two layers that belong together; read only if they are not known to be the same.
fn both(
    left: &Side<'_>,
    right: &Side<'_>,
    (one, other): (LayerId, LayerId),
    locks: &mut lock::Locks,
) -> Result<LayerDiff, CompareError> {
    let same = |one, other, why| {
        let name = LayerId::clone(&other).name;
        LayerDiff { name, status: Status::Same, left: Some(one), right: Some(other), why, files: vec![] }
    };
    let known =
        (one.diff_id.is_some() && one.diff_id == other.diff_id) || (one.digest.is_some() && one.digest == other.digest);
    if known {
        let why = if one.digest == other.digest { vec![] } else { vec![LayerWhy::Blob] };
        return Ok(same(one, other, why));
    }
    let (lists, others) = std::thread::scope(|scope| {
        let lists = scope.spawn(|| left.list(&one));
        let others = right.list(&other);
        (lists.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), others)
    });
    let (lists, others) = (lists?, others?);
    locks.left(&lists);
    locks.right(&others);
    if lists.diff_id == others.diff_id {
        let why = if lists.digest == others.digest { vec![] } else { vec![LayerWhy::Blob] };
        return Ok(same(one, other, why));
    }
    let files = files::differences(&lists, &others);
    let mut why = vec![];
    if files.is_empty() {
        why.push(if lists.order == others.order { LayerWhy::Headers } else { LayerWhy::EntryOrder });
    }
    let name = other.name.clone();
    Ok(LayerDiff { name, status: Status::Changed, left: Some(one), right: Some(other), why, files })
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        let layers = self.layers.iter().all(|layer| layer.status == Status::Same && layer.why.is_empty());
        layers && self.manifest.is_empty() && self.config.is_empty()
    }

    /// How many files differ.
    pub fn files(&self) -> usize {
        self.layers.iter().map(|layer| layer.files.len()).sum()
    }
}
