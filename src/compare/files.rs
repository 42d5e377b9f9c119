//! What a layer holds, and how the files of two layers differ.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};

use phial_layers::{
    Compression, DiffId, Digest, EntryKind, EntryPath, LayerEntry, Limits, Sha256Writer, UnpackError,
    list as list_entries,
};
use serde::Serialize;

use super::beam::{self, Chunks};
use super::{LayerDiff, lock};

/// A `.beam` file above this many bytes is compared as a whole.
const MAX_BEAM: u64 = 32 << 20;
/// What a whiteout's name begins with (`layer.md`, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// The name of the entry that hides all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A file of one layer, or of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDiff {
    /// Its path, without a leading slash. Bytes that are not ASCII, control characters and `%` are `%XX`.
    pub path: EntryPath,
    /// Whether it is on both sides.
    pub change: Change,
    /// What differs, the weightiest first; empty for what is on one side only.
    pub why: Vec<Why>,
    /// Digest of its content on the left, if it is a regular file there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Digest>,
    /// Digest of its content on the right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<Digest>,
    /// Where the other side has the same content, for a file that is on one side only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
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

/// The same content in another layer, or under another path of the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Elsewhere {
    /// The layer's name.
    pub layer: String,
    /// The path there.
    pub path: EntryPath,
}

