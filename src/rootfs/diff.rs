//! What a step changed, as a tree of its own: an upper directory in overlayfs's form, with whiteouts.
//!
//! The result is the difference between two views, not what the file system happened to copy up. A file that was opened
//! for writing and not changed, a directory that was touched, a hard link that was broken and a modification time are
//! no change. So overlay, copy and chroot, which notice different things, give the same tree. Changed files are moved,
//! not copied.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use phial_layers::{EntryMetadata, EntryPath, Metadata};
use serde::{Deserialize, Serialize};

use super::error::RootfsError;
use super::overwritten::same_bytes;
use super::view::{MergedDir, Node, TreePath, View};
use super::xattrs::{self, Xattrs};
use crate::error::IoError;
use crate::store::Tree;
use crate::tree::{EntryStat, FileKind, TreeDir, TreeRoot};

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

/// The most entries that a command may leave in what it changed and in the directories of those, and the most directories one
/// in another: a tree with more is a mistake or an attack on this machine's memory.
const MAX_ENTRIES: u64 = 5_000_000;
const MAX_DEPTH: usize = 256;

/// Where a command wrote: what is compared with the trees below.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum DiffSource {
    /// Upper directories of overlays over those trees, or results of earlier [`diff`]s, topmost first.
    UpperDirs(Vec<Tree>),
    /// A copy of the trees in which a command ran.
    FullCopy {
        /// The copy.
        dir: TreeRoot,
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
    /// Files and directories whose access control list (ACL) is left out.
    pub acls: Vec<EntryPath>,
}

struct DiffWalk<'a> {
    uppers: &'a [Tree],
    upper_view: &'a View,
    lowers: &'a [Tree],
    lower_view: &'a View,
    copied_at: Option<(i64, i64)>,
    dest: &'a TreeDir,
    /// User and group of what the caller writes: what a step sees as root's.
    own: (u32, u32),
    /// The root of the upper view.
    root: EntryStat,
    /// How many entries were looked at.
    seen: u64,
    result: TreeDiff,
    /// The directories from the root down to the one that is walked.
    ancestors: Vec<Ancestor>,
}

#[derive(Clone)]
struct Ancestor {
    name: OsString,
    stat: EntryStat,
    metadata: EntryMetadata,
    /// Whether it exists below `dest`.
    created: bool,
    /// Whether it, or a directory above it, may have been moved since the copy was complete.
    may_be_moved: bool,
}

/// Moves what `source` changes over `lowers` (topmost first) to the empty directory `dest` of the same file system.
pub fn diff(source: &DiffSource, lowers: &[Tree], dest: &TreeRoot) -> Result<TreeDiff, RootfsError> {
    let (uppers, opaque, copied_at) = match source {
        DiffSource::UpperDirs(trees) => (trees.clone(), false, None),
        DiffSource::FullCopy { dir, copied_at } => (vec![Tree::bare(dir.as_path())], true, Some(*copied_at)),
    };
    let (result, ancestors) = (TreeDiff::default(), vec![]);
    let (upper_view, lower_view, dest) = (&View::open(&uppers)?, &View::open(lowers)?, &dest.open()?);
    let own = dest.stat("")?.map_or((0, 0), |stat| (stat.uid(), stat.gid()));
    let top = upper_view.root()?;
    let (root, seen) = (top[0].stat, 0);
    let mut walk = DiffWalk {
        uppers: &uppers,
        upper_view,
        lowers,
        lower_view,
        copied_at,
        dest,
        own,
        root,
        seen,
        result,
        ancestors,
    };
    walk.dir(&top, opaque, &lower_view.root()?)?;
    Ok(walk.result)
}

