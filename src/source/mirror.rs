//! Bare mirrors of a URL in the cache. A fetch is shallow, one process fetches at a time, and a broken mirror is
//! fetched again.
//!
//! A reference `refs/phial/<SHA>` in a mirror means that the object and all that its checkout needs were received. For
//! a server that does not serve single commits by SHA there is a second, full mirror.

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use git2::{
    AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, ProxyOptions, RemoteCallbacks, Repository,
};
use phial_layers::Digest;
use rustix::fs::FlockOperation;

use super::access::{Access, CredentialQueue};
use super::error::SourceError;
use super::git_dir::GitDir;
use super::heartbeat::{GiveUp, Heartbeat, Watchdog};
use super::location::Url;
use super::revision::Revision;
use super::tree::EntryMode;
use crate::error::IoError;
use crate::event::{Watch, notice};
use crate::tree::TreeDir;

/// How long to wait for another process that fetches to the same mirror.
const LOCK_WAIT: Duration = Duration::from_secs(600);

/// A fetch of one revision. Cloned for the thread that does it.
#[derive(Clone)]
struct Fetch {
    shallow: GitDir,
    full: GitDir,
    url: Url,
    rev: Revision,
    access: Access,
    heartbeat: Arc<Heartbeat>,
}

/// A message of the thread that fetches.
enum Message {
    Notice(String),
    Done(Result<(GitDir, Oid), SourceError>),
}

/// What to fetch.
struct WantedRef {
    refspec: String,
    oid: Oid,
    by_sha: bool,
}

/// The shallow and the full mirror of `url`, whether they exist or not.
pub(super) fn git_dirs(url: &Url, mirrors: &Path) -> [GitDir; 2] {
    let location = url.identity();
    let key = Digest::of(location.as_bytes());
    ["git", "full"].map(|kind| {
        let path = mirrors.join(format!("{}.{kind}", key.hex()));
        GitDir { path, location: location.clone(), is_mirror: true }
    })
}

/// Fetches the commit `rev` of `url`. Returns the mirror that has all its objects, and its id.
pub(super) fn fetch(
    url: &Url,
    rev: &Revision,
    mirrors: &Path,
    access: &Access,
    watch: Watch<'_>,
) -> Result<(GitDir, Oid), SourceError> {
    let location = url.identity();
    let key = Digest::of(location.as_bytes());
    let [shallow, full] = git_dirs(url, mirrors);
    let _lock = lock(mirrors, &mirrors.join(format!("{}.lock", key.hex())), watch)?;
    [&shallow, &full].into_iter().filter(|git_dir| !git_dir.is_own()).try_for_each(GitDir::quarantine)?;
    let fetch =
        Fetch { shallow, full, url: url.clone(), rev: rev.clone(), access: access.clone(), heartbeat: Arc::default() };
    match fetch.run(watch) {
        Err(SourceError::Mirror { what, .. }) => {
            notice(watch, format!("the mirror of `{location}` is broken and is fetched again: {what}"));
            fetch.shallow.quarantine()?;
            fetch.full.quarantine()?;
            fetch.run(watch)
        }
        done => done,
    }
}

impl Fetch {
    fn run(&self, watch: Watch<'_>) -> Result<(GitDir, Oid), SourceError> {
        for git_dir in [&self.shallow, &self.full] {
            if let (Revision::Sha(sha), true) = (&self.rev, git_dir.path.exists())
                && let Some(oid) = received_commit(&git_dir.open()?, sha)
            {
                git_dir.check(oid)?;
                return Ok((git_dir.clone(), oid));
            }
        }
        let (git_dir, oid) = self.with_timeout(watch)?;
        git_dir.check(oid)?;
        Ok((git_dir, oid))
    }

