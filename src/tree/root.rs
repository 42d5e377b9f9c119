//! Where a tree is.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TreeDir;
use crate::error::IoError;

/// The place of a tree on this machine: a directory of Phial's own, whose content is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TreeRoot(PathBuf);

impl TreeRoot {
    /// A tree in the directory `path`, which Phial created and only Phial can replace.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Opens it. If what ran in it closed its root even to the owner, he gets access again.
    pub fn open(&self) -> Result<TreeDir, IoError> {
        match TreeDir::open(&self.0) {
            Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => {
                let (Some(parent), Some(name)) = (self.0.parent(), self.0.file_name()) else { return Err(error) };
                TreeDir::open(parent)?.accessible_dir(name)?.ok_or(error)
            }
            opened => opened,
        }
    }

    /// The path of the directory itself, for the kernel (mounts), for the crate `layers`, which opens files by its own rules, and for
    /// moving the whole tree. Never to be joined with a path inside of it.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}
