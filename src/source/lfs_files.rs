//! Files of Git LFS in a commit: the image has their objects, which a clone on this machine may have, and no pointer in silence.

use std::path::PathBuf;

use git2::Oid;
use phial_layers::EntryPath;

use super::error::SourceError;
use super::fetched::Fetched;
use super::filter::Filter;
use super::lfs::{MAX_OBJECT, Pointer, is_pointer};
use super::listing::NAMED;
use super::tree::CommitEntry;
use crate::event::some_of;

/// Checks that the objects of all `entries` of Git LFS are on this machine, by their names and sizes.
pub fn check_lfs(fetched: &Fetched, entries: &[CommitEntry]) -> Result<(), SourceError> {
    let mut missing = Vec::new();
    for entry in entries.iter().filter(|entry| entry.filter == Filter::Lfs) {
        let (holder, name) = (fetched.holder(entry.name.as_bytes()).0, entry.name.as_bytes());
        let unreadable = |source| holder.git_dir.unreadable(format!("`{}`", name.escape_ascii()), source);
        let read = Oid::from_str(&entry.id).map_err(unreadable).and_then(|id| {
            let keep = |blob: &[u8]| Ok(is_pointer(blob).then(|| Pointer::parse(blob)));
            holder.git_dir.with_blob(&holder.repo(), (id, name), usize::MAX, keep)
        });
        let Some(pointer) = holder.quarantine_if_broken(read)? else { continue };
        match pointer.and_then(|pointer| Some((pointer.stored_size(&git_dirs(holder))?, pointer.size))) {
            Some((size, _)) if size > MAX_OBJECT => {
                let why = "its object of Git LFS is too large";
                return Err(SourceError::Entry { path: name.escape_ascii().to_string(), why });
            }
            Some((stored, size)) if stored == size => {}
            _ => missing.push(format!("`{:?}`", entry.name)),
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(SourceError::LfsObjects { files: some_of(missing.into_iter(), NAMED) })
    }
}

/// The object of a file of Git LFS whose blob `holder` has; `None` if the blob is no pointer, but the content itself.
pub(super) fn object(holder: &Fetched, name: &EntryPath, blob: &[u8]) -> Result<Option<Vec<u8>>, SourceError> {
    if !is_pointer(blob) {
        return Ok(None);
    }
    let found = Pointer::parse(blob).and_then(|pointer| pointer.read(&git_dirs(holder)));
    found.map(Some).ok_or_else(|| SourceError::LfsObjects { files: format!("`{name:?}`") })
}

fn git_dirs(holder: &Fetched) -> Vec<PathBuf> {
    holder.clone.as_ref().map(|clone| clone.git_dirs().collect()).unwrap_or_default()
}
