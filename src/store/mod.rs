//! The cache directory: blobs by digest, unpacked layers (trees) by diff ID, results by cache key, histories, mirrors
//! of git repositories, and scratch directories.
//!
//! A blob is written, synced and renamed into place, and its digest is checked whenever it is read; a tree is synced
//! (`syncfs`) and renamed. A damaged blob is moved to `bad/` and made again. Everything is private to the user (mode
//! 0700).

mod blobs;
mod disk;
mod error;
mod evict;
mod history;
mod limit;
mod results;
mod scratch;
mod seal;
mod trees;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use phial_layers::DiffId;

pub use blobs::{BlobWriter, VerifiedBlob};
pub use error::StoreError;
pub use evict::{PruneOptions, PruneReport, StoreItem, StoreItemKind};
pub use results::{CacheKey, Lookup, Vacant};
pub use scratch::Scratch;
pub use trees::{Tree, TreeCheck, TreeInfo, TreeLookup, VacantTree};

use disk::{folder, private_dir};
use error::at;

use crate::tree::TreeDir;

/// The format of the store, in its file `version`. A store of another format is refused.
const VERSION: &str = "1\n";
/// The largest file `version`, in bytes.
const MAX_VERSION: u64 = 1024;

/// Its directories.
const FOLDERS: [&str; 10] =
    ["blobs/sha256", "blobs/sha512", "trees", "results", "history", "scratch", "locks", "git", "uploads", "bad"];

/// An open store. Clones share its lock.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// Holds a shared lock while the store is open; pruning takes the exclusive lock.
    in_use: Arc<File>,
    /// Trees that this process has compared with what they were when they were kept.
    checked_trees: Arc<Mutex<BTreeSet<DiffId>>>,
    /// Bytes that this process has added.
    added: Arc<AtomicU64>,
}

