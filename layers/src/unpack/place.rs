//! One entry after the other put into the tree: the rules of image-spec `layer.md` ("Applying Changesets"), in the form
//! that overlayfs takes as a lower directory.
//!
//! The root was empty, so whatever stands in an entry's place came from this very layer: the last entry wins, and a
//! whiteout, which is about the layers below, never hides it. A directory that also has a whiteout is opaque.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir as List, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{Rule, UnpackError};
use super::header::{Entry, Kind};
use super::resolve::{Absent, Dir, Fault, Resolver, is_whiteout, parent, set_opaque};
use super::stream::TarStream;
use super::writers::{Job, SMALL, Writers, settle, times};
use crate::pack::OPAQUE_MARKER;
use crate::scan::{LONGEST_PATH, WHITEOUT};
use crate::{EntryMetadata, EntryPath, Metadata};

const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Names that AUFS left in old layers; they are about nothing.
const AUFS: &[u8] = b".wh..wh.";
/// A FIFO's mode on disk: changing it by name would follow a symlink put in its place.
const FIFO_MODE: u32 = 0o600;

/// The tree in the making.
pub(super) struct Tree<'w, 'scope> {
    dirs: Resolver,
    writers: &'w Writers<'scope>,
    records: Metadata,
    /// Devices left out.
    pub(super) skipped: u64,
}

impl<'w, 'scope> Tree<'w, 'scope> {
    pub(super) fn new(root: &Path, writers: &'w Writers<'scope>) -> Result<Self, UnpackError> {
        let (dirs, records) = (Resolver::new(root)?, Metadata::default());
        Ok(Self { dirs, writers, records, skipped: 0 })
    }

