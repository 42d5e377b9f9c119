//! Directories inside a root, reached by descriptors one component at a time, so that nothing outside can be reached
//! whatever symlinks the layer holds: an absolute target starts at the root, `..` stops there (as `openat2(2)` with
//! `RESOLVE_IN_ROOT` does, but every directory also has its real path, which records and whiteouts need).

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir as List, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::error::{Rule, UnpackError};
use crate::scan::LONGEST_PATH;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// As many as the kernel follows (`path_resolution(7)`).
const MOST_LINKS: usize = 40;
/// Far below the usual limit of open files, 1024.
const HELD_OPEN: usize = 200;

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

/// Why a path leads nowhere: a rule, or the system.
pub(super) enum Fault {
    Rule(Rule),
    System(Errno),
}

impl Fault {
    pub(super) fn of(self, entry: &[u8]) -> UnpackError {
        match self {
            Self::Rule(rule) => UnpackError::entry(rule, entry),
            Self::System(errno) => UnpackError::write(entry, errno),
        }
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NAMETOOLONG => Self::Rule(Rule::NameTooLong),
            other => Self::System(other),
        }
    }
}

/// What to do about a directory that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    Make,
    Refuse,
}

enum Step {
    Dir(Rc<Dir>),
    Link(Vec<u8>),
}

/// Directories by path; the only way to a descriptor of one.
pub(super) struct Resolver {
    root: Rc<Dir>,
    held: BTreeMap<Vec<u8>, Rc<Dir>>,
    /// Times of directories by real path, to be set when nothing more is written into them. Those that no entry names
    /// have time 0.
    pub(super) times: BTreeMap<Vec<u8>, (i64, u32)>,
}

impl Resolver {
    /// Opens `root`, which must be an empty directory.
    pub(super) fn new(root: &Path) -> Result<Self, UnpackError> {
        let failed = |e: Errno| UnpackError::Root(io::Error::from(e));
        let fd = rustix::fs::open(root, OPEN.difference(OFlags::NOFOLLOW), Mode::empty()).map_err(failed)?;
        for entry in List::read_from(&fd).map_err(failed)? {
            if !matches!(entry.map_err(failed)?.file_name().to_bytes(), b"." | b"..") {
                return Err(UnpackError::RootNotEmpty);
            }
        }
        Ok(Self { root: Rc::new(Dir { fd, real: Vec::new() }), held: BTreeMap::new(), times: BTreeMap::new() })
    }

    /// The root.
    pub(super) fn root(&self) -> Rc<Dir> {
        Rc::clone(&self.root)
    }

