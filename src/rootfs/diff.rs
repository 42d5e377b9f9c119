//! What a step changed, as a tree of its own.
//!
//! The change is the difference between two views, not what the file system happened to copy up: a file that was opened for
//! writing and left as it was, a directory that was touched, a hardlink that was broken are no change, and neither is a
//! modification time. So overlay, copy and chroot, which notice different things, give the same tree. Only the files that
//! changed are moved; nothing is copied.

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

use super::RootfsError;
use super::view::{self, Node, Parts};
use super::xattrs;
use crate::store::Tree;

/// Never part of a layer: mount points of the sandbox, what the sandbox supplies, and the caches of tools.
/// Each stands for itself and all below it.
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

/// The new view, to be compared with the trees below.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum New {
    /// Writable layers that lay over the trees, or earlier harvests of such, topmost first.
    Uppers(Vec<Tree>),
    /// A whole copy of the trees in which a command ran. A file whose status changed no later than `since` (seconds and
    /// nanoseconds) is as it was.
    Whole {
        /// The copy.
        dir: PathBuf,
        /// When the copying was over.
        since: (i64, i64),
    },
}

/// What came out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Harvest {
    /// Owners, modes and extended attributes of the new tree.
    pub records: Metadata,
    /// How many entries the tree has, directories that only lead to others included.
    pub entries: u64,
    /// Files that two writable layers hold with different bytes; the upper one was taken.
    pub clashes: Vec<EntryPath>,
    /// Sockets and device nodes that were left out.
    pub left_out: u64,
}

/// A path, with the number of its tree.
type At = (usize, PathBuf);

struct Walk<'a> {
    uppers: &'a [Tree],
    lowers: &'a [Tree],
    since: Option<(i64, i64)>,
    dest: &'a Path,
    me: u32,
    out: Harvest,
    made: Vec<bool>,
    trail: Vec<Step>,
}

/// A directory on the way to where the walk is.
#[derive(Clone)]
struct Step {
    name: OsString,
    path: PathBuf,
    record: EntryMetadata,
}

/// Moves what is new in `new` over `lowers` (topmost first) to the empty directory `dest` of the same file system.
pub fn harvest(new: &New, lowers: &[Tree], dest: &Path) -> Result<Harvest, RootfsError> {
    let (uppers, opaque, since) = match new {
        New::Uppers(trees) => (trees.clone(), false, None),
        New::Whole { dir, since } => (vec![Tree::bare(dir)], true, Some(*since)),
    };
    let me = rustix::process::geteuid().as_raw();
    let mut walk =
        Walk { uppers: &uppers, lowers, since, dest, me, out: Harvest::default(), made: vec![], trail: vec![] };
    walk.dir(&view::root(&uppers), opaque, &view::root(lowers))?;
    Ok(walk.out)
}

