//! Writes the files of a commit: with the same bytes, modes and times whatever the umask and git's configuration.
//!
//! libgit2's checkout is not used, because it applies filters, line-end conversion, `ident` and hooks of whoever calls it: here
//! a file has the bytes of its blob, in the encoding that the commit's attributes give it.

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use git2::Oid;
use rustix::fs::{AtFlags, CWD, Mode as Bits, OFlags, Timespec, Timestamps};

use super::error::SourceError;
use super::fetched::Fetched;
use super::filter::Filter;
use super::lfs_files;
use super::tree::{CommitEntry, EntryMode};
use crate::error::IoError;

/// A directory, open while its entries are written.
struct CheckoutDir {
    fd: OwnedFd,
    name: Vec<u8>,
}

struct Writer<'a> {
    dest: &'a Path,
    /// From the root down to the directory being written.
    open: Vec<CheckoutDir>,
    times: Timestamps,
}

/// Writes the files of the commit below `dest`, which must be empty and is created if it does not exist. Modes are 0644
/// or 0755 for files and 0755 for directories; the modification time of all entries, symbolic links and `dest` is
/// `mtime` (seconds since 1970).
///
/// Every entry is created in a directory that was created here and is open, so no symbolic link is followed. Submodules
/// that are not fetched become empty directories. After an error the caller has to remove what was written.
pub fn checkout(fetched: &Fetched, dest: &Path, mtime: i64) -> Result<(), SourceError> {
    checkout_only(fetched, &|_| true, dest, mtime)
}

/// As [`checkout`], of the entries that `is_wanted` accepts.
pub fn checkout_only(
    fetched: &Fetched,
    is_wanted: &dyn Fn(&CommitEntry) -> bool,
    dest: &Path,
    mtime: i64,
) -> Result<(), SourceError> {
    let entries: Vec<CommitEntry> = super::list(fetched)?.into_iter().filter(is_wanted).collect();
    write_all(fetched, &entries, dest, mtime)
}

fn write_all(fetched: &Fetched, entries: &[CommitEntry], dest: &Path, mtime: i64) -> Result<(), SourceError> {
    let mut writer = Writer::new(dest, mtime)?;
    for entry in entries {
        with_content(fetched, entry, |bytes| writer.write(entry, bytes))?;
    }
    writer.leave(0)
}

/// Calls `use_bytes` with the content of an entry's file.
fn with_content(
    fetched: &Fetched,
    entry: &CommitEntry,
    use_bytes: impl FnOnce(&[u8]) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    if entry.mode == EntryMode::Submodule {
        return use_bytes(&[]);
    }
    let name = entry.name.as_bytes();
    let fetched = fetched.holder(name).0;
    let unreadable = |source| fetched.git_dir.unreadable(format!("`{:?}`", entry.name), source);
    let id = Oid::from_str(&entry.id).map_err(unreadable)?;
    let read = fetched.git_dir.with_blob(&fetched.repo(), (id, name), usize::MAX, |bytes| {
        if entry.mode == EntryMode::Symlink && (bytes.is_empty() || bytes.len() > 4095 || bytes.contains(&0)) {
            let why = "its target is empty, too long, or holds NUL";
            return Err(SourceError::Entry { path: name.escape_ascii().to_string(), why });
        }
        let file = match &entry.filter {
            Filter::Lfs => lfs_files::object(fetched, &entry.name, bytes)?,
            filter => filter.file(&entry.name, bytes)?,
        };
        use_bytes(file.as_deref().unwrap_or(bytes))
    });
    fetched.quarantine_if_broken(read)
}

impl<'a> Writer<'a> {
    fn new(dest: &'a Path, mtime: i64) -> Result<Self, SourceError> {
        let failed = |what| move |source| SourceError::from(IoError::at(what, dest)(source));
        match fs::create_dir(dest) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed("create"))?,
        }
        if fs::read_dir(dest).map_err(failed("read"))?.next().is_some() {
            return Err(failed("write into")(std::io::ErrorKind::DirectoryNotEmpty.into()));
        }
        let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(dest, flags, Bits::empty()).map_err(|e| failed("open")(e.into()))?;
        rustix::fs::fchmod(&fd, Bits::from_raw_mode(0o755)).map_err(|e| failed("set the mode of")(e.into()))?;
        Ok(Self { dest, open: vec![CheckoutDir { fd, name: Vec::new() }], times })
    }

    fn write(&mut self, entry: &CommitEntry, bytes: &[u8]) -> Result<(), SourceError> {
        let path = entry.name.as_bytes();
        let (dirs, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        self.enter(dirs)?;
        let written = match entry.mode {
            EntryMode::File => self.file(name, bytes, 0o644),
            EntryMode::Executable => self.file(name, bytes, 0o755),
            EntryMode::Symlink => self.symlink(name, bytes),
            EntryMode::Submodule => return self.enter(path),
        };
        written.map_err(|source| self.failed(path, source))
    }

    /// Makes `path` the innermost open directory. Entries are sorted, so each directory is entered and left once.
    fn enter(&mut self, path: &[u8]) -> Result<(), SourceError> {
        let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !name.is_empty()).collect();
        let common = self.open[1..].iter().zip(&names).take_while(|(dir, name)| dir.name == **name).count();
        self.leave(common + 1)?;
        for name in &names[common..] {
            let fd = self.dir(name).map_err(|source| self.failed(path, source))?;
            self.open.push(CheckoutDir { fd, name: name.to_vec() });
        }
        Ok(())
    }

    /// Closes directories until `depth` are open, and sets the time of each.
    fn leave(&mut self, depth: usize) -> Result<(), SourceError> {
        while self.open.len() > depth {
            if let Some(dir) = self.open.pop() {
                rustix::fs::futimens(&dir.fd, &self.times).map_err(|source| self.failed(&dir.name, source.into()))?;
            }
        }
        Ok(())
    }

    fn current_dir(&self) -> rustix::fd::BorrowedFd<'_> {
        self.open.last().map_or(CWD, |dir| rustix::fd::AsFd::as_fd(&dir.fd))
    }

    fn dir(&self, name: &[u8]) -> std::io::Result<OwnedFd> {
        let mode = Bits::from_raw_mode(0o755);
        rustix::fs::mkdirat(self.current_dir(), name, mode)?;
        rustix::fs::chmodat(self.current_dir(), name, mode, AtFlags::empty())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(self.current_dir(), name, flags, Bits::empty())?)
    }

    fn file(&self, name: &[u8], bytes: &[u8], mode: u32) -> std::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = fs::File::from(rustix::fs::openat(self.current_dir(), name, flags, Bits::from_raw_mode(0o600))?);
        file.write_all(bytes)?;
        rustix::fs::fchmod(&file, Bits::from_raw_mode(mode))?;
        Ok(rustix::fs::futimens(&file, &self.times)?)
    }

    fn symlink(&self, name: &[u8], target: &[u8]) -> std::io::Result<()> {
        rustix::fs::symlinkat(target, self.current_dir(), name)?;
        Ok(rustix::fs::utimensat(self.current_dir(), name, &self.times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn failed(&self, path: &[u8], source: std::io::Error) -> SourceError {
        use std::os::unix::ffi::OsStrExt as _;
        SourceError::from(IoError::at("write", &self.dest.join(std::ffi::OsStr::from_bytes(path)))(source))
    }
}