    /// Fetches in a thread of its own. libgit2 may wait for a server forever. A thread that receives no data is
    /// abandoned: it ends with the process, or when the server sends something.
    fn with_timeout(&self, watch: Watch<'_>) -> Result<(GitDir, Oid), SourceError> {
        let (sender, receiver) = channel();
        let mut fetch = self.clone();
        fetch.heartbeat = Arc::default();
        let heartbeat = Arc::clone(&fetch.heartbeat);
        std::thread::spawn(move || {
            let done = fetch.download(&sender);
            let _ = sender.send(Message::Done(done)); // nobody receives after a timeout
        });
        let mut watchdog = Watchdog::new(&heartbeat, self.access.timeout(), self.access.max_list());
        loop {
            match receiver.recv_timeout(watchdog.interval()) {
                Ok(Message::Notice(text)) => notice(watch, text),
                Ok(Message::Done(done)) => return done,
                Err(RecvTimeoutError::Timeout) => watchdog.check().map_err(|why| self.given_up(&why))?,
                Err(RecvTimeoutError::Disconnected) => return Err(self.given_up(&GiveUp::Silent)),
            }
        }
    }

    fn given_up(&self, why: &GiveUp) -> SourceError {
        let location = self.url.identity();
        match why {
            GiveUp::Silent => SourceError::Stalled { location, seconds: self.access.timeout().as_secs() },
            GiveUp::LongList => SourceError::LongList { location, limit_mib: self.access.max_list() >> 20 },
        }
    }

