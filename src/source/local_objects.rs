//! Objects of a repository that are on this machine, for `phial explain`: without a network, and absent instead of an
//! error.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use git2::Oid;
use phial_layers::EntryPath;

use super::error::SourceError;
use super::git_dir::GitDir;
use super::location::{Location, LocationKind};
use super::tree::CommitEntry;
use super::{local, mirror};

/// The largest blob that is read, in bytes.
const MAX_BLOB: usize = 4 << 20;

/// The git directories on this machine that may hold the objects of a repository: its own, or the mirrors of its URL.
pub struct LocalObjects(Vec<GitDir>);

/// How a file differs between two commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Its content or mode differs.
    Changed,
}

/// The objects of `location` on this machine.
pub fn local_objects(location: &Location, mirrors: &Path) -> LocalObjects {
    let dirs = match &location.0 {
        LocationKind::Local(path) => local::find(path).map(|found| vec![found.git_dir(path)]),
        LocationKind::Remote(url) => Ok(mirror::git_dirs(url, mirrors).into()),
    };
    let dirs: Vec<GitDir> = dirs.unwrap_or_default();
    LocalObjects(dirs.into_iter().filter(|dir| dir.path.exists()).collect())
}

/// The location that identifies a repository: its URL; for a local one that of its remote `origin`, and if it has none
/// its real path.
pub fn identity(location: &Location) -> Result<Location, SourceError> {
    let Some(path) = location.local() else { return Ok(location.clone()) };
    let found = local::find(path)?;
    if let Some(origin) = local::origin(&found.git_dir(path)) {
        return Ok(origin);
    }
    let home = found.top.unwrap_or(found.git_dir);
    Ok(Location(LocationKind::Local(fs::canonicalize(&home).unwrap_or(home))))
}

impl LocalObjects {
    /// The content of the blob with that SHA-1.
    pub fn blob(&self, id: &str) -> Option<Vec<u8>> {
        let id = Oid::from_str(id).ok()?;
        self.0.iter().find_map(|dir| dir.blob(&dir.open().ok()?, id, b"", MAX_BLOB).ok())
    }

    /// The files that differ between two commits, by path.
    pub fn changes(&self, from: &str, to: &str) -> Option<Vec<(EntryPath, FileChange)>> {
        let (from, to) = (self.list(from)?, self.list(to)?);
        let change = |name: &EntryPath| match (from.get(name), to.get(name)) {
            (None, _) => Some(FileChange::Added),
            (_, None) => Some(FileChange::Removed),
            (one, other) => (one != other).then_some(FileChange::Changed),
        };
        let mut names: Vec<&EntryPath> = from.keys().chain(to.keys()).collect();
        names.sort();
        names.dedup();
        Some(names.into_iter().filter_map(|name| Some((name.clone(), change(name)?))).collect())
    }

    fn list(&self, commit: &str) -> Option<BTreeMap<EntryPath, CommitEntry>> {
        let oid = Oid::from_str(commit).ok()?;
        let list = self.0.iter().find_map(|dir| dir.list(&dir.open().ok()?, oid).ok())?;
        Some(list.into_iter().map(|entry| (entry.name.clone(), entry)).collect())
    }
}
