//! Lists what is in the store, and removes the least recently used items until the store is below a limit.
//!
//! Every process that has the store open holds a shared lock on it, and pruning needs the exclusive lock: nothing is
//! removed while another process uses the store.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Store;
use super::disk::METADATA_FILE;
use super::error::{StoreError, at};
use crate::tree::{TreeDir, remove_tree};

/// The kinds of items in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreItemKind {
    /// A blob, by its digest.
    Blob,
    /// An unpacked layer, by its diff ID.
    Tree,
    /// The result of a step, by its key.
    Result,
    /// A mirror of a git repository.
    Mirror,
    /// A blob that did not have its digest.
    DamagedBlob,
}

/// One item of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreItem {
    /// Blob, tree, result, mirror or damaged blob.
    pub kind: StoreItemKind,
    /// Digest, key, or name of the mirror.
    pub name: String,
    /// Bytes on disk.
    pub size: u64,
    /// Last use, in seconds since 1970.
    pub last_used: i64,
    path: PathBuf,
}

/// Which items to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct PruneOptions {
    /// Items last used before this time, in seconds since 1970.
    pub unused_since: Option<i64>,
    /// The least recently used items, until at most this many bytes remain.
    pub limit: Option<u64>,
    /// All damaged blobs, which are otherwise kept for inspection.
    pub damaged: bool,
}

/// What pruning removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Number of items removed.
    pub removed: u64,
    /// Their size in bytes.
    pub removed_bytes: u64,
    /// Size of the items that remain, in bytes.
    pub remaining_bytes: u64,
}

impl StoreItemKind {
    /// The name in the output of `phial cache ls`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tree => "tree",
            Self::Result => "result",
            Self::Mirror => "mirror",
            Self::DamagedBlob => "bad blob",
        }
    }
}

impl Store {
    /// All items, the least recently used first.
    pub fn items(&self) -> Result<Vec<StoreItem>, StoreError> {
        let mut items = Vec::new();
        let digest = |algorithm: &'static str| move |name: String| format!("{algorithm}:{name}");
        self.list(&mut items, "blobs/sha256", StoreItemKind::Blob, digest("sha256"))?;
        self.list(&mut items, "blobs/sha512", StoreItemKind::Blob, digest("sha512"))?;
        self.list(&mut items, "trees", StoreItemKind::Tree, digest("sha256"))?;
        self.list(&mut items, "results", StoreItemKind::Result, |name| name)?;
        self.list(&mut items, "git", StoreItemKind::Mirror, |name| name)?;
        self.list(&mut items, "bad", StoreItemKind::DamagedBlob, digest("sha256"))?;
        items.sort_by(|a, b| (a.last_used, a.kind, &a.name).cmp(&(b.last_used, b.kind, &b.name)));
        Ok(items)
    }

    fn list(
        &self,
        items: &mut Vec<StoreItem>,
        folder: &str,
        kind: StoreItemKind,
        name: impl Fn(String) -> String,
    ) -> Result<(), StoreError> {
        let folder = self.root().join(folder);
        for entry in fs::read_dir(&folder).map_err(at("read", &folder))? {
            let entry = entry.map_err(at("read", &folder))?;
            let path = entry.path();
            // Another process may have removed it meanwhile.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let (size, last_used) = match kind {
                StoreItemKind::Tree => {
                    let Ok(tree) = TreeDir::open(&path) else { continue };
                    let used = tree.stat(METADATA_FILE).ok().flatten().map_or(0, |stat| stat.mtime().0);
                    (tree_size(&tree, &path), used)
                }
                _ if meta.is_dir() => (size_below(&path), meta.mtime()),
                _ => (on_disk(&meta), meta.mtime()),
            };
            items.push(StoreItem {
                kind,
                name: name(entry.file_name().to_string_lossy().into_owned()),
                size,
                last_used,
                path,
            });
        }
        Ok(())
    }

    /// Removes the items that `options` select. `None` if another process has the store open.
    pub fn prune(&self, options: PruneOptions) -> Result<Option<PruneReport>, StoreError> {
        if self.in_use.unlock().is_err() || self.in_use.try_lock().is_err() {
            self.lock_shared()?;
            return Ok(None);
        }
        let report = self.prune_locked(options);
        self.lock_shared()?;
        report.map(Some)
    }

    fn lock_shared(&self) -> Result<(), StoreError> {
        self.in_use.lock_shared().map_err(at("lock", self.root()))
    }

    fn prune_locked(&self, options: PruneOptions) -> Result<PruneReport, StoreError> {
        let items = self.items()?;
        let mut report =
            PruneReport { remaining_bytes: items.iter().map(|item| item.size).sum(), ..PruneReport::default() };
        for item in items {
            let is_old = options.unused_since.is_some_and(|since| item.last_used < since);
            let is_over_limit = options.limit.is_some_and(|limit| report.remaining_bytes > limit);
            let is_damaged = item.kind == StoreItemKind::DamagedBlob;
            if options.damaged && is_damaged || is_old || is_over_limit {
                remove(&item.path).map_err(at("remove", &item.path))?;
                report.removed += 1;
                report.removed_bytes += item.size;
                report.remaining_bytes -= item.size;
            }
        }
        Ok(report)
    }
}

