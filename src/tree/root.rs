//! Where a tree is.

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

    /// Opens it.
    pub fn open(&self) -> Result<TreeDir, IoError> {
        TreeDir::open(&self.0)
    }

    /// The path of the directory itself, for the kernel (mounts), for the crate `layers`, which has a door of its own, and for
    /// moving the whole tree. Never to be joined with a path inside of it.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}