    /// The directory at `path`, a clean relative path; symlinks on the way are followed inside the root.
    pub(super) fn dir(&mut self, path: &[u8], absent: Absent) -> Result<Rc<Dir>, Fault> {
        let (mut here, rest) = self.nearest(path);
        if rest.is_empty() {
            return Ok(here);
        }
        let mut rest: VecDeque<Vec<u8>> = parts(rest).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part == b".." {
                here = self.dir_without_links(parent(&here.real))?;
                continue;
            }
            match self.step(&here, &part, absent)? {
                Step::Dir(dir) => here = dir,
                Step::Link(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Fault::Rule(Rule::SymlinkLoop));
                    }
                    if target.starts_with(b"/") {
                        here = self.root();
                    }
                    for part in parts(&target).rev() {
                        rest.push_front(part.to_vec());
                    }
                }
            }
        }
        self.hold(path.to_vec(), &here);
        Ok(here)
    }

    /// The directory at a path that [`Dir::real`] gave.
    pub(super) fn dir_without_links(&mut self, real: &[u8]) -> Result<Rc<Dir>, Fault> {
        let (mut here, rest) = self.nearest(real);
        for part in parts(rest) {
            match self.step(&here, part, Absent::Refuse)? {
                Step::Dir(dir) => here = dir,
                Step::Link(_) => return Err(Fault::System(Errno::NOTDIR)), // someone else writes to the tree
            }
        }
        Ok(here)
    }

    /// Forgets all descriptors: a symlink or a directory goes away, so paths may lead elsewhere.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }

    /// Forgets the directory at the real path `real`, which had nothing below it, after a [`forget`](Self::forget).
    pub(super) fn forget_one(&mut self, real: &[u8]) {
        self.held.remove(real);
    }

    /// Forgets the times of `real` and of all below it.
    pub(super) fn forget_times(&mut self, real: &[u8]) {
        self.times.remove(real);
        let below = [real, b"/"].concat();
        let gone = self.times.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below));
        for name in gone.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.times.remove(&name);
        }
    }

    /// The longest part of `path` whose directory is held, and the rest of the path.
    fn nearest<'p>(&self, path: &'p [u8]) -> (Rc<Dir>, &'p [u8]) {
        let mut head = path;
        while !head.is_empty() {
            if let Some(dir) = self.held.get(head) {
                return (Rc::clone(dir), &path[head.len()..]);
            }
            head = parent(head);
        }
        (self.root(), path)
    }

    fn hold(&mut self, path: Vec<u8>, dir: &Rc<Dir>) {
        if self.held.len() >= HELD_OPEN {
            self.held.clear();
        }
        self.held.insert(path, Rc::clone(dir));
    }

    fn step(&mut self, here: &Rc<Dir>, part: &[u8], absent: Absent) -> Result<Step, Fault> {
        let real = here.join(part);
        if let Some(dir) = self.held.get(&real) {
            return Ok(Step::Dir(Rc::clone(dir)));
        }
        if real.len() > LONGEST_PATH {
            return Err(Fault::Rule(Rule::NameTooLong));
        }
        let name = OsStr::from_bytes(part);
        let fd = match rustix::fs::openat(&here.fd, name, OPEN, Mode::empty()) {
            Err(Errno::NOENT) if absent == Absent::Make => self.make(here, name, &real, false)?,
            Err(Errno::NOTDIR | Errno::LOOP) => match rustix::fs::readlinkat(&here.fd, name, Vec::new()) {
                Ok(target) => return Ok(Step::Link(target.into_bytes())),
                Err(Errno::INVAL) if absent == Absent::Make && is_whiteout(here, name)? => {
                    rustix::fs::unlinkat(&here.fd, name, AtFlags::empty())?;
                    self.make(here, name, &real, true)?
                }
                Err(Errno::INVAL) => return Err(Fault::Rule(Rule::NotADirectory)),
                Err(other) => return Err(other.into()),
            },
            other => other?,
        };
        let dir = Rc::new(Dir { fd, real: real.clone() });
        self.hold(real, &dir);
        Ok(Step::Dir(dir))
    }

    fn make(&mut self, here: &Dir, name: &OsStr, real: &[u8], opaque: bool) -> Result<OwnedFd, Errno> {
        rustix::fs::mkdirat(&here.fd, name, Mode::from_raw_mode(0o755))?;
        let fd = rustix::fs::openat(&here.fd, name, OPEN, Mode::empty())?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
        if opaque {
            set_opaque(&fd)?;
        }
        self.times.insert(real.to_vec(), (0, 0));
        Ok(fd)
    }
}

/// Marks a directory as hiding all below it (kernel documentation, overlayfs, "whiteouts and opaque directories").
pub(super) fn set_opaque(dir: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(dir, "user.overlay.opaque", b"y", XattrFlags::empty())
}

/// Whether `name` is a character device 0:0. Layers cannot bring one: their devices are skipped.
pub(super) fn is_whiteout(dir: &Dir, name: &OsStr) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0)
}

/// The path above `real`.
pub(super) fn parent(real: &[u8]) -> &[u8] {
    &real[..real.iter().rposition(|b| *b == b'/').unwrap_or(0)]
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".")
}
