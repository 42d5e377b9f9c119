//! Lists the entries of layers, and compares them.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};

use phial_layers::{
    Compression, DiffId, Digest, EntryKind, EntryPath, LayerEntry, Limits, Sha256Writer, UnpackError,
    list as list_entries,
};
use serde::Serialize;

use super::beam::{self, ChunkDigests};
use super::comparison::{LayerDiff, LayerId};
use super::file_parts::{self, DifferingParts, Parts};
use super::lock;

/// Largest file whose chunks or parts are compared, in bytes.
const MAX_READ: u64 = 32 << 20;
/// Prefix of a whiteout's name (image-spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Name of an opaque whiteout: it hides everything that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A file that differs between two layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDiff {
    /// Its path, without a leading slash. Bytes that are not ASCII, control characters and `%` are `%XX`.
    pub path: EntryPath,
    /// Whether it is on both sides.
    pub change: Change,
    /// The differences, the most important first; empty for a file that only one side has.
    #[serde(rename = "why")]
    pub differences: Vec<FileDifference>,
    /// Digest of its content on the left, if it is a regular file there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Digest>,
    /// Digest of its content on the right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<Digest>,
    /// Where the other side has the content of a file that only one side has.
    #[serde(rename = "elsewhere", skip_serializing_if = "Option::is_none")]
    pub same_content: Option<SameContent>,
}

/// Whether a file is on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only on the right.
    Added,
    /// Only on the left.
    Removed,
    /// On both, and different.
    Changed,
}

/// A file with the same content in another layer or under another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SameContent {
    /// The name of its layer.
    pub layer: String,
    /// Its path.
    pub path: EntryPath,
}

/// A difference of a file; the most important variant first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum FileDifference {
    /// Only one side has a whiteout of this path.
    Whiteout {
        /// Whether it is the right side.
        right: bool,
    },
    /// Only one side has an opaque whiteout in this directory.
    Opaque {
        /// Whether it is the right side.
        right: bool,
    },
    /// Another kind of file.
    Kind {
        /// On the left.
        left: String,
        /// On the right.
        right: String,
    },
    /// Other bytes. Sizes in bytes.
    Content {
        /// On the left.
        left: u64,
        /// On the right.
        right: u64,
        /// The parts of a manifest, `.app`, `.rel` or `.boot` file that differ.
        #[serde(skip_serializing_if = "DifferingParts::is_empty")]
        parts: DifferingParts,
    },
    /// Other chunks of a `.beam` file.
    Chunks {
        /// Their names, in alphabetical order.
        names: Vec<String>,
        /// Whether the Erlang VM runs the same code in spite of them.
        same_code: bool,
        /// The functions and attributes that differ, if both files have debug information.
        #[serde(skip_serializing_if = "DifferingParts::is_empty")]
        parts: DifferingParts,
    },
    /// Another target of a link. Bytes that are not ASCII are escaped as in Rust.
    Link {
        /// On the left.
        left: String,
        /// On the right.
        right: String,
    },
    /// Other permission bits.
    Mode {
        /// On the left.
        left: u32,
        /// On the right.
        right: u32,
    },
    /// Another user or group: `uid:gid`.
    Owner {
        /// On the left.
        left: String,
        /// On the right.
        right: String,
    },
    /// Other extended attributes.
    Xattr {
        /// Their names.
        names: Vec<String>,
    },
    /// Another modification time: seconds since 1970, and nanoseconds after them.
    Mtime {
        /// On the left.
        left: (i64, u32),
        /// On the right.
        right: (i64, u32),
    },
}

/// What a layer has for a path: a whiteout, an entry, or both.
#[derive(Default)]
struct PathContent {
    whiteout: bool,
    opaque: bool,
    entry: Option<EntryInfo>,
}

/// An entry without its bytes.
struct EntryInfo {
    kind: EntryKind,
    link: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    xattrs: BTreeMap<String, Digest>,
    size: u64,
    content: Option<Digest>,
    chunks: Option<ChunkDigests>,
    parts: Parts,
}

/// The entries of a layer.
pub(super) struct Listing {
    /// Digest of the tar.
    pub(super) diff_id: DiffId,
    /// Digest of the blob.
    pub(super) digest: Digest,
    /// Digest of the entries' names in their order.
    pub(super) order: Digest,
    /// The text of the app's `mix.lock`, if the layer has it.
    pub(super) lock: Option<String>,
    paths: BTreeMap<EntryPath, PathContent>,
}

