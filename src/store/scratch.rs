//! Scratch directories: what a step writes before its result is known to be good. The next run removes those of
//! processes that were killed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::process::getegid;
use tempfile::NamedTempFile;

use super::disk::private_dir;
use super::error::{StoreError, at};
use crate::tree::{TreeDir, remove_tree};

/// A private directory, removed when dropped. Its lock file tells other processes that it is in use.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Scratch {
    pub(super) fn new(parent: &Path) -> Result<Self, StoreError> {
        // The lock file first: a directory without one would be taken for abandoned.
        let lock = locked(tempfile::Builder::new().prefix("").rand_bytes(12).suffix(".lock"), parent);
        let (held, lock) =
            lock.and_then(|file| file.keep().map_err(|e| e.error)).map_err(at("create a file in", parent))?;
        let path = lock.with_extension("");
        private_dir(&path)?;
        // A cache below a directory with the setgid bit: its group would be that of all files of a step. Not every file system
        // lets one change it.
        let _ = chown(&path, None, Some(getegid().as_raw()));
        // One below a directory with a default ACL: all files of a step would have it. Most file systems have none to remove.
        let _ = rustix::fs::removexattr(&path, "system.posix_acl_default");
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o700));
        Ok(Self { path, lock, _held: held })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a directory in it, private to the user.
    pub fn dir(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.path.join(name);
        private_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A later run removes what cannot be removed now.
        let _ = remove_tree(&self.path);
        let _ = fs::remove_file(&self.lock);
    }
}

/// Creates and locks a file in the scratch directory. Tries again if [`sweep`] removed the file before it was locked.
pub(super) fn locked(builder: &tempfile::Builder<'_, '_>, parent: &Path) -> io::Result<NamedTempFile> {
    loop {
        let file = builder.tempfile_in(parent)?;
        file.as_file().lock()?;
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes the directories and incomplete blobs of processes that are gone: their lock is free.
pub(super) fn sweep(parent: &Path) -> Result<(), StoreError> {
    let dir = TreeDir::open(parent)?;
    for entry in &dir.names()? {
        let path = parent.join(entry);
        // A directory goes with its lock file; a link or a FIFO is nothing of ours.
        let Ok(Some(file)) = dir.file(entry) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        let is_lock = path.extension().is_some_and(|extension| extension == "lock");
        if !is_lock || remove_tree(&path.with_extension("")).is_ok() {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}