    fn download(&self, sender: &Sender<Message>) -> Result<(GitDir, Oid), SourceError> {
        match self.transfer(&self.shallow, 1, sender) {
            Ok(Some(oid)) => return Ok((self.shallow.clone(), oid)),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        let _ = sender.send(Message::Notice(format!(
            "`{}` does not serve a commit by its SHA: the whole history is fetched",
            self.url.identity()
        )));
        match self.transfer(&self.full, 0, sender)? {
            Some(oid) => Ok((self.full.clone(), oid)),
            None => Err(self.unknown(vec![
                "the SHA itself, which the server refused".to_owned(),
                "all branches and tags".to_owned(),
            ])),
        }
    }

    /// Looks the revision up and receives what is missing, in one connection. `None` if the server refuses the SHA, or,
    /// for a full fetch (`depth` 0), if no branch or tag leads to it.
    fn transfer(&self, git_dir: &GitDir, depth: i32, sender: &Sender<Message>) -> Result<Option<Oid>, SourceError> {
        init_bare(&git_dir.path).map_err(IoError::at("create", &git_dir.path))?;
        remove_partial_packs(&git_dir.path.join("objects/pack"));
        let repo = git_dir.open()?;
        let credentials = Rc::new(RefCell::new(CredentialQueue::new(&self.url, &self.access)));
        let failed = |error: git2::Error| self.failure(&error, &credentials.borrow());
        let mut remote = repo.remote_anonymous(&self.url.libgit2_url()).map_err(failed)?;
        let callbacks = self.callbacks(&credentials);
        self.heartbeat.set_listing(true);
        let mut connection =
            remote.connect_auth(Direction::Fetch, Some(callbacks), Some(self.proxy())).map_err(failed)?;
        credentials.borrow_mut().accepted();
        let heads: Vec<(String, Oid)> =
            connection.list().map_err(failed)?.iter().map(|head| (head.name().to_owned(), head.oid())).collect();
        self.heartbeat.set_listing(false);
        let wanted = self.wanted_ref(&heads, sender)?;
        if let Some(oid) = received_commit(&repo, &wanted.oid.to_string()) {
            return Ok(Some(oid));
        }
        let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        let refspecs = if depth == 0 { all.to_vec() } else { vec![wanted.refspec.as_str()] };
        let mut options = FetchOptions::new();
        options.remote_callbacks(self.callbacks(&credentials)).proxy_options(self.proxy());
        options.download_tags(AutotagOption::None).update_fetchhead(false).depth(depth);
        match connection.remote().fetch(&refspecs, Some(&mut options), None) {
            Err(error)
                if wanted.by_sha
                    && depth > 0
                    && !credentials.borrow().exhausted
                    && !self.heartbeat.exceeded()
                    && !is_trust(&error) =>
            {
                return Ok(None);
            }
            received => received.map_err(failed)?,
        }
        drop(connection);
        match repo.odb().and_then(|odb| odb.read_header(wanted.oid)) {
            Err(_) if wanted.by_sha => Ok(None),
            Err(error) => Err(git_dir.broken_mirror(&error)),
            Ok(_) => {
                let commit = git_dir.commit_of(&repo, wanted.oid)?.ok_or_else(|| SourceError::NotACommit {
                    location: self.url.identity(),
                    rev: self.rev.to_string(),
                })?;
                for oid in [wanted.oid, commit] {
                    repo.reference(&format!("refs/phial/{oid}"), oid, true, "")
                        .map_err(|e| git_dir.broken_mirror(&e))?;
                }
                Ok(Some(commit))
            }
        }
    }

    fn wanted_ref(&self, heads: &[(String, Oid)], sender: &Sender<Message>) -> Result<WantedRef, SourceError> {
        if heads.is_empty() {
            return Err(SourceError::Empty { location: self.url.identity() });
        }
        let by_ref = |(name, oid): &(String, Oid)| WantedRef {
            refspec: format!("+{name}:refs/phial/{oid}"),
            oid: *oid,
            by_sha: false,
        };
        match &self.rev {
            Revision::Head => heads
                .iter()
                .find(|(name, _)| name == "HEAD")
                .map(by_ref)
                .ok_or_else(|| self.unknown(vec!["the server's `HEAD`".to_owned()])),
            Revision::Sha(sha) => {
                let oid = Oid::from_str(sha).map_err(|error| self.shallow.broken_mirror(&error))?;
                let named = heads.iter().find(|(name, head)| *head == oid && !name.ends_with("^{}"));
                Ok(named.map_or_else(
                    || WantedRef { refspec: format!("+{oid}:refs/phial/{oid}"), oid, by_sha: true },
                    by_ref,
                ))
            }
            Revision::Name(name) => {
                let tried: Vec<String> =
                    Revision::candidates(name).into_iter().filter(|full| !full.contains("/remotes/")).collect();
                let matches: Vec<_> =
                    tried.iter().filter_map(|full| heads.iter().find(|(head, _)| head == full)).collect();
                if let [(first, _), (second, _), ..] = matches.as_slice() {
                    let text = format!("`{name}` is ambiguous: `{first}` is built, not `{second}`");
                    let _ = sender.send(Message::Notice(text));
                }
                matches.first().map(|head| by_ref(head)).ok_or_else(|| self.unknown(tried))
            }
        }
    }

    fn callbacks<'a>(&self, credentials: &Rc<RefCell<CredentialQueue>>) -> RemoteCallbacks<'a> {
        let credentials = Rc::clone(credentials);
        let (first, second) = (Arc::clone(&self.heartbeat), Arc::clone(&self.heartbeat));
        let mut callbacks = RemoteCallbacks::new();
        callbacks.credentials(move |asker, _, allowed| credentials.borrow_mut().next(asker, allowed));
        let limit = self.access.max_bytes();
        callbacks.transfer_progress(move |progress| first.beat(progress.received_bytes() as u64, 0, limit));
        callbacks.sideband_progress(move |text| second.beat(0, text.len() as u64, limit));
        callbacks
    }

    /// libgit2 reads `https_proxy` and `no_proxy` itself. `http` is allowed for loopback only, which needs no proxy.
    fn proxy<'a>(&self) -> ProxyOptions<'a> {
        let mut options = ProxyOptions::new();
        if self.url.scheme() == "https" {
            options.auto();
        }
        options
    }

    fn unknown(&self, tried: Vec<String>) -> SourceError {
        SourceError::RevUnknown { location: self.url.identity(), rev: self.rev.to_string(), tried }
    }

    fn failure(&self, error: &git2::Error, credentials: &CredentialQueue) -> SourceError {
        let location = self.url.identity();
        let source = escaped(error);
        let status = |code: &str| source.class() == ErrorClass::Http && source.message().ends_with(code);
        if let Some(to) = credentials.redirected_to.clone() {
            return SourceError::Redirected { location, to };
        }
        if self.heartbeat.exceeded() {
            return SourceError::TooMuch { location, limit_mib: self.access.max_bytes() >> 20 };
        }
        if source.message().contains("No space left on device") {
            let source = std::io::ErrorKind::StorageFull.into();
            return SourceError::from(IoError::at("write into", &self.shallow.path)(source));
        }
        match source.class() {
            _ if is_trust(&source) => SourceError::Untrusted { location, source },
            _ if credentials.exhausted || source.code() == ErrorCode::Auth || status(" 401") || status(" 403") => {
                credentials.refusal(location)
            }
            _ if status(" 404") => SourceError::NoRemote { location },
            ErrorClass::Ssh
                if ["not appear to be a git", "not found"].iter().any(|text| source.message().contains(text)) =>
            {
                SourceError::NoRemote { location }
            }
            ErrorClass::Odb
            | ErrorClass::Object
            | ErrorClass::Repository
            | ErrorClass::Reference
            | ErrorClass::Zlib => SourceError::Mirror { location, what: source.message().to_owned() },
            _ => SourceError::Network { location, source },
        }
    }
}

impl GitDir {
    /// Checks that every object that a checkout of `oid` needs exists.
    pub(super) fn check(&self, oid: Oid) -> Result<(), SourceError> {
        let repo = self.open()?;
        let odb = repo.odb().map_err(|error| self.broken_mirror(&error))?;
        for entry in self.list(&repo, oid)?.iter().filter(|entry| entry.mode != EntryMode::Submodule) {
            let id = Oid::from_str(&entry.id).map_err(|error| self.broken_mirror(&error))?;
            if !odb.exists(id) {
                let what = format!("the object of `{:?}` is missing", entry.name);
                return Err(SourceError::Mirror { location: self.location.clone(), what });
            }
        }
        Ok(())
    }
}

/// The error with its message on one line and without control characters: parts of it may come from a server.
fn escaped(error: &git2::Error) -> git2::Error {
    let message: String =
        error.message().trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
    git2::Error::new(error.code(), error.class(), message)
}

fn is_trust(error: &git2::Error) -> bool {
    error.code() == ErrorCode::Certificate
}

/// The commit that `sha` is or points to, if all its objects were received.
fn received_commit(repo: &Repository, sha: &str) -> Option<Oid> {
    Some(repo.find_reference(&format!("refs/phial/{sha}")).ok()?.peel_to_commit().ok()?.id())
}

/// Creates an empty bare repository. Not by `git_repository_init`, which uses templates of the user's configuration.
fn init_bare(git_dir: &Path) -> std::io::Result<()> {
    if git_dir.exists() {
        return Ok(());
    }
    let new = git_dir.with_extension("new");
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&new)?;
    for dir in ["objects", "objects/info", "objects/pack", "refs", "refs/phial"] {
        fs::create_dir(new.join(dir))?;
    }
    fs::write(new.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = true\n")?;
    fs::write(new.join("HEAD"), "ref: refs/heads/none\n")?;
    fs::rename(new, git_dir)
}

/// Removes incomplete packs of fetches that were killed. The lock excludes fetches that are running.
fn remove_partial_packs(packs: &Path) {
    for entry in fs::read_dir(packs).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.extension().is_some_and(|kind| kind == "pack" || kind == "idx") {
            let _ = fs::remove_file(path);
        }
    }
}

/// Locks the file `path` below `mirrors` until the result is dropped. The kernel releases the lock when the process
/// dies.
fn lock(mirrors: &Path, path: &Path, watch: Watch<'_>) -> Result<File, SourceError> {
    let failed = |action, source| SourceError::from(IoError::at(action, path)(source));
    fs::create_dir_all(mirrors).map_err(|source| failed("create the directory of", source))?;
    let file = TreeDir::open(mirrors)?.open_or_create(path.file_name().unwrap_or_default(), 0o600)?;
    let start = Instant::now();
    let mut notified = false;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < LOCK_WAIT => {
                if !notified {
                    notice(watch, "waiting for another process that fetches from the same URL");
                    notified = true;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(failed("lock", error.into())),
        }
    }
}
