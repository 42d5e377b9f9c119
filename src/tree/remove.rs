//! Removal of whole trees.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, unlinkat};

use super::{FileKind, TreeDir};
use crate::error::IoError;

impl TreeDir {
    /// Removes the entry at `path`, and all below it if it is a directory, whatever the modes of directories that belong to
    /// the caller. Links are removed and not followed. It is no error if there is nothing.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<(), IoError> {
        let path = path.as_ref();
        match self.stat(path)?.map(|stat| stat.kind()) {
            None => return Ok(()),
            Some(FileKind::Dir) => {}
            Some(_) => return self.remove_file(path),
        }
        // Directories that are still to be emptied, the innermost last, so that a deep tree needs neither stack nor descriptors.
        let mut dirs: Vec<PathBuf> = vec![path.to_owned()];
        while let Some(at) = dirs.last().cloned() {
            let mut inner = vec![];
            if let Some(dir) = self.accessible_dir(&at)? {
                for (name, stat) in dir.entries()? {
                    if stat.is_directory() { inner.push(at.join(name)) } else { dir.remove_file(&name)? }
                }
            }
            if inner.is_empty() {
                self.remove_dir(&at)?;
                dirs.pop();
            } else {
                dirs.append(&mut inner);
            }
        }
        Ok(())
    }

    /// Opens a directory, and gives its owner access to it if it has none.
    pub fn accessible_dir(&self, path: impl AsRef<Path>) -> Result<Option<Self>, IoError> {
        let path = path.as_ref();
        let Some(stat) = self.stat(path)?.filter(super::EntryStat::is_directory) else { return Ok(None) };
        if stat.mode() & 0o700 != 0o700 && stat.uid() == rustix::process::geteuid().as_raw() {
            self.set_mode(path, stat.mode() | 0o700)?;
        }
        self.dir(path)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> Result<(), IoError> {
        let path = path.as_ref();
        let remove = |parent: &OwnedFd, name: &Path| Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?);
        self.in_parent(path, remove).map_err(self.failed("remove", path))
    }
}

/// Removes a directory of the caller's own with the tree in it. It is no error if there is nothing at `path`.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = match rustix::fs::open(
        parent,
        super::DIR.difference(rustix::fs::OFlags::NOFOLLOW),
        rustix::fs::Mode::empty(),
    ) {
        Ok(fd) => TreeDir { fd, shown: parent.to_owned() },
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    parent.remove_all(name).map_err(|error| error.source)
}
