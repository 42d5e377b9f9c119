//! What the files of this module share: names on disk, private directories, syncing, times of last use.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

use super::error::{StoreError, at};

/// In the directory of each tree; its modification time is when the tree was last used.
pub(super) const METADATA_FILE: &str = "records.json";

/// Creates a directory that only the user can enter (mode 0700), and its parents; no error if it exists.
pub(super) fn private_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("create", path))
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
