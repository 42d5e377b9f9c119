//! What is at hand of a repository without a network, for whoever explains a build: nothing here fails, it is there or not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use git2::Oid;
use phial_layers::EntryPath;

use super::location::Kind;
use super::{Entry, Location, Objects, SourceError, local, mirror};

/// The most that is read of a blob.
const MAX_BLOB: usize = 4 << 20;

/// The repositories on this machine that may hold an object: the local one, or the mirrors of a URL.
pub struct LocalObjects(Vec<Objects>);

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

/// What is at hand of `place`.
pub fn local_objects(place: &Location, mirrors: &Path) -> LocalObjects {
    let objects = match &place.0 {
        Kind::Local(path) => local::find(path)
            .map(|found| vec![Objects { gitdir: found.gitdir, place: path.display().to_string(), mirror: false }]),
        Kind::Remote(url) => Ok(mirror::objects(url, mirrors).into()),
    };
    let objects: Vec<Objects> = objects.unwrap_or_default();
    LocalObjects(objects.into_iter().filter(|objects| objects.gitdir.exists()).collect())
}

/// What a repository is known by: the URL it comes from, without user information; for a local one without a remote
/// `origin`, its real path.
pub fn identity(place: &Location) -> Result<String, SourceError> {
    let path = match &place.0 {
        Kind::Remote(url) => return Ok(url.identity()),
        Kind::Local(path) => path,
    };
    let found = local::find(path)?;
    let objects = Objects { gitdir: found.gitdir.clone(), place: path.display().to_string(), mirror: false };
    if let Some(origin) = super::origin(&objects) {
        return Ok(origin);
    }
    let home = found.top.unwrap_or(found.gitdir);
    Ok(fs::canonicalize(&home).unwrap_or(home).to_string_lossy().into_owned())
}

impl LocalObjects {
    /// The blob of that SHA-1.
    pub fn blob(&self, id: &str) -> Option<Vec<u8>> {
        let id = Oid::from_str(id).ok()?;
        self.0.iter().find_map(|objects| objects.blob(&objects.open().ok()?, id, b"", MAX_BLOB).ok())
    }

    /// The files that differ between two commits, by path.
    pub fn changes(&self, from: &str, to: &str) -> Option<Vec<(EntryPath, FileChange)>> {
        let (from, to) = (self.list(from)?, self.list(to)?);
        let touch = |name: &EntryPath| match (from.get(name), to.get(name)) {
            (None, _) => Some(FileChange::Added),
            (_, None) => Some(FileChange::Removed),
            (one, other) => (one != other).then_some(FileChange::Changed),
        };
        let mut names: Vec<&EntryPath> = from.keys().chain(to.keys()).collect();
        names.sort();
        names.dedup();
        Some(names.into_iter().filter_map(|name| Some((name.clone(), touch(name)?))).collect())
    }

    fn list(&self, commit: &str) -> Option<BTreeMap<EntryPath, Entry>> {
        let oid = Oid::from_str(commit).ok()?;
        let list = self.0.iter().find_map(|objects| objects.list(&objects.open().ok()?, oid).ok())?;
        Some(list.into_iter().map(|entry| (entry.name.clone(), entry)).collect())
    }
}
