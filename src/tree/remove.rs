//! Removal of whole trees.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

use super::{FileKind, HANDLE, TreeDir};
use crate::error::IoError;

/// Bytes of a path, by `PATH_MAX` of Linux.
const MAX_PATH: usize = 4095;

/// A directory that is being emptied, or the one above the first.
struct EmptiedDir {
    /// Its name in the directory above it.
    name: OsString,
    /// Its device and inode.
    id: (u64, u64),
    /// The directories in it that are still to be removed.
    inner: Vec<OsString>,
}

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
        let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let top = self.open_at(above, HANDLE.union(OFlags::DIRECTORY)).map_err(self.failed("open", above))?;
        let Some(top) = top else { return Ok(()) };
        let mut levels = vec![];
        remove_below(top, name, &mut levels).map_err(|error| {
            let inner: PathBuf = levels.iter().skip(1).map(|level| &level.name).collect();
            let full = self.shown(above).join(inner).join(&error.path);
            // A path that no call takes is none to look at.
            let is_path = full.as_os_str().len() <= MAX_PATH;
            IoError { path: if is_path { full } else { self.shown(path) }, ..error }
        })
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

/// Removes the directory `name` in `top`. A tree can be deeper than a path is long and than there are descriptors, so only one
/// directory is open: from it, inner ones are reached by their names, and outer ones by `..` if that still is the same directory.
/// Paths of errors begin at the directory that is emptied, the last of `levels`.
fn remove_below(top: OwnedFd, name: &OsStr, levels: &mut Vec<EmptiedDir>) -> Result<(), IoError> {
    let mut at = TreeDir { fd: top, shown: PathBuf::new() };
    levels.push(EmptiedDir { name: OsString::new(), id: at.id()?, inner: vec![name.to_owned()] });
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.inner.pop() {
            let Some(dir) = at.accessible_dir(&name)? else { continue };
            at = TreeDir { fd: dir.fd, shown: PathBuf::new() };
            levels.push(EmptiedDir { name, id: at.id()?, inner: vec![] });
            let mut inner = vec![];
            for (name, stat) in at.entries()? {
                if stat.is_directory() { inner.push(name) } else { at.remove_file(&name)? }
            }
            if let Some(level) = levels.last_mut() {
                level.inner = inner;
            }
        } else if let (Some(emptied), Some(above)) = (levels.pop(), levels.last()) {
            at = at.above(above.id)?;
            at.remove_dir(&emptied.name)?;
        }
    }
    Ok(())
}

impl TreeDir {
    /// Its device and inode.
    fn id(&self) -> Result<(u64, u64), IoError> {
        let stat = rustix::fs::fstat(&self.fd)
            .map_err(|errno| self.failed("read the metadata of", Path::new(""))(errno.into()))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// The directory above it, if it is `id`.
    fn above(&self, id: (u64, u64)) -> Result<Self, IoError> {
        let failed = |source| self.failed("open", Path::new(".."))(source);
        let fd =
            openat(&self.fd, "..", HANDLE.union(OFlags::DIRECTORY), Mode::empty()).map_err(|e| failed(e.into()))?;
        let above = Self { fd, shown: PathBuf::new() };
        let moved = || io::Error::other("it was moved while it was removed");
        if above.id()? == id { Ok(above) } else { Err(failed(moved())) }
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