/// Reads a layer to its end.
pub(super) fn list(blob: impl Read + Send, compression: Compression) -> Result<Listing, UnpackError> {
    let mut paths: BTreeMap<EntryPath, PathContent> = BTreeMap::new();
    let mut lock = None;
    let mut order = Sha256Writer::new(std::io::sink());
    let is_needed = |name: &EntryPath, size| {
        (file_parts::is_known(name) && size <= MAX_READ) || (name.as_bytes() == lock::PATH && size <= lock::MAX)
    };
    let listed = list_entries(blob, compression, &Limits::GENEROUS, &is_needed, &mut |mut entry| {
        let _ = order.write_all(entry.path.as_bytes()).and_then(|()| order.write_all(&[0])); // a sink takes everything
        if entry.path.as_bytes() == lock::PATH {
            lock = entry.bytes.take().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        }
        add(&mut paths, entry);
    })?;
    let (_, order, _) = order.finish();
    Ok(Listing { diff_id: listed.diff_id, digest: listed.digest, order, lock, paths })
}

/// The bytes of a file of a layer, which is read to its end; `None` if it is no file or has more than `max` bytes. `shown` is its path
/// as [`FirstDifference`](super::FirstDifference) has it.
pub(super) fn content(blob: impl Read + Send, layer: &LayerId, shown: &str, max: u64) -> Option<Vec<u8>> {
    let is_it = |name: &EntryPath, size| size <= max && name.to_string() == shown;
    let mut found = None;
    list_entries(blob, layer.compression, &Limits::GENEROUS, &is_it, &mut |mut entry| {
        if let Some(bytes) = entry.bytes.take() {
            found = Some(bytes);
        }
    })
    .ok()?;
    found
}

/// Adds an entry. Of two entries with one name the later one counts, as it does when the layer is unpacked.
fn add(paths: &mut BTreeMap<EntryPath, PathContent>, entry: LayerEntry) {
    let bytes = entry.path.as_bytes();
    let (parent, last) = match bytes.iter().rposition(|b| *b == b'/') {
        Some(slash) => bytes.split_at(slash + 1),
        None => (&b""[..], bytes),
    };
    if last == OPAQUE {
        paths.entry(EntryPath::new(parent)).or_default().opaque = true;
    } else if let Some(hidden) = last.strip_prefix(WHITEOUT) {
        paths.entry(EntryPath::new(&[parent, hidden].concat())).or_default().whiteout = true;
    } else {
        let chunks = entry.bytes.as_deref().and_then(beam::chunks);
        let parts = entry.bytes.as_deref().map(|bytes| file_parts::of(&entry.path, bytes)).unwrap_or_default();
        paths.entry(entry.path).or_default().entry = Some(EntryInfo {
            kind: entry.kind,
            link: entry.link,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime,
            xattrs: entry.xattrs.into_iter().map(|(name, value)| (name, Digest::of(&value))).collect(),
            size: entry.size,
            content: entry.content,
            chunks,
            parts,
        });
    }
}

