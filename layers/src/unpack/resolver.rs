//! Opens directories inside a root by descriptors, one component at a time, so that no symlink of a layer leads outside: an
//! absolute target starts at the root and `..` stops there.
//!
//! `openat2(2)` with `RESOLVE_IN_ROOT` resolves in the same way, but does not tell the path without symlinks, which metadata
//! and whiteouts need.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir as List, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::error::{UnpackError, Violation};
use crate::entry_path::{MAX_PATH, components, file_name, parent, remove_tree};
use crate::{EntryPath, whiteout};

const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The kernel's limit (`path_resolution(7)`).
const MAX_SYMLINKS: usize = 40;
/// The number of cached descriptors; the usual limit of open files is 1024.
const MAX_CACHED: usize = 200;
/// How many directories may be opened for each path, on average, and how many more in all.
const OPENS_PER_PATH: u64 = 64;
const MORE_OPENS: u64 = 500_000;

/// An open directory of the tree.
pub(super) struct Dir {
    pub(super) fd: OwnedFd,
    /// Its path without symlinks, relative to the root; empty for the root.
    pub(super) real: Vec<u8>,
}

impl Dir {
    /// The real path of `name` in this directory.
    pub(super) fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.real.is_empty() { name.to_vec() } else { [&self.real, name].join(&b'/') }
    }
}

/// Why a path was not resolved.
#[derive(Debug)]
pub(super) enum ResolveError {
    Violation(Violation),
    System(Errno),
}

impl ResolveError {
    pub(super) fn at(self, entry: &[u8]) -> UnpackError {
        match self {
            Self::Violation(violation) => UnpackError::entry(violation, entry),
            Self::System(errno) => UnpackError::write(entry, errno),
        }
    }
}

impl From<Errno> for ResolveError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NAMETOOLONG => Self::Violation(Violation::NameTooLong),
            other => Self::System(other),
        }
    }
}

/// What to do about a missing directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfMissing {
    Create,
    Fail,
}

/// What one component of a path is.
enum Component {
    Dir(Rc<Dir>),
    /// A symlink with its target.
    Symlink(Vec<u8>),
}

/// Opens directories by path and caches them.
pub(super) struct Resolver {
    root: Rc<Dir>,
    cache: BTreeMap<Vec<u8>, Rc<Dir>>,
    /// How many directories may still be opened.
    opens_left: u64,
    /// Times of directories by real path, to be set after the last write. Directories without an entry have time 0.
    pub(super) mtimes: BTreeMap<EntryPath, (i64, u32)>,
}

impl Resolver {
    /// Opens `root`, which must be an empty directory.
    pub(super) fn new(root: &Path) -> Result<Self, UnpackError> {
        let failed = |e: Errno| UnpackError::Root(io::Error::from(e));
        let fd = rustix::fs::open(root, OPEN_DIR.difference(OFlags::NOFOLLOW), Mode::empty()).map_err(failed)?;
        for entry in List::read_from(&fd).map_err(failed)? {
            if !matches!(entry.map_err(failed)?.file_name().to_bytes(), b"." | b"..") {
                return Err(UnpackError::RootNotEmpty);
            }
        }
        let root = Rc::new(Dir { fd, real: Vec::new() });
        Ok(Self { root, cache: BTreeMap::new(), opens_left: MORE_OPENS, mtimes: BTreeMap::new() })
    }

    /// The root directory.
    pub(super) fn root(&self) -> Rc<Dir> {
        Rc::clone(&self.root)
    }

