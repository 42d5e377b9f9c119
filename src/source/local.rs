//! A repository on this machine: found from any directory inside it, read in place, never written to.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use git2::{ConfigLevel, ErrorCode, Oid, Reference, Repository};
use rustix::fs::{Mode, OFlags};

use super::error::{SourceError, is_hex};
use super::git_dir::{GitDir, MAX_READ, NOT_REGULAR};
use super::location::Location;
use super::revision::Revision;
use super::working_tree::WorkingTreeStatus;
use crate::error::IoError;
use crate::event::{Watch, notice};
use crate::tree::TreeDir;

/// How long libgit2 may take to open a repository, and to compare a working tree.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// A repository on this machine.
#[derive(Clone, Debug)]
pub(super) struct LocalRepository {
    /// The git directory: `.git`, a bare repository, or that of a linked worktree or submodule.
    pub(super) git_dir: PathBuf,
    /// The top of the working tree; `None` for a bare repository.
    pub(super) top: Option<PathBuf>,
}

/// The repository of `path`: the nearest directory at or above it that has a `.git` or is a bare repository. None of its files is one that
/// is waited for.
pub(super) fn find(path: &Path) -> Result<LocalRepository, SourceError> {
    let found = nearest(path)?;
    found.check_files()?;
    Ok(found)
}

fn nearest(path: &Path) -> Result<LocalRepository, SourceError> {
    let none = || SourceError::NoRepository { path: path.to_owned() };
    let start = fs::canonicalize(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => none(),
        _ => SourceError::from(IoError::at("open", path)(source)),
    })?;
    for dir in start.ancestors() {
        if let Some(found) = with_working_tree(dir) {
            return Ok(found);
        }
        if is_git_dir(dir) && !is_committed(dir) {
            let top = dir.parent().filter(|_| dir.ends_with(".git")).map(Path::to_owned);
            return Ok(LocalRepository { git_dir: dir.to_owned(), top });
        }
    }
    Err(none())
}

/// Whether a bare repository is a part of the commit that is checked out around it: a commit can hold such files, with a
/// configuration that names servers, and git can be set to use none (`safe.bareRepository`).
fn is_committed(dir: &Path) -> bool {
    let outer = dir.ancestors().skip(1).find_map(with_working_tree).filter(|_| !dir.ends_with(".git"));
    let Some((outer, top)) = outer.and_then(|outer| outer.top.clone().map(|top| (outer, top))) else { return false };
    let Ok(path) = dir.join("HEAD").strip_prefix(&top).map(Path::to_owned) else { return false };
    if outer.check_files().is_err() {
        return true;
    }
    let Ok(repository) = outer.open(&outer.git_dir(&top)) else { return true };
    match repository.head() {
        Ok(head) => head.peel_to_tree().map_or(true, |tree| tree.get_path(&path).is_ok()),
        Err(error) => error.code() != git2::ErrorCode::UnbornBranch,
    }
}

/// The repository whose working tree is `dir`, by the `.git` in it.
fn with_working_tree(dir: &Path) -> Option<LocalRepository> {
    let dot = dir.join(".git");
    let git_dir = if is_git_dir(&dot) { dot } else { dir.join(linked(&dot)?) };
    is_git_dir(&git_dir).then(|| LocalRepository { git_dir, top: Some(dir.to_owned()) })
}

/// Whether a directory is a git directory: it has `HEAD`, and objects and refs in it or in its common directory
/// (gitrepository-layout(5)).
fn is_git_dir(dir: &Path) -> bool {
    let own = dir.join("objects").is_dir() && dir.join("refs").is_dir();
    dir.join("HEAD").symlink_metadata().is_ok() && (own || dir.join("commondir").is_file())
}

/// The git directory that a `.git` file names.
fn linked(dot: &Path) -> Option<PathBuf> {
    Some(PathBuf::from(path_in(dot)?.strip_prefix("gitdir:")?.trim()))
}

/// The text of a file of git that holds a path. Opening does not wait for the writer of a FIFO.
pub(super) fn path_in(file: &Path) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(file, flags, Mode::empty()).ok()?);
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return None;
    }
    let mut text = String::new();
    file.take(8192).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The commit of a revision.
