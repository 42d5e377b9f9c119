//! Mount points inside an untrusted root. Every path is resolved by openat2(2) with the root as `/`, and mounts are
//! attached to the descriptor that it returns: no symbolic link of an image leads out of the root.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstat, fstatvfs, mkdirat, openat, openat2,
    readlinkat, statat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount_remount, move_mount, open_tree};

use super::protocol::{At, SetupStep, StageError};
use super::stage::fd_path;

/// A mounted root filesystem, and the mount points that were created in it.
#[derive(Debug)]
pub(super) struct MountTarget {
    root: OwnedFd,
    /// Paths that were created: relative to the root, without symbolic links, the outermost first.
    pub(super) made: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PointKind {
    Dir,
    File,
}

const MAX_TRIES: u32 = 10_000;
const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

impl MountTarget {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, made: Vec::new() }
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Opens a path, following mounts. The kernel cannot resolve a `..` while anybody renames or mounts anything, and asks
    /// for another try (openat2(2), `EAGAIN`).
    pub(super) fn find(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let find = || openat2(&self.root, path, HANDLE, Mode::empty(), IN_ROOT);
        let mut tries = (0..MAX_TRIES).map(|_| find()).filter(|found| !matches!(found, Err(Errno::AGAIN)));
        tries.next().unwrap_or(Err(Errno::AGAIN))
    }

    /// Opens the directory at a path; creates it if it does not exist.
    pub(super) fn dir(&mut self, path: &str) -> Result<OwnedFd, StageError> {
        self.open_or_create(path, PointKind::Dir, 0)
    }

    /// Opens the file at a path (any type but a directory); creates an empty one if it does not exist.
    pub(super) fn file(&mut self, path: &str) -> Result<OwnedFd, StageError> {
        self.open_or_create(path, PointKind::File, 0)
    }

    /// Opens a directory at the top level of the root, which must not be a symbolic link (CVE-2025-31133 and similar:
    /// `/proc` or `/dev` of an image that point elsewhere).
    pub(super) fn real_dir(&mut self, path: &str) -> Result<OwnedFd, StageError> {
        match statat(&self.root, path.trim_start_matches('/'), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
                Err(StageError::Image { path: path.to_owned(), why: "is not a directory".to_owned() })
            }
            _ => self.dir(path),
        }
    }

    fn open_or_create(&mut self, path: &str, kind: PointKind, depth: u8) -> Result<OwnedFd, StageError> {
        match self.find(path) {
            Ok(entry) => return expect_kind(entry, path, kind),
            Err(Errno::NOENT) if depth < 40 => {}
            Err(error) => return Err(error).at(SetupStep::MountPoint, path),
        }
        let path = path.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = if parent.is_empty() { "/" } else { parent };
        let dir = self.open_or_create(parent, PointKind::Dir, depth + 1)?;
        if let Ok(target) = readlinkat(&dir, name, Vec::new()) {
            // A dangling symbolic link, as `/etc/resolv.conf` is in many images.
            let target = target.to_string_lossy().into_owned();
            let target = if target.starts_with('/') { target } else { format!("{parent}/{target}") };
            return self.open_or_create(&target, kind, depth + 1);
        }
        match kind {
            PointKind::Dir => mkdirat(&dir, name, Mode::from_raw_mode(0o755)).at(SetupStep::MountPoint, path)?,
            PointKind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(&dir, name, flags, Mode::from_raw_mode(0o644)).at(SetupStep::MountPoint, path)?;
            }
        }
        self.record_made(&dir, name).at(SetupStep::MountPoint, path)?;
        openat(&dir, name, HANDLE | OFlags::NOFOLLOW, Mode::empty()).at(SetupStep::MountPoint, path)
    }

    /// Records the path of a created entry, unless it is in a mount of the sandbox.
    fn record_made(&mut self, dir: &OwnedFd, name: &str) -> rustix::io::Result<()> {
        if fstat(dir)?.st_dev != fstat(&self.root)?.st_dev {
            return Ok(());
        }
        let real = |fd: &OwnedFd| std::fs::read_link(fd_path(fd)).map_err(|_| Errno::IO);
        let (dir, root) = (real(dir)?, real(&self.root)?);
        if let Ok(inside) = dir.strip_prefix(&root) {
            self.made.push(inside.join(name).to_string_lossy().into_owned());
        }
        Ok(())
    }
}

fn expect_kind(entry: OwnedFd, path: &str, kind: PointKind) -> Result<OwnedFd, StageError> {
    let is_dir = FileType::from_raw_mode(fstat(&entry).at(SetupStep::MountPoint, path)?.st_mode) == FileType::Directory;
    if is_dir == (kind == PointKind::Dir) {
        return Ok(entry);
    }
    let why = if is_dir { "is a directory, not a file" } else { "is not a directory" };
    Err(StageError::Image { path: path.to_owned(), why: why.to_owned() })
}

/// Attaches a detached mount to the mount point `onto`.
pub(super) fn attach(mount: &OwnedFd, onto: &OwnedFd) -> rustix::io::Result<()> {
    move_mount(mount, "", onto, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

/// A detached bind mount of a path, or of `dir` itself if the path is empty.
pub(super) fn copy_mount(dir: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(dir, path, flags)
}

/// Adds flags to the mount whose root is `mount`. Keeps the flags that it has: a user namespace cannot remove them.
pub(super) fn restrict(mount: &OwnedFd, added: MountFlags) -> rustix::io::Result<()> {
    let present = fstatvfs(mount)?.f_flag;
    let mut flags = MountFlags::BIND | added;
    for (has, flag) in [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        if present.contains(has) {
            flags |= flag;
        }
    }
    mount_remount(fd_path(mount), flags, c"")
}
