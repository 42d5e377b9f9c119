//! The registry as tests see it: start it, break it, ask what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use phial::image::RegistryRef;
use phial_layers::Digest;
use serde_json::{Value, json};

use super::auth::{Login, PASSWORD, Tokens, USER};
use super::fault::{Fault, Kind, When};
use super::http::{self, Answer, Asked, Listening, Service, answer};
use super::journal::Entry;
use super::quirks::Quirks;
use super::uploads::Upload;

/// A registry in memory, gone with the last who holds it: each test has its own.
#[derive(Clone)]
pub(crate) struct Registry {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    /// The other host, which has the bytes and must see no credentials.
    pub(crate) storage: String,
    state: Arc<State>,
    _held: [Listening; 2],
}

/// What both hosts share.
pub(super) struct State {
    pub(super) quirks: Quirks,
    pub(super) login: Login,
    hosts: OnceLock<(String, String)>,
    kept: Mutex<Kept>,
    journal: Mutex<Vec<Entry>>,
    beyond: Mutex<Vec<Entry>>,
    plans: Mutex<Vec<Plan>>,
    meddlers: Mutex<Vec<Meddler>>,
    heard: AtomicU64,
    busy: AtomicUsize,
    busiest: AtomicUsize,
}

/// What the registry has.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) repositories: BTreeMap<String, Repository>,
    pub(super) blobs: BTreeMap<String, Arc<Vec<u8>>>,
    pub(super) uploads: BTreeMap<String, Upload>,
    pub(super) begun: usize,
    pub(super) asked_for_referrers: usize,
    pub(super) tokens: Tokens,
    /// Tags that named an incomplete image when they moved.
    pub(super) broken: Vec<String>,
}

/// One repository.
#[derive(Default)]
pub(super) struct Repository {
    pub(super) blobs: BTreeSet<String>,
    /// By digest: media type and bytes.
    pub(super) manifests: BTreeMap<String, (String, Arc<Vec<u8>>)>,
    pub(super) tags: BTreeMap<String, String>,
}

/// What another client does right before the `nth` request of a kind from now is answered.
struct Meddler {
    kind: Kind,
    nth: usize,
    act: Box<dyn FnOnce(&Hands) + Send>,
}

/// Changes what the registry has, past its API.
pub(crate) struct Hands(Arc<State>);

struct Plan {
    kind: Kind,
    when: When,
    fault: Fault,
    seen: usize,
}

impl Registry {
    /// For everyone.
    pub(crate) fn open(quirks: Quirks) -> Self {
        Self::start(quirks, Login::Open)
    }

    /// For the one user, by password.
    pub(crate) fn with_password(quirks: Quirks) -> Self {
        Self::start(quirks, Login::Basic)
    }

    /// For the one user, by tokens.
    pub(crate) fn with_tokens(quirks: Quirks) -> Self {
        Self::start(quirks, Login::Bearer)
    }

    fn start(quirks: Quirks, login: Login) -> Self {
        let state = Arc::new(State {
            quirks,
            login,
            hosts: OnceLock::new(),
            kept: Mutex::default(),
            journal: Mutex::default(),
            beyond: Mutex::default(),
            plans: Mutex::default(),
            meddlers: Mutex::default(),
            heard: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
        });
        let held =
            [http::start(Arc::new(Front(Arc::clone(&state)))), http::start(Arc::new(Storage(Arc::clone(&state))))];
        let [host, storage] = held.each_ref().map(Listening::host);
        let _ = state.hosts.set((host.clone(), storage.clone()));
        Self { host, storage, state, _held: held }
    }

    /// A reference into it.
    pub(crate) fn reference(&self, rest: &str) -> RegistryRef {
        format!("{}/{rest}", self.host).parse().expect("a reference")
    }

    /// `config.json` with the user's password for it.
    pub(crate) fn config(&self) -> Value {
        json!({ "auths": { &self.host: { "auth": STANDARD.encode(format!("{USER}:{PASSWORD}")) } } })
    }

    /// Makes a repository, where that must be done first.
    pub(crate) fn make(&self, repository: &str) {
        self.state.kept().repositories.entry(repository.into()).or_default();
    }

    /// Lets requests go wrong from now on.
    pub(crate) fn fail(&self, kind: Kind, when: When, fault: Fault) {
        self.state.plans.lock().expect("no panic before").push(Plan { kind, when, fault, seen: 0 });
    }

    /// Lets another client come in between, once.
    pub(crate) fn meddle(&self, kind: Kind, nth: usize, act: impl FnOnce(&Hands) + Send + 'static) {
        let meddler = Meddler { kind, nth, act: Box::new(act) };
        self.state.meddlers.lock().expect("no panic before").push(meddler);
    }

