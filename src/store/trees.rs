//! Unpacked layers by diff ID: the lower directories of every root filesystem.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use phial_layers::{DiffId, EntryPath, Metadata};
use serde::{Deserialize, Serialize};

use super::disk::{METADATA_FILE, read, sync_dir, touch};
use super::error::{StoreError, at};
use super::scratch::Scratch;
use super::seal::{RootSeal, Seal};
use super::{Guard, Store};
use crate::tree::{FileKind, TreeRoot, WalkEntry, remove_tree};

/// One layer as a directory in overlayfs's form (whiteouts are character devices 0:0, opaque directories have the
/// extended attribute `user.overlay.opaque`), and the metadata that an ordinary user cannot put on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tree {
    /// The directory that is the layer's root.
    pub root: TreeRoot,
    /// Owners, full modes, extended attributes.
    pub metadata: Metadata,
    /// Facts known since the layer was unpacked.
    pub info: TreeInfo,
}

/// Facts about an unpacked layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeInfo {
    /// Number of device nodes that only the layer's blob has: an ordinary user cannot create them.
    pub skipped_devices: u64,
    /// Files and directories that every user may write to, sorted.
    pub world_writable: Vec<EntryPath>,
}

impl Tree {
    /// A directory whose entries have the metadata that the disk shows.
    pub fn bare(root: &Path) -> Self {
        Self { root: TreeRoot::new(root), metadata: Metadata::default(), info: TreeInfo::default() }
    }
}

/// The result of [`Store::tree`].
pub enum TreeLookup {
    /// The tree is in the store.
    Hit(Tree),
    /// It is not. Other processes that look it up wait until this value is kept or dropped.
    Miss(VacantTree),
}

/// The right to add one tree to the store: an empty directory, and a lock that keeps other processes from unpacking the
/// same layer.
pub struct VacantTree {
    /// An empty directory to unpack the layer into.
    pub root: PathBuf,
    diff_id: DiffId,
    scratch: Scratch,
    store: Store,
    _lock: Guard,
}

/// `records.json` beside the directory of a tree.
#[derive(Serialize, Deserialize)]
struct MetadataFile {
    #[serde(rename = "records")]
    metadata: Metadata,
    #[serde(rename = "about")]
    info: TreeInfo,
    /// What the tree was when it was kept; none in trees of versions before 0.2, which are made again.
    seal: Option<Seal>,
}

/// How much of a tree is compared with what it was when it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeCheck {
    /// Its root directory: notices a tree that was copied, restored or made by another program.
    Root,
    /// Every entry, the first time that this process asks for the tree: notices whatever was changed in it.
    Entries,
}

impl Store {
    fn tree_path(&self, diff_id: &DiffId) -> PathBuf {
        self.root().join("trees").join(diff_id.0.hex())
    }

    /// The tree of that diff ID; `None` if it is not in the store, its metadata cannot be read, or it is not what was kept.
    pub fn find_tree(&self, diff_id: &DiffId, check: TreeCheck) -> Option<Tree> {
        let path = self.tree_path(diff_id);
        let file = path.join(METADATA_FILE);
        let MetadataFile { metadata, info, seal } = serde_json::from_slice(&read(&file)?).ok()?;
        let root = TreeRoot::new(path.join("root"));
        if !self.is_intact(diff_id, &root, &seal?, check) {
            return None;
        }
        touch(&file);
        Some(Tree { root, metadata, info })
    }

    fn is_intact(&self, diff_id: &DiffId, root: &TreeRoot, seal: &Seal, check: TreeCheck) -> bool {
        let Ok(dir) = root.open() else { return false };
        if RootSeal::of(&dir).ok().flatten().as_ref() != Some(&seal.root) {
            return false;
        }
        // The lock is not held during the walk: trees are looked up in parallel.
        let checked = || self.checked_trees.lock().unwrap_or_else(PoisonError::into_inner);
        if check == TreeCheck::Root || checked().contains(diff_id) {
            return true;
        }
        let is_intact = Seal::of(&dir, |_| {}).ok().flatten().as_ref() == Some(seal);
        if is_intact {
            checked().insert(diff_id.clone());
        }
        is_intact
    }

