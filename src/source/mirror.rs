//! A bare mirror of a URL in the cache: fetched shallow, one process at a time, made again when it is broken.
//!
//! `refs/phial/<SHA>` in a mirror says that the object and all it needs for a checkout were received. A server that gives
//! no single commit by its SHA costs a second, full mirror.

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use git2::{
    AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, ObjectType, Oid, ProxyOptions, RemoteCallbacks,
    Repository,
};
use phial_layers::Digest;
use rustix::fs::FlockOperation;

use super::access::{Access, Ways};
use super::error::SourceError;
use super::location::Url;
use super::revision::Rev;
use super::tree::Mode;
use super::{Objects, notice};
use crate::event::Watch;

/// How long to wait for another process that fetches into the same mirror.
const LOCK_WAIT: Duration = Duration::from_secs(600);

/// A fetch, as the thread that does it needs it.
#[derive(Clone)]
struct Job {
    shallow: Objects,
    full: Objects,
    url: Url,
    rev: Rev,
    access: Access,
    pulse: Arc<Pulse>,
}

/// What the thread that fetches and the one that waits know of each other.
#[derive(Default)]
struct Pulse {
    beats: AtomicU64,
    abandoned: AtomicBool,
}

/// What the thread that fetches says.
enum Said {
    Notice(String),
    Done(Result<(Objects, Oid), SourceError>),
}

/// What is asked of the server.
struct Want {
    refspec: String,
    oid: Oid,
    by_sha: bool,
}

/// The two mirrors of `url`, the shallow one and the full one, whether they are there or not.
pub(super) fn objects(url: &Url, mirrors: &Path) -> [Objects; 2] {
    let place = url.identity();
    let key = Digest::of(place.as_bytes());
    ["git", "full"].map(|kind| {
        let gitdir = mirrors.join(format!("{}.{kind}", key.hex()));
        Objects { gitdir, place: place.clone(), mirror: true }
    })
}

/// The commit `rev` of `url`, complete, and the mirror it is in.
pub(super) fn fetch(
    url: &Url,
    rev: &Rev,
    mirrors: &Path,
    access: &Access,
    watch: Watch<'_>,
) -> Result<(Objects, Oid), SourceError> {
    let place = url.identity();
    let key = Digest::of(place.as_bytes());
    let [shallow, full] = objects(url, mirrors);
    let _lock = lock(mirrors, &mirrors.join(format!("{}.lock", key.hex())), watch)?;
    let job = Job { shallow, full, url: url.clone(), rev: rev.clone(), access: access.clone(), pulse: Arc::default() };
    match job.once(watch) {
        Err(SourceError::Mirror { what, .. }) => {
            notice(watch, format!("the mirror of `{place}` was broken and is made again: {what}"));
            job.shallow.set_aside()?;
            job.full.set_aside()?;
            job.once(watch)
        }
        done => done,
    }
}

impl Job {
    fn once(&self, watch: Watch<'_>) -> Result<(Objects, Oid), SourceError> {
        for objects in [&self.shallow, &self.full] {
            if let (Rev::Sha(sha), true) = (&self.rev, objects.gitdir.exists())
                && let Some(oid) = kept(&objects.open()?, sha)
            {
                objects.check(oid)?;
                return Ok((objects.clone(), oid));
            }
        }
        let (objects, oid) = self.watched(watch)?;
        objects.check(oid)?;
        Ok((objects, oid))
    }

    /// Fetches in a thread of its own. libgit2 can wait for a server forever, so a thread that shows no sign of life is left
    /// behind: it ends with the process, which has nothing left to do by then, or with the server's next word.
    fn watched(&self, watch: Watch<'_>) -> Result<(Objects, Oid), SourceError> {
        let (say, hear) = channel();
        let mut job = self.clone();
        job.pulse = Arc::default();
        let pulse = Arc::clone(&job.pulse);
        std::thread::spawn(move || {
            let done = job.download(&say);
            let _ = say.send(Said::Done(done)); // nobody listens after a stall
        });
        let patience = self.access.patience();
        let mut seen = 0;
        loop {
            match hear.recv_timeout(patience) {
                Ok(Said::Notice(text)) => notice(watch, text),
                Ok(Said::Done(done)) => return done,
                Err(RecvTimeoutError::Timeout) if pulse.beats.load(Ordering::Relaxed) != seen => {
                    seen = pulse.beats.load(Ordering::Relaxed);
                }
                Err(_) => {
                    pulse.abandoned.store(true, Ordering::Relaxed);
                    return Err(SourceError::Stalled { place: self.url.identity(), seconds: patience.as_secs() });
                }
            }
        }
    }