impl DiffWalk<'_> {
    /// The path of the entry `name` of the directory that is walked, from the root of the view.
    fn entry_path(&self, name: &OsString) -> EntryPath {
        EntryPath::new(self.dest_path(name).as_os_str().as_bytes())
    }

    fn dir(&mut self, upper: &MergedDir, opaque: bool, lower: &MergedDir) -> Result<(), RootfsError> {
        let mut nodes = self.upper_view.list(upper)?;
        self.seen += nodes.len() as u64;
        if self.seen > MAX_ENTRIES || self.ancestors.len() > MAX_DEPTH {
            let path: PathBuf = self.ancestors.iter().map(|ancestor| &ancestor.name).collect();
            return Err(RootfsError::TooMany(EntryPath::new(path.as_os_str().as_bytes())));
        }
        let lower_nodes = self.lower_view.list(lower)?;
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
                    self.report_conflict(upper, &name, &new, &path)?;
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
        let (new, xattrs) = self.without_acl(name, &upper[0])?;
        let lower = match old {
            Some(Node::Dir { merged, .. }) => merged.clone(),
            _ => MergedDir::new(),
        };
        let metadata = self.metadata(name, &new, lower.first(), xattrs.kept);
        let is_unchanged = match lower.first() {
            Some(old) => self.same_metadata(name, &metadata, &new, old),
            None => false,
        };
        let may_be_moved = self.may_be_moved(&new.stat);
        self.ancestors.push(Ancestor { name: name.clone(), stat: new.stat, metadata, created: false, may_be_moved });
        if !is_unchanged {
            self.create_ancestors()?;
        }
        self.dir(upper, opaque, &lower)?;
        self.ancestors.pop();
        Ok(())
    }

    fn leaf(&mut self, name: &OsString, new: &TreePath, old: Option<&Node>) -> Result<(), RootfsError> {
        if matches!(new.stat.kind(), FileKind::Special | FileKind::Whiteout) {
            self.result.skipped_special_files += 1;
            return Ok(());
        }
        let old = match old {
            Some(Node::Leaf(old)) => Some(old),
            _ => None,
        };
        let (new, xattrs) = self.without_acl(name, new)?;
        let metadata = self.metadata(name, &new, old, xattrs.kept);
        if let Some(old) = old
            && self.same_metadata(name, &metadata, &new, old)
            && self.same_content(&new, old)?
        {
            return Ok(());
        }
        self.create_ancestors()?;
        let to = self.dest_path(name);
        self.upper_view.tree(&new).rename(&new.path, self.dest, &to)?;
        if xattrs.acl.is_some() {
            xattrs::remove_acl(self.dest, &to)?;
        }
        self.finish_entry(&to, &new.stat, metadata)
    }

    /// The entry with the mode that it has without its ACL, and its extended attributes.
    fn without_acl(&mut self, name: &OsString, new: &TreePath) -> Result<(TreePath, Xattrs), RootfsError> {
        let xattrs = xattrs::read(self.upper_view.tree(new), &new.path)?;
        let mut new = new.clone();
        if let Some(acl) = &xattrs.acl {
            new.stat = acl.removed_from(new.stat);
            self.result.acls.push(self.entry_path(name));
        }
        Ok((new, xattrs))
    }

    fn whiteout(&mut self, name: &OsString) -> Result<(), RootfsError> {
        self.create_ancestors()?;
        self.result.entries += 1;
        Ok(self.dest.create_whiteout(self.dest_path(name))?)
    }

    /// The same relative to `dest`.
    fn dest_path(&self, name: &OsString) -> PathBuf {
        let mut to = PathBuf::new();
        to.extend(self.ancestors.iter().map(|ancestor| &ancestor.name));
        to.push(name);
        to
    }

    /// Creates the directories above the entry that is written next, as far as they do not exist yet.
    fn create_ancestors(&mut self) -> Result<(), RootfsError> {
        let mut to = PathBuf::new();
        for depth in 0..self.ancestors.len() {
            let Ancestor { name, stat, metadata, created, .. } = self.ancestors[depth].clone();
            to.push(&name);
            if created {
                continue;
            }
            self.ancestors[depth].created = true;
            self.dest.create_dir(&to)?;
            self.finish_entry(&to, &stat, metadata)?;
        }
        Ok(())
    }

    /// Gives a new entry the owner and mode that let its user read and remove it, and records its true ones.
    fn finish_entry(&mut self, to: &Path, stat: &EntryStat, metadata: EntryMetadata) -> Result<(), RootfsError> {
        self.result.entries += 1;
        if (stat.uid(), stat.gid()) != self.own && !stat.is_directory() {
            self.dest.set_owner(to, self.own.0, self.own.1)?;
        }
        if stat.kind() != FileKind::Symlink {
            self.dest.set_mode(to, disk_mode(metadata.mode.unwrap_or(stat.mode()), stat.is_directory()))?;
        }
        if metadata != EntryMetadata::default() {
            self.result.metadata.0.insert(EntryPath::new(to.as_os_str().as_bytes()), metadata);
        }
        Ok(())
    }

    /// Owner, mode and extended attributes of an entry in the image: those recorded for it, else those on disk, else
    /// those of the entry below. User and group each: what is the caller's on disk may be another's below, which no step sees.
    /// `xattrs` are those on disk.
    fn metadata(
        &self,
        name: &OsString,
        new: &TreePath,
        old: Option<&TreePath>,
        xattrs: BTreeMap<String, Vec<u8>>,
    ) -> EntryMetadata {
        let (path, stat) = (self.entry_path(name), &new.stat);
        let mut metadata = old.map(|old| self.lowers[old.tree].metadata.of(&path)).unwrap_or_default();
        let recorded = self.uppers[new.tree].metadata.0.get(&path);
        if let Some(recorded) = recorded {
            (metadata.uid, metadata.gid) = (recorded.uid, recorded.gid);
        } else {
            metadata.uid = if stat.uid() == self.own.0 { metadata.uid } else { stat.uid() };
            metadata.gid = if stat.gid() == self.own.1 { metadata.gid } else { stat.gid() };
        }
        let mode = recorded.and_then(|recorded| recorded.mode).unwrap_or(stat.mode());
        if old.is_none_or(|old| old.stat.mode() != mode) {
            let disk = disk_mode(mode, stat.is_directory());
            metadata.mode = (disk != mode && stat.kind() != FileKind::Symlink).then_some(mode);
        }
        metadata.xattrs.extend(xattrs);
        metadata.xattrs.extend(self.uppers[new.tree].metadata.of(&path).xattrs);
        metadata
    }

    /// Whether file type, mode, owner and extended attributes are those of the entry below. `now` is [`DiffWalk::metadata`] of the
    /// new entry.
    fn same_metadata(&self, name: &OsString, now: &EntryMetadata, new: &TreePath, old: &TreePath) -> bool {
        let recorded = self.lowers[old.tree].metadata.of(&self.entry_path(name));
        let mode = |metadata: &EntryMetadata, stat: &EntryStat| metadata.mode.unwrap_or(stat.mode());
        new.stat.kind() == old.stat.kind()
            && (now.uid, now.gid, &now.xattrs) == (recorded.uid, recorded.gid, &recorded.xattrs)
            && (new.stat.kind() == FileKind::Symlink || mode(now, &new.stat) == mode(&recorded, &old.stat))
    }

    fn same_content(&self, new: &TreePath, old: &TreePath) -> Result<bool, IoError> {
        let (upper, lower) = (self.upper_view.tree(new), self.lower_view.tree(old));
        match new.stat.kind() {
            FileKind::Symlink => Ok(upper.read_link(&new.path)? == lower.read_link(&old.path)?),
            FileKind::File if new.stat.size() != old.stat.size() => Ok(false),
            FileKind::File if self.is_as_copied(&new.stat) => Ok(true),
            FileKind::File => same_bytes(upper, &new.path, lower, &old.path),
            _ => Ok(true),
        }
    }

    /// Whether a directory of the copy, or one above it, may have come from another place: a rename changes the ctime of what is
    /// moved and of the directory that it comes to, and of nothing below.
    fn may_be_moved(&self, dir: &EntryStat) -> bool {
        let (above, parent) = match self.ancestors.last() {
            Some(parent) => (parent.may_be_moved, parent.stat.ctime()),
            None => (false, self.root.ctime()),
        };
        above || self.copied_at.is_some_and(|copied_at| dir.ctime() > copied_at && parent > copied_at)
    }

    /// Whether a file is at the path to which it was copied and has the content that it had then.
    fn is_as_copied(&self, file: &EntryStat) -> bool {
        self.copied_at.is_some_and(|copied_at| file.ctime() <= copied_at)
            && !self.ancestors.last().is_some_and(|dir| dir.may_be_moved)
    }

    fn report_conflict(
        &mut self,
        upper: &MergedDir,
        name: &OsString,
        top: &TreePath,
        path: &EntryPath,
    ) -> Result<(), RootfsError> {
        for dir in upper.iter().filter(|dir| dir.tree != top.tree) {
            let (tree, other) = (self.upper_view.tree(dir), dir.path.join(name));
            let is_file = tree.stat(&other)?.is_some_and(|stat| stat.is_regular_file());
            if is_file && !same_bytes(self.upper_view.tree(top), &top.path, tree, &other)? {
                self.result.conflicts.push(path.clone());
                break;
            }
        }
        Ok(())
    }
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
