//! The entries of a commit, with what its attributes say of them.

use git2::{Oid, Repository};

use super::attributes::{Attributes, TooMany};
use super::error::SourceError;
use super::fetched::Fetched;
use super::filter::Filter;
use super::git_dir::GitDir;
use super::tree::{CommitEntry, EntryMode, MAX_READ};
use crate::event::{Watch, notice};

/// The name of a file of attributes.
const FILE: &[u8] = b".gitattributes";

/// All files, links and submodules of the commit, sorted by the bytes of their paths.
pub fn list(fetched: &Fetched) -> Result<Vec<CommitEntry>, SourceError> {
    let (git_dir, repo) = (&fetched.git_dir, fetched.repo());
    let listed = git_dir.list(&repo, fetched.oid).and_then(|mut entries| {
        git_dir.set_filters(&repo, &mut entries)?;
        Ok(entries)
    });
    fetched.quarantine_if_broken(listed)
}

impl GitDir {
    /// Sets the filters of all `entries` of a commit, which are sorted, by its files `.gitattributes`.
    pub(super) fn set_filters(&self, repo: &Repository, entries: &mut [CommitEntry]) -> Result<(), SourceError> {
        let is_file = |entry: &CommitEntry| matches!(entry.mode, EntryMode::File | EntryMode::Executable);
        let dir = |entry: &CommitEntry| entry.name.as_bytes().strip_suffix(FILE).map(<[u8]>::to_vec);
        let files = entries.iter().filter(|entry| is_file(entry));
        let mut files: Vec<_> = files.filter_map(|entry| Some((dir(entry)?, entry))).collect();
        files.retain(|(dir, _)| dir.is_empty() || dir.ends_with(b"/"));
        files.sort_by_key(|(dir, _)| dir.len()); // a directory after those above it
        let too_many = |TooMany| {
            let why = "it has too many macros, or its patterns take too long to compare";
            SourceError::Entry { path: String::from_utf8_lossy(FILE).into_owned(), why }
        };
        let mut attributes = Attributes::default();
        for (dir, entry) in &files {
            let name = entry.name.as_bytes();
            let unreadable = |source| self.unreadable(format!("`{}`", name.escape_ascii()), source);
            let text = self.blob(repo, Oid::from_str(&entry.id).map_err(unreadable)?, name, MAX_READ)?;
            attributes.add(dir, &text).map_err(too_many)?;
        }
        if !attributes.retain_relevant() {
            return Ok(());
        }
        for entry in entries.iter_mut().filter(|entry| is_file(entry)) {
            entry.filter = Filter::of(attributes.of(entry.name.as_bytes()).map_err(too_many)?);
        }
        Ok(())
    }
}

/// Names the entries that git's filters would change.
pub fn report_filtered(entries: &[CommitEntry], watch: Watch<'_>) {
    let name = |entry: &CommitEntry| match &entry.filter {
        Filter::Unknown(attribute) => Some(format!("`{:?}` ({attribute})", entry.name)),
        Filter::None | Filter::Encoding(_) => None,
    };
    let named: Vec<String> = entries.iter().filter_map(name).collect();
    if !named.is_empty() {
        notice(
            watch,
            format!(
                "the image has these files as git stores them, since Phial runs no filter of git's: {}; what must be plain in \
                 the image is committed plain or given to it when it runs",
                some_of(&named)
            ),
        );
    }
}

/// The first names, and how many more there are.
pub(super) fn some_of(names: &[String]) -> String {
    let few = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(5);
    if more == 0 { few } else { format!("{few} and {more} more") }
}