/// What differs about a file, in the order of weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Why {
    /// One side hides what lower layers have under this name, the other does not.
    Whiteout {
        /// Whether it is the right side.
        right: bool,
    },
    /// One side hides all that lower layers have in this directory, the other does not.
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
    },
    /// Other chunks of a `.beam` file.
    Chunks {
        /// Their names, in alphabetical order.
        names: Vec<String>,
        /// Whether none of them holds what the machine runs.
        same_code: bool,
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

/// What is known of a name in a layer. A whiteout and what stands in its place have one name.
#[derive(Default)]
struct Facts {
    whiteout: bool,
    opaque: bool,
    stat: Option<Stat>,
}

/// An entry without its bytes.
struct Stat {
    kind: EntryKind,
    link: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    xattrs: BTreeMap<String, Digest>,
    size: u64,
    content: Option<Digest>,
    chunks: Option<Chunks>,
}

/// What a layer holds.
pub(super) struct Listing {
    pub(super) diff_id: DiffId,
    pub(super) digest: Digest,
    /// Digest of the entries' names as they follow each other.
    pub(super) order: Digest,
    /// The text of the app's `mix.lock`, if the layer has it.
    pub(super) lock: Option<String>,
    facts: BTreeMap<EntryPath, Facts>,
}

/// Reads a layer to its end.
pub(super) fn list(blob: impl Read + Send, compression: Compression) -> Result<Listing, UnpackError> {
    let mut facts: BTreeMap<EntryPath, Facts> = BTreeMap::new();
    let mut lock = None;
    let mut order = Sha256Writer::new(std::io::sink());
    let keep = |name: &EntryPath, size| {
        (is_beam(name) && size <= MAX_BEAM) || (name.as_bytes() == lock::PATH && size <= lock::MAX)
    };
    let listed = list_entries(blob, compression, &Limits::GENEROUS, &keep, &mut |mut entry| {
        let _ = order.write_all(entry.path.as_bytes()).and_then(|()| order.write_all(&[0])); // a sink takes everything
        if entry.path.as_bytes() == lock::PATH {
            lock = entry.bytes.take().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        }
        put(&mut facts, entry);
    })?;
    let (_, order, _) = order.finish();
    Ok(Listing { diff_id: listed.diff_id, digest: listed.digest, order, lock, facts })
}

fn is_beam(name: &EntryPath) -> bool {
    name.as_bytes().ends_with(b".beam")
}

/// Where an entry is found twice, the later one holds, as for whoever unpacks.
fn put(facts: &mut BTreeMap<EntryPath, Facts>, entry: LayerEntry) {
    let bytes = entry.path.as_bytes();
    let (parent, last) = match bytes.iter().rposition(|b| *b == b'/') {
        Some(slash) => bytes.split_at(slash + 1),
        None => (&b""[..], bytes),
    };
    if last == OPAQUE {
        facts.entry(EntryPath::new(parent)).or_default().opaque = true;
    } else if let Some(hidden) = last.strip_prefix(WHITEOUT) {
        facts.entry(EntryPath::new(&[parent, hidden].concat())).or_default().whiteout = true;
    } else {
        let chunks = entry.bytes.as_deref().and_then(beam::chunks);
        facts.entry(entry.path).or_default().stat = Some(Stat {
            kind: entry.kind,
            link: entry.link,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime,
            xattrs: entry.xattrs.into_iter().map(|(name, value)| (name, Digest::of(&value))).collect(),
            size: entry.size,
            content: entry.content,
            chunks,
        });
    }
}

/// The files in which two layers differ, by path.
pub(super) fn differences(left: &Listing, right: &Listing) -> Vec<FileDiff> {
    let mut found = Vec::new();
    for (path, one) in &left.facts {
        match right.facts.get(path) {
            None => found.push(alone(path, one, Change::Removed)),
            Some(other) => {
                let why = between(one, other);
                if !why.is_empty() {
                    let (left, right) = (content(one), content(other));
                    let (path, change) = (path.clone(), Change::Changed);
                    found.push(FileDiff { path, change, why, left, right, elsewhere: None });
                }
            }
        }
    }
    let added = right.facts.iter().filter(|(path, _)| !left.facts.contains_key(path));
    found.extend(added.map(|(path, facts)| alone(path, facts, Change::Added)));
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// All files of a layer that only one side has.
pub(super) fn one_sided(listing: &Listing, change: Change) -> Vec<FileDiff> {
    listing.facts.iter().map(|(path, facts)| alone(path, facts, change)).collect()
}

fn alone(path: &EntryPath, facts: &Facts, change: Change) -> FileDiff {
    let digest = content(facts);
    let (left, right) = if change == Change::Removed { (digest, None) } else { (None, digest) };
    let is_right = change == Change::Added;
    let mut why = vec![];
    if facts.whiteout {
        why.push(Why::Whiteout { right: is_right });
    }
    if facts.opaque {
        why.push(Why::Opaque { right: is_right });
    }
    FileDiff { path: path.clone(), change, why, left, right, elsewhere: None }
}

fn content(facts: &Facts) -> Option<Digest> {
    facts.stat.as_ref()?.content.clone()
}

fn between(left: &Facts, right: &Facts) -> Vec<Why> {
    let mut why = Vec::new();
    if left.whiteout != right.whiteout {
        why.push(Why::Whiteout { right: right.whiteout });
    }
    if left.opaque != right.opaque {
        why.push(Why::Opaque { right: right.opaque });
    }
    match (&left.stat, &right.stat) {
        (Some(one), Some(other)) => stats(one, other, &mut why),
        // Most often one side has the file and the other its whiteout.
        (None, None) => {}
        _ if left.whiteout != right.whiteout => {}
        (one, other) => {
            let word = |stat: &Option<Stat>| stat.as_ref().map_or_else(|| "nothing".to_owned(), |stat| kind(stat.kind));
            why.push(Why::Kind { left: word(one), right: word(other) });
        }
    }
    why
}

fn stats(one: &Stat, other: &Stat, why: &mut Vec<Why>) {
    if one.kind != other.kind {
        why.push(Why::Kind { left: kind(one.kind), right: kind(other.kind) });
    } else if one.content != other.content {
        let names = match (&one.chunks, &other.chunks) {
            (Some(left), Some(right)) => beam::differing(left, right),
            _ => vec![],
        };
        why.push(if names.is_empty() {
            Why::Content { left: one.size, right: other.size }
        } else {
            Why::Chunks { same_code: beam::same_code(&names), names }
        });
    } else if one.link != other.link {
        let text = |link: &[u8]| link.escape_ascii().to_string();
        why.push(Why::Link { left: text(&one.link), right: text(&other.link) });
    }
    if one.mode != other.mode {
        why.push(Why::Mode { left: one.mode, right: other.mode });
    }
    if one.owner != other.owner {
        let text = |(uid, gid): (u32, u32)| format!("{uid}:{gid}");
        why.push(Why::Owner { left: text(one.owner), right: text(other.owner) });
    }
    if one.xattrs != other.xattrs {
        let differs = |name: &&String| one.xattrs.get(*name) != other.xattrs.get(*name);
        let mut names: Vec<String> = one.xattrs.keys().chain(other.xattrs.keys()).filter(differs).cloned().collect();
        names.sort();
        names.dedup();
        why.push(Why::Xattr { names });
    }
    if one.mtime != other.mtime {
        why.push(Why::Mtime { left: one.mtime, right: other.mtime });
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

/// Says of files on one side only where the other side has their content: under the same path in another layer if it is
/// there, else the first place that is found. Empty files say nothing.
pub(super) fn find_moved(layers: &mut [LayerDiff]) {
    let mut places: BTreeMap<(Change, Digest), Vec<Elsewhere>> = BTreeMap::new();
    let empty = Digest::of(b"");
    for layer in layers.iter() {
        for file in &layer.files {
            if let Some((own, digest)) = moving(file).filter(|(_, digest)| *digest != empty) {
                let place = Elsewhere { layer: layer.name.clone(), path: file.path.clone() };
                places.entry((own, digest)).or_default().push(place);
            }
        }
    }
    for file in layers.iter_mut().flat_map(|layer| &mut layer.files) {
        let Some((own, digest)) = moving(file) else { continue };
        let other = if own == Change::Added { Change::Removed } else { Change::Added };
        let Some(there) = places.get(&(other, digest)) else { continue };
        let same_path = there.iter().find(|place| place.path == file.path);
        file.elsewhere = same_path.or(there.first()).cloned();
    }
}

fn moving(file: &FileDiff) -> Option<(Change, Digest)> {
    let digest = file.left.as_ref().or(file.right.as_ref())?;
    (file.change != Change::Changed).then(|| (file.change, digest.clone()))
}
