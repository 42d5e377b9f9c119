//! Files and directories that are closed even to their owner, the caller: a command that runs as root of a user namespace reads
//! them whatever their modes say, and so must who looks for what it left.

use std::fs::File;
use std::path::{Component, Path};

use super::{Enter, TreeDir, WalkEntry};
use crate::error::IoError;

impl TreeDir {
    /// As [`TreeDir::accessible_dir`], for every directory of `path`.
    pub fn accessible_dirs(&self, path: impl AsRef<Path>) -> Result<Option<Self>, IoError> {
        let mut dir = self.accessible_dir("")?;
        for name in path.as_ref().components() {
            let Component::Normal(name) = name else { return Ok(None) };
            dir = match dir {
                Some(dir) => dir.accessible_dir(name)?,
                None => return Ok(None),
            };
        }
        Ok(dir)
    }

    /// The regular file at `path`, open for reading. It and the directories above it are made readable to their owner, if that
    /// is the caller.
    pub fn accessible_file(&self, path: impl AsRef<Path>) -> Result<Option<File>, IoError> {
        let path = path.as_ref();
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        let Some(dir) = self.accessible_dirs(parent)? else { return Ok(None) };
        let is_closed = |stat: &super::EntryStat| {
            stat.is_regular_file() && stat.mode() & 0o400 == 0 && stat.uid() == rustix::process::geteuid().as_raw()
        };
        if let Some(stat) = dir.stat(name)?.filter(is_closed) {
            dir.set_mode(name, stat.mode() | 0o400)?;
        }
        dir.file(name)
    }

    /// As [`TreeDir::walk`], also through directories that are closed to their owner, if that is the caller: they are opened to
    /// him, and stay so.
    pub fn walk_accessible<E: From<IoError>>(
        &self,
        visit: impl FnMut(&WalkEntry) -> Result<Enter, E>,
    ) -> Result<(), E> {
        self.walk_by(Self::accessible_dir, visit)
    }
}
