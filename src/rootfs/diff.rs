//! What a step changed, as a tree of its own: an upper directory in overlayfs's form, with whiteouts.
//!
//! The result is the difference between two views, not what the file system happened to copy up. A file that was opened
//! for writing and not changed, a directory that was touched, a hard link that was broken and a modification time are
//! no change. So overlay, copy and chroot, which notice different things, give the same tree. Changed files are moved,
//! not copied.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use phial_layers::{EntryMetadata, EntryPath, Metadata};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chownat, mknodat};
use serde::{Deserialize, Serialize};

use super::error::RootfsError;
use super::view::{self, MergedDir, Node, TreePath};
use super::xattrs;
use crate::store::Tree;

/// Paths that are never part of a layer, with all below them: the sandbox's mount points, the files that it supplies,
/// and caches of tools.
pub const EXCLUDED: [&str; 16] = [
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/tmp",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "root/.cache",
    "root/.gitconfig",
    "root/.hex",
    "root/.npm",
    "root/.local/share/rebar3",
    "var/cache/ldconfig",
];

/// Where a command wrote: what is compared with the trees below.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum DiffSource {
    /// Upper directories of overlays over those trees, or results of earlier [`diff`]s, topmost first.
    UpperDirs(Vec<Tree>),
    /// A copy of the trees in which a command ran.
    FullCopy {
        /// The copy.
        dir: PathBuf,
        /// When the copy was complete, in seconds and nanoseconds: a file whose ctime is not later has its old content.
        copied_at: (i64, i64),
    },
}

/// What [`diff`] reports of the tree that it made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeDiff {
    /// Owners, modes and extended attributes of the tree.
    pub metadata: Metadata,
    /// Number of entries, including directories that only lead to others.
    pub entries: u64,
    /// Files that two upper directories hold with different content; the one of the topmost is in the tree.
    pub conflicts: Vec<EntryPath>,
    /// Number of sockets and device nodes that are not in the tree.
    pub skipped_special_files: u64,
}

struct Walk<'a> {
    uppers: &'a [Tree],
    lowers: &'a [Tree],
    copied_at: Option<(i64, i64)>,
    dest: &'a Path,
    euid: u32,
    result: TreeDiff,
    /// The directories from the root down to the one that is walked.
    ancestors: Vec<Ancestor>,
}

#[derive(Clone)]
struct Ancestor {
    name: OsString,
    path: PathBuf,
    metadata: EntryMetadata,
    /// Whether it exists below `dest`.
    created: bool,
}

/// Moves what `source` changes over `lowers` (topmost first) to the empty directory `dest` of the same file system.
pub fn diff(source: &DiffSource, lowers: &[Tree], dest: &Path) -> Result<TreeDiff, RootfsError> {
    let (uppers, opaque, copied_at) = match source {
        DiffSource::UpperDirs(trees) => (trees.clone(), false, None),
        DiffSource::FullCopy { dir, copied_at } => (vec![Tree::bare(dir)], true, Some(*copied_at)),
    };
    let euid = rustix::process::geteuid().as_raw();
    let (result, ancestors) = (TreeDiff::default(), vec![]);
    let mut walk = Walk { uppers: &uppers, lowers, copied_at, dest, euid, result, ancestors };
    walk.dir(&view::root(&uppers), opaque, &view::root(lowers))?;
    Ok(walk.result)
}