pub(super) fn resolve(
    git_dir: &GitDir,
    repo: &Repository,
    rev: &Revision,
    watch: Watch<'_>,
) -> Result<Oid, SourceError> {
    let (location, rev_text) = (git_dir.location.clone(), rev.to_string());
    let unknown = |tried| SourceError::RevUnknown { location: location.clone(), rev: rev_text.clone(), tried };
    let read = |object: Result<Oid, git2::Error>| {
        let object = object.map_err(|source| git_dir.unreadable(format!("`{rev_text}`"), source))?;
        let commit = git_dir.commit_of(repo, object)?;
        commit.ok_or_else(|| SourceError::NotACommit { location: location.clone(), rev: rev_text.clone() })
    };
    match rev {
        Revision::Head => match repo.head() {
            Ok(head) => read(target(&head)),
            Err(error) if matches!(error.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => {
                Err(SourceError::Empty { location })
            }
            Err(source) => Err(git_dir.unreadable("`HEAD`".to_owned(), source)),
        },
        Revision::Sha(sha) => {
            let object = Oid::from_str(sha).and_then(|oid| repo.odb()?.read_header(oid).map(|_| oid));
            match object {
                Err(error) if error.code() == ErrorCode::NotFound => Err(unknown(vec!["the object itself".to_owned()])),
                object => read(object),
            }
        }
        Revision::Name(name) => {
            let mut tried = Revision::candidates(name);
            let matches: Vec<_> =
                tried.iter().filter_map(|full| Some((full, repo.find_reference(full).ok()?))).collect();
            if let [(first, _), (second, _), ..] = matches.as_slice() {
                notice(watch, format!("`{name}` is ambiguous: `{first}` is built, not `{second}`"));
            }
            if let Some((_, reference)) = matches.first() {
                return read(target(reference));
            }
            drop(matches);
            if is_hex(name) && name.len() < 40 {
                let found = Oid::from_str(name).and_then(|short| repo.odb()?.exists_prefix(short, name.len()));
                match found {
                    Ok(object) => return read(Ok(object)),
                    Err(error) if error.code() == ErrorCode::Ambiguous => {
                        return Err(SourceError::Ambiguous { location, rev: name.clone() });
                    }
                    Err(_) => tried.push("an abbreviated SHA".to_owned()),
                }
            }
            Err(unknown(tried))
        }
    }
}

/// The object that a reference names, also through another reference.
fn target(reference: &Reference<'_>) -> Result<Oid, git2::Error> {
    let direct = reference.resolve()?;
    direct.target().ok_or_else(|| git2::Error::from_str("the reference names no object"))
}

/// The URL of a local repository's remote `origin`, from its own configuration; `None` if it is a path or cannot be
/// fetched from.
pub(super) fn origin(git_dir: &GitDir) -> Option<Location> {
    remote_url(git_dir)?.parse::<Location>().ok().filter(|location| location.local().is_none())
}

fn remote_url(git_dir: &GitDir) -> Option<String> {
    let repo = Repository::open_bare(&git_dir.path).ok()?;
    repo.config().ok()?.open_level(ConfigLevel::Local).ok()?.snapshot().ok()?.get_string("remote.origin.url").ok()
}

/// Why there is no answer.
enum NoAnswer {
    /// It takes too long.
    Late,
    /// This machine has no room for the thread that would be given up.
    NoThread,
}

/// What libgit2 answers within [`TIME_LIMIT`]. It waits for whatever a file of a repository is, a FIFO or a network file system
/// that is gone. A thread that is given up ends with the process.
fn answer<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Result<T, NoAnswer> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || sender.send(ask())).map_err(|_| NoAnswer::NoThread)?;
    receiver.recv_timeout(TIME_LIMIT).map_err(|_| NoAnswer::Late)
}

impl LocalRepository {
    /// [`GitDir::open`] within the time limit, except on a machine without room for the thread.
    pub(super) fn open(&self, git_dir: &GitDir) -> Result<Repository, SourceError> {
        let asked = git_dir.clone();
        match answer(move || asked.open()) {
            Ok(opened) => opened,
            Err(NoAnswer::Late) => Err(SourceError::Unanswered { path: self.git_dir.clone() }),
            Err(NoAnswer::NoThread) => git_dir.open(),
        }
    }

