//! Unpacked layers by diff ID: the lower directories of every root filesystem.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use phial_layers::{DiffId, Metadata};
use serde::{Deserialize, Serialize};

use super::disk::{METADATA_FILE, sync_dir, touch};
use super::error::{StoreError, at};
use super::scratch::Scratch;
use super::{Guard, Store};
use crate::tree::{TreeRoot, remove_tree};

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
}

impl Store {
    fn tree_path(&self, diff_id: &DiffId) -> PathBuf {
        self.root().join("trees").join(diff_id.0.hex())
    }

    /// The tree of that diff ID; `None` if it is not in the store or its metadata cannot be read.
    pub fn find_tree(&self, diff_id: &DiffId) -> Option<Tree> {
        let path = self.tree_path(diff_id);
        let file = path.join(METADATA_FILE);
        let MetadataFile { metadata, info } = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        touch(&file);
        let root = path.join("root");
        root.is_dir().then(|| Tree { root: TreeRoot::new(root), metadata, info })
    }

    /// Looks a tree up; waits while another process unpacks the same layer.
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

    /// Moves the directory `root`, in a scratch directory of this store, into the store as the tree of `diff_id`.
    pub fn keep_tree(&self, root: &Path, diff_id: &DiffId, metadata: &Metadata) -> Result<Tree, StoreError> {
        match self.tree(diff_id)? {
            TreeLookup::Hit(tree) => Ok(tree),
            TreeLookup::Miss(vacant) => {
                fs::remove_dir(&vacant.root).map_err(at("remove", &vacant.root))?;
                fs::rename(root, &vacant.root).map_err(at("move", root))?;
                vacant.keep(metadata, TreeInfo::default())
            }
        }
    }
}

impl VacantTree {
    /// Adds the directory `root` to the store.
    pub fn keep(self, metadata: &Metadata, info: TreeInfo) -> Result<Tree, StoreError> {
        let new = self.scratch.path().join("tree");
        let path = new.join(METADATA_FILE);
        let file = MetadataFile { metadata: metadata.clone(), info };
        let json = serde_json::to_vec(&file).map_err(|e| at("write", &path)(e.into()))?;
        fs::write(&path, json).map_err(at("write", &path))?;
        let dir = File::open(&new).map_err(at("open", &new))?;
        rustix::fs::syncfs(&dir).map_err(|e| at("sync", &new)(e.into()))?;
        let kept = self.store.tree_path(&self.diff_id);
        if kept.exists() {
            // Its metadata could not be read.
            remove_tree(&kept).map_err(at("remove", &kept))?;
        }
        fs::rename(&new, &kept).map_err(at("keep", &kept))?;
        sync_dir(&self.store.root().join("trees"))?;
        Ok(Tree { root: TreeRoot::new(kept.join("root")), metadata: file.metadata, info: file.info })
    }
}
