//! Fetches a commit with libgit2 and writes its files, with modes and times that depend on the commit alone.
//!
//! A local repository is read in place and never written to. A URL is fetched into a bare, shallow mirror in the cache. The
//! user's git configuration does not affect what is fetched or written (`url.*.insteadOf`, `core.autocrlf`, filters); only
//! credentials may come from it, through `git credential`.
//!
//! Two settings of libgit2, its search path for configuration and its check of the owner of a repository, can only be changed
//! by unsafe functions. Instead a repository is opened as bare, which does not check the owner, and its configuration is
//! replaced by an empty one before use. Nothing in a repository is executed, so its owner does not matter for reading it.
//! libgit2 has no timeout for a server that sends nothing; a thread that watches the one that fetches is the timeout.

mod access;
mod checkout;
mod error;
mod local;
mod mirror;
mod local_objects;
mod location;
mod revision;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use git2::{Config, Oid, Repository};

pub use access::Access;
pub use checkout::checkout;
pub use error::SourceError;
pub use local_objects::{FileChange, LocalObjects, identity, local_objects};
pub use location::Location;
pub use tree::{CommitEntry, EntryMode, list, read_file};

use crate::error::IoError;
use crate::event::{Event, Watch};
use location::LocationKind;
use revision::Revision;

/// The commit that is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// 40 lower-case hex digits.
    pub sha: String,
    /// Committer time, seconds since 1970.
    pub time: i64,
    /// The URL of the repository, or of a local repository's remote `origin`. `None` for a local path, which means nothing on another
    /// machine.
    pub origin: Option<Location>,
    /// Whether this is the `HEAD` of a local working tree whose tracked files differ from it.
    pub dirty: bool,
    /// Last part of path or URL without `.git`; never empty.
    pub name: String,
}

/// A commit whose objects are all on this machine.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The commit.
    pub commit: Commit,
    git_dir: GitDir,
    repo: Opened,
    oid: Oid,
}

/// An open repository, for one thread at a time. Kept open because opening it costs more than reading a file from it.
#[derive(Clone)]
struct Opened(Arc<Mutex<Repository>>);

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opened").finish_non_exhaustive()
    }
}

/// A git directory.
#[derive(Clone, Debug)]
struct GitDir {
    path: PathBuf,
    /// Path or URL, for messages.
    location: String,
    /// Whether it is a mirror in the cache, which can be moved away and fetched again.
    is_mirror: bool,
}

/// Finds the commit `rev` (a SHA, a tag, a branch, `HEAD`) of `location` and fetches its objects.
///
/// A local path is read in place; if its working tree differs from the commit, a notice says so. A URL is fetched into a bare
/// mirror below the directory `mirrors`, which is created if it does not exist; a SHA that the mirror has needs no network.
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
            fetched(git_dir, repo, oid, |commit| Commit { origin, name, ..commit })
        }
    }
}

/// The top directory of the working tree that `location` is in, absolute; `None` for a URL and for a bare repository.
pub fn working_tree_root(location: &Location) -> Result<Option<PathBuf>, SourceError> {
    location.local().map_or(Ok(None), |path| Ok(local::find(path)?.top))
}

fn in_place(path: &Path, rev: &Revision, watch: Watch<'_>) -> Result<Fetched, SourceError> {
    let local = local::find(path)?;
    let git_dir = GitDir { path: local.git_dir.clone(), location: path.display().to_string(), is_mirror: false };
    let repo = git_dir.open()?;
    let oid = local::resolve(&git_dir, &repo, rev, watch)?;
    let origin = origin(&git_dir);
    let name = Location(LocationKind::Local(local.top.clone().unwrap_or_else(|| local.git_dir.clone()))).name();
    let head = matches!(local::resolve(&git_dir, &repo, &Revision::Head, watch), Ok(head) if head == oid);
    let status = if head { local.status() } else { None };
    if head && status.is_none() && local.top.is_some() {
        notice(
            watch,
            "the commit is built without comparing it with the working tree, which cannot be read".to_owned(),
        );
    }
    let dirty = status.as_ref().is_some_and(local::WorkingTreeStatus::is_dirty);
    if let Some(text) = status.and_then(|status| status.summary(&oid.to_string())) {
        notice(watch, text);
    }
    fetched(git_dir, repo, oid, |commit| Commit { origin, dirty, name, ..commit })
}

/// The URL of a local repository's remote `origin`; `None` if it is a path or cannot be fetched from.
fn origin(git_dir: &GitDir) -> Option<Location> {
    local::origin(git_dir)?.parse::<Location>().ok().filter(|location| location.local().is_none())
}

fn fetched(
    git_dir: GitDir,
    repo: Repository,
    oid: Oid,
    complete: impl FnOnce(Commit) -> Commit,
) -> Result<Fetched, SourceError> {
    let commit = repo.find_commit(oid).map_err(|source| git_dir.unreadable(format!("commit {oid}"), source))?;
    let bare = Commit {
        sha: oid.to_string(),
        time: commit.committer().when().seconds(),
        origin: None,
        dirty: false,
        name: String::new(),
    };
    drop(commit);
    Ok(Fetched { commit: complete(bare), git_dir, repo: Opened(Arc::new(Mutex::new(repo))), oid })
}

impl Fetched {
    fn repo(&self) -> MutexGuard<'_, Repository> {
        self.repo.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `read`. If it is the error of a broken mirror, the mirror is moved away, and the next run fetches it again.
    fn quarantine_if_broken<T>(&self, read: Result<T, SourceError>) -> Result<T, SourceError> {
        if matches!(read, Err(SourceError::Mirror { .. })) {
            self.git_dir.quarantine()?;
        }
        read
    }
}

fn notice(watch: Watch<'_>, text: String) {
    watch(Event::Notice { text });
}

impl GitDir {
    /// The repository, with an empty configuration and no working tree.
    fn open(&self) -> Result<Repository, SourceError> {
        git2::opts::strict_hash_verification(true);
        let opened = Repository::open_bare(&self.path).and_then(|repo| {
            repo.set_config(&Config::new()?)?;
            Ok(repo)
        });
        opened.map_err(|source| {
            if self.is_mirror {
                self.broken_mirror(&source)
            } else {
                SourceError::Open { path: self.path.clone(), source }
            }
        })
    }

    fn unreadable(&self, what: String, source: git2::Error) -> SourceError {
        if self.is_mirror {
            return self.broken_mirror(&source);
        }
        SourceError::Object { location: self.location.clone(), what, source }
    }

    fn broken_mirror(&self, error: &git2::Error) -> SourceError {
        SourceError::Mirror { location: self.location.clone(), what: error.message().to_owned() }
    }

    /// Moves a broken mirror away, and replaces one that was moved away before.
    fn quarantine(&self) -> Result<(), SourceError> {
        let mut broken = self.path.clone().into_os_string();
        broken.push(".broken");
        let failed = |source| SourceError::from(IoError::at("move", &self.path)(source));
        match std::fs::remove_dir_all(&broken) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        match std::fs::rename(&self.path, &broken) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            moved => moved.map_err(failed),
        }
    }
}
