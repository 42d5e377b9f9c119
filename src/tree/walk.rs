//! Everything below a directory, one entry after the other.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::vec;

use super::{EntryStat, TreeDir};
use crate::error::IoError;

/// An entry of a walk.
#[derive(Debug)]
pub struct WalkEntry {
    /// Its path, relative to the directory where the walk began.
    pub path: PathBuf,
    /// What it is.
    pub stat: EntryStat,
}

/// Whether a walk goes into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// Its entries come next.
    Yes,
    /// They are left out.
    No,
}

/// The entries of one directory that are still to come.
struct Level {
    path: PathBuf,
    entries: vec::IntoIter<(OsString, EntryStat)>,
}

impl TreeDir {
    /// Calls `visit` with every entry below this directory: a directory before its entries, and these sorted by name. Links
    /// are not followed. Only one directory is open at a time, however deep the tree is.
    pub fn walk<E: From<IoError>>(&self, visit: impl FnMut(&WalkEntry) -> Result<Enter, E>) -> Result<(), E> {
        self.walk_by(Self::dir, visit)
    }

    /// The same, with what opens a directory.
    pub(super) fn walk_by<E: From<IoError>>(
        &self,
        open: impl Fn(&Self, PathBuf) -> Result<Option<Self>, IoError>,
        mut visit: impl FnMut(&WalkEntry) -> Result<Enter, E>,
    ) -> Result<(), E> {
        let mut levels = vec![Level { path: PathBuf::new(), entries: self.entries()?.into_iter() }];
        while let Some(level) = levels.last_mut() {
            let Some((name, stat)) = level.entries.next() else {
                levels.pop();
                continue;
            };
            let entry = WalkEntry { path: level.path.join(name), stat };
            if visit(&entry)? == Enter::Yes && entry.stat.is_directory() {
                // It may be gone, or be something else by now.
                if let Some(dir) = open(self, entry.path.clone())? {
                    levels.push(Level { path: entry.path, entries: dir.entries()?.into_iter() });
                }
            }
        }
        Ok(())
    }

    /// The regular files below the directory at `path`, sorted, relative to `path`. None if there is no such directory.
    pub fn files_below(&self, path: impl AsRef<Path>) -> Result<Vec<WalkEntry>, IoError> {
        let mut files = Vec::new();
        let Some(dir) = self.dir(path)? else { return Ok(files) };
        dir.walk(|entry| {
            if entry.stat.is_regular_file() {
                files.push(WalkEntry { path: entry.path.clone(), stat: entry.stat });
            }
            Ok::<_, IoError>(Enter::Yes)
        })?;
        Ok(files)
    }
}
