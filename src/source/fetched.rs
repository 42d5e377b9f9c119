//! A commit whose objects are on this machine.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use git2::{Oid, Repository};
use phial_layers::EntryPath;

use super::error::SourceError;
use super::git_dir::GitDir;
use super::local::LocalRepository;
use super::location::Location;

/// The commit that is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// 40 lower-case hex digits.
    pub sha: String,
    /// Committer time, seconds since 1970.
    pub time: i64,
    /// The URL of the repository, or of a local repository's remote `origin`. `None` for a local path, which means
    /// nothing on another machine.
    pub origin: Option<Location>,
    /// Last part of path or URL without `.git`; never empty.
    pub name: String,
}

/// A commit whose objects are all on this machine.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The commit.
    pub commit: Commit,
    pub(super) git_dir: GitDir,
    repo: OpenRepository,
    pub(super) oid: Oid,
    /// Where it is, if it is a clone on this machine and no mirror.
    pub(super) clone: Option<LocalRepository>,
    /// Whether it is the `HEAD` of that clone.
    pub(super) is_checked_out: bool,
    /// Those of its submodules that are fetched, sorted by path.
    pub(super) submodules: Vec<Submodule>,
    /// What its files of Git LFS are.
    pub(super) lfs: LfsFiles,
}

/// What a file of Git LFS is in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LfsFiles {
    /// The object that its pointer names.
    Objects,
    /// The pointer itself, which is what the commit has.
    Pointers,
}

/// A submodule, fetched.
#[derive(Clone, Debug)]
pub(super) struct Submodule {
    /// Its path in the commit that it is a submodule of.
    pub(super) path: EntryPath,
    pub(super) fetched: Fetched,
}

/// An open repository, for one thread at a time. Kept open because opening it costs more than reading a file from it.
#[derive(Clone)]
struct OpenRepository(Arc<Mutex<Repository>>);

impl fmt::Debug for OpenRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenRepository").finish_non_exhaustive()
    }
}

/// What [`Commit`] says of the repository.
pub(super) struct RepositoryState {
    pub(super) origin: Option<Location>,
    pub(super) is_checked_out: bool,
    pub(super) name: String,
    pub(super) clone: Option<LocalRepository>,
}

impl Fetched {
    /// The commit `oid` of the open repository `repo`, whose git directory is `git_dir`.
    pub(super) fn new(
        git_dir: GitDir,
        repo: Repository,
        oid: Oid,
        state: RepositoryState,
    ) -> Result<Self, SourceError> {
        git_dir.commit_of(&repo, oid)?;
        let commit = repo.find_commit(oid).map_err(|source| git_dir.unreadable(format!("commit {oid}"), source))?;
        let time = commit.committer().when().seconds();
        drop(commit);
        let RepositoryState { origin, is_checked_out, name, clone } = state;
        let commit = Commit { sha: oid.to_string(), time, origin, name };
        let repo = OpenRepository(Arc::new(Mutex::new(repo)));
        Ok(Self { commit, git_dir, repo, oid, is_checked_out, clone, submodules: vec![], lfs: LfsFiles::Objects })
    }

    /// Sets what files of Git LFS are, also those of submodules.
    pub fn set_lfs(&mut self, lfs: LfsFiles) {
        self.lfs = lfs;
        for submodule in &mut self.submodules {
            submodule.fetched.set_lfs(lfs);
        }
    }

    /// Whether it has submodules that are fetched.
    pub fn has_submodules(&self) -> bool {
        !self.submodules.is_empty()
    }

    /// Whether a path is below that of a submodule that is fetched.
    pub fn is_in_submodule(&self, path: &str) -> bool {
        !std::ptr::eq(self.holder(path.as_bytes()).0, self)
    }

    /// The commit that has what is at `path`, this one or that of a submodule, and the path there.
    pub(super) fn holder<'a>(&self, path: &'a [u8]) -> (&Self, &'a [u8]) {
        let below = |submodule: &Submodule| path.strip_prefix(submodule.path.as_bytes())?.strip_prefix(b"/");
        let found = self.submodules.iter().find_map(|submodule| Some((submodule, below(submodule)?)));
        found.map_or((self, path), |(submodule, rest)| submodule.fetched.holder(rest))
    }

    pub(super) fn repo(&self) -> MutexGuard<'_, Repository> {
        self.repo.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `read`. If it is the error of a broken mirror, the mirror is moved away, and the next run fetches it
    /// again.
    pub(super) fn quarantine_if_broken<T>(&self, read: Result<T, SourceError>) -> Result<T, SourceError> {
        if matches!(read, Err(SourceError::Mirror { .. })) {
            self.git_dir.quarantine()?;
        }
        read
    }
}
