//! The cache directory: blobs by digest, unpacked layers (trees) by diff ID, results by cache key, histories, mirrors of git
//! repositories, and scratch directories.
//!
//! A blob is written, synced and renamed into place, and its digest is checked whenever it is read; a tree is synced
//! (`syncfs`) and renamed. A damaged blob is moved to `bad/` and made again. Everything is private to the user (mode 0700).

mod blobs;
mod evict;
mod history;
mod results;
mod scratch;
mod trees;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use phial_layers::{Digest, DigestError};
use tempfile::NamedTempFile;

use crate::error::{ExitKind, IoError, UserError};

pub use blobs::{BlobWriter, VerifiedBlob};
pub use evict::{PruneOptions, PruneReport, StoreItem, StoreItemKind};
pub use results::{Key, Lookup, Vacant};
pub use scratch::{Scratch, remove_tree};
pub use trees::{Tree, TreeInfo, TreeLookup, VacantTree};

/// The format of the store, in its file `version`. A store of another format is refused.
const VERSION: &str = "1\n";

/// The store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused an action on a path.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The cache directory cannot be trusted or has another format.
    #[error("the cache directory `{}` {reason}", path.display())]
    Folder {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it: a predicate, such as `belongs to another user`.
        reason: String,
    },
    /// A layer disappeared from the store while it was in use, or was found damaged.
    #[error("the cached layer `{0}` is gone or damaged")]
    LayerLost(Digest),
    /// The content written does not have the expected digest.
    #[error("the blob has the digest `{found}`, not `{expected}`")]
    Mismatch {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the content.
        found: Digest,
    },
    /// A file in the store holds an invalid digest.
    #[error("a file in the cache holds an invalid digest")]
    Damaged(#[from] DigestError),
}

impl UserError for StoreError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Mismatch { .. } => ExitKind::Refused,
            _ => ExitKind::Machine,
        }
    }

    fn hint(&self) -> Option<String> {
        use io::ErrorKind::{
            NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };
        match self {
            Self::Io(IoError { source, .. }) => match source.kind() {
                StorageFull => Some("free some space, or set `PHIAL_CACHE_DIR` to a larger disk".into()),
                QuotaExceeded => Some("the quota is used up; set `PHIAL_CACHE_DIR` to another disk".into()),
                PermissionDenied | ReadOnlyFilesystem | NotADirectory | NotFound => {
                    Some("set `PHIAL_CACHE_DIR` to a writable directory".into())
                }
                _ => None,
            },
            Self::Folder { .. } => Some("set `PHIAL_CACHE_DIR` to a directory of your own".into()),
            Self::LayerLost(_) => Some("run the command again to rebuild it".into()),
            Self::Mismatch { .. } | Self::Damaged(_) => None,
        }
    }
}

/// For `map_err`: the error of `action` on `path`.
fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| IoError::at(action, path)(source).into()
}

/// An open store. Clones share its lock.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// Holds a shared lock while the store is open; pruning takes the exclusive lock.
    in_use: Arc<File>,
}

/// A lock between processes that use the same store; held until dropped.
#[derive(Debug)]
pub struct Guard(#[expect(dead_code, reason = "holds the lock")] File);

impl Store {
    /// Opens the store in the directory `root`, creates it if it does not exist, and removes scratch directories of processes
    /// that are gone.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let refused = |reason: &str| StoreError::Folder { path: root.to_owned(), reason: reason.into() };
        if fs::metadata(root).is_ok_and(|meta| !meta.is_dir()) {
            return Err(refused("is not a directory"));
        }
        private_dir(root)?;
        check_folder(root)?;
        for folder in ["blobs/sha256", "blobs/sha512", "trees", "recall", "history", "scratch", "locks", "git", "bad"] {
            private_dir(&root.join(folder))?;
        }
        let version = root.join("version");
        match fs::read_to_string(&version) {
            Ok(text) if text == VERSION => {}
            Ok(text) => {
                let reason = format!(
                    "has format `{}`, and this version of Phial reads format `{}`",
                    text.trim(),
                    VERSION.trim()
                );
                return Err(StoreError::Folder { path: root.to_owned(), reason });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Written and renamed: another process may open the same new store.
                let whole = NamedTempFile::new_in(root).and_then(|mut file| {
                    file.write_all(VERSION.as_bytes())?;
                    file.persist(&version).map_err(|e| e.error)
                });
                whole.map_err(at("write", &version))?;
            }
            Err(e) => return Err(at("read", &version)(e)),
        }
        let path = root.join("locks/in-use");
        let in_use = File::create(&path).map_err(at("create", &path))?;
        in_use.lock_shared().map_err(at("lock", &path))?;
        scratch::sweep(&root.join("scratch"))?;
        Ok(Self { root: root.to_owned(), in_use: Arc::new(in_use) })
    }

    /// The cache directory.
    pub fn root(&self) -> &Path {
        &self.root
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
        let path = self.root.join("locks").join(name);
        let file = File::create(&path).map_err(at("create", &path))?;
        file.lock().map_err(at("lock", &path))?;
        Ok(Guard(file))
    }

    /// A new private directory, removed when dropped, or by the next run if this one is killed.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        Scratch::new(&self.root.join("scratch"))
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

fn private_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("create", path))
}

/// Syncs a directory, which makes renames in it durable.
fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

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
        let key = |lock: &str| Key::new("deps").with("mix.lock", lock);
        let Lookup::Miss(vacant) = store.result::<u32>(&key("a")).unwrap() else { panic!("empty store") };
        vacant.keep(&7).unwrap();
        assert!(matches!(store.result::<u32>(&key("a")).unwrap(), Lookup::Hit(7)));
        assert!(matches!(store.result::<u32>(&key("b")).unwrap(), Lookup::Miss(_)));
    }

    #[test]
    fn a_damaged_result_is_a_miss() {
        let (_dir, store) = store();
        let key = Key::new("deps");
        fs::write(store.root().join("recall").join(key.hex()), b"{").unwrap();
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