    fn download(&self, say: &Sender<Said>) -> Result<(Objects, Oid), SourceError> {
        match self.transfer(&self.shallow, 1, say) {
            Ok(Some(oid)) => return Ok((self.shallow.clone(), oid)),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        let _ = say.send(Said::Notice(format!(
            "`{}` does not give a commit by its SHA: its whole history is fetched",
            self.url.identity()
        )));
        match self.transfer(&self.full, 0, say)? {
            Some(oid) => Ok((self.full.clone(), oid)),
            None => Err(self.unknown(vec![
                "the SHA itself, which the server refused".to_owned(),
                "all branches and tags".to_owned(),
            ])),
        }
    }

    /// One connection: looks the revision up, receives what is missing. `None` if the server refuses the SHA, or, for a
    /// full fetch (`depth` 0), if nothing on the server leads to it.
    fn transfer(&self, objects: &Objects, depth: i32, say: &Sender<Said>) -> Result<Option<Oid>, SourceError> {
        make(&objects.gitdir).map_err(|source| SourceError::Io {
            what: "make",
            path: objects.gitdir.clone(),
            source,
        })?;
        sweep(&objects.gitdir.join("objects/pack"));
        let repo = objects.open()?;
        let ways = Rc::new(RefCell::new(Ways::new(&self.url, &self.access)));
        let failed = |error: git2::Error| self.failure(&error, &ways.borrow());
        let mut remote = repo.remote_anonymous(&self.url.wire()).map_err(failed)?;
        let callbacks = self.callbacks(&ways);
        let mut connection =
            remote.connect_auth(Direction::Fetch, Some(callbacks), Some(self.proxy())).map_err(failed)?;
        ways.borrow_mut().accepted();
        let heads: Vec<(String, Oid)> =
            connection.list().map_err(failed)?.iter().map(|head| (head.name().to_owned(), head.oid())).collect();
        let want = self.want(&heads, say)?;
        if let Some(oid) = kept(&repo, &want.oid.to_string()) {
            return Ok(Some(oid));
        }
        let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        let refspecs = if depth == 0 { all.to_vec() } else { vec![want.refspec.as_str()] };
        let mut options = FetchOptions::new();
        options.remote_callbacks(self.callbacks(&ways)).proxy_options(self.proxy());
        options.download_tags(AutotagOption::None).update_fetchhead(false).depth(depth);
        match connection.remote().fetch(&refspecs, Some(&mut options), None) {
            Err(error) if want.by_sha && depth > 0 && !ways.borrow().exhausted && !is_trust(&error) => return Ok(None),
            received => received.map_err(failed)?,
        }
        drop(connection);
        match repo.find_object(want.oid, None) {
            Err(_) if want.by_sha => Ok(None),
            Err(error) => Err(objects.broken(&error)),
            Ok(object) => {
                let commit = object
                    .peel(ObjectType::Commit)
                    .map_err(|_| SourceError::NotACommit { place: self.url.identity(), rev: self.rev.to_string() })?;
                for oid in [want.oid, commit.id()] {
                    repo.reference(&format!("refs/phial/{oid}"), oid, true, "").map_err(|e| objects.broken(&e))?;
                }
                Ok(Some(commit.id()))
            }
        }
    }

    fn want(&self, heads: &[(String, Oid)], say: &Sender<Said>) -> Result<Want, SourceError> {
        if heads.is_empty() {
            return Err(SourceError::Empty { place: self.url.identity() });
        }
        let by_ref = |(name, oid): &(String, Oid)| Want {
            refspec: format!("+{name}:refs/phial/{oid}"),
            oid: *oid,
            by_sha: false,
        };
        match &self.rev {
            Rev::Head => heads
                .iter()
                .find(|(name, _)| name == "HEAD")
                .map(by_ref)
                .ok_or_else(|| self.unknown(vec!["the server's `HEAD`".to_owned()])),
            Rev::Sha(sha) => {
                let oid = Oid::from_str(sha).map_err(|error| self.shallow.broken(&error))?;
                let named = heads.iter().find(|(name, head)| *head == oid && !name.ends_with("^{}"));
                Ok(named
                    .map_or_else(|| Want { refspec: format!("+{oid}:refs/phial/{oid}"), oid, by_sha: true }, by_ref))
            }
            Rev::Name(name) => {
                let tried: Vec<String> =
                    Rev::candidates(name).into_iter().filter(|full| !full.contains("/remotes/")).collect();
                let found: Vec<_> =
                    tried.iter().filter_map(|full| heads.iter().find(|(head, _)| head == full)).collect();
                if let [(first, _), (second, _), ..] = found.as_slice() {
                    let _ = say.send(Said::Notice(format!("`{name}` is `{first}` and `{second}`: the first is built")));
                }
                found.first().map(|head| by_ref(head)).ok_or_else(|| self.unknown(tried))
            }
        }
    }

    fn callbacks<'a>(&self, ways: &Rc<RefCell<Ways>>) -> RemoteCallbacks<'a> {
        let ways = Rc::clone(ways);
        let (first, second) = (Arc::clone(&self.pulse), Arc::clone(&self.pulse));
        let mut callbacks = RemoteCallbacks::new();
        callbacks.credentials(move |asker, _, allowed| ways.borrow_mut().next(asker, allowed));
        callbacks.transfer_progress(move |_| first.beat());
        callbacks.sideband_progress(move |_| second.beat());
        callbacks
    }

    /// libgit2 looks at `https_proxy` and `no_proxy` itself. Plain http is loopback, where no proxy belongs.
    fn proxy<'a>(&self) -> ProxyOptions<'a> {
        let mut options = ProxyOptions::new();
        if self.url.scheme() == "https" {
            options.auto();
        }
        options
    }

    fn unknown(&self, tried: Vec<String>) -> SourceError {
        SourceError::RevUnknown { place: self.url.identity(), rev: self.rev.to_string(), tried }
    }

    fn failure(&self, error: &git2::Error, ways: &Ways) -> SourceError {
        let place = self.url.identity();
        let source = plain(error);
        let status = |code: &str| source.class() == ErrorClass::Http && source.message().ends_with(code);
        if let Some(to) = ways.stranger.clone() {
            return SourceError::Redirected { place, to };
        }
        if source.message().contains("No space left on device") {
            let source = std::io::ErrorKind::StorageFull.into();
            return SourceError::Io { what: "write into", path: self.shallow.gitdir.clone(), source };
        }
        match source.class() {
            _ if is_trust(&source) => SourceError::Untrusted { place, source },
            _ if ways.exhausted || source.code() == ErrorCode::Auth || status(" 401") || status(" 403") => {
                SourceError::Auth { place, tried: ways.tried() }
            }
            _ if status(" 404") => SourceError::NoRemote { place },
            ErrorClass::Ssh
                if ["not appear to be a git", "not found"].iter().any(|said| source.message().contains(said)) =>
            {
                SourceError::NoRemote { place }
            }
            ErrorClass::Odb
            | ErrorClass::Object
            | ErrorClass::Repository
            | ErrorClass::Reference
            | ErrorClass::Zlib => SourceError::Mirror { place, what: source.message().to_owned() },
            _ => SourceError::Network { place, source },
        }
    }
}

impl Pulse {
    /// A sign of life; `false` when nobody waits any more.
    fn beat(&self) -> bool {
        self.beats.fetch_add(1, Ordering::Relaxed);
        !self.abandoned.load(Ordering::Relaxed)
    }
}

impl Objects {
    /// Every object that a checkout of `oid` needs is there.
    fn check(&self, oid: Oid) -> Result<(), SourceError> {
        let repo = self.open()?;
        let odb = repo.odb().map_err(|error| self.broken(&error))?;
        for entry in self.list(&repo, oid)?.iter().filter(|entry| entry.mode != Mode::Submodule) {
            let id = Oid::from_str(&entry.id).map_err(|error| self.broken(&error))?;
            if !odb.exists(id) {
                let what = format!("the object of `{:?}` is missing", entry.name);
                return Err(SourceError::Mirror { place: self.place.clone(), what });
            }
        }
        Ok(())
    }
}

/// The error with its message on one line and without control characters: a server may have had its say in it.
fn plain(error: &git2::Error) -> git2::Error {
    let message: String =
        error.message().trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
    git2::Error::new(error.code(), error.class(), message)
}

fn is_trust(error: &git2::Error) -> bool {
    error.code() == ErrorCode::Certificate
}

/// The commit that `sha` is or points to, if it was received as a whole.
fn kept(repo: &Repository, sha: &str) -> Option<Oid> {
    Some(repo.find_reference(&format!("refs/phial/{sha}")).ok()?.peel_to_commit().ok()?.id())
}

/// An empty bare repository, made by hand: `git_repository_init` asks the user's configuration for templates.
fn make(gitdir: &Path) -> std::io::Result<()> {
    if gitdir.exists() {
        return Ok(());
    }
    let new = gitdir.with_extension("new");
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
    fs::rename(new, gitdir)
}

/// Removes what a fetch that was killed left in the directory of packs; the lock says that no other is at work. What cannot
/// be removed only costs space.
fn sweep(packs: &Path) {
    for entry in fs::read_dir(packs).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.extension().is_some_and(|kind| kind == "pack" || kind == "idx") {
            let _ = fs::remove_file(path);
        }
    }
}

/// Holds the file `path` below `mirrors` locked until it is dropped; the kernel lets go of it when a process dies.
fn lock(mirrors: &Path, path: &Path, watch: Watch<'_>) -> Result<File, SourceError> {
    let failed = |what, source| SourceError::Io { what, path: path.to_owned(), source };
    fs::create_dir_all(mirrors).map_err(|source| failed("make the directory of", source))?;
    let file = File::options().create(true).append(true).open(path).map_err(|source| failed("open", source))?;
    let since = Instant::now();
    let mut told = false;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if since.elapsed() < LOCK_WAIT => {
                if !told {
                    notice(watch, "another process fetches from there: waiting for it".to_owned());
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(failed("lock", error.into())),
        }
    }
}
