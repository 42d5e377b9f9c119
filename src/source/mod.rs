//! Fetches a commit with libgit2 and writes its files, with modes and times that depend on the commit alone.
//!
//! A local repository is read in place and never written to. A URL is fetched into a bare, shallow mirror in the cache.
//! The user's git configuration does not affect what is fetched or written (`url.*.insteadOf`, `core.autocrlf`,
//! filters); only credentials may come from it, through `git credential`.
//!
//! Two settings of libgit2, its search path for configuration and its check of the owner of a repository, can only be
//! changed by unsafe functions. Instead a repository is opened as bare, which does not check the owner, and its
//! configuration is replaced by an empty one before use. Nothing in a repository is executed, so its owner does not
//! matter for reading it. libgit2 has no timeout for a server that sends nothing; a thread that watches the one that
//! fetches is the timeout.

mod access;
mod attribute_pattern;
mod attributes;
mod changes;
mod checkout;
mod encoding;
mod error;
mod fetched;
mod filter;
mod filtered_files;
#[doc(hidden)]
pub mod fuzz;
mod git_dir;
mod git_files;
mod git_host;
mod gitmodules;
mod heartbeat;
mod lfs;
mod lfs_files;
mod listing;
mod local;
mod mirror;
mod local_objects;
mod location;
mod revision;
mod submodules;
mod tree;
mod working_tree;

use std::path::Path;

pub use access::Access;
pub use checkout::{checkout, checkout_only};
pub use encoding::{ByteOrder, Encoding};
pub use error::SourceError;
pub use fetched::{Commit, Fetched, LfsFiles};
pub use filter::{Attribute, Filter};
pub use git_host::GitHost;
pub use lfs_files::check_lfs;
pub use listing::{list, report_differences};
pub use local::WorkingTreePosition;
pub use local_objects::{FileChange, LocalObjects, identity, local_objects};
pub use location::Location;
pub use submodules::fetch_submodules;
pub use tree::{CommitEntry, EntryMode, exists, link_target, read_file};

use crate::event::Watch;
use fetched::RepositoryState;
use location::LocationKind;
use revision::Revision;

/// Finds the commit `rev` (a SHA, a tag, a branch, `HEAD`) of `location` and fetches its objects.
///
/// A local path is read in place; if its working tree differs from the commit, [`Fetched::report_changes`] says so. A URL is
/// fetched into a bare mirror below the directory `mirrors`, which is created if it does not exist; a SHA that the mirror has needs
/// no network.
pub fn fetch(
    location: &Location,
    rev: &str,
    mirrors: &Path,
    access: &Access,
    watch: Watch<'_>,
) -> Result<Fetched, SourceError> {
    let rev = Revision::parse(rev)?;
    match &location.0 {
        LocationKind::Local(path) => in_place(path, &rev, watch),
        LocationKind::Remote(url) => {
            let (git_dir, oid) = mirror::fetch(url, &rev, mirrors, access, watch)?;
            let (origin, name) = (Some(location.clone()), location.name());
            let repo = git_dir.open()?;
            Fetched::new(git_dir, repo, oid, RepositoryState { origin, is_checked_out: false, name, clone: None })
        }
    }
}

/// Where in a working tree `location` is; `None` for a URL and for a bare repository.
pub fn working_tree_position(location: &Location) -> Result<Option<WorkingTreePosition>, SourceError> {
    location.local().map_or(Ok(None), WorkingTreePosition::of)
}

fn in_place(path: &Path, rev: &Revision, watch: Watch<'_>) -> Result<Fetched, SourceError> {
    let local = local::find(path)?;
    let git_dir = local.git_dir(path);
    let repo = local.open(&git_dir)?;
    let oid = local::resolve(&git_dir, &repo, rev, watch)?;
    let origin = local::origin(&git_dir);
    let name = Location(LocationKind::Local(local.top.clone().unwrap_or_else(|| local.git_dir.clone()))).name();
    let is_checked_out = matches!(local::resolve(&git_dir, &repo, &Revision::Head, watch), Ok(head) if head == oid);
    Fetched::new(git_dir, repo, oid, RepositoryState { origin, is_checked_out, name, clone: Some(local) })
}