/// A lock between processes that use the same store; held until dropped.
#[derive(Debug)]
pub struct Guard(#[expect(dead_code, reason = "holds the lock")] File);

impl Store {
    /// Opens the store in the directory `root`, creates it if it does not exist, and removes scratch directories of
    /// processes that are gone.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let refused = |reason: &str| StoreError::Folder { path: root.to_owned(), reason: reason.into() };
        if fs::metadata(root).is_ok_and(|meta| !meta.is_dir()) {
            return Err(refused("is not a directory"));
        }
        private_dir(root)?;
        check_folder(root)?;
        // Its own path may lead over links; below it there is none.
        let root = &fs::canonicalize(root).map_err(at("open", root))?;
        keep_results_of_earlier_versions(root);
        for name in FOLDERS {
            folder(root, name)?;
        }
        check_version(root)?;
        let path = root.join("locks/in-use");
        let in_use = TreeDir::open(&root.join("locks"))?.open_or_create("in-use", 0o600)?;
        in_use.lock_shared().map_err(at("lock", &path))?;
        scratch::sweep(&root.join("scratch"))?;
        Ok(Self {
            root: root.to_owned(),
            in_use: Arc::new(in_use),
            checked_trees: Arc::default(),
            added: Arc::default(),
        })
    }

    /// The cache directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Counts bytes that were added, whose sum decides when the store is searched for what to remove.
    fn count_added(&self, bytes: u64) {
        self.added.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The directory of the mirrors of git repositories.
    pub fn git_dir(&self) -> PathBuf {
        self.root.join("git")
    }

    /// The directory of the records of unfinished uploads.
    pub fn uploads_dir(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// Waits for and takes the lock `name` (letters, digits and dashes).
    pub fn lock(&self, name: &str) -> Result<Guard, StoreError> {
        let dir = self.root.join("locks");
        let file = TreeDir::open(&dir)?.open_or_create(name, 0o600)?;
        file.lock().map_err(at("lock", &dir.join(name)))?;
        Ok(Guard(file))
    }

    /// A new private directory, removed when dropped, or by the next run if this one is killed.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        Scratch::new(&self.root.join("scratch"))
    }
}

/// Gives the directory of results its present name. Without that, nothing would find or remove what is in the old one.
fn keep_results_of_earlier_versions(root: &Path) {
    if !root.join("results").exists() {
        let _ = fs::rename(root.join("recall"), root.join("results")); // most often there is none
    }
}

/// Refuses a store of another format, and gives a new one its format.
fn check_version(root: &Path) -> Result<(), StoreError> {
    let dir = TreeDir::open(root)?;
    match dir.read_text("version", MAX_VERSION)? {
        Some(text) if text == VERSION => Ok(()),
        Some(text) => {
            let (theirs, ours) = (text.trim(), VERSION.trim());
            let reason = format!("has format `{theirs}`, and this version of Phial reads format `{ours}`");
            Err(StoreError::Folder { path: root.to_owned(), reason })
        }
        None => Ok(dir.replace("version", VERSION.as_bytes(), 0o600)?), // another process may open the same new store
    }
}

fn check_folder(root: &Path) -> Result<(), StoreError> {
    let meta = fs::metadata(root).map_err(at("read the metadata of", root))?;
    let reason = if meta.uid() != rustix::process::geteuid().as_raw() {
        "belongs to another user"
    } else if meta.mode() & 0o022 != 0 {
        "can be written by other users"
    } else {
        return Ok(());
    };
    Err(StoreError::Folder { path: root.to_owned(), reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use phial_layers::Digest;
    use std::io::{Read as _, Write as _};

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        (dir, store)
    }

    #[test]
    fn many_can_open_a_new_store_at_once_and_none_removes_the_scratch_of_another() {
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("cache");
            std::thread::scope(|scope| {
                for nth in 0..8 {
                    let root = &root;
                    scope.spawn(move || {
                        let store = Store::open(root).unwrap();
                        let scratch = store.scratch().unwrap();
                        let mut writer = store.blob_writer().unwrap();
                        writer.write_all(&[nth]).unwrap();
                        writer.keep(None).unwrap();
                        scratch.dir("mine").unwrap();
                    });
                }
            });
        }
    }

    #[test]
    fn a_blob_with_another_digest_than_expected_is_not_kept() {
        let (_dir, store) = store();
        let promised = Digest::of(b"good");
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(b"evil").unwrap();
        assert!(matches!(writer.keep(Some(&promised)), Err(StoreError::Mismatch { .. })));
        assert!(store.blob(&promised, 4).unwrap().is_none());
    }

    #[test]
    fn a_damaged_blob_is_detected_when_read_and_moved_away() {
        let (_dir, store) = store();
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(b"good").unwrap();
        let digest = writer.keep(None).unwrap();
        fs::remove_file(store.blob_path(&digest)).unwrap();
        fs::write(store.blob_path(&digest), b"rot!").unwrap();
        let mut blob = store.blob(&digest, 4).unwrap().unwrap();
        assert!(blob.read_to_end(&mut Vec::new()).is_err());
        assert!(store.blob(&digest, 4).unwrap().is_none());
    }

    #[test]
    fn a_result_is_found_by_the_same_inputs_only() {
        let (_dir, store) = store();
        let key = |lock: &str| CacheKey::new("deps").with("mix.lock", lock);
        let Lookup::Miss(vacant) = store.result::<u32>(&key("a")).unwrap() else { panic!("empty store") };
        vacant.keep(&7).unwrap();
        assert!(matches!(store.result::<u32>(&key("a")).unwrap(), Lookup::Hit(7)));
        assert!(matches!(store.result::<u32>(&key("b")).unwrap(), Lookup::Miss(_)));
    }

    #[test]
    fn results_of_an_earlier_version_are_found() {
        let (_dir, store) = store();
        let key = CacheKey::new("deps");
        let Lookup::Miss(vacant) = store.result::<u32>(&key).unwrap() else { panic!("empty store") };
        vacant.keep(&7).unwrap();
        fs::rename(store.root().join("results"), store.root().join("recall")).unwrap();
        let store = Store::open(store.root()).unwrap();
        assert!(matches!(store.result::<u32>(&key).unwrap(), Lookup::Hit(7)));
        assert!(!store.root().join("recall").exists());
    }

    #[test]
    fn a_damaged_result_is_a_miss() {
        let (_dir, store) = store();
        let key = CacheKey::new("deps");
        fs::write(store.root().join("results").join(key.hex()), b"{").unwrap();
        assert!(matches!(store.result::<u32>(&key).unwrap(), Lookup::Miss(_)));
    }

    #[test]
    fn the_scratch_of_a_process_that_is_gone_is_removed() {
        let (_dir, store) = store();
        let left = store.root().join("scratch/abc");
        fs::create_dir_all(left.join("work/work")).unwrap();
        fs::write(store.root().join("scratch/abc.lock"), b"").unwrap();
        let held = store.scratch().unwrap();
        Store::open(store.root()).unwrap();
        assert!(!left.exists());
        assert!(held.path().exists());
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, store) = store();
        fs::set_permissions(store.root(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Store::open(store.root()), Err(StoreError::Folder { .. })));
    }
}
