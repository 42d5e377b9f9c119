//! What a tree is when it is kept, so that a later change is noticed: by another process, a crash, a disk, or a cache that was
//! carried elsewhere, as a CI engine does, by a program that loses whiteouts and attributes.
//!
//! A copy has another inode, so the root alone tells; that is looked at whenever a tree is found. Whether an entry was
//! added, removed or written to shows in the times of inodes, which no program can set: a walk of some ten milliseconds for
//! ten thousand files, once for each process that runs a step in the tree.

use std::os::unix::ffi::OsStrExt as _;

use phial_layers::{Digest, Sha256Writer};
use serde::{Deserialize, Serialize};

use crate::error::IoError;
use crate::tree::{Enter, EntryStat, TreeDir, WalkEntry};

/// What identifies the root of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RootSeal {
    /// Its inode number. Not its device, whose number can change when the machine starts again.
    inode: u64,
    /// When the inode changed last, in seconds and nanoseconds since 1970.
    changed: (i64, i64),
}

/// What identifies a tree with all its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    pub(super) root: RootSeal,
    /// The digest of the path, type, mode, size and times of every entry.
    entries: Digest,
    /// Bytes of all files.
    pub(super) bytes: u64,
}

impl RootSeal {
    pub(super) fn of(tree: &TreeDir) -> Result<Option<Self>, IoError> {
        Ok(tree.stat("")?.map(|stat| Self { inode: stat.inode(), changed: stat.ctime() }))
    }
}

impl Seal {
    /// Reads a tree and calls `visit` with every entry; `None` if it disappears.
    pub(super) fn of(tree: &TreeDir, mut visit: impl FnMut(&WalkEntry)) -> Result<Option<Self>, IoError> {
        let Some(root) = RootSeal::of(tree)? else { return Ok(None) };
        let (mut digest, mut bytes) = (Sha256Writer::new(std::io::sink()), 0);
        tree.walk(|entry| {
            visit(entry);
            let stat = &entry.stat;
            bytes += if stat.is_regular_file() { stat.size() } else { 0 };
            add(&mut digest, entry.path.as_os_str().as_bytes(), stat);
            Ok::<_, IoError>(Enter::Yes)
        })?;
        Ok(Some(Self { root, entries: digest.finish().1, bytes }))
    }
}

fn add(digest: &mut Sha256Writer<std::io::Sink>, path: &[u8], stat: &EntryStat) {
    use std::io::Write as _;
    let ((mtime, mtime_nanos), (ctime, ctime_nanos)) = (stat.mtime(), stat.ctime());
    let numbers = [stat.size(), stat.inode(), u64::from(stat.mode()), stat.kind() as u64];
    let times = [mtime, mtime_nanos, ctime, ctime_nanos];
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    let record: Vec<u8> =
        numbers.chain(times.iter().flat_map(|time| time.to_le_bytes())).chain(path.iter().copied()).collect();
    let _ = digest.write_all(&record).and_then(|()| digest.write_all(&[0])); // a sink takes all
}
