//! The only access to a directory tree that a step wrote, an image brought or a commit holds.
//!
//! Nothing in such a tree is trusted: any name in it can be a symbolic link to a file of the host, a FIFO, a device or 4 GiB
//! of zeros. [`TreeDir`] is a descriptor of a directory. It reaches what is below that directory by openat2(2) with
//! `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_MAGICLINKS`, never waits for a FIFO, reads regular files only, and
//! reads no more than the caller's limit. It gives out no path that another function could open: the paths in its errors are
//! for messages. `tests/architecture` holds that no other module opens files of a tree by path.
//!
//! A path that leads through a link, or to something else than what is asked for, is taken as absent: `None`.

mod accessible;
mod change;
mod output;
mod remove;
mod root;
mod stat;
mod walk;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, openat2, readlinkat, statat};
use rustix::io::Errno;

pub use output::{OutputError, OutputPath, create_dirs_unlinked, put_file};
pub use remove::remove_tree;
pub use root::TreeRoot;
pub use stat::{EntryStat, FileKind};
pub use walk::{Enter, WalkEntry};

use crate::error::IoError;

/// The most entries of one directory.
const MAX_NAMES: usize = 1_000_000;
const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Without `NONBLOCK`, opening a FIFO waits for a writer.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A directory of a tree that is not trusted. Paths given to its methods are relative to it; `.` is the directory itself.
#[derive(Debug)]
pub struct TreeDir {
    fd: OwnedFd,
    /// Where it is, for messages.
    shown: PathBuf,
}

impl TreeDir {
    /// Opens the directory that holds a tree. `path` is a path of the caller's own, of which the last component must not be
    /// a link.
    pub fn open(path: &Path) -> Result<Self, IoError> {
        let fd = rustix::fs::open(path, DIR, Mode::empty()).map_err(|e| IoError::at("open", path)(e.into()))?;
        Ok(Self { fd, shown: path.to_owned() })
    }

    /// The directory at `path`.
    pub fn dir(&self, path: impl AsRef<Path>) -> Result<Option<Self>, IoError> {
        let path = path.as_ref();
        let fd = self.open_at(path, DIR).map_err(self.failed("open", path))?;
        Ok(fd.map(|fd| Self { fd, shown: self.shown(path) }))
    }

    /// The regular file at `path`, open for reading.
    pub fn file(&self, path: impl AsRef<Path>) -> Result<Option<File>, IoError> {
        let path = path.as_ref();
        let open = || -> io::Result<Option<File>> {
            let Some(file) = self.open_at(path, FILE)?.map(File::from) else { return Ok(None) };
            Ok(file.metadata()?.is_file().then_some(file))
        };
        open().map_err(self.failed("open", path))
    }

