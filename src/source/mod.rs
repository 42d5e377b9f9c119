//! A commit, fetched by libgit2, as a tree with normal modes and times; a function of the commit alone.
//!
//! A local repository is read in place and never written to. A URL is fetched into a bare mirror in the cache, shallow. The
//! user's git configuration decides nothing about what is fetched or written (`url.*.insteadOf`, `core.autocrlf`, filters);
//! credentials alone may come from it, by way of `git credential`.
//!
//! Two settings of libgit2 that one would expect here, its search path for configuration and its check of the owner of a
//! repository, can only be set by unsafe functions. The same is had safely: a repository is opened as bare, which checks no
//! owner, and its configuration is replaced by an empty one before it is used. Nothing in a repository is executed, so
//! whose it is does not matter for reading it. The third, the timeout of a server, is a watch over the thread that fetches.

mod access;
mod checkout;
mod error;
mod local;
mod mirror;
mod local_objects;
mod location;
mod revision;
mod tree;
mod web_address;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use git2::{Config, Oid, Repository};

pub use access::Access;
pub use checkout::checkout;
pub use error::SourceError;
pub use local_objects::{FileChange, LocalObjects, identity, local_objects};
pub use location::Location;
pub use tree::{Entry, Mode, list, read_file};
pub use web_address::web_address;

use crate::event::{Event, Watch};
use location::Kind;
use revision::Rev;

/// What is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// 40 lower-case hex digits.
    pub sha: String,
    /// Committer time, seconds since 1970.
    pub time: i64,
    /// Where the repository lives: the URL, or that of a local repository's remote `origin`; without user information, and
    /// `None` for a path, which means nothing on another machine.
    pub origin: Option<String>,
    /// `HEAD` of a local working tree is built, and tracked files differ from it.
    pub dirty: bool,
    /// Last part of path or URL without `.git`; never empty.
    pub name: String,
}

/// A commit whose objects are at hand: what follows needs no network.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The commit.
    pub commit: Commit,
    objects: Objects,
    repo: Opened,
    oid: Oid,
}

/// A repository that stays open, since opening it costs more than reading a file from it: for one thread at a time.
#[derive(Clone)]
struct Opened(Arc<Mutex<Repository>>);

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opened").finish_non_exhaustive()
    }
}

/// Where the objects are.
#[derive(Clone, Debug)]
struct Objects {
    gitdir: PathBuf,
    /// As shown in messages.
    place: String,
    /// Ours, in the cache: may be set aside and made again.
    mirror: bool,
}

/// Finds the commit `rev` (a SHA, a tag, a branch, `HEAD`) of `place` and brings its objects near.
///
/// A local path is read in place; a dirty working tree is built from its commit and says so. A URL is fetched into a bare
/// mirror below the directory `mirrors`, which is made if need be; a SHA that is there already needs no network.
pub fn fetch(
    place: &Location,
    rev: &str,
    mirrors: &Path,
    access: &Access,
    watch: Watch<'_>,
) -> Result<Fetched, SourceError> {
    let rev = Rev::parse(rev)?;
    match &place.0 {
        Kind::Local(path) => in_place(path, &rev, watch),
        Kind::Remote(url) => {
            let (objects, oid) = mirror::fetch(url, &rev, mirrors, access, watch)?;
            let (origin, name) = (Some(url.identity()), place.name());
            let repo = objects.open()?;
            fetched(objects, repo, oid, |commit| Commit { origin, name, ..commit })
        }
    }
}

/// The top directory of the working tree that `place` is in, absolute; `None` for a URL and for a bare repository.
pub fn working_tree_root(place: &Location) -> Result<Option<PathBuf>, SourceError> {
    place.local().map_or(Ok(None), |path| Ok(local::find(path)?.top))
}

fn in_place(path: &Path, rev: &Rev, watch: Watch<'_>) -> Result<Fetched, SourceError> {
    let local = local::find(path)?;
    let objects = Objects { gitdir: local.gitdir.clone(), place: path.display().to_string(), mirror: false };
    let repo = objects.open()?;
    let oid = local::resolve(&objects, &repo, rev, watch)?;
    let origin = origin(&objects);
    let name = Location(Kind::Local(local.top.clone().unwrap_or_else(|| local.gitdir.clone()))).name();
    let head = matches!(local::resolve(&objects, &repo, &Rev::Head, watch), Ok(head) if head == oid);
    let differences = if head { local.differences() } else { None };
    if head && differences.is_none() && local.top.is_some() {
        notice(watch, "the working tree cannot be compared with its commit, which is what is built".to_owned());
    }
    let dirty = differences.as_ref().is_some_and(local::Differences::dirty);
    if let Some(text) = differences.and_then(|differences| differences.sentence(&oid.to_string())) {
        notice(watch, text);
    }
    fetched(objects, repo, oid, |commit| Commit { origin, dirty, name, ..commit })
}

/// The URL of a local repository's remote `origin`, without user information.
fn origin(objects: &Objects) -> Option<String> {
    let place = local::origin(objects)?.parse::<Location>().ok()?;
    place.local().is_none().then(|| place.to_string())
}

fn fetched(
    objects: Objects,
    repo: Repository,
    oid: Oid,
    complete: impl FnOnce(Commit) -> Commit,
) -> Result<Fetched, SourceError> {
    let commit = repo.find_commit(oid).map_err(|source| objects.unreadable(format!("commit {oid}"), source))?;
    let bare = Commit {
        sha: oid.to_string(),
        time: commit.committer().when().seconds(),
        origin: None,
        dirty: false,
        name: String::new(),
    };
    drop(commit);
    Ok(Fetched { commit: complete(bare), objects, repo: Opened(Arc::new(Mutex::new(repo))), oid })
}

impl Fetched {
    fn repo(&self) -> MutexGuard<'_, Repository> {
        self.repo.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read, or the error; a mirror that turns out to be broken is set aside, so that the next run makes it again.
    fn healed<T>(&self, read: Result<T, SourceError>) -> Result<T, SourceError> {
        if matches!(read, Err(SourceError::Mirror { .. })) {
            self.objects.set_aside()?;
        }
        read
    }
}

fn notice(watch: Watch<'_>, text: String) {
    watch(Event::Notice { text });
}

impl Objects {
    /// The repository, with an empty configuration and no working tree.
    fn open(&self) -> Result<Repository, SourceError> {
        git2::opts::strict_hash_verification(true);
        let opened = Repository::open_bare(&self.gitdir).and_then(|repo| {
            repo.set_config(&Config::new()?)?;
            Ok(repo)
        });
        opened.map_err(|source| {
            if self.mirror { self.broken(&source) } else { SourceError::Open { path: self.gitdir.clone(), source } }
        })
    }

    fn unreadable(&self, what: String, source: git2::Error) -> SourceError {
        if self.mirror {
            return self.broken(&source);
        }
        SourceError::Object { place: self.place.clone(), what, source }
    }

    fn broken(&self, error: &git2::Error) -> SourceError {
        SourceError::Mirror { place: self.place.clone(), what: error.message().to_owned() }
    }

    /// Moves a broken mirror out of the way, in place of one that was moved before.
    fn set_aside(&self) -> Result<(), SourceError> {
        let mut aside = self.gitdir.clone().into_os_string();
        aside.push(".broken");
        let failed = |source| SourceError::Io { what: "set aside", path: self.gitdir.clone(), source };
        match std::fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        match std::fs::rename(&self.gitdir, &aside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            moved => moved.map_err(failed),
        }
    }
}