/// Removes an item. A tree loses its metadata first, so that a tree removed in part is not used.
fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    let _ = fs::remove_file(path.join(METADATA_FILE));
    remove_tree(path)
}

/// The size of a tree in bytes, computed once and stored in its file `size`: walking a large tree is slow.
fn tree_size(tree: &TreeDir, path: &Path) -> u64 {
    if let Ok(Some(text)) = tree.read_text("size", 64)
        && let Ok(size) = text.trim().parse()
    {
        return size;
    }
    let size = size_below(path);
    let _ = tree.replace("size", format!("{size}\n").as_bytes(), 0o600); // only a cache
    size
}

fn size_below(dir: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| on_disk(&meta)).sum()
}

fn on_disk(meta: &Metadata) -> u64 {
    meta.blocks() * 512 / meta.nlink().max(1)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

    use super::*;
    use crate::store::{CacheKey, Lookup};
    use std::io::Write as _;

    fn blob(store: &Store, bytes: &[u8], used: i64) -> phial_layers::Digest {
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(bytes).unwrap();
        let digest = writer.keep(None).unwrap();
        let time = Timespec { tv_sec: used, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, store.blob_path(&digest), &times, AtFlags::empty()).unwrap();
        digest
    }

    fn names(store: &Store) -> Vec<String> {
        store.items().unwrap().into_iter().map(|item| item.name).collect()
    }

    #[test]
    fn the_least_recently_used_is_removed_first_and_no_more_than_needed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let (old, middle, new) =
            (blob(&store, &[1; 8192], 100), blob(&store, &[2; 8192], 200), blob(&store, &[3; 8192], 300));
        assert!(store.has_blob(&old, 8192), "which counts as a use");
        let pruned = store.prune(PruneOptions { limit: Some(2 * 8192), ..PruneOptions::default() }).unwrap().unwrap();
        assert_eq!((pruned.removed, pruned.remaining_bytes), (1, 2 * 8192));
        assert_eq!(names(&store), [new.to_string(), old.to_string()]);
        assert!(!store.has_blob(&middle, 8192));
        let since = PruneOptions { unused_since: Some(301), ..PruneOptions::default() };
        assert_eq!(store.prune(since).unwrap().unwrap().removed, 1);
        assert_eq!(names(&store), [old.to_string()]);
    }

    #[test]
    fn nothing_is_removed_while_another_process_has_the_store_open() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cache");
        let store = Store::open(&root).unwrap();
        blob(&store, b"one", 100);
        let other = Store::open(&root).unwrap();
        let all = PruneOptions { limit: Some(0), ..PruneOptions::default() };
        assert_eq!(store.prune(all).unwrap(), None);
        assert_eq!(names(&store).len(), 1);
        drop(other);
        assert_eq!(store.prune(all).unwrap().unwrap().removed, 1);
        let Lookup::Miss(_) = store.result::<u32>(&CacheKey::new("x")).unwrap() else { panic!("it is empty") };
    }
}
