//! What differs between two images or two layers, and why.
//!
//! ```text
//! let (left, right) = (Side::image(&one, &blobs_of_one), Side::image(&other, &blobs_of_other));
//! let comparison = compare(&left, &right)?;
//! if let Some(first) = comparison.first() { /* "layer `build prod`: `app/..`: chunk `Dbgi`: function a/1" */ }
//! ```
//!
//! Layers are read as streams: nothing is unpacked to disk, and a layer that both sides have is not read at all. Of a layer
//! that differs, the metadata and digests of its entries are in memory; bytes only of one file at a time whose
//! format is known, and of `mix.lock`.

mod beam;
mod comparison;
mod error;
mod fields;
mod files;
mod lock;
mod pairs;
mod file_parts;
mod patterns;
mod render;
mod side;
mod times;

pub use comparison::{Comparison, LayerDiff, LayerDifference, LayerId, Status};
pub use error::CompareError;
pub use fields::Field;
pub use file_parts::DifferingParts;
pub use files::{Change, FileDiff, FileDifference, SameContent};
pub use lock::{Dependency, dependencies};
pub use render::{FirstDifference, ImagePart, Times};
pub use side::Side;

use std::ops::RangeInclusive;
use std::time::Duration;

use self::pairs::Pair;

/// The largest file that is looked at for a cause, in bytes.
const MAX_WITH_CAUSE: u64 = 1 << 20;

/// Why two builds wrote a file differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Times are all that differs.
    Time,
    /// A compiled regular expression differs.
    Pattern,
}

/// Why the file of a difference is not the same on both sides, if its bytes tell. `uptimes` are those of the machine while it wrote
/// both sides, if it did. Both layers are read once more.
pub fn cause(
    left: &Side<'_>,
    right: &Side<'_>,
    difference: &FirstDifference,
    uptimes: Option<&RangeInclusive<Duration>>,
) -> Option<Cause> {
    let FirstDifference { part: ImagePart::Layer(layer), path: Some(path), .. } = difference else { return None };
    let content = |side: &Side<'_>| side.content(layer, path, MAX_WITH_CAUSE);
    let (one, other) = (content(left)?, content(right)?);
    if times::differ_by_time(&one, &other, uptimes) {
        Some(Cause::Time)
    } else {
        patterns::differ_by_pattern(&one, &other).then_some(Cause::Pattern)
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
            Pair::Both(one, other) => compare_layers(&LayerPair { left, right, one, other }, &mut locks)?,
            Pair::Left(one) => {
                let listing = left.list(&one)?;
                locks.left(listing.lock.as_ref());
                let files = files::one_sided(&listing, Change::Removed);
                let (name, status) = (one.name.clone(), Status::Removed);
                LayerDiff { name, status, left: Some(one), right: None, differences: vec![], files }
            }
            Pair::Right(other) => {
                let listing = right.list(&other)?;
                locks.right(listing.lock.as_ref());
                let files = files::one_sided(&listing, Change::Added);
                let (name, status) = (other.name.clone(), Status::Added);
                LayerDiff { name, status, left: None, right: Some(other), differences: vec![], files }
            }
        });
    }
    if let (Some(one), Some(other)) = (left.image, right.image) {
        pairs::compare_descriptors(one, other, &mut layers);
    }
    files::find_moved(&mut layers);
    let mut comparison = Comparison { manifest, config, layers, dependencies: locks.dependencies() };
    if let (Some(one), Some(other)) = (left.image, right.image) {
        fields::add_encoding_differences(one, other, &mut comparison);
    }
    Ok(comparison)
}

/// Two layers that are compared with each other.
struct LayerPair<'a> {
    left: &'a Side<'a>,
    right: &'a Side<'a>,
    one: LayerId,
    other: LayerId,
}

/// Compares two layers. They are read only if their digests do not show that they are the same.
fn compare_layers(pair: &LayerPair<'_>, locks: &mut lock::Locks) -> Result<LayerDiff, CompareError> {
    let LayerPair { left, right, one, other } = pair;
    let diff = |status, differences, files| LayerDiff {
        name: other.name.clone(),
        status,
        left: Some(one.clone()),
        right: Some(other.clone()),
        differences,
        files,
    };
    let same = |is_same_blob: bool| {
        let differences = if is_same_blob { vec![] } else { vec![LayerDifference::Blob] };
        diff(Status::Same, differences, vec![])
    };
    let is_same_tar = one.diff_id.is_some() && one.diff_id == other.diff_id;
    if is_same_tar || (one.digest.is_some() && one.digest == other.digest) {
        return Ok(same(one.digest == other.digest));
    }
    let (left, right) = std::thread::scope(|scope| {
        let left = scope.spawn(|| left.list(one));
        let right = right.list(other);
        (left.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), right)
    });
    let (left, right) = (left?, right?);
    locks.left(left.lock.as_ref());
    locks.right(right.lock.as_ref());
    if left.diff_id == right.diff_id {
        return Ok(same(left.digest == right.digest));
    }
    let files = files::differences(&left, &right);
    let differences = match files.is_empty() {
        false => vec![],
        true if left.order == right.order => vec![LayerDifference::Headers],
        true => vec![LayerDifference::EntryOrder],
    };
    Ok(diff(Status::Changed, differences, files))
}
