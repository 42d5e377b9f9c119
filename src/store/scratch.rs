//! Folders that may vanish: what a step writes before anybody knows that it is good.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{StoreError, at};

/// A private folder, removed when dropped. Its lock file tells other processes that it is in use.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Scratch {
    pub(super) fn new(parent: &Path) -> Result<Self, StoreError> {
        let path = tempfile::Builder::new().prefix("").rand_bytes(12).tempdir_in(parent);
        let path = path.map_err(at("create a folder in", parent))?.keep();
        let lock = path.with_extension("lock");
        let held = File::create(&lock).map_err(at("create", &lock))?;
        held.lock().map_err(at("lock", &lock))?;
        Ok(Self { path, lock, _held: held })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new folder in it, private to the user.
    pub fn dir(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.path.join(name);
        super::private_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is swept by a later run.
        let _ = remove_tree(&self.path);
        let _ = fs::remove_file(&self.lock);
    }
}

/// Removes a tree whatever the modes of its folders, as far as they belong to the caller; never follows a symlink.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => return other,
    }
    open_up(path)?;
    fs::remove_dir_all(path)
}

fn open_up(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the folders and files that no living process holds.
pub(super) fn sweep(parent: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(parent).map_err(at("read", parent))? {
        let path = entry.map_err(at("read", parent))?.path();
        if path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let free = File::open(&path).is_ok_and(|lock| lock.try_lock().is_ok());
        if free && remove_tree(&path.with_extension("")).is_ok() {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}
