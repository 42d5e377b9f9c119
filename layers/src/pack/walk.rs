//! Walks a tree by directory descriptors, depth first, never through a symlink.
//!
//! Entries come in the order of their names in the tar (a directory's with its slash, a whiteout's with its `.wh.`), so the
//! tar is sorted by full path bytes.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::PackError;
use crate::entry_path::MAX_PATH;
use crate::escape::escaped;
use crate::whiteout;

/// The number of directories held open; further up in a deep tree, a directory is opened again when it is needed.
const MAX_OPEN_DIRS: usize = 64;
const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
// Without NONBLOCK, opening a FIFO that replaced the file would block.
const OPEN_FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An entry of the tree as it is on disk.
pub(super) enum TreeEntry {
    Dir { mode: u32, opaque: bool },
    File { file: File, stat: Stat },
    Symlink { target: Vec<u8> },
    Fifo { mode: u32 },
    Whiteout,
}

/// A name in a directory that is not opened yet.
struct Child {
    /// The name in the tar, by which children are sorted.
    tar_name: Vec<u8>,
    kind: FileType,
}

/// A directory on the way from the root to the current entry.
struct OpenDir {
    dir: Option<Rc<OwnedFd>>,
    path_len: usize,
    children: std::vec::IntoIter<Child>,
}

/// The state of a walk.
pub(super) struct TreeWalk {
    root: OwnedFd,
    levels: Vec<OpenDir>,
    path: Vec<u8>,
    /// The directory that was returned last; its children come next.
    entered: Option<OwnedFd>,
}

impl TreeWalk {
    pub(super) fn new(root: &Path) -> Result<Self, PackError> {
        let failed = |e: Errno| PackError::read(b"/", e);
        let root = rustix::fs::open(root, OPEN_DIR.difference(OFlags::NOFOLLOW), Mode::empty()).map_err(failed)?;
        let entered = Some(rustix::io::fcntl_dupfd_cloexec(&root, 0).map_err(failed)?);
        Ok(Self { root, levels: Vec::new(), path: Vec::new(), entered })
    }

    /// The path of the entry that [`next`](Self::next) returned last, relative to the root.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The next entry; a directory comes before its children.
    pub(super) fn next(&mut self) -> Result<Option<TreeEntry>, PackError> {
        if let Some(dir) = self.entered.take() {
            self.descend(dir)?;
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            self.path.truncate(level.path_len);
            if let Some(child) = level.children.next() {
                return self.visit(&child).map(Some);
            }
            self.levels.pop();
        }
    }

    fn visit(&mut self, child: &Child) -> Result<TreeEntry, PackError> {
        let name = match child.kind {
            FileType::Directory => &child.tar_name[..child.tar_name.len() - 1],
            FileType::CharacterDevice => &child.tar_name[whiteout::PREFIX.len()..],
            _ => &child.tar_name[..],
        };
        let dir = self.current_dir()?;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        if self.path.len() + whiteout::PREFIX.len() > MAX_PATH {
            return Err(PackError::NameTooLong { entry: escaped(&self.path) });
        }
        self.open((*dir).as_fd(), OsStr::from_bytes(name), child.kind)
    }

    fn open(&mut self, dir: BorrowedFd<'_>, name: &OsStr, kind: FileType) -> Result<TreeEntry, PackError> {
        let failed = |e: Errno| PackError::read(&self.path, e);
        match kind {
            FileType::Directory => {
                let fd = rustix::fs::openat(dir, name, OPEN_DIR, Mode::empty()).map_err(failed)?;
                let mode = rustix::fs::fstat(&fd).map_err(failed)?.st_mode & 0o7777;
                let opaque = is_opaque(&fd).map_err(failed)?;
                self.entered = Some(fd);
                Ok(TreeEntry::Dir { mode, opaque })
            }
            FileType::RegularFile => {
                let fd = rustix::fs::openat(dir, name, OPEN_FILE, Mode::empty()).map_err(failed)?;
                let stat = rustix::fs::fstat(&fd).map_err(failed)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(PackError::Changed { entry: escaped(&self.path) });
                }
                Ok(TreeEntry::File { file: File::from(fd), stat })
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed)?;
                Ok(TreeEntry::Symlink { target: target.into_bytes() })
            }
            FileType::Fifo => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                Ok(TreeEntry::Fifo { mode: stat.st_mode & 0o7777 })
            }
            _ => Ok(TreeEntry::Whiteout),
        }
    }

    fn descend(&mut self, dir: OwnedFd) -> Result<(), PackError> {
        let children = children(&dir, &self.path)?.into_iter();
        self.levels.push(OpenDir { dir: Some(Rc::new(dir)), path_len: self.path.len(), children });
        if let Some(ancestor) = self.levels.len().checked_sub(MAX_OPEN_DIRS + 1) {
            self.levels[ancestor].dir = None;
        }
        Ok(())
    }

    /// The directory of the innermost level; opened again from the root if it was closed.
    fn current_dir(&mut self) -> Result<Rc<OwnedFd>, PackError> {
        let Some(level) = self.levels.last_mut() else { return Err(PackError::read(&self.path, Errno::NOENT)) };
        if let Some(dir) = &level.dir {
            return Ok(Rc::clone(dir));
        }
        let failed = |e: Errno| PackError::read(&self.path, e);
        let mut dir = rustix::io::fcntl_dupfd_cloexec(&self.root, 0).map_err(failed)?;
        for part in self.path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            dir = rustix::fs::openat(&dir, OsStr::from_bytes(part), OPEN_DIR, Mode::empty()).map_err(failed)?;
        }
        let dir = Rc::new(dir);
        level.dir = Some(Rc::clone(&dir));
        Ok(dir)
    }
}

/// The children of `dir`, sorted by their names in the tar.
fn children(dir: &OwnedFd, path: &[u8]) -> Result<Vec<Child>, PackError> {
    let failed = |e: Errno| PackError::read(path, e);
    let mut children = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let full = || escaped(&if path.is_empty() { name.to_vec() } else { [path, name].join(&b'/') });
        if name.starts_with(whiteout::PREFIX) {
            return Err(PackError::ReservedName { entry: full() });
        }
        let mut kind = entry.file_type();
        let mut is_whiteout = false;
        if matches!(kind, FileType::Unknown | FileType::CharacterDevice) {
            let stat = rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            kind = FileType::from_raw_mode(stat.st_mode);
            is_whiteout = stat.st_rdev == 0;
        }
        let tar_name = match kind {
            FileType::Directory => [name, b"/"].concat(),
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => name.to_vec(),
            FileType::CharacterDevice if is_whiteout => [whiteout::PREFIX, name].concat(),
            other => return Err(PackError::Special { entry: full(), kind: kind_name(other) }),
        };
        children.push(Child { tar_name, kind });
    }
    children.sort_unstable_by(|a, b| a.tar_name.cmp(&b.tar_name));
    Ok(children)
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "special file",
    }
}

fn is_opaque(dir: &OwnedFd) -> Result<bool, Errno> {
    let mut value = [0_u8; 4];
    match rustix::fs::fgetxattr(dir, whiteout::OPAQUE_XATTR, &mut value[..]) {
        Ok(n) => Ok(&value[..n] == whiteout::OPAQUE_VALUE),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}
