//! How a working tree differs from the commit that is checked out, as git-status(1) tells it.
//!
//! Only here the user's git configuration and index apply (ignored files, line ends, sparse checkouts), as for git. They affect
//! no byte of an image.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::{Config, Index, IndexEntryExtendedFlag, Repository, Status, StatusOptions};

use super::filtered_files::{FilteredFiles, IndexComparison};
use crate::tree::TreeDir;

/// How a working tree differs from the commit that is checked out.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkingTreeStatus {
    /// Paths of tracked files that differ, in the index or in the working tree.
    changed: Vec<Vec<u8>>,
    /// Paths of files that git does not know, and directories of such files, which end with `/`.
    untracked: Vec<Vec<u8>>,
    /// Paths of files that only a program of the user's can compare: git's filter.
    uncompared: Vec<Vec<u8>>,
}

impl WorkingTreeStatus {
    /// Compares the working tree `top` of a repository with the commit that is checked out. `None` if that fails.
    pub(super) fn of(git_dir: &Path, top: &Path) -> Option<Self> {
        let repo = Repository::open_bare(git_dir).ok()?;
        repo.set_workdir(top, false).ok()?;
        let tree = TreeDir::open(top).ok()?;
        let config = repo.config().ok()?;
        let mut index = repo.index().ok()?;
        if is_sparse(&config) {
            compare_present(&mut index, &tree);
        }
        let mut options = StatusOptions::new();
        options.include_untracked(true).exclude_submodules(true).no_refresh(true);
        let statuses = repo.statuses(Some(&mut options)).ok()?;
        let mut filtered = FilteredFiles::new(&repo, &config, &tree);
        let mut status = Self::default();
        for entry in statuses.iter().filter(|entry| !entry.status().intersects(Status::IGNORED | Status::CURRENT)) {
            let path = entry.path_bytes();
            let of_kind = match entry.status() {
                Status::WT_NEW => &mut status.untracked,
                Status::WT_DELETED if is_skipped(&index, path) => continue,
                Status::WT_MODIFIED => match filtered.compare(&index, path) {
                    IndexComparison::Same => continue,
                    IndexComparison::Different => &mut status.changed,
                    IndexComparison::Unknown => &mut status.uncompared,
                },
                _ => &mut status.changed,
            };
            of_kind.push(path.to_vec());
        }
        Some(status)
    }

    /// Adds a path that differs.
    pub(super) fn add_changed(&mut self, path: Vec<u8>) {
        self.changed.push(path);
    }

    /// Adds the differences of a working tree at `prefix`, the path of a directory with `/` at its end.
    pub(super) fn add_all(&mut self, prefix: &[u8], other: Self) {
        let below = |paths: Vec<Vec<u8>>| paths.into_iter().map(|path| [prefix, &path].concat()).collect::<Vec<_>>();
        self.changed.extend(below(other.changed));
        self.untracked.extend(below(other.untracked));
        self.uncompared.extend(below(other.uncompared));
    }

    /// The differences in files that `is_wanted`.
    pub(super) fn only(mut self, is_wanted: &dyn Fn(&[u8]) -> bool) -> Self {
        for paths in [&mut self.changed, &mut self.untracked, &mut self.uncompared] {
            paths.retain(|path| is_wanted(path));
        }
        self
    }

    /// Whether tracked files differ, in the index or in the working tree.
    pub(super) fn is_dirty(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The differences, in one sentence for each kind of answer.
    pub(super) fn summary(&self, sha: &str) -> Vec<String> {
        let shown = |path: &Vec<u8>| String::from_utf8_lossy(path).escape_debug().to_string();
        let commit = &sha[..12.min(sha.len())];
        let (changed, untracked) = (self.changed.len(), self.untracked.len());
        let differences = self.changed.first().or(self.untracked.first()).map(|example| {
            format!(
                "commit {commit} is built without the changes of the working tree: {changed} changed, {untracked} untracked, \
                 such as `{}`",
                shown(example)
            )
        });
        let uncompared = self.uncompared.first().map(|example| {
            format!(
                "commit {commit} is built without comparing {} of the working tree's files with it, such as `{}`: git runs a \
                 filter for that",
                self.uncompared.len(),
                shown(example)
            )
        });
        differences.into_iter().chain(uncompared).collect()
    }
}

/// Whether git looks at files that are there though their index entry says that they are not (git-sparse-checkout(1)).
fn is_sparse(config: &Config) -> bool {
    let is_set = |name| config.get_bool(name).unwrap_or(false);
    is_set("core.sparseCheckout") && !is_set("sparse.expectFilesOutsideOfPatterns")
}

/// Has entries compared that a sparse checkout leaves out, and whose files are there all the same: only in memory.
fn compare_present(index: &mut Index, tree: &TreeDir) {
    let skip = IndexEntryExtendedFlag::SKIP_WORKTREE.bits();
    let skipped = index.iter().filter(|entry| entry.flags_extended & skip != 0);
    let is_there = |path: &[u8]| tree.stat(OsStr::from_bytes(path)).is_ok_and(|found| found.is_some());
    let there: Vec<_> = skipped.filter(|entry| is_there(&entry.path)).collect();
    for mut entry in there {
        entry.flags_extended &= !skip;
        let _ = index.add(&entry); // one whose object is not here stays as it is
    }
}

/// Whether the index says of a file that it is not in the working tree.
fn is_skipped(index: &Index, path: &[u8]) -> bool {
    let entry = index.get_path(Path::new(OsStr::from_bytes(path)), 0);
    entry.is_some_and(|entry| entry.flags_extended & IndexEntryExtendedFlag::SKIP_WORKTREE.bits() != 0)
}