    /// The directory at `path`, a normalised relative path. Symlinks in it are followed inside the root.
    pub(super) fn dir(&mut self, path: &[u8], if_missing: IfMissing) -> Result<Rc<Dir>, ResolveError> {
        self.opens_left += OPENS_PER_PATH;
        let (mut here, rest) = self.deepest_cached(path);
        if rest.is_empty() {
            return Ok(here);
        }
        let mut rest: VecDeque<Vec<u8>> = components(rest).map(<[u8]>::to_vec).collect();
        let mut symlinks = 0;
        while let Some(part) = rest.pop_front() {
            if part == b".." {
                here = self.real_dir(parent(&here.real))?;
                continue;
            }
            match self.component(&here, &part, if_missing)? {
                Component::Dir(dir) => here = dir,
                Component::Symlink(target) => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(ResolveError::Violation(Violation::SymlinkLoop));
                    }
                    if target.starts_with(b"/") {
                        here = self.root();
                    }
                    for part in components(&target).rev() {
                        rest.push_front(part.to_vec());
                    }
                }
            }
        }
        self.insert(path.to_vec(), &here);
        Ok(here)
    }

    /// The directory at `real`, a path without symlinks.
    pub(super) fn real_dir(&mut self, real: &[u8]) -> Result<Rc<Dir>, ResolveError> {
        let (mut here, rest) = self.deepest_cached(real);
        for part in components(rest) {
            match self.component(&here, part, IfMissing::Fail)? {
                Component::Dir(dir) => here = dir,
                Component::Symlink(_) => return Err(ResolveError::System(Errno::NOTDIR)), // another process writes to the tree
            }
        }
        Ok(here)
    }

    /// Removes the file or directory at `real` in `dir`, with everything below it.
    pub(super) fn remove_tree(&mut self, dir: &Dir, real: &[u8]) -> Result<(), ResolveError> {
        // What is removed may be a symlink or directory in the path of any cached descriptor.
        self.cache.clear();
        remove_tree(&mut self.mtimes, &EntryPath::new(real));
        match rustix::fs::unlinkat(&dir.fd, OsStr::from_bytes(file_name(real)), AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            other => return Ok(other?),
        }
        let mut pending = vec![real.to_vec()];
        while let Some(path) = pending.last().cloned() {
            let subdirectories = remove_files(&*self.real_dir(&path)?)?;
            if subdirectories.is_empty() {
                let above = self.real_dir(parent(&path))?;
                rustix::fs::unlinkat(&above.fd, OsStr::from_bytes(file_name(&path)), AtFlags::REMOVEDIR)?;
                pending.pop();
                self.cache.remove(&path);
            }
            pending.extend(subdirectories);
        }
        Ok(())
    }

    /// The deepest directory of `path` that is cached, and the rest of the path.
    fn deepest_cached<'p>(&self, path: &'p [u8]) -> (Rc<Dir>, &'p [u8]) {
        let mut prefix = path;
        while !prefix.is_empty() {
            if let Some(dir) = self.cache.get(prefix) {
                return (Rc::clone(dir), &path[prefix.len()..]);
            }
            prefix = parent(prefix);
        }
        (self.root(), path)
    }

    fn insert(&mut self, path: Vec<u8>, dir: &Rc<Dir>) {
        if self.cache.len() >= MAX_CACHED {
            self.cache.clear();
        }
        self.cache.insert(path, Rc::clone(dir));
    }

    fn component(&mut self, here: &Rc<Dir>, part: &[u8], if_missing: IfMissing) -> Result<Component, ResolveError> {
        let real = here.join(part);
        if let Some(dir) = self.cache.get(&real) {
            return Ok(Component::Dir(Rc::clone(dir)));
        }
        if real.len() > MAX_PATH {
            return Err(ResolveError::Violation(Violation::NameTooLong));
        }
        self.opens_left = self.opens_left.checked_sub(1).ok_or(ResolveError::Violation(Violation::DeepPaths))?;
        let name = OsStr::from_bytes(part);
        let fd = match rustix::fs::openat(&here.fd, name, OPEN_DIR, Mode::empty()) {
            Err(Errno::NOENT) if if_missing == IfMissing::Create => self.create(here, name, &real)?,
            Err(Errno::NOTDIR | Errno::LOOP) => match rustix::fs::readlinkat(&here.fd, name, Vec::new()) {
                Ok(target) => return Ok(Component::Symlink(target.into_bytes())),
                Err(Errno::INVAL) if if_missing == IfMissing::Create && is_whiteout(here, name)? => {
                    rustix::fs::unlinkat(&here.fd, name, AtFlags::empty())?;
                    let fd = self.create(here, name, &real)?;
                    set_opaque(&fd)?;
                    fd
                }
                Err(Errno::INVAL) => return Err(ResolveError::Violation(Violation::NotADirectory)),
                Err(other) => return Err(other.into()),
            },
            other => other?,
        };
        let dir = Rc::new(Dir { fd, real: real.clone() });
        self.insert(real, &dir);
        Ok(Component::Dir(dir))
    }

    /// Creates a directory that has no entry of its own. A link may lead to a name that no entry can have.
    fn create(&mut self, here: &Dir, name: &OsStr, real: &[u8]) -> Result<OwnedFd, ResolveError> {
        if name.as_bytes().starts_with(whiteout::PREFIX) {
            return Err(ResolveError::Violation(Violation::WhiteoutName));
        }
        rustix::fs::mkdirat(&here.fd, name, Mode::from_raw_mode(0o755))?;
        let fd = rustix::fs::openat(&here.fd, name, OPEN_DIR, Mode::empty())?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
        self.mtimes.insert(EntryPath::new(real), (0, 0));
        Ok(fd)
    }
}

/// Removes all files of `dir`; returns the real paths of its subdirectories.
fn remove_files(dir: &Dir) -> Result<Vec<Vec<u8>>, Errno> {
    let mut subdirectories = Vec::new();
    for entry in List::read_from(&dir.fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => subdirectories.push(dir.join(name.to_bytes())),
            other => other?,
        }
    }
    Ok(subdirectories)
}

/// Opens `name` if it is a directory, not through a symlink.
pub(super) fn open_dir(dir: &Dir, name: &OsStr) -> Result<Option<OwnedFd>, Errno> {
    match rustix::fs::openat(&dir.fd, name, OPEN_DIR, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Marks a directory as opaque: it hides what the layers below have in it.
pub(super) fn set_opaque(dir: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(dir, whiteout::OPAQUE_XATTR, whiteout::OPAQUE_VALUE, XattrFlags::empty())
}

/// Whether `name` is a whiteout. A layer cannot bring one as a device: its devices are not created.
pub(super) fn is_whiteout(dir: &Dir, name: &OsStr) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0)
}