impl Walk<'_> {
    fn name(&self, last: &OsString) -> EntryPath {
        let mut path = PathBuf::new();
        path.extend(self.trail.iter().map(|step| &step.name));
        path.push(last);
        EntryPath::new(path.as_os_str().as_bytes())
    }

    fn dir(&mut self, new: &Parts, opaque: bool, old: &Parts) -> Result<(), RootfsError> {
        let mut names = view::list(new).map_err(RootfsError::io("read", &new[0].1))?;
        let below = if old.is_empty() { BTreeMap::new() } else { below_of(old)? };
        if opaque {
            for name in below.keys() {
                names.entry(name.clone()).or_insert(Node::Gone);
            }
        }
        for (name, node) in names {
            let full = self.name(&name);
            if excluded(&full) {
                continue;
            }
            if name.as_bytes().starts_with(b".wh.") {
                return Err(RootfsError::Reserved(full));
            }
            let old = below.get(&name).filter(|node| !matches!(node, Node::Gone));
            match node {
                Node::Gone if old.is_some() => self.whiteout(&name)?,
                Node::Gone => {}
                Node::Leaf { tree, path } => {
                    self.clash(new, &name, &path, &full);
                    self.leaf(&name, &(tree, path), old)?;
                }
                Node::Dir { parts, opaque: own } => self.child(&name, &parts, opaque || own, old)?,
            }
        }
        Ok(())
    }

    fn child(&mut self, name: &OsString, parts: &Parts, opaque: bool, old: Option<&Node>) -> Result<(), RootfsError> {
        let new = &parts[0];
        let meta = status(&new.1)?;
        let before = match old {
            Some(Node::Dir { parts, .. }) => Some(&parts[0]),
            _ => None,
        };
        let record = self.record(name, new, &meta, before)?;
        let same = match before {
            Some(lower) => self.same_status(name, new, &meta, lower)?,
            None => false,
        };
        self.trail.push(Step { name: name.clone(), path: new.1.clone(), record });
        self.made.push(false);
        if !same {
            self.make_dirs()?;
        }
        let empty = Parts::new();
        let below = match old {
            Some(Node::Dir { parts, .. }) => parts,
            _ => &empty,
        };
        self.dir(parts, opaque, below)?;
        self.trail.pop();
        self.made.pop();
        Ok(())
    }

    fn leaf(&mut self, name: &OsString, new: &At, old: Option<&Node>) -> Result<(), RootfsError> {
        let path = &new.1;
        let meta = status(path)?;
        let kind = meta.file_type();
        if kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
            self.out.left_out += 1;
            return Ok(());
        }
        let before = match old {
            Some(Node::Leaf { tree, path }) => Some((*tree, path.clone())),
            _ => None,
        };
        if let Some(lower) = &before
            && self.same_status(name, new, &meta, lower)?
            && self.same_content(path, &meta, &lower.1).map_err(RootfsError::io("compare", path))?
        {
            return Ok(());
        }
        let record = self.record(name, new, &meta, before.as_ref())?;
        self.make_dirs()?;
        let to = self.target(name);
        fs::rename(path, &to).map_err(RootfsError::io("move", path))?;
        self.put(self.name(name), &to, &meta, record)
    }

    fn whiteout(&mut self, name: &OsString) -> Result<(), RootfsError> {
        self.make_dirs()?;
        let to = self.target(name);
        self.out.entries += 1;
        mknodat(CWD, &to, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|e| RootfsError::io("mark as deleted", &to)(e.into()))
    }

    fn target(&self, name: &OsString) -> PathBuf {
        let mut to = self.dest.to_owned();
        to.extend(self.trail.iter().map(|step| &step.name));
        to.push(name);
        to
    }

    /// Makes the directories that lead to the entry at hand, as far as they are not made yet.
    fn make_dirs(&mut self) -> Result<(), RootfsError> {
        let mut to = self.dest.to_owned();
        let trail = self.trail.clone();
        for (depth, step) in trail.iter().enumerate() {
            to.push(&step.name);
            if self.made[depth] {
                continue;
            }
            self.made[depth] = true;
            fs::create_dir(&to).map_err(RootfsError::io("create", &to))?;
            let meta = status(&step.path)?;
            let mut relative = PathBuf::new();
            relative.extend(trail[..depth].iter().map(|step| &step.name));
            let name = EntryPath::new(relative.join(&step.name).as_os_str().as_bytes());
            self.put(name, &to, &meta, step.record.clone())?;
        }
        Ok(())
    }

    /// Gives an entry of the new tree the owner and mode that its caller can work with, and keeps the true ones.
    fn put(
        &mut self,
        name: EntryPath,
        to: &Path,
        meta: &fs::Metadata,
        record: EntryMetadata,
    ) -> Result<(), RootfsError> {
        self.out.entries += 1;
        if meta.uid() != self.me && !meta.is_dir() {
            let ids = (Some(Uid::from_raw(self.me)), Some(Gid::from_raw(rustix::process::getegid().as_raw())));
            chownat(CWD, to, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| RootfsError::io("own", to)(e.into()))?;
        }
        if !meta.file_type().is_symlink() {
            let disk = disk_mode(record.mode.unwrap_or(meta.mode()), meta.is_dir());
            fs::set_permissions(to, fs::Permissions::from_mode(disk))
                .map_err(RootfsError::io("set the mode of", to))?;
        }
        if record != EntryMetadata::default() {
            self.out.records.0.insert(name, record);
        }
        Ok(())
    }

    /// Owner, mode and extended attributes as the image shall have them: what is recorded of the entry, else what the disk
    /// says, else what was true of the one below.
    fn record(
        &self,
        name: &OsString,
        new: &At,
        meta: &fs::Metadata,
        old: Option<&At>,
    ) -> Result<EntryMetadata, RootfsError> {
        let full = self.name(name);
        let mut record = old.map(|old| self.lowers[old.0].records.of(&full)).unwrap_or_default();
        let own = self.uppers[new.0].records.0.get(&full);
        if let Some(own) = own {
            (record.uid, record.gid) = (own.uid, own.gid);
        } else if meta.uid() != self.me {
            (record.uid, record.gid) = (meta.uid(), meta.gid());
        }
        let mode = own.and_then(|own| own.mode).unwrap_or(meta.mode() & 0o7777);
        let kept = match old {
            Some(old) => status(&old.1)?.mode() & 0o7777 == mode,
            None => false,
        };
        if !kept {
            let disk = disk_mode(mode, meta.is_dir());
            record.mode = (disk != mode && !meta.file_type().is_symlink()).then_some(mode);
        }
        record.xattrs.extend(self.xattrs(&full, new)?);
        Ok(record)
    }

    fn xattrs(&self, full: &EntryPath, new: &At) -> Result<BTreeMap<String, Vec<u8>>, RootfsError> {
        let mut found = xattrs::read(&new.1).map_err(RootfsError::io("read the attributes of", &new.1))?;
        found.extend(self.uppers[new.0].records.of(full).xattrs);
        Ok(found)
    }

    /// Whether kind, mode, owner and attributes are as they were below.
    fn same_status(&self, name: &OsString, new: &At, meta: &fs::Metadata, old: &At) -> Result<bool, RootfsError> {
        let full = self.name(name);
        let (before, recorded) = (status(&old.1)?, self.lowers[old.0].records.of(&full));
        let now = self.record(name, new, meta, Some(old))?;
        let true_mode = |record: &EntryMetadata, meta: &fs::Metadata| record.mode.unwrap_or(meta.mode() & 0o7777);
        let link = meta.file_type().is_symlink();
        Ok(meta.file_type() == before.file_type()
            && (now.uid, now.gid, &now.xattrs) == (recorded.uid, recorded.gid, &recorded.xattrs)
            && (link || true_mode(&now, meta) == true_mode(&recorded, &before)))
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
        if self.since.is_some_and(|since| (meta.ctime(), meta.ctime_nsec()) <= since) {
            return Ok(true);
        }
        same_bytes(path, lower)
    }

    fn clash(&mut self, parts: &Parts, name: &OsString, top: &Path, full: &EntryPath) {
        let others = parts.iter().map(|(_, dir)| dir.join(name)).filter(|path| path != top);
        for other in others {
            let Ok(meta) = fs::symlink_metadata(&other) else { continue };
            if meta.is_file() && !same_bytes(top, &other).unwrap_or(false) {
                self.out.clashes.push(full.clone());
                return;
            }
        }
    }
}

fn below_of(old: &Parts) -> Result<BTreeMap<OsString, Node>, RootfsError> {
    view::list(old).map_err(RootfsError::io("read", &old[0].1))
}

fn status(path: &Path) -> Result<fs::Metadata, RootfsError> {
    fs::symlink_metadata(path).map_err(RootfsError::io("look at", path))
}

/// The caller must be able to read and enter what it keeps, and keeps no setuid file.
fn disk_mode(mode: u32, dir: bool) -> u32 {
    (mode & 0o1777) | if dir { 0o700 } else { 0o600 }
}

fn excluded(name: &EntryPath) -> bool {
    let bytes = name.as_bytes();
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
