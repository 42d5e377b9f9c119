//! Adds one entry after the other to a tree, by the rules of image-spec `layer.md` ("Applying Changesets"), in the form that
//! overlayfs takes as a lower directory.
//!
//! The tree starts empty, so a file that already has an entry's name comes from the same layer: the last entry wins, and a
//! whiteout, which concerns the layers below, never hides it. A directory that also has a whiteout is opaque.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{UnpackError, Violation};
use super::file_writers::{FileJob, FileWriters, MAX_BUFFERED, set_mode_and_mtime, timestamps};
use super::header::TarEntry;
use super::list::EntryKind;
use super::resolver::{Dir, IfMissing, ResolveError, Resolver, is_whiteout, open_dir, set_opaque};
use super::stream::TarStream;
use crate::entry_path::{MAX_PATH, components, file_name, parent};
use crate::{EntryMetadata, EntryPath, Metadata, whiteout};

const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The prefix of AUFS's own files in old layers. They are ignored, but for the opaque marker.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// The mode of a FIFO on disk. It cannot be changed later: `chmod` by name would follow a symlink that replaced it.
const FIFO_MODE: u32 = 0o600;

/// A tree that is being unpacked.
pub(super) struct TreeBuilder<'a> {
    dirs: Resolver,
    writers: &'a FileWriters<'a>,
    metadata: Metadata,
    /// The number of devices that were not created.
    pub(super) skipped_devices: u64,
}

/// A name in an open directory.
struct EntryLocation<'a> {
    dir: Rc<Dir>,
    name: &'a [u8],
}

impl EntryLocation<'_> {
    fn os_name(&self) -> &OsStr {
        OsStr::from_bytes(self.name)
    }

    /// The path without symlinks.
    fn real_path(&self) -> Vec<u8> {
        self.dir.join(self.name)
    }
}

impl<'a> TreeBuilder<'a> {
    pub(super) fn new(root: &Path, writers: &'a FileWriters<'a>) -> Result<Self, UnpackError> {
        Ok(Self { dirs: Resolver::new(root)?, writers, metadata: Metadata::default(), skipped_devices: 0 })
    }