    /// The bytes of the regular file at `path`. One of more than `limit` bytes is an error of the kind `FileTooLarge`.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> Result<Option<Vec<u8>>, IoError> {
        let path = path.as_ref();
        let Some(file) = self.file(path)? else { return Ok(None) };
        read_all(&file, limit).map(Some).map_err(self.failed("read", path))
    }

    /// As [`TreeDir::read`], as text: `None` too if it is not UTF-8.
    pub fn read_text(&self, path: impl AsRef<Path>, limit: u64) -> Result<Option<String>, IoError> {
        Ok(self.read(path, limit)?.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// What is at `path`: a link is not followed.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Option<EntryStat>, IoError> {
        let path = path.as_ref();
        let stat = || -> io::Result<Option<EntryStat>> {
            let Some((parent, name)) = self.parent_of(path)? else { return Ok(None) };
            present(statat(parent.as_ref().unwrap_or(&self.fd), name, AtFlags::SYMLINK_NOFOLLOW).map(EntryStat::new))
        };
        stat().map_err(self.failed("read the metadata of", path))
    }

    /// Where the link at `path` points to; `None` if it is no link.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<Option<OsString>, IoError> {
        let path = path.as_ref();
        let read = || -> io::Result<Option<OsString>> {
            let Some((parent, name)) = self.parent_of(path)? else { return Ok(None) };
            match readlinkat(parent.as_ref().unwrap_or(&self.fd), name, Vec::new()) {
                Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()))),
                Err(Errno::INVAL | Errno::NOENT) => Ok(None),
                Err(errno) => Err(errno.into()),
            }
        };
        read().map_err(self.failed("read the link", path))
    }

    /// The names in this directory, sorted by their bytes.
    pub fn names(&self) -> Result<Vec<OsString>, IoError> {
        let list = || -> io::Result<Vec<OsString>> {
            let mut names = Vec::new();
            for entry in Dir::read_from(&self.fd)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if !matches!(name, b"." | b"..") {
                    names.push(OsStr::from_bytes(name).to_owned());
                }
                if names.len() > MAX_NAMES {
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1,000,000 entries"));
                }
            }
            names.sort();
            Ok(names)
        };
        list().map_err(self.failed("list", Path::new("")))
    }

    /// The names in this directory, sorted, and what each is. One that disappears meanwhile is left out.
    pub fn entries(&self) -> Result<Vec<(OsString, EntryStat)>, IoError> {
        let mut entries = Vec::new();
        for name in self.names()? {
            if let Some(stat) = self.stat(&name)? {
                entries.push((name, stat));
            }
        }
        Ok(entries)
    }

    /// The value of an extended attribute of the entry at `path`; `None` if it has none. An entry that its owner may not read
    /// is readable meanwhile: the kernel wants that for an attribute of `user.*`.
    pub fn xattr(&self, path: impl AsRef<Path>, name: &str) -> Result<Option<Vec<u8>>, IoError> {
        let path = path.as_ref();
        let first = self.xattr_if_readable(path, name);
        if !first.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return first.map_err(self.failed("read the extended attributes of", path));
        }
        let is_closed =
            |stat: &EntryStat| stat.mode() & 0o400 == 0 && matches!(stat.kind(), FileKind::Dir | FileKind::File);
        let stat = self.stat(path)?.filter(is_closed);
        if let Some(stat) = &stat {
            self.set_mode(path, stat.mode() | 0o400)?;
        }
        let second = self.xattr_if_readable(path, name);
        if let Some(stat) = &stat {
            self.set_mode(path, stat.mode())?;
        }
        second.map_err(self.failed("read the extended attributes of", path))
    }

    fn xattr_if_readable(&self, path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(handle) = self.open_at(path, HANDLE)? else { return Ok(None) };
        let at = of_handle(&handle);
        let read = || {
            // Most entries have none: that is asked first, and takes no memory.
            let mut value = vec![0; rustix::fs::getxattr_query(&at, name)?];
            let length = rustix::fs::getxattr(&at, name, &mut value[..])?;
            value.truncate(length);
            Ok(value)
        };
        match read() {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS | Errno::RANGE) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The names of the extended attributes of the entry at `path`.
    pub fn xattr_names(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>, IoError> {
        let path = path.as_ref();
        let read = || -> io::Result<Vec<OsString>> {
            let Some(handle) = self.open_at(path, HANDLE)? else { return Ok(vec![]) };
            let at = of_handle(&handle);
            let list = || -> rustix::io::Result<Vec<u8>> {
                let mut names = vec![0_u8; rustix::fs::listxattr_query(&at)?];
                let length = rustix::fs::listxattr(&at, &mut names[..])?;
                names.truncate(length);
                Ok(names)
            };
            let names = match list() {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => vec![],
                other => other?,
            };
            let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
            Ok(names.map(|name| OsStr::from_bytes(name).to_owned()).collect())
        };
        read().map_err(self.failed("read the extended attributes of", path))
    }

    /// Opens `path`; `None` if there is nothing of that kind, or a link is in the way.
    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<Option<OwnedFd>> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        present(openat2(self.fd.as_fd(), path, flags, Mode::empty(), BENEATH))
    }

    /// The directory above the entry at `path`, `None` in it for this directory itself, and the entry's name in it.
    fn parent_of<'p>(&self, path: &'p Path) -> io::Result<Option<(Option<OwnedFd>, &'p Path)>> {
        let Some(name) = path.file_name() else { return Ok(Some((None, Path::new(".")))) };
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            None => Ok(Some((None, Path::new(name)))),
            // Its names need not be listed, so a directory that may only be entered is enough.
            Some(parent) => {
                let parent = self.open_at(parent, HANDLE.union(OFlags::DIRECTORY))?;
                Ok(parent.map(|parent| (Some(parent), Path::new(name))))
            }
        }
    }

    /// A path in it, for messages.
    fn shown(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.shown.clone() } else { self.shown.join(path) }
    }

    fn failed<'a>(&'a self, action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> IoError + use<'a> {
        move |source| IoError::at(action, &self.shown(path))(source)
    }
}

/// All of a file that is open, up to `limit` bytes.
fn read_all(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes"));
    if file.metadata()?.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
}

/// The entry that a handle holds, for calls that take no such descriptor: not a path in a tree, but the inode itself.
fn of_handle(handle: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// `None` for what is not there, and for what is something else.
fn present<T>(result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
