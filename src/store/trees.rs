//! Unpacked, normalized trees by diff id: the lower directories of every root filesystem.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use phial_layers::{DiffId, Metadata};
use serde::{Deserialize, Serialize};

use super::{Guard, Scratch, Store, StoreError, at, sync_dir};

/// One layer as a directory, in overlayfs's own form (whiteouts are character devices 0:0, opaque directories carry
/// `user.overlay.opaque`), with the records of what the disk cannot say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tree {
    /// The directory that is the layer's root.
    pub root: PathBuf,
    /// Owners, full modes, extended attributes.
    pub records: Metadata,
    /// Facts that were worked out when the tree was made.
    pub about: TreeInfo,
}

/// Facts about a tree, kept beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeInfo {
    /// Device nodes of the layer that an ordinary user cannot make; the blob still has them.
    pub skipped_devices: u64,
}

impl Tree {
    /// A directory of which nothing is recorded.
    pub fn bare(root: &Path) -> Self {
        Self { root: root.to_owned(), records: Metadata::default(), about: TreeInfo::default() }
    }
}

/// A tree was found, or is to be made.
pub enum TreeLookup {
    /// It is there.
    Hit(Tree),
    /// It is not; other processes wait until this vacant is kept or dropped.
    Miss(VacantTree),
}

/// The right to make one tree: an empty folder, and a lock that keeps others from doing the same work.
pub struct VacantTree {
    /// Where to put the root: an empty directory.
    pub root: PathBuf,
    diff_id: DiffId,
    scratch: Scratch,
    store: Store,
    _lock: Guard,
}

#[derive(Serialize, Deserialize)]
struct TreeFile {
    records: Metadata,
    about: TreeInfo,
}

impl Store {
    fn tree_path(&self, diff_id: &DiffId) -> PathBuf {
        self.root().join("trees").join(diff_id.0.hex())
    }

    /// The tree of that diff id, if it is kept. One whose records cannot be read counts as not there.
    pub fn find_tree(&self, diff_id: &DiffId) -> Option<Tree> {
        let path = self.tree_path(diff_id);
        let records = path.join("records.json");
        let beside: TreeFile = serde_json::from_slice(&fs::read(&records).ok()?).ok()?;
        super::evict::touch(&records);
        let root = path.join("root");
        root.is_dir().then_some(Tree { root, records: beside.records, about: beside.about })
    }

    /// The tree, or the vacant to make it in.
    pub fn tree(&self, diff_id: &DiffId) -> Result<TreeLookup, StoreError> {
        if let Some(tree) = self.find_tree(diff_id) {
            return Ok(TreeLookup::Hit(tree));
        }
        let lock = self.lock(diff_id.0.hex())?;
        if let Some(tree) = self.find_tree(diff_id) {
            return Ok(TreeLookup::Hit(tree));
        }
        let scratch = self.scratch()?;
        let root = scratch.dir("tree/root")?;
        Ok(TreeLookup::Miss(VacantTree { root, diff_id: diff_id.clone(), scratch, store: self.clone(), _lock: lock }))
    }

    /// Keeps a tree that was made in a scratch folder of this store. `root` is moved.
    pub fn keep_tree(&self, root: &Path, diff_id: &DiffId, records: &Metadata) -> Result<Tree, StoreError> {
        match self.tree(diff_id)? {
            TreeLookup::Hit(tree) => Ok(tree),
            TreeLookup::Miss(vacant) => {
                fs::remove_dir(&vacant.root).map_err(at("remove", &vacant.root))?;
                fs::rename(root, &vacant.root).map_err(at("move", root))?;
                vacant.keep(records, TreeInfo::default())
            }
        }
    }
}

impl VacantTree {
    /// Keeps what is in `root` now.
    pub fn keep(self, records: &Metadata, about: TreeInfo) -> Result<Tree, StoreError> {
        let made = self.scratch.path().join("tree");
        let beside = TreeFile { records: records.clone(), about };
        let json = serde_json::to_vec(&beside).map_err(|e| at("write", &made)(e.into()))?;
        let path = made.join("records.json");
        fs::write(&path, json).map_err(at("write", &path))?;
        let folder = File::open(&made).map_err(at("open", &made))?;
        rustix::fs::syncfs(&folder).map_err(|e| at("sync", &made)(e.into()))?;
        let kept = self.store.tree_path(&self.diff_id);
        if kept.exists() {
            // It was there and could not be used.
            super::remove_tree(&kept).map_err(at("remove", &kept))?;
        }
        fs::rename(&made, &kept).map_err(at("keep", &kept))?;
        sync_dir(&self.store.root().join("trees"))?;
        Ok(Tree { root: kept.join("root"), records: beside.records, about: beside.about })
    }
}