    /// Puts `entry` in its place and reads its body from `stream`.
    pub(super) fn put(&mut self, entry: &Entry, stream: &mut TarStream) -> Result<(), UnpackError> {
        let parts = parts(&entry.name).map_err(|rule| UnpackError::entry(rule, &entry.name))?;
        let (stored, padding) = (entry.stored, entry.padding);
        let Some((last, above)) = parts.split_last() else {
            self.root(entry)?;
            return stream.skip(stored + padding);
        };
        if above.iter().any(|part| part.starts_with(AUFS)) {
            return stream.skip(stored + padding);
        }
        if above.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(UnpackError::entry(Rule::WhiteoutName, &entry.name));
        }
        let above = above.join(&b'/');
        if let Some(hidden) = last.strip_prefix(WHITEOUT) {
            self.whiteout(entry, &above, last, hidden)?;
            return stream.skip(stored + padding);
        }
        match entry.kind {
            Kind::Device => self.skipped += 1,
            Kind::Dir => self.directory(entry, &above, last)?,
            Kind::Symlink => self.symlink(entry, &above, last)?,
            Kind::Hardlink => self.hardlink(entry, &above, last)?,
            Kind::Fifo => self.fifo(entry, &above, last)?,
            Kind::File => return self.file(entry, &above, last, stream),
        }
        Ok(())
    }

    /// Sets the times of all directories and returns what the disk does not say.
    pub(super) fn finish(mut self) -> Result<Metadata, UnpackError> {
        for (real, mtime) in std::mem::take(&mut self.dirs.times) {
            let set = if real.is_empty() {
                rustix::fs::futimens(&self.dirs.root().fd, &times(mtime)).map_err(Fault::from)
            } else {
                self.dirs.dir_without_links(parent(&real)).and_then(|dir| Ok(set_time(&dir, base(&real), mtime)?))
            };
            set.map_err(|fault| fault.of(&real))?;
        }
        Ok(self.records)
    }

    fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Dir || entry.name.is_empty() {
            return Err(UnpackError::entry(Rule::RootReplaced, &entry.name));
        }
        let mode = dir_mode(entry.mode);
        let root = self.dirs.root();
        rustix::fs::fchmod(&root.fd, Mode::from_raw_mode(mode)).map_err(|e| UnpackError::write(&entry.name, e))?;
        self.dirs.times.insert(Vec::new(), entry.mtime);
        self.record(b"", entry, Some(mode));
        Ok(())
    }

    fn whiteout(&mut self, entry: &Entry, above: &[u8], last: &[u8], hidden: &[u8]) -> Result<(), UnpackError> {
        if last.starts_with(AUFS) && last != OPAQUE_MARKER {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") || entry.kind == Kind::Dir {
            return Err(UnpackError::entry(Rule::WhiteoutName, &entry.name));
        }
        let failed = |e: Errno| UnpackError::write(&entry.name, e);
        let dir = self.dirs.dir(above, Absent::Make).map_err(|fault| fault.of(&entry.name))?;
        if last == OPAQUE_MARKER {
            return set_opaque(&dir.fd).map_err(failed);
        }
        let name = OsStr::from_bytes(hidden);
        let device = (FileType::CharacterDevice, Mode::empty());
        match rustix::fs::mknodat(&dir.fd, name, device.0, device.1, rustix::fs::makedev(0, 0)) {
            Err(Errno::EXIST) => match open_dir(&dir, name).map_err(failed)? {
                Some(fd) => set_opaque(&fd).map_err(failed),
                None => Ok(()),
            },
            made => made.map_err(failed),
        }
    }

    fn directory(&mut self, entry: &Entry, above: &[u8], last: &[u8]) -> Result<(), UnpackError> {
        let failed = |e: Errno| UnpackError::write(&entry.name, e);
        let dir = self.parent(entry, above)?;
        let name = OsStr::from_bytes(last);
        let mode = Mode::from_raw_mode(0o700);
        let mut opaque = false;
        if let Err(error) = rustix::fs::mkdirat(&dir.fd, name, mode) {
            if error != Errno::EXIST {
                return Err(failed(error));
            }
            if open_dir(&dir, name).map_err(failed)?.is_none() {
                opaque = is_whiteout(&dir, name).map_err(failed)?;
                self.remove(entry, &dir, last)?;
                rustix::fs::mkdirat(&dir.fd, name, mode).map_err(failed)?;
            }
        }
        let real = dir.join(last);
        let opened = self.dirs.dir_without_links(&real).map_err(|fault| fault.of(&entry.name))?;
        let mode = dir_mode(entry.mode);
        rustix::fs::fchmod(&opened.fd, Mode::from_raw_mode(mode)).map_err(failed)?;
        if opaque {
            set_opaque(&opened.fd).map_err(failed)?;
        }
        self.record(&real, entry, Some(mode));
        self.dirs.times.insert(real, entry.mtime);
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry, above: &[u8], last: &[u8]) -> Result<(), UnpackError> {
        let rule = match entry.link.len() {
            0 => Some(Rule::SymlinkTarget),
            n if n > LONGEST_PATH => Some(Rule::NameTooLong),
            _ => None,
        };
        if let Some(rule) = rule {
            return Err(UnpackError::entry(rule, &entry.name));
        }
        let (target, name) = (OsStr::from_bytes(&entry.link), OsStr::from_bytes(last));
        let dir = self.parent(entry, above)?;
        self.make(entry, &dir, last, || rustix::fs::symlinkat(target, &dir.fd, name))?;
        set_time(&dir, last, entry.mtime).map_err(|e| UnpackError::write(&entry.name, e))?;
        self.record(&dir.join(last), entry, None);
        Ok(())
    }

    fn fifo(&mut self, entry: &Entry, above: &[u8], last: &[u8]) -> Result<(), UnpackError> {
        let (name, mode) = (OsStr::from_bytes(last), Mode::from_raw_mode(FIFO_MODE));
        let dir = self.parent(entry, above)?;
        self.make(entry, &dir, last, || rustix::fs::mknodat(&dir.fd, name, FileType::Fifo, mode, 0))?;
        set_time(&dir, last, entry.mtime).map_err(|e| UnpackError::write(&entry.name, e))?;
        self.record(&dir.join(last), entry, Some(FIFO_MODE));
        Ok(())
    }

    fn hardlink(&mut self, entry: &Entry, above: &[u8], last: &[u8]) -> Result<(), UnpackError> {
        let refused = || UnpackError::entry(Rule::HardlinkTarget, &entry.name);
        let failed = |e: Errno| if e == Errno::NOENT { refused() } else { UnpackError::write(&entry.name, e) };
        let target = parts(&entry.link).map_err(|_| refused())?;
        let (old, way) = target.split_last().ok_or_else(refused)?;
        let from = self.dirs.dir(&way.join(&b'/'), Absent::Refuse).map_err(|fault| match fault {
            Fault::System(Errno::NOENT | Errno::NOTDIR) | Fault::Rule(_) => refused(),
            Fault::System(other) => failed(other),
        })?;
        let old_name = OsStr::from_bytes(old);
        let stat = rustix::fs::statat(&from.fd, old_name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if matches!(FileType::from_raw_mode(stat.st_mode), FileType::Directory | FileType::CharacterDevice) {
            return Err(refused());
        }
        let dir = self.parent(entry, above)?;
        let (source, real) = (from.join(old), dir.join(last));
        if source == real {
            return Ok(());
        }
        let name = OsStr::from_bytes(last);
        let link = || rustix::fs::linkat(&from.fd, old_name, &dir.fd, name, AtFlags::empty());
        let linked = match link() {
            Err(Errno::EXIST) => {
                self.remove(entry, &dir, last)?;
                link()
            }
            other => other,
        };
        match linked {
            Err(Errno::MLINK) => self.copy(entry, (&from, old_name), (&dir, name))?,
            other => other.map_err(failed)?,
        }
        if let Some(record) = self.records.0.get(&EntryPath::new(&source)).cloned() {
            self.records.0.insert(EntryPath::new(&real), record);
        }
        Ok(())
    }

    /// Where the file system allows no more links to one file (ext4: 65,000), the rest are copies.
    fn copy(&self, entry: &Entry, from: (&Dir, &OsStr), to: (&Dir, &OsStr)) -> Result<(), UnpackError> {
        self.writers.wait()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let copied = || -> std::io::Result<()> {
            let mut old = File::from(rustix::fs::openat(&from.0.fd, from.1, flags, Mode::empty())?);
            let mut new = File::from(rustix::fs::openat(&to.0.fd, to.1, CREATE, Mode::from_raw_mode(0o600))?);
            std::io::copy(&mut old, &mut new)?;
            let stat = rustix::fs::fstat(&old)?;
            let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
            settle(&new, stat.st_mode & 0o7777, (stat.st_mtime, nanos))
        };
        copied().map_err(|e| UnpackError::write(&entry.name, e))
    }

    fn file(&mut self, entry: &Entry, above: &[u8], last: &[u8], stream: &mut TarStream) -> Result<(), UnpackError> {
        let name = OsStr::from_bytes(last);
        let dir = self.parent(entry, above)?;
        let create = || rustix::fs::openat(&dir.fd, name, CREATE, Mode::from_raw_mode(0o600));
        let mut file = File::from(self.make(entry, &dir, last, create)?);
        let mode = entry.mode & 0o777 | 0o600;
        self.record(&dir.join(last), entry, Some(mode));
        let (stored, mtime) = (entry.stored, entry.mtime);
        if stored <= SMALL && entry.sparse.is_none() {
            let data = stream.take(usize::try_from(stored).unwrap_or(0))?;
            self.writers.leave(Job { file, data, mode, mtime, entry: entry.name.clone() })?;
            return stream.skip(entry.padding);
        }
        let failed = |e| UnpackError::write(&entry.name, e);
        if let Some(sparse) = &entry.sparse {
            stream.spend(sparse.size)?;
            for (offset, length) in &sparse.map {
                file.seek(SeekFrom::Start(*offset)).map_err(failed)?;
                stream.copy(*length, |piece| file.write_all(piece).map_err(failed))?;
            }
            file.set_len(sparse.size).map_err(failed)?;
        } else {
            stream.copy(stored, |piece| file.write_all(piece).map_err(failed))?;
        }
        settle(&file, mode, mtime).map_err(failed)?;
        stream.skip(entry.padding)
    }

    fn parent(&mut self, entry: &Entry, above: &[u8]) -> Result<Rc<Dir>, UnpackError> {
        self.dirs.dir(above, Absent::Make).map_err(|fault| fault.of(&entry.name))
    }

    /// Runs `make`, and again without what stood in the way.
    fn make<T>(
        &mut self,
        entry: &Entry,
        dir: &Rc<Dir>,
        name: &[u8],
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        let result = match make() {
            Err(Errno::EXIST) => {
                self.remove(entry, dir, name)?;
                make()
            }
            other => other,
        };
        result.map_err(|e| Fault::from(e).of(&entry.name))
    }

    /// Removes what `name` is, with all below it and all that is remembered of it.
    fn remove(&mut self, entry: &Entry, dir: &Rc<Dir>, name: &[u8]) -> Result<(), UnpackError> {
        let real = dir.join(name);
        self.remove_tree(dir, &real).map_err(|fault| fault.of(&entry.name))?;
        self.records.forget(&EntryPath::new(&real));
        self.dirs.forget_times(&real);
        self.dirs.forget();
        Ok(())
    }

    fn remove_tree(&mut self, dir: &Rc<Dir>, real: &[u8]) -> Result<(), Fault> {
        let name = OsStr::from_bytes(base(real));
        match rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            other => return Ok(other?),
        }
        self.dirs.forget();
        let mut pending = vec![real.to_vec()];
        while let Some(path) = pending.last().cloned() {
            let here = self.dirs.dir_without_links(&path)?;
            let below = clear(&here)?;
            if below.is_empty() {
                let above = self.dirs.dir_without_links(parent(&path))?;
                rustix::fs::unlinkat(&above.fd, OsStr::from_bytes(base(&path)), AtFlags::REMOVEDIR)?;
                pending.pop();
                self.dirs.forget_one(&path);
            }
            pending.extend(below);
        }
        Ok(())
    }

    /// Keeps what the disk does not say of `entry`, whose mode on disk is `on_disk` (none for a symlink).
    fn record(&mut self, real: &[u8], entry: &Entry, on_disk: Option<u32>) {
        let record = EntryMetadata {
            uid: entry.uid,
            gid: entry.gid,
            mode: on_disk.filter(|mode| *mode != entry.mode).map(|_| entry.mode),
            xattrs: entry.xattrs.clone(),
        };
        if record != EntryMetadata::default() {
            self.records.0.insert(EntryPath::new(real), record);
        } else if entry.kind == Kind::Dir {
            self.records.0.remove(&EntryPath::new(real));
        }
    }
}

