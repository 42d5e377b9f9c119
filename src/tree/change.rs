//! Changes to a tree: nothing is written through a link, and no file is overwritten in place.

use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, mkdirat, mknodat, openat, renameat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::{HANDLE, TreeDir, of_handle, present};
use crate::error::IoError;

/// A new file, never one that is there: not even a link of that name.
const NEW: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A file that is there, or a new one: no link, and nothing that is waited for.
const OWN: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

impl TreeDir {
    /// Creates a directory, mode 0755 without the umask's bits.
    pub fn create_dir(&self, path: impl AsRef<Path>) -> Result<(), IoError> {
        let path = path.as_ref();
        let make = |parent: &OwnedFd, name: &Path| Ok(mkdirat(parent, name, Mode::from_raw_mode(0o755))?);
        self.in_parent(path, make).map_err(self.failed("create", path))
    }

    /// Creates the directories of `path` that do not exist, and opens the last one. Anything else in the way, links too, is
    /// an error.
    pub fn create_dirs(&self, path: impl AsRef<Path>) -> Result<Self, IoError> {
        let path = path.as_ref();
        for ancestor in path.ancestors().collect::<Vec<_>>().into_iter().rev().filter(|path| *path != Path::new("")) {
            let make = |parent: &OwnedFd, name: &Path| match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno.into()),
            };
            self.in_parent(ancestor, make).map_err(self.failed("create", ancestor))?;
        }
        self.dir(path)?.ok_or_else(|| self.failed("create", path)(not_a_directory()))
    }

    /// Creates an empty file and opens it for writing.
    pub fn create_file(&self, path: impl AsRef<Path>, mode: u32) -> Result<File, IoError> {
        let path = path.as_ref();
        let make =
            |parent: &OwnedFd, name: &Path| Ok(File::from(openat(parent, name, NEW, Mode::from_raw_mode(mode))?));
        self.in_parent(path, make).map_err(self.failed("create", path))
    }

    /// Opens the regular file at `path` for reading and writing, and creates it if there is nothing: for locks, and records that
    /// are written in place.
    pub fn open_or_create(&self, path: impl AsRef<Path>, mode: u32) -> Result<File, IoError> {
        let path = path.as_ref();
        let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        let open = |parent: &OwnedFd, name: &Path| match openat(parent, name, OWN, Mode::from_raw_mode(mode)) {
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => Err(not_regular()),
            opened => Ok(File::from(opened?)),
        };
        let open = || {
            let file = self.in_parent(path, open)?;
            if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
        };
        open().map_err(self.failed("open", path))
    }

    /// Creates a file with these bytes.
    pub fn write_new(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), IoError> {
        let path = path.as_ref();
        self.create_file(path, mode)?.write_all(bytes).map_err(self.failed("write", path))
    }

    /// Replaces whatever is at `path`, except a directory, by a file with these bytes and this mode: under another name first,
    /// which nobody can foresee. Other hard links of a file keep the old bytes.
    pub fn replace(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), IoError> {
        self.replace_with(path.as_ref(), 0o600, |file| {
            file.write_all(bytes)?;
            Ok(rustix::fs::fchmod(&*file, Mode::from_raw_mode(mode))?)
        })
    }

    /// As [`TreeDir::replace`], by a file that `write` fills. Its mode is without the umask's bits. After an error nothing has
    /// changed.
    pub(super) fn replace_with(
        &self,
        path: &Path,
        mode: u32,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), IoError> {
        let replace = |parent: &OwnedFd, name: &Path| {
            let new = new_name();
            let mut file = File::from(openat(parent, &*new, NEW, Mode::from_raw_mode(mode))?);
            let written = write(&mut file).and_then(|()| Ok(renameat(parent, &*new, parent, name)?));
            if written.is_err() {
                let _ = unlinkat(parent, &*new, AtFlags::empty());
            }
            written
        };
        self.in_parent(path, replace).map_err(self.failed("write", path))
    }

    /// Writes to a FIFO or a device, which waits for who reads it.
    pub(super) fn write_in_place(
        &self,
        path: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), IoError> {
        let open = |parent: &OwnedFd, name: &Path| {
            let flags = OFlags::WRONLY.union(OFlags::NOFOLLOW).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
            write(&mut File::from(openat(parent, name, flags, Mode::empty())?))
        };
        self.in_parent(path, open).map_err(self.failed("write", path))
    }

    /// Checks that files can be made in this directory. Nothing is left of the check.
    pub(super) fn check_writable(&self) -> Result<(), IoError> {
        let new = new_name();
        let check = || -> io::Result<()> {
            openat(&self.fd, &*new, NEW, Mode::from_raw_mode(0o600))?;
            Ok(unlinkat(&self.fd, &*new, AtFlags::empty())?)
        };
        check().map_err(self.failed("write in", Path::new("")))
    }

    /// Creates a file with the bytes of `from` and this mode.
    pub fn copy_file(&self, from: &mut File, path: impl AsRef<Path>, mode: u32) -> Result<(), IoError> {
        let path = path.as_ref();
        let mut to = self.create_file(path, 0o600)?;
        let mut copy = || {
            io::copy(from, &mut to)?;
            Ok(rustix::fs::fchmod(&to, Mode::from_raw_mode(mode))?)
        };
        copy().map_err(self.failed("write", path))
    }

    /// Creates a symbolic link that points to `target`.
    pub fn create_symlink(&self, path: impl AsRef<Path>, target: &OsStr) -> Result<(), IoError> {
        let path = path.as_ref();
        let make = |parent: &OwnedFd, name: &Path| Ok(symlinkat(target, parent, name)?);
        self.in_parent(path, make).map_err(self.failed("create the link", path))
    }

    /// Creates a FIFO.
    pub fn create_fifo(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), IoError> {
        let path = path.as_ref();
        let make = |parent: &OwnedFd, name: &Path| {
            Ok(mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(mode & 0o7777), 0)?)
        };
        self.in_parent(path, make).map_err(self.failed("create the FIFO", path))
    }

    /// Creates a whiteout of overlayfs.
    pub fn create_whiteout(&self, path: impl AsRef<Path>) -> Result<(), IoError> {
        let path = path.as_ref();
        let make =
            |parent: &OwnedFd, name: &Path| Ok(mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)?);
        self.in_parent(path, make).map_err(self.failed("create the whiteout", path))
    }

    /// Sets the mode of the entry at `path`, which must not be a link.
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), IoError> {
        let path = path.as_ref();
        let set = || -> io::Result<()> {
            let handle = self.open_at(path, HANDLE)?.ok_or_else(not_there)?;
            // Through the descriptor's own name: fchmod(2) refuses such a descriptor, fchmodat(2) follows links.
            Ok(rustix::fs::chmod(of_handle(&handle), Mode::from_raw_mode(mode))?)
        };
        set().map_err(self.failed("set the mode of", path))
    }

    /// Removes an extended attribute of the entry at `path`. It is no error if there is none.
    pub fn remove_xattr(&self, path: impl AsRef<Path>, name: &str) -> Result<(), IoError> {
        let path = path.as_ref();
        let remove = || -> io::Result<()> {
            let Some(handle) = self.open_at(path, HANDLE)? else { return Ok(()) };
            match rustix::fs::removexattr(of_handle(&handle), name) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        };
        remove().map_err(self.failed("remove an extended attribute of", path))
    }

    /// Sets the times of access and modification, in seconds and nanoseconds since 1970; of a link itself.
    pub fn set_times(&self, path: impl AsRef<Path>, mtime: (i64, i64)) -> Result<(), IoError> {
        let path = path.as_ref();
        let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1 };
        let times = Timestamps { last_access: time, last_modification: time };
        let set = |parent: &OwnedFd, name: &Path| Ok(utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?);
        self.in_parent(path, set).map_err(self.failed("set the time of", path))
    }

    /// Sets the owner; of a link itself.
    pub fn set_owner(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> Result<(), IoError> {
        let path = path.as_ref();
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let set = |parent: &OwnedFd, name: &Path| Ok(chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?);
        self.in_parent(path, set).map_err(self.failed("change the owner of", path))
    }

    /// Moves the entry at `path` to `to_path` in the tree `to` of the same file system. What is there is replaced.
    pub fn rename(&self, path: impl AsRef<Path>, to: &Self, to_path: impl AsRef<Path>) -> Result<(), IoError> {
        let (path, to_path) = (path.as_ref(), to_path.as_ref());
        let rename = |parent: &OwnedFd, name: &Path| {
            to.in_parent(to_path, |to_parent, to_name| Ok(renameat(parent, name, to_parent, to_name)?))
        };
        self.in_parent(path, rename).map_err(self.failed("move", path))
    }

    /// Removes the entry at `path`, which is not a directory. It is no error if there is none.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<(), IoError> {
        let path = path.as_ref();
        let remove = |parent: &OwnedFd, name: &Path| present(unlinkat(parent, name, AtFlags::empty()));
        self.in_parent(path, remove).map(|_| ()).map_err(self.failed("remove", path))
    }

    /// Does something in the directory above the entry at `path`, which must exist.
    pub(super) fn in_parent<T>(
        &self,
        path: &Path,
        act: impl FnOnce(&OwnedFd, &Path) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.parent_of(path)? {
            Some((parent, name)) => act(parent.as_ref().unwrap_or(&self.fd), name),
            None => Err(not_a_directory()),
        }
    }
}

/// A name that nobody can foresee.
fn new_name() -> String {
    format!(".phial-{:016x}", RandomState::new().build_hasher().finish())
}

fn not_a_directory() -> io::Error {
    Errno::NOTDIR.into()
}

fn not_there() -> io::Error {
    Errno::NOENT.into()
}