    /// Changes what the registry has, past its API.
    pub(crate) fn hands(&self) -> Hands {
        Hands(Arc::clone(&self.state))
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.state.plans.lock().expect("no panic before").clear();
    }

    /// What was asked so far.
    pub(crate) fn journal(&self) -> Vec<Entry> {
        self.state.journal.lock().expect("no panic before").clone()
    }

    /// What the other host was asked.
    pub(crate) fn beyond(&self) -> Vec<Entry> {
        self.state.beyond.lock().expect("no panic before").clone()
    }

    /// How often something was asked.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.journal().iter().filter(|entry| entry.kind == kind).count()
    }

    /// Bytes of blobs that arrived so far, whatever became of them.
    pub(crate) fn received(&self) -> u64 {
        let is_blob = |entry: &&Entry| matches!(entry.kind, Kind::Patch | Kind::PutBlob | Kind::PostUpload);
        self.journal().iter().filter(is_blob).map(|entry| entry.received).sum()
    }

    /// Bytes of bodies that arrived so far, of requests under way too.
    pub(crate) fn heard(&self) -> u64 {
        self.state.heard.load(Ordering::Relaxed)
    }

    /// The most requests that were answered at the same time since this was last asked.
    pub(crate) fn busiest(&self) -> usize {
        self.state.busiest.swap(0, Ordering::Relaxed)
    }

    /// What a tag names.
    pub(crate) fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.state.kept().repositories.get(repository)?.tags.get(tag)?.parse().ok()
    }

    /// Tags that named an incomplete image, now or when they moved.
    pub(crate) fn broken_tags(&self) -> Vec<String> {
        let kept = self.state.kept();
        let mut broken = kept.broken.clone();
        for (name, repository) in &kept.repositories {
            let bad = repository.tags.iter().filter(|(_, digest)| !kept.is_complete(name, digest));
            broken.extend(bad.map(|(tag, _)| format!("{name}:{tag}")));
        }
        broken
    }

    /// Uploads that are neither finished nor cancelled.
    pub(crate) fn open_uploads(&self) -> usize {
        self.state.kept().uploads.len()
    }
}

impl Hands {
    /// Puts a manifest, under a tag if one is given; its digest.
    pub(crate) fn put(&self, repository: &str, tag: Option<&str>, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut kept = self.0.kept();
        let own = kept.repositories.entry(repository.into()).or_default();
        own.manifests.insert(digest.to_string(), (media_type.into(), Arc::new(bytes.to_vec())));
        if let Some(tag) = tag {
            own.tags.insert(tag.into(), digest.to_string());
        }
        digest
    }

    /// Forgets a manifest, and leaves whatever names it.
    pub(crate) fn forget(&self, repository: &str, digest: &str) {
        let mut kept = self.0.kept();
        let gone = kept.repositories.get_mut(repository).and_then(|own| own.manifests.remove(digest));
        assert!(gone.is_some(), "{digest} was not there");
    }

    /// The document that a tag names.
    pub(crate) fn document(&self, repository: &str, tag: &str) -> Value {
        let kept = self.0.kept();
        let own = &kept.repositories[repository];
        serde_json::from_slice(&own.manifests[&own.tags[tag]].1).expect("JSON")
    }

    /// How many manifests a repository has.
    pub(crate) fn manifests(&self, repository: &str) -> usize {
        self.0.kept().repositories[repository].manifests.len()
    }
}

impl State {
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no panic before")
    }

    /// `127.0.0.1:PORT` of the registry.
    pub(super) fn own(&self) -> &str {
        self.hosts.get().map_or("", |(own, _)| own)
    }

    /// What others do before a request of this kind.
    fn due(&self, kind: Kind) -> Vec<Meddler> {
        let mut meddlers = self.meddlers.lock().expect("no panic before");
        for meddler in meddlers.iter_mut().filter(|meddler| meddler.kind == kind) {
            meddler.nth -= 1;
        }
        let (due, later) = std::mem::take(&mut *meddlers).into_iter().partition(|meddler| meddler.nth == 0);
        *meddlers = later;
        due
    }

    /// The same path on the other host, with a signature.
    pub(super) fn signed(&self, asked: &Asked) -> Answer {
        let storage = self.hosts.get().map_or("", |(_, storage)| storage);
        let joint = if asked.path.contains('?') { '&' } else { '?' };
        answer(307).with("Location", format!("http://{storage}{}{joint}X-Signature=secret", asked.path))
    }

    fn reply(&self, asked: &Asked, kind: Kind, fault: Option<Fault>) -> Answer {
        match fault {
            Some(Fault::Status(status)) => {
                return failure(status, "UNKNOWN", "out of order").with("Retry-After", "0");
            }
            Some(Fault::Expired) => {
                self.kept().tokens.expire();
                return self.challenge(asked, true);
            }
            Some(Fault::Garbage) => {
                let page = "<html><body>Sign in</body></html>";
                return answer(200).with("Content-Type", "text/html").body(page);
            }
            Some(Fault::Redirect) => return self.signed(asked),
            _ => {}
        }
        if kind == Kind::Token {
            return self.token(asked);
        }
        if let Some(refused) = self.deny(asked, kind) {
            return refused;
        }
        if !asked.whole {
            self.broke_off(asked);
            return answer(400);
        }
        self.api(asked, kind)
    }
}

