//! A tree walked by directory descriptors: depth first, never through a symlink, in the order of the names as they will
//! stand in the tar (a directory's with its slash, a whiteout's with its `.wh.`), so that the tar is sorted by full path bytes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::PackError;
use crate::escape::escaped;

pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The longest path a layer may hold: what a kernel takes at once (`PATH_MAX` less the NUL).
pub(crate) const LONGEST_PATH: usize = 4095;
const OPAQUE: &str = "user.overlay.opaque";
/// How many directories are held open at once; above them, a deep tree's ancestors are opened anew.
const HELD_OPEN: usize = 64;
const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
// Without NONBLOCK, a FIFO put in a file's place would hold us for ever.
const OPEN_FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One entry of the tree.
pub(crate) enum Found {
    Dir { mode: u32, opaque: bool },
    File { file: File, stat: Stat },
    Symlink { target: Vec<u8> },
    Fifo { mode: u32 },
    Whiteout,
}

struct Item {
    key: Vec<u8>,
    kind: FileType,
}

struct Level {
    dir: Option<Rc<OwnedFd>>,
    path: usize,
    items: std::vec::IntoIter<Item>,
}

/// The walk; its entries come by [`next`](Self::next).
pub(crate) struct Scan {
    root: OwnedFd,
    levels: Vec<Level>,
    path: Vec<u8>,
    fresh: Option<OwnedFd>,
}

impl Scan {
    pub(crate) fn new(root: &Path) -> Result<Self, PackError> {
        let open = rustix::fs::open(root, OPEN_DIR.difference(OFlags::NOFOLLOW), Mode::empty());
        let root = open.map_err(|e| read_error(b"/", e))?;
        let fresh = Some(rustix::io::fcntl_dupfd_cloexec(&root, 0).map_err(|e| read_error(b"/", e))?);
        Ok(Self { root, levels: Vec::new(), path: Vec::new(), fresh })
    }

    /// The path of what was found last, relative to the root.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The next entry; a directory comes before its children.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, PackError> {
        if let Some(dir) = self.fresh.take() {
            self.descend(dir)?;
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            self.path.truncate(level.path);
            if let Some(item) = level.items.next() {
                return self.found(&item).map(Some);
            }
            self.levels.pop();
        }
    }

    fn found(&mut self, item: &Item) -> Result<Found, PackError> {
        let name = match item.kind {
            FileType::Directory => &item.key[..item.key.len() - 1],
            FileType::CharacterDevice => &item.key[WHITEOUT.len()..],
            _ => &item.key[..],
        };
        let dir = self.parent()?;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        if self.path.len() + WHITEOUT.len() > LONGEST_PATH {
            return Err(PackError::NameTooLong { entry: escaped(&self.path) });
        }
        self.open((*dir).as_fd(), OsStr::from_bytes(name), item.kind)
    }

    fn open(&mut self, dir: BorrowedFd<'_>, name: &OsStr, kind: FileType) -> Result<Found, PackError> {
        let failed = |e: Errno| read_error(&self.path, e);
        match kind {
            FileType::Directory => {
                let fd = rustix::fs::openat(dir, name, OPEN_DIR, Mode::empty()).map_err(failed)?;
                let mode = rustix::fs::fstat(&fd).map_err(failed)?.st_mode & 0o7777;
                let opaque = is_opaque(&fd).map_err(failed)?;
                self.fresh = Some(fd);
                Ok(Found::Dir { mode, opaque })
            }
            FileType::RegularFile => {
                let fd = rustix::fs::openat(dir, name, OPEN_FILE, Mode::empty()).map_err(failed)?;
                let stat = rustix::fs::fstat(&fd).map_err(failed)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(PackError::Changed { entry: escaped(&self.path) });
                }
                Ok(Found::File { file: File::from(fd), stat })
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed)?;
                Ok(Found::Symlink { target: target.into_bytes() })
            }
            FileType::Fifo => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                Ok(Found::Fifo { mode: stat.st_mode & 0o7777 })
            }
            _ => Ok(Found::Whiteout),
        }
    }

    fn descend(&mut self, dir: OwnedFd) -> Result<(), PackError> {
        let items = list(&dir, &self.path)?.into_iter();
        self.levels.push(Level { dir: Some(Rc::new(dir)), path: self.path.len(), items });
        if let Some(far) = self.levels.len().checked_sub(HELD_OPEN + 1) {
            self.levels[far].dir = None;
        }
        Ok(())
    }

    /// The directory of the innermost level, opened anew step by step if it was let go.
    fn parent(&mut self) -> Result<Rc<OwnedFd>, PackError> {
        let Some(level) = self.levels.last_mut() else { return Err(read_error(&self.path, Errno::NOENT)) };
        if let Some(dir) = &level.dir {
            return Ok(Rc::clone(dir));
        }
        let failed = |e: Errno| read_error(&self.path, e);
        let mut dir = rustix::io::fcntl_dupfd_cloexec(&self.root, 0).map_err(failed)?;
        for part in self.path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            dir = rustix::fs::openat(&dir, OsStr::from_bytes(part), OPEN_DIR, Mode::empty()).map_err(failed)?;
        }
        let dir = Rc::new(dir);
        level.dir = Some(Rc::clone(&dir));
        Ok(dir)
    }
}

fn list(dir: &OwnedFd, path: &[u8]) -> Result<Vec<Item>, PackError> {
    let failed = |e: Errno| read_error(path, e);
    let mut items = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let full = || escaped(&if path.is_empty() { name.to_vec() } else { [path, name].join(&b'/') });
        if name.starts_with(WHITEOUT) {
            return Err(PackError::ReservedName { entry: full() });
        }
        let mut kind = entry.file_type();
        let mut whiteout = false;
        if matches!(kind, FileType::Unknown | FileType::CharacterDevice) {
            let stat = rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            kind = FileType::from_raw_mode(stat.st_mode);
            whiteout = stat.st_rdev == 0;
        }
        let key = match kind {
            FileType::Directory => [name, b"/"].concat(),
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => name.to_vec(),
            FileType::CharacterDevice if whiteout => [WHITEOUT, name].concat(),
            other => return Err(PackError::Special { entry: full(), kind: special(other) }),
        };
        items.push(Item { key, kind });
    }
    items.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(items)
}

fn special(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "special file",
    }
}

fn is_opaque(dir: &OwnedFd) -> Result<bool, Errno> {
    let mut value = [0_u8; 4];
    match rustix::fs::fgetxattr(dir, OPAQUE, &mut value[..]) {
        Ok(n) => Ok(&value[..n] == b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn read_error(path: &[u8], source: impl Into<io::Error>) -> PackError {
    PackError::Read { entry: escaped(path), source: source.into() }
}

/// Reads into all of `room`, or until the file ends.
pub(crate) fn read_up_to(file: &mut File, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