/// The files in which two layers differ, by path.
pub(super) fn differences(left: &Listing, right: &Listing) -> Vec<FileDiff> {
    let mut files = Vec::new();
    for (path, one) in &left.paths {
        match right.paths.get(path) {
            None => files.push(alone(path, one, Change::Removed)),
            Some(other) => {
                let differences = between(one, other);
                if !differences.is_empty() {
                    let (left, right) = (content_digest(one), content_digest(other));
                    let (path, change) = (path.clone(), Change::Changed);
                    files.push(FileDiff { path, change, differences, left, right, same_content: None });
                }
            }
        }
    }
    let added = right.paths.iter().filter(|(path, _)| !left.paths.contains_key(path));
    files.extend(added.map(|(path, content)| alone(path, content, Change::Added)));
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

/// All files of a layer that only one side has.
pub(super) fn one_sided(listing: &Listing, change: Change) -> Vec<FileDiff> {
    listing.paths.iter().map(|(path, content)| alone(path, content, change)).collect()
}

fn alone(path: &EntryPath, content: &PathContent, change: Change) -> FileDiff {
    let digest = content_digest(content);
    let (left, right) = if change == Change::Removed { (digest, None) } else { (None, digest) };
    let is_right = change == Change::Added;
    let mut differences = vec![];
    if content.whiteout {
        differences.push(FileDifference::Whiteout { right: is_right });
    }
    if content.opaque {
        differences.push(FileDifference::Opaque { right: is_right });
    }
    FileDiff { path: path.clone(), change, differences, left, right, same_content: None }
}

fn content_digest(content: &PathContent) -> Option<Digest> {
    content.entry.as_ref()?.content.clone()
}

fn between(left: &PathContent, right: &PathContent) -> Vec<FileDifference> {
    let mut differences = Vec::new();
    if left.whiteout != right.whiteout {
        differences.push(FileDifference::Whiteout { right: right.whiteout });
    }
    if left.opaque != right.opaque {
        differences.push(FileDifference::Opaque { right: right.opaque });
    }
    match (&left.entry, &right.entry) {
        (Some(one), Some(other)) => compare_entries(one, other, &mut differences),
        // One side has the file and the other its whiteout.
        (None, None) => {}
        _ if left.whiteout != right.whiteout => {}
        (one, other) => {
            let word = |entry: &Option<EntryInfo>| {
                entry.as_ref().map_or_else(|| "nothing".to_owned(), |entry| kind(entry.kind))
            };
            differences.push(FileDifference::Kind { left: word(one), right: word(other) });
        }
    }
    differences
}

fn compare_entries(one: &EntryInfo, other: &EntryInfo, differences: &mut Vec<FileDifference>) {
    if one.kind != other.kind {
        differences.push(FileDifference::Kind { left: kind(one.kind), right: kind(other.kind) });
    } else if one.content != other.content {
        let names = match (&one.chunks, &other.chunks) {
            (Some(left), Some(right)) => beam::differing(left, right),
            _ => vec![],
        };
        // What only one side can be read as is not compared by part.
        let is_read = !one.parts.is_empty() && !other.parts.is_empty();
        let parts = if is_read { file_parts::differing(&one.parts, &other.parts) } else { DifferingParts::default() };
        differences.push(if names.is_empty() {
            FileDifference::Content { left: one.size, right: other.size, parts }
        } else {
            FileDifference::Chunks { same_code: beam::same_code(&names), names, parts }
        });
    } else if one.link != other.link {
        let text = |link: &[u8]| link.escape_ascii().to_string();
        differences.push(FileDifference::Link { left: text(&one.link), right: text(&other.link) });
    }
    if one.mode != other.mode {
        differences.push(FileDifference::Mode { left: one.mode, right: other.mode });
    }
    if one.owner != other.owner {
        let text = |(uid, gid): (u32, u32)| format!("{uid}:{gid}");
        differences.push(FileDifference::Owner { left: text(one.owner), right: text(other.owner) });
    }
    if one.xattrs != other.xattrs {
        let differs = |name: &&String| one.xattrs.get(*name) != other.xattrs.get(*name);
        let mut names: Vec<String> = one.xattrs.keys().chain(other.xattrs.keys()).filter(differs).cloned().collect();
        names.sort();
        names.dedup();
        differences.push(FileDifference::Xattr { names });
    }
    if one.mtime != other.mtime {
        differences.push(FileDifference::Mtime { left: one.mtime, right: other.mtime });
    }
}

fn kind(kind: EntryKind) -> String {
    let word = match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Hardlink => "hard link",
        EntryKind::Fifo => "fifo",
        EntryKind::CharDevice { major, minor } => return format!("character device {major}:{minor}"),
        EntryKind::BlockDevice { major, minor } => return format!("block device {major}:{minor}"),
    };
    word.into()
}

/// Finds, for files that only one side has, a file with the same content on the other side: preferably with the same path in
/// another layer. Empty files are ignored.
pub(super) fn find_moved(layers: &mut [LayerDiff]) {
    let mut by_content: BTreeMap<(Change, Digest), Vec<SameContent>> = BTreeMap::new();
    let empty = Digest::of(b"");
    for layer in layers.iter() {
        for file in &layer.files {
            if let Some((change, digest)) = one_sided_content(file).filter(|(_, digest)| *digest != empty) {
                let same = SameContent { layer: layer.name.clone(), path: file.path.clone() };
                by_content.entry((change, digest)).or_default().push(same);
            }
        }
    }
    for file in layers.iter_mut().flat_map(|layer| &mut layer.files) {
        let Some((change, digest)) = one_sided_content(file) else { continue };
        let other = if change == Change::Added { Change::Removed } else { Change::Added };
        let Some(candidates) = by_content.get(&(other, digest)) else { continue };
        let same_path = candidates.iter().find(|other| other.path == file.path);
        file.same_content = same_path.or(candidates.first()).cloned();
    }
}

fn one_sided_content(file: &FileDiff) -> Option<(Change, Digest)> {
    let digest = file.left.as_ref().or(file.right.as_ref())?;
    (file.change != Change::Changed).then(|| (file.change, digest.clone()))
}
