//! A repository on this machine, read in place: found from any directory inside it, never written to.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use git2::{ConfigLevel, ErrorCode, Oid, Repository, Status, StatusOptions};

use super::error::{SourceError, is_hex};
use super::revision::Rev;
use super::{Objects, notice};
use crate::event::Watch;

/// A repository on this machine.
pub(super) struct Local {
    /// Where `HEAD` is: `.git`, a bare repository, or that of a linked worktree or submodule.
    pub(super) gitdir: PathBuf,
    /// The top of the working tree; `None` for a bare repository.
    pub(super) top: Option<PathBuf>,
}

/// How a working tree differs from its commit.
pub(super) struct Differences {
    changed: usize,
    untracked: usize,
    example: String,
}

/// The repository that `path` is in: the nearest directory upwards with a `.git`, or that is a bare repository.
pub(super) fn find(path: &Path) -> Result<Local, SourceError> {
    let none = || SourceError::NoRepository { path: path.to_owned() };
    let start = fs::canonicalize(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => none(),
        _ => SourceError::Io { what: "open", path: path.to_owned(), source },
    })?;
    for dir in start.ancestors() {
        let dot = dir.join(".git");
        if is_gitdir(&dot) {
            return Ok(Local { gitdir: dot, top: Some(dir.to_owned()) });
        }
        if let Some(gitdir) = linked(&dot).map(|target| dir.join(target)).filter(|gitdir| is_gitdir(gitdir)) {
            return Ok(Local { gitdir, top: Some(dir.to_owned()) });
        }
        if is_gitdir(dir) {
            let top = dir.parent().filter(|_| dir.ends_with(".git")).map(Path::to_owned);
            return Ok(Local { gitdir: dir.to_owned(), top });
        }
    }
    Err(none())
}

/// `gitrepository-layout(5)`: `HEAD`, and objects and refs here or in the common directory.
fn is_gitdir(dir: &Path) -> bool {
    let own = dir.join("objects").is_dir() && dir.join("refs").is_dir();
    dir.join("HEAD").symlink_metadata().is_ok() && (own || dir.join("commondir").is_file())
}

/// Where a `.git` file points to.
fn linked(dot: &Path) -> Option<PathBuf> {
    let file = fs::File::open(dot).ok().filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()))?;
    let mut text = String::new();
    file.take(8192).read_to_string(&mut text).ok()?;
    Some(PathBuf::from(text.strip_prefix("gitdir:")?.trim()))
}

/// The commit that `rev` names.
pub(super) fn resolve(objects: &Objects, repo: &Repository, rev: &Rev, watch: Watch<'_>) -> Result<Oid, SourceError> {
    let (place, rev_text) = (objects.place.clone(), rev.to_string());
    let unknown = |tried| SourceError::RevUnknown { place: place.clone(), rev: rev_text.clone(), tried };
    let peeled = |object: Result<git2::Commit<'_>, git2::Error>| {
        object.map(|commit| commit.id()).map_err(|source| match source.code() {
            ErrorCode::NotFound => objects.unreadable(format!("`{rev_text}`"), source),
            _ => SourceError::NotACommit { place: place.clone(), rev: rev_text.clone() },
        })
    };
    match rev {
        Rev::Head => match repo.head() {
            Ok(head) => peeled(head.peel_to_commit()),
            Err(error) if matches!(error.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => {
                Err(SourceError::Empty { place })
            }
            Err(source) => Err(objects.unreadable("`HEAD`".to_owned(), source)),
        },
        Rev::Sha(sha) => match Oid::from_str(sha).and_then(|oid| repo.find_object(oid, None)) {
            Ok(object) => peeled(object.peel_to_commit()),
            Err(error) if error.code() == ErrorCode::NotFound => Err(unknown(vec!["the object itself".to_owned()])),
            Err(source) => Err(objects.unreadable(format!("`{sha}`"), source)),
        },
        Rev::Name(name) => {
            let mut tried = Rev::candidates(name);
            let found: Vec<_> = tried.iter().filter_map(|full| Some((full, repo.find_reference(full).ok()?))).collect();
            if let [(first, _), (second, _), ..] = found.as_slice() {
                notice(watch, format!("`{name}` is `{first}` and `{second}`: the first is built"));
            }
            if let Some((_, reference)) = found.first() {
                return peeled(reference.peel_to_commit());
            }
            drop(found);
            if is_hex(name) && name.len() < 40 {
                match repo.find_object_by_prefix(name, None) {
                    Ok(object) => return peeled(object.peel_to_commit()),
                    Err(error) if error.code() == ErrorCode::Ambiguous => {
                        return Err(SourceError::Ambiguous { place, rev: name.clone() });
                    }
                    Err(_) => tried.push("an abbreviated SHA".to_owned()),
                }
            }
            Err(unknown(tried))
        }
    }
}

/// `remote.origin.url` of the repository, as it stands in its own configuration.
pub(super) fn origin(objects: &Objects) -> Option<String> {
    let repo = Repository::open_bare(&objects.gitdir).ok()?;
    repo.config().ok()?.open_level(ConfigLevel::Local).ok()?.snapshot().ok()?.get_string("remote.origin.url").ok()
}

impl Local {
    /// What is in the working tree and not in the commit that is checked out. `None` if that cannot be told.
    ///
    /// Here, and only here, the user's own configuration counts (ignored files, line ends): it decides what `git status`
    /// says, and no byte of an image.
    pub(super) fn differences(&self) -> Option<Differences> {
        let top = self.top.as_deref()?;
        let repo = Repository::open_bare(&self.gitdir).ok()?;
        repo.set_workdir(top, false).ok()?;
        let mut options = StatusOptions::new();
        options.include_untracked(true).exclude_submodules(true);
        let statuses = repo.statuses(Some(&mut options)).ok()?;
        let mut seen = Differences { changed: 0, untracked: 0, example: String::new() };
        for entry in statuses.iter().filter(|entry| !entry.status().intersects(Status::IGNORED | Status::CURRENT)) {
            if entry.status() == Status::WT_NEW {
                seen.untracked += 1;
            } else {
                seen.changed += 1;
            }
            if seen.example.is_empty() || (seen.changed == 1 && entry.status() != Status::WT_NEW) {
                seen.example = String::from_utf8_lossy(entry.path_bytes()).escape_debug().to_string();
            }
        }
        Some(seen)
    }
}

impl Differences {
    /// Whether tracked files differ, in the index or on disk.
    pub(super) fn dirty(&self) -> bool {
        self.changed > 0
    }

    /// One sentence, if there is something to say.
    pub(super) fn sentence(&self, sha: &str) -> Option<String> {
        let Self { changed, untracked, example } = self;
        (changed + untracked > 0).then(|| {
            format!(
                "the working tree differs from commit {}, which is what is built: {changed} changed, {untracked} untracked, \
                 such as `{example}`",
                &sha[..12.min(sha.len())]
            )
        })
    }
}
