//! What the files of this module share: names on disk, private directories, reading, syncing, times of last use.
//!
//! A CI restores a cache from an archive, and a cache may lie in a clone: a link, a FIFO or a device in the place of a file is
//! nothing that Phial wrote, and is not opened.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

use super::error::{StoreError, at};
use crate::tree::TreeDir;

/// In the directory of each tree; its modification time is when the tree was last used.
pub(super) const METADATA_FILE: &str = "records.json";
/// More than the largest file of the store that is read as a whole: the metadata of a tree.
const MAX_FILE: u64 = 256 << 20;

/// Creates a directory that only the user can enter (mode 0700), and its parents; no error if it exists.
pub(super) fn private_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("create", path))
}

/// The same for a directory `name` of the store `root`: what is there must be a directory, and no link to one.
pub(super) fn folder(root: &Path, name: &str) -> Result<(), StoreError> {
    let mut path = root.to_owned();
    for part in Path::new(name) {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(StoreError::Folder { path, reason: "is not a directory".into() }),
            Err(_) => private_dir(&path)?,
        }
    }
    Ok(())
}

/// The bytes of a file of the store; `None` if there is none that Phial can have written.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    TreeDir::open(path.parent()?).ok()?.read(path.file_name()?, MAX_FILE).ok()?
}

/// Syncs a directory, which makes renames in it durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at("sync", path))
}

/// Sets the time of last use of an item to now. A store on a read-only disk is still usable, so failures are ignored.
pub(super) fn touch(path: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let _ = utimensat(CWD, path, &Timestamps { last_access: now, last_modification: now }, AtFlags::SYMLINK_NOFOLLOW);
}