impl Walk<'_> {
    /// The path of the entry `name` of the directory that is walked, from the root of the view.
    fn entry_path(&self, name: &OsString) -> EntryPath {
        let mut path = PathBuf::new();
        path.extend(self.ancestors.iter().map(|ancestor| &ancestor.name));
        path.push(name);
        EntryPath::new(path.as_os_str().as_bytes())
    }

    fn dir(&mut self, upper: &MergedDir, opaque: bool, lower: &MergedDir) -> Result<(), RootfsError> {
        let mut nodes = view::list(upper).map_err(RootfsError::io("read", &upper[0].path))?;
        let lower_nodes = match lower.first() {
            Some(first) => view::list(lower).map_err(RootfsError::io("read", &first.path))?,
            None => BTreeMap::new(),
        };
        if opaque {
            for name in lower_nodes.keys() {
                nodes.entry(name.clone()).or_insert(Node::Whiteout);
            }
        }
        for (name, node) in nodes {
            let path = self.entry_path(&name);
            if is_excluded(&path) {
                continue;
            }
            if name.as_bytes().starts_with(b".wh.") {
                return Err(RootfsError::Reserved(path));
            }
            let old = lower_nodes.get(&name).filter(|node| !matches!(node, Node::Whiteout));
            match node {
                Node::Whiteout if old.is_some() => self.whiteout(&name)?,
                Node::Whiteout => {}
                Node::Leaf(new) => {
                    self.report_conflict(upper, &name, &new.path, &path);
                    self.leaf(&name, &new, old)?;
                }
                Node::Dir { merged, opaque: own } => self.child(&name, &merged, opaque || own, old)?,
            }
        }
        Ok(())
    }

    fn child(
        &mut self,
        name: &OsString,
        upper: &MergedDir,
        opaque: bool,
        old: Option<&Node>,
    ) -> Result<(), RootfsError> {
        let new = &upper[0];
        let meta = stat(&new.path)?;
        let lower = match old {
            Some(Node::Dir { merged, .. }) => merged.clone(),
            _ => MergedDir::new(),
        };
        let metadata = self.metadata(name, new, &meta, lower.first())?;
        let is_unchanged = match lower.first() {
            Some(old) => self.same_metadata(name, new, &meta, old)?,
            None => false,
        };
        self.ancestors.push(Ancestor { name: name.clone(), path: new.path.clone(), metadata, created: false });
        if !is_unchanged {
            self.create_ancestors()?;
        }
        self.dir(upper, opaque, &lower)?;
        self.ancestors.pop();
        Ok(())
    }

    fn leaf(&mut self, name: &OsString, new: &TreePath, old: Option<&Node>) -> Result<(), RootfsError> {
        let path = &new.path;
        let meta = stat(path)?;
        let kind = meta.file_type();
        if kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
            self.result.skipped_special_files += 1;
            return Ok(());
        }
        let old = match old {
            Some(Node::Leaf(old)) => Some(old),
            _ => None,
        };
        if let Some(old) = old
            && self.same_metadata(name, new, &meta, old)?
            && self.same_content(path, &meta, &old.path).map_err(RootfsError::io("compare", path))?
        {
            return Ok(());
        }
        let metadata = self.metadata(name, new, &meta, old)?;
        self.create_ancestors()?;
        let to = self.dest_path(name);
        fs::rename(path, &to).map_err(RootfsError::io("move", path))?;
        self.finish_entry(self.entry_path(name), &to, &meta, metadata)
    }

    fn whiteout(&mut self, name: &OsString) -> Result<(), RootfsError> {
        self.create_ancestors()?;
        let to = self.dest_path(name);
        self.result.entries += 1;
        mknodat(CWD, &to, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|e| RootfsError::io("create the whiteout", &to)(e.into()))
    }

    fn dest_path(&self, name: &OsString) -> PathBuf {
        let mut to = self.dest.to_owned();
        to.extend(self.ancestors.iter().map(|ancestor| &ancestor.name));
        to.push(name);
        to
    }

    /// Creates the directories above the entry that is written next, as far as they do not exist yet.
    fn create_ancestors(&mut self) -> Result<(), RootfsError> {
        let (mut to, mut relative) = (self.dest.to_owned(), PathBuf::new());
        for depth in 0..self.ancestors.len() {
            let Ancestor { name, path, metadata, created } = self.ancestors[depth].clone();
            to.push(&name);
            relative.push(&name);
            if created {
                continue;
            }
            self.ancestors[depth].created = true;
            fs::create_dir(&to).map_err(RootfsError::io("create", &to))?;
            let meta = stat(&path)?;
            self.finish_entry(EntryPath::new(relative.as_os_str().as_bytes()), &to, &meta, metadata)?;
        }
        Ok(())
    }

    /// Gives a new entry the owner and mode that let its user read and remove it, and records its true ones.
    fn finish_entry(
        &mut self,
        path: EntryPath,
        to: &Path,
        meta: &fs::Metadata,
        metadata: EntryMetadata,
    ) -> Result<(), RootfsError> {
        self.result.entries += 1;
        if meta.uid() != self.euid && !meta.is_dir() {
            let (uid, gid) = (Uid::from_raw(self.euid), Gid::from_raw(rustix::process::getegid().as_raw()));
            chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| RootfsError::io("change the owner of", to)(e.into()))?;
        }
        if !meta.file_type().is_symlink() {
            let disk = disk_mode(metadata.mode.unwrap_or(meta.mode()), meta.is_dir());
            fs::set_permissions(to, fs::Permissions::from_mode(disk))
                .map_err(RootfsError::io("set the mode of", to))?;
        }
        if metadata != EntryMetadata::default() {
            self.result.metadata.0.insert(path, metadata);
        }
        Ok(())
    }

    /// Owner, mode and extended attributes of an entry in the image: those recorded for it, else those on disk, else
    /// those of the entry below.
    fn metadata(
        &self,
        name: &OsString,
        new: &TreePath,
        meta: &fs::Metadata,
        old: Option<&TreePath>,
    ) -> Result<EntryMetadata, RootfsError> {
        let path = self.entry_path(name);
        let mut metadata = old.map(|old| self.lowers[old.tree].metadata.of(&path)).unwrap_or_default();
        let recorded = self.uppers[new.tree].metadata.0.get(&path);
        if let Some(recorded) = recorded {
            (metadata.uid, metadata.gid) = (recorded.uid, recorded.gid);
        } else if meta.uid() != self.euid {
            (metadata.uid, metadata.gid) = (meta.uid(), meta.gid());
        }
        let mode = recorded.and_then(|recorded| recorded.mode).unwrap_or(meta.mode() & 0o7777);
        let has_old_mode = match old {
            Some(old) => stat(&old.path)?.mode() & 0o7777 == mode,
            None => false,
        };
        if !has_old_mode {
            let disk = disk_mode(mode, meta.is_dir());
            metadata.mode = (disk != mode && !meta.file_type().is_symlink()).then_some(mode);
        }
        metadata.xattrs.extend(self.xattrs(&path, new)?);
        Ok(metadata)
    }

    fn xattrs(&self, path: &EntryPath, new: &TreePath) -> Result<BTreeMap<String, Vec<u8>>, RootfsError> {
        let mut xattrs =
            xattrs::read(&new.path).map_err(RootfsError::io("read the extended attributes of", &new.path))?;
        xattrs.extend(self.uppers[new.tree].metadata.of(path).xattrs);
        Ok(xattrs)
    }

    /// Whether file type, mode, owner and extended attributes are those of the entry below.
    fn same_metadata(
        &self,
        name: &OsString,
        new: &TreePath,
        meta: &fs::Metadata,
        old: &TreePath,
    ) -> Result<bool, RootfsError> {
        let path = self.entry_path(name);
        let (before, recorded) = (stat(&old.path)?, self.lowers[old.tree].metadata.of(&path));
        let now = self.metadata(name, new, meta, Some(old))?;
        let mode = |metadata: &EntryMetadata, meta: &fs::Metadata| metadata.mode.unwrap_or(meta.mode() & 0o7777);
        Ok(meta.file_type() == before.file_type()
            && (now.uid, now.gid, &now.xattrs) == (recorded.uid, recorded.gid, &recorded.xattrs)
            && (meta.file_type().is_symlink() || mode(&now, meta) == mode(&recorded, &before)))
    }

    fn same_content(&self, path: &Path, meta: &fs::Metadata, lower: &Path) -> io::Result<bool> {
        if meta.file_type().is_symlink() {
            return Ok(fs::read_link(path)? == fs::read_link(lower)?);
        }
        if !meta.is_file() {
            return Ok(true);
        }
        if meta.len() != fs::symlink_metadata(lower)?.len() {
            return Ok(false);
        }
        if self.copied_at.is_some_and(|copied_at| (meta.ctime(), meta.ctime_nsec()) <= copied_at) {
            return Ok(true);
        }
        same_bytes(path, lower)
    }

    fn report_conflict(&mut self, upper: &MergedDir, name: &OsString, top: &Path, path: &EntryPath) {
        for other in upper.iter().map(|dir| dir.path.join(name)).filter(|other| other != top) {
            let Ok(meta) = fs::symlink_metadata(&other) else { continue };
            if meta.is_file() && !same_bytes(top, &other).unwrap_or(false) {
                self.result.conflicts.push(path.clone());
                return;
            }
        }
    }
}

fn stat(path: &Path) -> Result<fs::Metadata, RootfsError> {
    fs::symlink_metadata(path).map_err(RootfsError::io("read the metadata of", path))
}

/// The mode of an entry in the store: without setuid and setgid bits, and open to its owner.
fn disk_mode(mode: u32, is_dir: bool) -> u32 {
    (mode & 0o1777) | if is_dir { 0o700 } else { 0o600 }
}

fn is_excluded(path: &EntryPath) -> bool {
    let bytes = path.as_bytes();
    EXCLUDED.iter().any(|prefix| {
        bytes.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

fn same_bytes(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (fs::File::open(a)?, fs::File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let n = a.read(&mut left)?;
        if n == 0 {
            return Ok(true);
        }
        b.read_exact(&mut right[..n])?;
        if left[..n] != right[..n] {
            return Ok(false);
        }
    }
}
