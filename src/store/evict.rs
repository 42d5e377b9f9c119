//! What is in the store, how large it is, and how it is kept below a limit: what was not used for longest goes first.
//!
//! Every process that has the store open holds a shared lock on it; who removes anything needs it alone. So nothing is taken
//! from under a build.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

use super::{Store, StoreError, at, remove_tree};

/// What kind of thing is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A blob, by its digest.
    Blob,
    /// An unpacked layer, by its diff id.
    Tree,
    /// The result of a step, by its key.
    Result,
    /// A mirror of a git repository.
    Mirror,
    /// A blob that turned out damaged.
    Bad,
}

/// One thing that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Digest, key, or name of the mirror.
    pub name: String,
    /// Bytes on disk.
    pub size: u64,
    /// When it was used last, in seconds since 1970.
    pub used: i64,
    path: PathBuf,
}

/// What to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prune {
    /// Things not used since then, in seconds since 1970.
    pub unused_since: Option<i64>,
    /// The least recently used, until so many bytes are left.
    pub limit: Option<u64>,
    /// All damaged blobs: they stay for whoever wants to know why, until somebody cleans up.
    pub damaged: bool,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many things.
    pub items: u64,
    /// Bytes they took.
    pub bytes: u64,
    /// Bytes that are left.
    pub left: u64,
}

impl Kind {
    /// As users read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tree => "tree",
            Self::Result => "result",
            Self::Mirror => "mirror",
            Self::Bad => "bad blob",
        }
    }
}

/// Says that something was used now.
pub(super) fn touch(path: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    // A store that cannot be written is still one that can be read.
    let _ = utimensat(CWD, path, &Timestamps { last_access: now, last_modification: now }, AtFlags::SYMLINK_NOFOLLOW);
}

impl Store {
    /// All that is kept, the least recently used first.
    pub fn items(&self) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let digest = |algorithm: &'static str| move |name: String| format!("{algorithm}:{name}");
        self.list(&mut items, "blobs/sha256", Kind::Blob, digest("sha256"))?;
        self.list(&mut items, "blobs/sha512", Kind::Blob, digest("sha512"))?;
        self.list(&mut items, "trees", Kind::Tree, digest("sha256"))?;
        self.list(&mut items, "recall", Kind::Result, |name| name)?;
        self.list(&mut items, "git", Kind::Mirror, |name| name)?;
        self.list(&mut items, "bad", Kind::Bad, digest("sha256"))?;
        items.sort_by(|a, b| (a.used, a.kind, &a.name).cmp(&(b.used, b.kind, &b.name)));
        Ok(items)
    }

    fn list(
        &self,
        items: &mut Vec<Item>,
        folder: &str,
        kind: Kind,
        name: impl Fn(String) -> String,
    ) -> Result<(), StoreError> {
        let folder = self.root().join(folder);
        for entry in fs::read_dir(&folder).map_err(at("read", &folder))? {
            let entry = entry.map_err(at("read", &folder))?;
            let path = entry.path();
            // What is gone meanwhile was removed by somebody else.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let (size, used) = match kind {
                Kind::Tree => {
                    (tree_size(&path), fs::symlink_metadata(path.join("records.json")).map_or(0, |m| m.mtime()))
                }
                _ if meta.is_dir() => (size_below(&path), meta.mtime()),
                _ => (on_disk(&meta), meta.mtime()),
            };
            items.push(Item { kind, name: name(entry.file_name().to_string_lossy().into_owned()), size, used, path });
        }
        Ok(())
    }

    /// Removes what `prune` says. `None` if another process has the store open.
    pub fn prune(&self, prune: Prune) -> Result<Option<Pruned>, StoreError> {
        if self.in_use.unlock().is_err() || self.in_use.try_lock().is_err() {
            self.share()?;
            return Ok(None);
        }
        let pruned = self.prune_alone(prune);
        self.share()?;
        pruned.map(Some)
    }

    fn share(&self) -> Result<(), StoreError> {
        self.in_use.lock_shared().map_err(at("lock", self.root()))
    }

    fn prune_alone(&self, prune: Prune) -> Result<Pruned, StoreError> {
        let items = self.items()?;
        let mut pruned = Pruned { left: items.iter().map(|item| item.size).sum(), ..Pruned::default() };
        for item in items {
            let is_old = prune.unused_since.is_some_and(|since| item.used < since);
            let is_much = prune.limit.is_some_and(|limit| pruned.left > limit);
            if prune.damaged && item.kind == Kind::Bad || is_old || is_much {
                remove(&item.path).map_err(at("remove", &item.path))?;
                pruned.items += 1;
                pruned.bytes += item.size;
                pruned.left -= item.size;
            }
        }
        Ok(pruned)
    }
}

/// Half a tree is none: it loses its name first.
fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    let _ = fs::remove_file(path.join("records.json"));
    remove_tree(path)
}

/// The size of a tree, worked out once and written beside it: a walk over a toolchain takes its time.
fn tree_size(tree: &Path) -> u64 {
    let note = tree.join("size");
    if let Some(size) = fs::read_to_string(&note).ok().and_then(|text| text.trim().parse().ok()) {
        return size;
    }
    let size = size_below(tree);
    let _ = fs::write(&note, format!("{size}\n")); // it is worked out again then
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
    use super::*;
    use crate::store::{Key, Lookup};
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
    fn what_was_not_used_for_longest_goes_first_and_no_more_than_must() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let (old, middle, new) =
            (blob(&store, &[1; 8192], 100), blob(&store, &[2; 8192], 200), blob(&store, &[3; 8192], 300));
        assert!(store.has_blob(&old, 8192), "and is used by that");
        let pruned = store.prune(Prune { limit: Some(2 * 8192), ..Prune::default() }).unwrap().unwrap();
        assert_eq!((pruned.items, pruned.left), (1, 2 * 8192));
        assert_eq!(names(&store), [new.to_string(), old.to_string()]);
        assert!(!store.has_blob(&middle, 8192));
        let since = Prune { unused_since: Some(301), ..Prune::default() };
        assert_eq!(store.prune(since).unwrap().unwrap().items, 1);
        assert_eq!(names(&store), [old.to_string()]);
    }

    #[test]
    fn nothing_is_taken_from_under_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cache");
        let store = Store::open(&root).unwrap();
        blob(&store, b"one", 100);
        let other = Store::open(&root).unwrap();
        let all = Prune { limit: Some(0), ..Prune::default() };
        assert_eq!(store.prune(all).unwrap(), None);
        assert_eq!(names(&store).len(), 1);
        drop(other);
        assert_eq!(store.prune(all).unwrap().unwrap().items, 1);
        let Lookup::Miss(_) = store.result::<u32>(&Key::new("x")).unwrap() else { panic!("it is empty") };
    }
}