impl Kept {
    /// Whether all that a manifest names is there.
    pub(super) fn is_complete(&self, repository: &str, digest: &str) -> bool {
        let Some(repository_) = self.repositories.get(repository) else { return false };
        let Some((_, bytes)) = repository_.manifests.get(digest) else { return false };
        let manifest: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let list = |name: &str| manifest[name].as_array().cloned().unwrap_or_default();
        let digest_of = |descriptor: &Value| descriptor["digest"].as_str().unwrap_or_default().to_owned();
        let config = manifest.get("config").map(digest_of);
        let blobs = list("layers").iter().map(digest_of).chain(config).collect::<Vec<_>>();
        blobs.iter().all(|blob| repository_.blobs.contains(blob) && self.blobs.contains_key(blob))
            && list("manifests").iter().all(|child| self.is_complete(repository, &digest_of(child)))
    }
}

/// The registry itself.
struct Front(Arc<State>);

impl Service for Front {
    fn fault(&self, head: &Asked) -> Option<Fault> {
        let kind = Kind::of(head);
        let mut found = None;
        for plan in self.0.plans.lock().expect("no panic before").iter_mut().filter(|plan| plan.kind == kind) {
            plan.seen += 1;
            if plan.when == When::Always || plan.when == When::Nth(plan.seen) {
                found = Some(plan.fault);
            }
        }
        if found == Some(Fault::ResetBefore) {
            self.0.journal.lock().expect("no panic before").push(Entry::of(head, found));
        }
        found
    }

    fn heard(&self, bytes: usize) {
        self.0.heard.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn answer(&self, asked: Asked, fault: Option<Fault>) -> Answer {
        self.0.busiest.fetch_max(self.0.busy.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        std::thread::sleep(self.0.quirks.latency);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        let mut entry = Entry::of(&asked, fault);
        for meddler in self.0.due(entry.kind) {
            (meddler.act)(&Hands(Arc::clone(&self.0)));
        }
        let mut reply = self.0.reply(&asked, entry.kind, fault);
        if fault == Some(Fault::WrongDigest) {
            reply = spoilt(reply, asked.method == "HEAD");
        }
        entry.status = if asked.whole { reply.status } else { 0 };
        self.0.journal.lock().expect("no panic before").push(entry);
        reply
    }
}

/// Where signed URLs lead: it has the bytes, asks for nothing and bears no credentials, as Amazon's storage.
struct Storage(Arc<State>);

impl Service for Storage {
    fn answer(&self, asked: Asked, _fault: Option<Fault>) -> Answer {
        let entry = Entry::of(&asked, None);
        let (kind, is_bad) = (entry.kind, entry.authorization.is_some());
        self.0.beyond.lock().expect("no panic before").push(entry);
        if is_bad {
            return answer(400).body("<Error>Only one auth mechanism allowed</Error>");
        }
        match kind {
            Kind::GetBlob | Kind::GetRange | Kind::HeadBlob => self.0.bytes(&asked),
            Kind::GetManifest | Kind::GetTag | Kind::HeadManifest | Kind::HeadTag => self.0.api(&asked, kind),
            _ => answer(403),
        }
    }
}

/// An error as the specification has it.
pub(super) fn failure(status: u16, code: &str, message: &str) -> Answer {
    let errors = json!({ "errors": [{ "code": code, "message": message }] });
    answer(status).with("Content-Type", "application/json").body(errors.to_string())
}

/// Other bytes than there should be; where there are none, another digest.
fn spoilt(mut reply: Answer, is_head: bool) -> Answer {
    if is_head || reply.part.is_empty() {
        reply.headers.retain(|(name, _)| name != "Docker-Content-Digest");
        return reply.with("Docker-Content-Digest", Digest::of(b"another").to_string());
    }
    let mut bytes = reply.body[reply.part.clone()].to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    reply.body(bytes)
}