/// Unlinks all but the directories in `dir` and returns the real paths of those.
fn clear(dir: &Dir) -> Result<Vec<Vec<u8>>, Errno> {
    let mut below = Vec::new();
    for entry in List::read_from(&dir.fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => below.push(dir.join(name.to_bytes())),
            other => other?,
        }
    }
    Ok(below)
}

/// The components of an entry's name; the leading slash of an absolute one means the root of the tree.
fn parts(name: &[u8]) -> Result<Vec<&[u8]>, Rule> {
    let parts: Vec<&[u8]> = name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(Rule::EntryPath);
    }
    let whole = parts.iter().map(|part| part.len() + 1).sum::<usize>();
    if whole > LONGEST_PATH + 1 || parts.iter().any(|part| part.len() > 255) {
        return Err(Rule::NameTooLong);
    }
    Ok(parts)
}

fn open_dir(dir: &Dir, name: &OsStr) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&dir.fd, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn set_time(dir: &Dir, name: &[u8], mtime: (i64, u32)) -> Result<(), Errno> {
    rustix::fs::utimensat(&dir.fd, OsStr::from_bytes(name), &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

fn base(real: &[u8]) -> &[u8] {
    &real[real.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1)..]
}

/// The mode of a directory on disk: what it says, but the caller may always enter; never setuid or setgid.
fn dir_mode(mode: u32) -> u32 {
    mode & 0o1777 | 0o700
}
