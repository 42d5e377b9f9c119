//! A git directory: a local one, or a mirror in the cache.

use std::path::PathBuf;

use git2::{Config, ObjectType, Oid, Repository};

use super::error::SourceError;
use crate::error::IoError;
use crate::tree::{Enter, FileKind, TreeDir, WalkEntry};

/// The largest file that Phial reads itself, such as the settings, in bytes.
pub(super) const MAX_READ: usize = 1 << 20;
/// The largest commit or tag that is read, in bytes: those of git have kilobytes, and a message of gigabytes is megabytes in a pack.
const MAX_COMMIT: usize = 16 << 20;
/// The most tags of tags that are followed.
const MAX_TAGS: usize = 50;
/// Why a link, a directory or a FIFO is not read.
pub(super) const NOT_REGULAR: &str = "it is not a regular file";

/// A git directory.
#[derive(Clone, Debug)]
pub(super) struct GitDir {
    pub(super) path: PathBuf,
    /// Path or URL, for messages.
    pub(super) location: String,
    /// Whether it is a mirror in the cache, which can be moved away and fetched again.
    pub(super) is_mirror: bool,
}

impl GitDir {
    /// The repository, with an empty configuration and no working tree.
    pub(super) fn open(&self) -> Result<Repository, SourceError> {
        git2::opts::strict_hash_verification(true);
        let opened = Repository::open_bare(&self.path).and_then(|repo| {
            repo.set_config(&Config::new()?)?;
            Ok(repo)
        });
        opened.map_err(|source| {
            if self.is_mirror {
                self.broken_mirror(&source)
            } else {
                SourceError::Open { path: self.path.clone(), source }
            }
        })
    }

    /// The commit that an object is, or that a tag leads to; `None` if it is or leads to something else. No object is read as a whole
    /// before its size is known.
    pub(super) fn commit_of(&self, repo: &Repository, object: Oid) -> Result<Option<Oid>, SourceError> {
        let mut id = object;
        for _ in 0..MAX_TAGS {
            let unreadable = |source| self.unreadable(format!("the object `{id}`"), source);
            let (size, kind) = repo.odb().and_then(|odb| odb.read_header(id)).map_err(unreadable)?;
            if matches!(kind, ObjectType::Commit | ObjectType::Tag) && size > MAX_COMMIT {
                let location = self.location.clone();
                return Err(SourceError::LargeCommit { location, id: id.to_string(), limit_mib: MAX_COMMIT >> 20 });
            }
            match kind {
                ObjectType::Commit => return Ok(Some(id)),
                ObjectType::Tag => id = repo.find_tag(id).map_err(unreadable)?.target_id(),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    pub(super) fn unreadable(&self, what: String, source: git2::Error) -> SourceError {
        if self.is_mirror {
            return self.broken_mirror(&source);
        }
        SourceError::Object { location: self.location.clone(), what, source }
    }

    pub(super) fn broken_mirror(&self, error: &git2::Error) -> SourceError {
        SourceError::Mirror { location: self.location.clone(), what: error.message().to_owned() }
    }

    /// Moves a broken mirror away, and replaces one that was moved away before.
    pub(super) fn quarantine(&self) -> Result<(), SourceError> {
        let mut broken = self.path.clone().into_os_string();
        broken.push(".broken");
        let failed = |source| SourceError::from(IoError::at("move", &self.path)(source));
        match std::fs::remove_dir_all(&broken) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        match std::fs::rename(&self.path, &broken) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            moved => moved.map_err(failed),
        }
    }

    /// Whether a mirror has nothing but directories and files, as Phial makes it, or does not exist. A cache that was restored,
    /// or that lies in a clone, can have links.
    pub(super) fn is_own(&self) -> bool {
        if std::fs::symlink_metadata(&self.path).is_err() {
            return true;
        }
        let visit = |entry: &WalkEntry| match entry.stat.kind() {
            FileKind::Dir | FileKind::File => Ok(Enter::Yes),
            _ => Err(IoError::at("use", &self.path.join(&entry.path))(std::io::ErrorKind::InvalidInput.into())),
        };
        TreeDir::open(&self.path).and_then(|dir| dir.walk(visit)).is_ok()
    }
}
