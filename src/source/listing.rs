//! The entries of a commit, with what its attributes say of them.

use git2::{Oid, Repository};
use phial_layers::EntryPath;

use super::attributes::{Attributes, TooMany};
use super::error::SourceError;
use super::fetched::{Fetched, LfsFiles};
use super::filter::{Attribute, Filter, LFS};
use super::git_dir::{GitDir, MAX_READ};
use super::tree::{CommitEntry, EntryMode, MAX_DEPTH, MAX_ENTRIES};
use crate::event::{Watch, notice, some_of};

/// How many paths a notice names.
pub(super) const NAMED: usize = 5;

/// The name of a file of attributes.
const FILE: &[u8] = b".gitattributes";

/// All files and links of the commit and of its submodules that are fetched, and the submodules that are not, sorted by the bytes
/// of their paths.
pub fn list(fetched: &Fetched) -> Result<Vec<CommitEntry>, SourceError> {
    let (git_dir, repo) = (&fetched.git_dir, fetched.repo());
    let listed = git_dir.list(&repo, fetched.oid).and_then(|mut entries| {
        git_dir.set_filters(&repo, &mut entries)?;
        if fetched.lfs == LfsFiles::Pointers {
            keep_pointers(&mut entries);
        }
        Ok(entries)
    });
    let mut entries = fetched.quarantine_if_broken(listed)?;
    drop(repo);
    if fetched.submodules.is_empty() {
        return Ok(entries);
    }
    let is_fetched = |entry: &CommitEntry| fetched.submodules.iter().any(|submodule| submodule.path == entry.name);
    entries.retain(|entry| !is_fetched(entry));
    for submodule in &fetched.submodules {
        let below = |name: &EntryPath| [submodule.path.as_bytes(), b"/", name.as_bytes()].concat();
        for entry in list(&submodule.fetched)? {
            let name = below(&entry.name);
            let depth = name.split(|byte| *byte == b'/').count();
            if depth > MAX_DEPTH || name.len() >= 4096 || entries.len() >= MAX_ENTRIES {
                let why = "the tree is too deep or too large";
                return Err(SourceError::Entry { path: name.escape_ascii().to_string(), why });
            }
            entries.push(CommitEntry { name: EntryPath::new(&name), ..entry });
        }
    }
    entries.sort();
    Ok(entries)
}

/// Has the files of Git LFS as git stores them.
fn keep_pointers(entries: &mut [CommitEntry]) {
    for entry in entries.iter_mut().filter(|entry| entry.filter == Filter::Lfs) {
        entry.filter = Filter::Unknown(Attribute::Filter(LFS.to_owned()));
    }
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
            let why = "its files have too many rules or macros, or their patterns take too long to compare";
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

/// Names the entries that are in the image otherwise than in a clone by git: those that its filters would change, and submodules that
/// are not fetched.
pub fn report_differences(entries: &[CommitEntry], watch: Watch<'_>) {
    let name = |entry: &CommitEntry| match &entry.filter {
        Filter::Unknown(attribute) => Some(format!("`{:?}` ({attribute})", entry.name)),
        Filter::None | Filter::Encoding(_) | Filter::Lfs => None,
    };
    let named: Vec<String> = entries.iter().filter_map(name).collect();
    if !named.is_empty() {
        notice(
            watch,
            format!(
                "the image has these files as git stores them, since Phial runs no filter of git's: {}; what must be plain in \
                 the image is committed plain or given to it when it runs",
                some_of(named.into_iter(), NAMED)
            ),
        );
    }
    let submodules = entries.iter().filter(|entry| entry.mode == EntryMode::Submodule);
    let submodules: Vec<String> = submodules.map(|entry| format!("`{:?}`", entry.name)).collect();
    if !submodules.is_empty() {
        notice(
            watch,
            format!(
                "these submodules are not fetched, the image has empty directories: {}",
                some_of(submodules.into_iter(), NAMED)
            ),
        );
    }
}
