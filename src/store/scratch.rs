//! Folders that may vanish: what a step writes before anybody knows that it is good.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

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
        // The lock first: a folder never stands without one.
        let lock = locked(tempfile::Builder::new().prefix("").rand_bytes(12).suffix(".lock"), parent);
        let (held, lock) =
            lock.and_then(|file| file.keep().map_err(|e| e.error)).map_err(at("create a file in", parent))?;
        let path = lock.with_extension("");
        super::private_dir(&path)?;
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

/// A new file in the scratch folder, locked. A sweep between making and locking takes it for one that nobody holds.
pub(super) fn locked(named: &tempfile::Builder<'_, '_>, parent: &Path) -> io::Result<NamedTempFile> {
    loop {
        let file = named.tempfile_in(parent)?;
        file.as_file().lock()?;
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes the folders and half-written blobs that no living process holds.
pub(super) fn sweep(parent: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(parent).map_err(at("read", parent))? {
        let path = entry.map_err(at("read", parent))?.path();
        let Ok(file) = File::open(&path).and_then(|file| Ok((file.metadata()?.is_file(), file))) else { continue };
        if !file.0 || file.1.try_lock().is_err() {
            continue;
        }
        let of_folder = path.extension().is_some_and(|extension| extension == "lock");
        if !of_folder || remove_tree(&path.with_extension("")).is_ok() {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}