    /// Looks a tree up; waits while another process unpacks the same layer. One that is not what was kept is a miss.
    pub fn tree(&self, diff_id: &DiffId, check: TreeCheck) -> Result<TreeLookup, StoreError> {
        if let Some(tree) = self.find_tree(diff_id, check) {
            return Ok(TreeLookup::Hit(tree));
        }
        let lock = self.lock(diff_id.0.hex())?;
        if let Some(tree) = self.find_tree(diff_id, check) {
            return Ok(TreeLookup::Hit(tree));
        }
        let scratch = self.scratch()?;
        let root = scratch.dir("tree/root")?;
        Ok(TreeLookup::Miss(VacantTree { root, diff_id: diff_id.clone(), scratch, store: self.clone(), _lock: lock }))
    }

    /// Moves the directory `root`, in a scratch directory of this store, into the store as the tree of `diff_id`.
    pub fn keep_tree(&self, root: &Path, diff_id: &DiffId, metadata: &Metadata) -> Result<Tree, StoreError> {
        match self.tree(diff_id, TreeCheck::Entries)? {
            TreeLookup::Hit(tree) => Ok(tree),
            TreeLookup::Miss(vacant) => {
                fs::remove_dir(&vacant.root).map_err(at("remove", &vacant.root))?;
                fs::rename(root, &vacant.root).map_err(at("move", root))?;
                vacant.keep(metadata, 0)
            }
        }
    }
}

impl VacantTree {
    /// Adds the directory `root` to the store. `skipped_devices` is as in [`TreeInfo`].
    pub fn keep(self, metadata: &Metadata, skipped_devices: u64) -> Result<Tree, StoreError> {
        let new = self.scratch.path().join("tree");
        let path = new.join(METADATA_FILE);
        let mut info = TreeInfo { skipped_devices, world_writable: Vec::new() };
        let visit = |entry: &WalkEntry| info.world_writable.extend(world_writable(entry, metadata));
        let seal = TreeRoot::new(new.join("root")).open().and_then(|root| Seal::of(&root, visit));
        let seal = seal.map_err(|error| at("read", &new)(error.source))?;
        let bytes = seal.as_ref().map_or(0, |seal| seal.bytes);
        let file = MetadataFile { metadata: metadata.clone(), info, seal };
        let json = serde_json::to_vec(&file).map_err(|e| at("write", &path)(e.into()))?;
        fs::write(&path, json).map_err(at("write", &path))?;
        let dir = File::open(&new).map_err(at("open", &new))?;
        rustix::fs::syncfs(&dir).map_err(|e| at("sync", &new)(e.into()))?;
        let kept = self.store.tree_path(&self.diff_id);
        if fs::symlink_metadata(&kept).is_ok() {
            // Its metadata could not be read, or it is not what was kept.
            remove_tree(&kept).map_err(at("remove", &kept))?;
        }
        fs::rename(&new, &kept).map_err(at("keep", &kept))?;
        sync_dir(&self.store.root().join("trees"))?;
        self.store.count_added(bytes);
        Ok(Tree { root: TreeRoot::new(kept.join("root")), metadata: file.metadata, info: file.info })
    }
}

/// The path of a file or directory that every user may write to.
fn world_writable(entry: &WalkEntry, metadata: &Metadata) -> Option<EntryPath> {
    let path = EntryPath::new(entry.path.as_os_str().as_bytes());
    let mode = metadata.0.get(&path).and_then(|metadata| metadata.mode).unwrap_or_else(|| entry.stat.mode());
    (mode & 0o002 != 0 && matches!(entry.stat.kind(), FileKind::Dir | FileKind::File)).then_some(path)
}