    /// The repositories that may have the objects of a submodule: the one that is checked out at its path, and those that git
    /// keeps under its name, which must not lead out of a directory.
    pub(super) fn submodules(&self, name: &str, path: &[u8]) -> Vec<Self> {
        let checked_out = self.checked_out_submodule(path);
        let top = checked_out.as_ref().and_then(|found| found.top.clone());
        let kept = self.git_dirs().map(|dir| dir.join("modules").join(name)).filter(|dir| is_git_dir(dir));
        let kept = kept.map(|git_dir| Self { git_dir, top: top.clone() }).filter(|found| found.check_files().is_ok());
        checked_out.into_iter().chain(kept).collect()
    }

    /// Its git directory, which messages call `location`.
    pub(super) fn git_dir(&self, location: &Path) -> GitDir {
        GitDir { path: self.git_dir.clone(), location: location.display().to_string(), is_mirror: false }
    }

    /// Its git directory; of a linked worktree also the common one.
    pub(super) fn git_dirs(&self) -> impl Iterator<Item = PathBuf> {
        let common = path_in(&self.git_dir.join("commondir"));
        let common = common.map(|text| self.git_dir.join(text.trim()));
        [Some(self.git_dir.clone()), common].into_iter().flatten()
    }

    /// The repository that is checked out at the path of a submodule. No symbolic link leads there.
    pub(super) fn checked_out_submodule(&self, path: &[u8]) -> Option<Self> {
        let top = self.top.as_deref()?;
        let path = Path::new(OsStr::from_bytes(path));
        TreeDir::open(top).ok()?.dir(path).ok()??;
        with_working_tree(&top.join(path)).filter(|found| found.check_files().is_ok())
    }

    /// [`WorkingTreeStatus::of`] within the time limit.
    pub(super) fn status(&self) -> Option<WorkingTreeStatus> {
        let (git_dir, top) = (self.git_dir.clone(), self.top.clone()?);
        answer(move || WorkingTreeStatus::of(&git_dir, &top)).ok().flatten()
    }
}

/// Where in its working tree a local repository was named.
#[derive(Debug)]
pub struct WorkingTreePosition {
    /// The top of the working tree, absolute.
    pub top: PathBuf,
    /// The directory that was named and those above it, without the top: paths from there, the nearest first.
    pub dirs: Vec<String>,
}

impl WorkingTreePosition {
    /// That of a path; `None` for a bare repository.
    pub(super) fn of(path: &Path) -> Result<Option<Self>, SourceError> {
        let Some(top) = find(path)?.top else { return Ok(None) };
        let start = fs::canonicalize(path).map_err(IoError::at("open", path))?;
        let below = start.strip_prefix(&top).unwrap_or(Path::new(""));
        let is_in_git_dir = below.starts_with(".git");
        let dirs = below.ancestors().filter(|dir| !is_in_git_dir && dir.file_name().is_some());
        let dirs = dirs.map(|dir| dir.to_string_lossy().into_owned()).collect();
        Ok(Some(Self { top, dirs }))
    }

    /// Whether the working tree has a file at a path from the top.
    pub fn has_file(&self, path: &str) -> bool {
        self.top.join(path).is_file()
    }

    /// The directory at a path from the top; `None` if there is none, or a symbolic link is on the way.
    pub fn app_dir(&self, path: &str) -> Option<PathBuf> {
        let dir = self.top.join(path);
        let is_plain = fs::canonicalize(&dir).is_ok_and(|real| real == dir.components().collect::<PathBuf>());
        (is_plain && dir.is_dir()).then(|| dir.components().collect())
    }

    /// The text of a regular file of the working tree, at most 1 MiB; `None` if there is nothing. As in a commit, a link to
    /// a file is an error.
    pub fn text(&self, path: &str) -> Result<Option<String>, SourceError> {
        let wrong = |why| SourceError::File { path: path.to_owned(), why };
        let tree = TreeDir::open(&self.top)?;
        match tree.stat(path)? {
            None => Ok(None),
            Some(stat) if !stat.is_regular_file() => Err(wrong(NOT_REGULAR)),
            Some(_) => {
                let bytes = tree.read(path, MAX_READ as u64)?.unwrap_or_default();
                String::from_utf8(bytes).map(Some).map_err(|_| wrong("it is not UTF-8"))
            }
        }
    }
}