    /// Adds `entry`, whose body is read from `stream`.
    pub(super) fn add(&mut self, entry: &TarEntry, stream: &mut TarStream) -> Result<(), UnpackError> {
        let parts = checked_components(&entry.name).map_err(|rule| UnpackError::entry(rule, &entry.name))?;
        let size = entry.stored + entry.padding;
        let Some((name, above)) = parts.split_last() else {
            self.root(entry)?;
            return stream.skip(size);
        };
        if above.iter().any(|part| part.starts_with(AUFS_PREFIX)) {
            return stream.skip(size);
        }
        if above.iter().any(|part| part.starts_with(whiteout::PREFIX)) {
            return Err(UnpackError::entry(Violation::WhiteoutName, &entry.name));
        }
        let above = above.join(&b'/');
        if name.starts_with(whiteout::PREFIX) {
            self.whiteout(entry, &above, name)?;
            return stream.skip(size);
        }
        if let EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } = entry.kind {
            self.skipped_devices += 1;
            return Ok(());
        }
        let dir = self.dirs.dir(&above, IfMissing::Create).map_err(|error| error.at(&entry.name))?;
        let at = EntryLocation { dir, name };
        match entry.kind {
            EntryKind::Directory => self.directory(entry, &at),
            EntryKind::Symlink => self.symlink(entry, &at),
            EntryKind::Hardlink => self.hardlink(entry, &at),
            EntryKind::Fifo => self.fifo(entry, &at),
            _ => self.file(entry, &at, stream),
        }
    }

    /// Sets the times of all directories; returns what the tree on disk does not hold.
    pub(super) fn finish(mut self) -> Result<Metadata, UnpackError> {
        for (path, mtime) in std::mem::take(&mut self.dirs.mtimes) {
            let path = path.as_bytes();
            let set = if path.is_empty() {
                rustix::fs::futimens(&self.dirs.root().fd, &timestamps(mtime)).map_err(ResolveError::from)
            } else {
                self.dirs.real_dir(parent(path)).and_then(|dir| {
                    let at = EntryLocation { dir, name: file_name(path) };
                    Ok(set_mtime(&at, mtime)?)
                })
            };
            set.map_err(|error| error.at(path))?;
        }
        Ok(self.metadata)
    }

    fn root(&mut self, entry: &TarEntry) -> Result<(), UnpackError> {
        if entry.kind != EntryKind::Directory || entry.name.is_empty() {
            return Err(UnpackError::entry(Violation::RootReplaced, &entry.name));
        }
        let mode = dir_mode(entry.mode);
        let root = self.dirs.root();
        rustix::fs::fchmod(&root.fd, Mode::from_raw_mode(mode)).map_err(|e| UnpackError::write(&entry.name, e))?;
        self.dirs.mtimes.insert(EntryPath::new(b""), entry.mtime);
        self.record(b"", entry, Some(mode));
        Ok(())
    }

    fn whiteout(&mut self, entry: &TarEntry, above: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        if name.starts_with(AUFS_PREFIX) && name != whiteout::OPAQUE_MARKER {
            return Ok(());
        }
        let hidden = &name[whiteout::PREFIX.len()..];
        if matches!(hidden, b"" | b"." | b"..") || entry.kind == EntryKind::Directory {
            return Err(UnpackError::entry(Violation::WhiteoutName, &entry.name));
        }
        let failed = |e: Errno| UnpackError::write(&entry.name, e);
        let dir = self.dirs.dir(above, IfMissing::Create).map_err(|error| error.at(&entry.name))?;
        if name == whiteout::OPAQUE_MARKER {
            return set_opaque(&dir.fd).map_err(failed);
        }
        let (name, mode) = (OsStr::from_bytes(hidden), Mode::empty());
        match rustix::fs::mknodat(&dir.fd, name, FileType::CharacterDevice, mode, rustix::fs::makedev(0, 0)) {
            Err(Errno::EXIST) => match open_dir(&dir, name).map_err(failed)? {
                Some(fd) => set_opaque(&fd).map_err(failed),
                None => Ok(()),
            },
            made => made.map_err(failed),
        }
    }

    fn directory(&mut self, entry: &TarEntry, at: &EntryLocation<'_>) -> Result<(), UnpackError> {
        let failed = |e: Errno| UnpackError::write(&entry.name, e);
        let private = Mode::from_raw_mode(0o700);
        let mut opaque = false;
        if let Err(error) = rustix::fs::mkdirat(&at.dir.fd, at.os_name(), private) {
            if error != Errno::EXIST {
                return Err(failed(error));
            }
            if open_dir(&at.dir, at.os_name()).map_err(failed)?.is_none() {
                opaque = is_whiteout(&at.dir, at.os_name()).map_err(failed)?;
                self.remove(entry, at)?;
                rustix::fs::mkdirat(&at.dir.fd, at.os_name(), private).map_err(failed)?;
            }
        }
        let path = at.real_path();
        let dir = self.dirs.real_dir(&path).map_err(|error| error.at(&entry.name))?;
        let mode = dir_mode(entry.mode);
        rustix::fs::fchmod(&dir.fd, Mode::from_raw_mode(mode)).map_err(failed)?;
        if opaque {
            set_opaque(&dir.fd).map_err(failed)?;
        }
        self.record(&path, entry, Some(mode));
        self.dirs.mtimes.insert(EntryPath::new(&path), entry.mtime);
        Ok(())
    }

    fn symlink(&mut self, entry: &TarEntry, at: &EntryLocation<'_>) -> Result<(), UnpackError> {
        let target = match entry.link.len() {
            0 => return Err(UnpackError::entry(Violation::SymlinkTarget, &entry.name)),
            n if n > MAX_PATH => return Err(UnpackError::entry(Violation::NameTooLong, &entry.name)),
            _ => OsStr::from_bytes(&entry.link),
        };
        self.create(entry, at, || rustix::fs::symlinkat(target, &at.dir.fd, at.os_name()))?;
        set_mtime(at, entry.mtime).map_err(|e| UnpackError::write(&entry.name, e))?;
        self.record(&at.real_path(), entry, None);
        Ok(())
    }

    fn fifo(&mut self, entry: &TarEntry, at: &EntryLocation<'_>) -> Result<(), UnpackError> {
        let mode = Mode::from_raw_mode(FIFO_MODE);
        self.create(entry, at, || rustix::fs::mknodat(&at.dir.fd, at.os_name(), FileType::Fifo, mode, 0))?;
        set_mtime(at, entry.mtime).map_err(|e| UnpackError::write(&entry.name, e))?;
        self.record(&at.real_path(), entry, Some(FIFO_MODE));
        Ok(())
    }

    fn hardlink(&mut self, entry: &TarEntry, at: &EntryLocation<'_>) -> Result<(), UnpackError> {
        let refused = || UnpackError::entry(Violation::HardlinkTarget, &entry.name);
        let failed = |e: Errno| if e == Errno::NOENT { refused() } else { UnpackError::write(&entry.name, e) };
        let target = checked_components(&entry.link).map_err(|_| refused())?;
        let (name, above) = target.split_last().ok_or_else(refused)?;
        let dir = self.dirs.dir(&above.join(&b'/'), IfMissing::Fail).map_err(|error| match error {
            ResolveError::System(Errno::NOENT | Errno::NOTDIR) | ResolveError::Violation(_) => refused(),
            ResolveError::System(other) => failed(other),
        })?;
        let first = EntryLocation { dir, name };
        let stat = rustix::fs::statat(&first.dir.fd, first.os_name(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if matches!(FileType::from_raw_mode(stat.st_mode), FileType::Directory | FileType::CharacterDevice) {
            return Err(refused());
        }
        let (first_path, path) = (first.real_path(), at.real_path());
        if first_path == path {
            return Ok(());
        }
        let link = || rustix::fs::linkat(&first.dir.fd, first.os_name(), &at.dir.fd, at.os_name(), AtFlags::empty());
        let linked = match link() {
            Err(Errno::EXIST) => {
                self.remove(entry, at)?;
                link()
            }
            other => other,
        };
        match linked {
            Err(Errno::MLINK) => {
                self.writers.wait()?;
                copy_file(&first, at).map_err(|e| UnpackError::write(&entry.name, e))?;
            }
            other => other.map_err(failed)?,
        }
        if let Some(metadata) = self.metadata.0.get(&EntryPath::new(&first_path)).cloned() {
            self.metadata.0.insert(EntryPath::new(&path), metadata);
        }
        Ok(())
    }

    fn file(&mut self, entry: &TarEntry, at: &EntryLocation<'_>, stream: &mut TarStream) -> Result<(), UnpackError> {
        let create = || rustix::fs::openat(&at.dir.fd, at.os_name(), CREATE, Mode::from_raw_mode(0o600));
        let mut file = File::from(self.create(entry, at, create)?);
        let mode = entry.mode & 0o777 | 0o600;
        self.record(&at.real_path(), entry, Some(mode));
        let (stored, mtime) = (entry.stored, entry.mtime);
        if stored <= MAX_BUFFERED && entry.sparse.is_none() {
            let data = stream.read(usize::try_from(stored).unwrap_or(0))?;
            self.writers.submit(FileJob { file, data, mode, mtime, entry: entry.name.clone() })?;
            return stream.skip(entry.padding);
        }
        let failed = |e| UnpackError::write(&entry.name, e);
        if let Some(sparse) = &entry.sparse {
            stream.charge(sparse.size)?;
            for segment in &sparse.segments {
                file.seek(SeekFrom::Start(segment.offset)).map_err(failed)?;
                stream.copy(segment.length, |chunk| file.write_all(chunk).map_err(failed))?;
            }
            file.set_len(sparse.size).map_err(failed)?;
        } else {
            stream.copy(stored, |chunk| file.write_all(chunk).map_err(failed))?;
        }
        set_mode_and_mtime(&file, mode, mtime).map_err(failed)?;
        stream.skip(entry.padding)
    }

    /// Runs `create`; if its name is taken, removes what has it and runs `create` again.
    fn create<T>(
        &mut self,
        entry: &TarEntry,
        at: &EntryLocation<'_>,
        create: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        let result = match create() {
            Err(Errno::EXIST) => {
                self.remove(entry, at)?;
                create()
            }
            other => other,
        };
        result.map_err(|e| ResolveError::from(e).at(&entry.name))
    }

    /// Removes a file or directory with everything below it, and its metadata.
    fn remove(&mut self, entry: &TarEntry, at: &EntryLocation<'_>) -> Result<(), UnpackError> {
        let path = at.real_path();
        self.dirs.remove_tree(&at.dir, &path).map_err(|error| error.at(&entry.name))?;
        self.metadata.remove_tree(&EntryPath::new(&path));
        Ok(())
    }

    /// Records what the disk does not hold of `entry`, whose mode on disk is `mode_on_disk` (none for a symlink).
    fn record(&mut self, path: &[u8], entry: &TarEntry, mode_on_disk: Option<u32>) {
        let metadata = EntryMetadata {
            uid: entry.uid,
            gid: entry.gid,
            mode: mode_on_disk.filter(|mode| *mode != entry.mode).map(|_| entry.mode),
            xattrs: entry.xattrs.clone(),
        };
        if metadata != EntryMetadata::default() {
            self.metadata.0.insert(EntryPath::new(path), metadata);
        } else if entry.kind == EntryKind::Directory {
            self.metadata.0.remove(&EntryPath::new(path));
        }
    }
}

/// The components of an entry's name. An absolute name starts at the root of the tree.
fn checked_components(name: &[u8]) -> Result<Vec<&[u8]>, Violation> {
    let parts: Vec<&[u8]> = components(name).collect();
    if parts.contains(&&b".."[..]) {
        return Err(Violation::EntryPath);
    }
    let length = parts.iter().map(|part| part.len() + 1).sum::<usize>();
    if length > MAX_PATH + 1 || parts.iter().any(|part| part.len() > 255) {
        return Err(Violation::NameTooLong);
    }
    Ok(parts)
}

/// Copies a file that has as many links as the file system allows (ext4: 65,000).
fn copy_file(from: &EntryLocation<'_>, to: &EntryLocation<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut old = File::from(rustix::fs::openat(&from.dir.fd, from.os_name(), flags, Mode::empty())?);
    let mut new = File::from(rustix::fs::openat(&to.dir.fd, to.os_name(), CREATE, Mode::from_raw_mode(0o600))?);
    io::copy(&mut old, &mut new)?;
    let stat = rustix::fs::fstat(&old)?;
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    set_mode_and_mtime(&new, stat.st_mode & 0o7777, (stat.st_mtime, nanos))
}

fn set_mtime(at: &EntryLocation<'_>, mtime: (i64, u32)) -> Result<(), Errno> {
    rustix::fs::utimensat(&at.dir.fd, at.os_name(), &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// The mode of a directory on disk: the caller can always enter it; setuid and setgid are dropped.
fn dir_mode(mode: u32) -> u32 {
    mode & 0o1777 | 0o700
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_to_the_byte() {
        assert_eq!(checked_components(b"/a//./b/"), Ok(vec![&b"a"[..], b"b"]));
        assert_eq!(checked_components(b"./"), Ok(vec![]));
        assert_eq!(checked_components(b"a/../b"), Err(Violation::EntryPath));
        assert_eq!(checked_components(b"..a/b.."), Ok(vec![&b"..a"[..], b"b.."]));
        let named = |lengths: &[usize]| lengths.iter().map(|n| vec![b'n'; *n]).collect::<Vec<_>>().join(&b'/');
        assert!(checked_components(&named(&[255])).is_ok());
        assert_eq!(checked_components(&named(&[256])), Err(Violation::NameTooLong));
        assert!(checked_components(&named(&[255; 16])).is_ok(), "4095 bytes");
        assert_eq!(checked_components(&named(&[&[254; 16][..], &[16]].concat())), Err(Violation::NameTooLong));
    }

    #[test]
    fn a_directory_on_disk_can_be_entered_and_is_not_setuid() {
        for (mode, expected) in [(0, 0o700), (0o755, 0o755), (0o7777, 0o1777), (0o6055, 0o755)] {
            assert_eq!(dir_mode(mode), expected, "{mode:o}");
        }
    }
}
