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
use super::http::{self, Listener, Request, Response, Service, respond};
use super::journal::Entry;
use super::quirks::Quirks;
use super::uploads::Upload;

/// A registry in memory, gone with its last handle: each test has its own.
#[derive(Clone)]
pub(crate) struct Registry {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    /// The other host, which has the bytes and must see no credentials.
    pub(crate) storage: String,
    state: Arc<State>,
    listeners: [Listener; 2],
}

/// What both hosts share.
pub(super) struct State {
    pub(super) quirks: Quirks,
    pub(super) login: Login,
    hosts: OnceLock<(String, String)>,
    contents: Mutex<Contents>,
    journal: Mutex<Vec<Entry>>,
    storage_journal: Mutex<Vec<Entry>>,
    plans: Mutex<Vec<Plan>>,
    interferences: Mutex<Vec<Interference>>,
    bytes_received: AtomicU64,
    busy: AtomicUsize,
    peak_concurrency: AtomicUsize,
}

/// The contents of the registry.
#[derive(Default)]
pub(super) struct Contents {
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
struct Interference {
    kind: Kind,
    nth: usize,
    act: Box<dyn FnOnce(&DirectAccess) + Send>,
}

/// Changes the contents of the registry, past its API.
pub(crate) struct DirectAccess(Arc<State>);

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
            contents: Mutex::default(),
            journal: Mutex::default(),
            storage_journal: Mutex::default(),
            plans: Mutex::default(),
            interferences: Mutex::default(),
            bytes_received: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            peak_concurrency: AtomicUsize::new(0),
        });
        let listeners =
            [http::start(Arc::new(Front(Arc::clone(&state)))), http::start(Arc::new(Storage(Arc::clone(&state))))];
        let [host, storage] = listeners.each_ref().map(Listener::host);
        let _ = state.hosts.set((host.clone(), storage.clone()));
        Self { host, storage, state, listeners }
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
        self.state.contents().repositories.entry(repository.into()).or_default();
    }

    /// Lets requests go wrong from now on.
    pub(crate) fn fail(&self, kind: Kind, when: When, fault: Fault) {
        self.state.plans.lock().expect("no panic before").push(Plan { kind, when, fault, seen: 0 });
    }

    /// Runs something right before the `nth` request of a kind from now, once: another client.
    pub(crate) fn interfere(&self, kind: Kind, nth: usize, act: impl FnOnce(&DirectAccess) + Send + 'static) {
        let interference = Interference { kind, nth, act: Box::new(act) };
        self.state.interferences.lock().expect("no panic before").push(interference);
    }

    /// Changes the contents of the registry, past its API.
    pub(crate) fn direct_access(&self) -> DirectAccess {
        DirectAccess(Arc::clone(&self.state))
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.state.plans.lock().expect("no panic before").clear();
    }

    /// The requests so far.
    pub(crate) fn journal(&self) -> Vec<Entry> {
        self.state.journal.lock().expect("no panic before").clone()
    }

    /// The requests to the other host.
    pub(crate) fn storage_journal(&self) -> Vec<Entry> {
        self.state.storage_journal.lock().expect("no panic before").clone()
    }

    /// The number of requests of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.journal().iter().filter(|entry| entry.kind == kind).count()
    }

    /// Bytes of blobs that arrived so far, whatever became of them.
    pub(crate) fn received(&self) -> u64 {
        let is_blob = |entry: &&Entry| matches!(entry.kind, Kind::Patch | Kind::PutBlob | Kind::PostUpload);
        self.journal().iter().filter(is_blob).map(|entry| entry.received).sum()
    }

    /// Waits until it has read all that clients sent before they ended.
    pub(crate) fn wait_until_idle(&self) {
        self.listeners.iter().for_each(Listener::wait_until_idle);
    }

    /// Bytes of bodies that arrived so far, of requests under way too.
    pub(crate) fn bytes_received(&self) -> u64 {
        self.state.bytes_received.load(Ordering::Relaxed)
    }

    /// The most requests that were answered at the same time since the last call.
    pub(crate) fn peak_concurrency(&self) -> usize {
        self.state.peak_concurrency.swap(0, Ordering::Relaxed)
    }

    /// What a tag names.
    pub(crate) fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.state.contents().repositories.get(repository)?.tags.get(tag)?.parse().ok()
    }

    /// Tags that named an incomplete image, now or when they moved.
    pub(crate) fn broken_tags(&self) -> Vec<String> {
        let contents = self.state.contents();
        let mut broken = contents.broken.clone();
        for (name, repository) in &contents.repositories {
            let bad = repository.tags.iter().filter(|(_, digest)| !contents.is_complete(name, digest));
            broken.extend(bad.map(|(tag, _)| format!("{name}:{tag}")));
        }
        broken
    }

    /// Uploads that are neither finished nor cancelled.
    pub(crate) fn open_uploads(&self) -> usize {
        self.state.contents().uploads.len()
    }
}

impl DirectAccess {
    /// Puts a manifest, under a tag if one is given; its digest.
    pub(crate) fn put(&self, repository: &str, tag: Option<&str>, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut contents = self.0.contents();
        let own = contents.repositories.entry(repository.into()).or_default();
        own.manifests.insert(digest.to_string(), (media_type.into(), Arc::new(bytes.to_vec())));
        if let Some(tag) = tag {
            own.tags.insert(tag.into(), digest.to_string());
        }
        digest
    }

    /// Forgets a manifest, and leaves whatever names it.
    pub(crate) fn forget(&self, repository: &str, digest: &str) {
        let mut contents = self.0.contents();
        let gone = contents.repositories.get_mut(repository).and_then(|own| own.manifests.remove(digest));
        assert!(gone.is_some(), "{digest} was not there");
    }

    /// The document that a tag names.
    pub(crate) fn document(&self, repository: &str, tag: &str) -> Value {
        let contents = self.0.contents();
        let own = &contents.repositories[repository];
        serde_json::from_slice(&own.manifests[&own.tags[tag]].1).expect("JSON")
    }

    /// How many manifests a repository has.
    pub(crate) fn manifests(&self, repository: &str) -> usize {
        self.0.contents().repositories[repository].manifests.len()
    }
}

impl State {
    pub(super) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("no panic before")
    }

    /// `127.0.0.1:PORT` of the registry.
    pub(super) fn own(&self) -> &str {
        self.hosts.get().map_or("", |(own, _)| own)
    }

    /// What others do before a request of this kind.
    fn due(&self, kind: Kind) -> Vec<Interference> {
        let mut interferences = self.interferences.lock().expect("no panic before");
        for interference in interferences.iter_mut().filter(|interference| interference.kind == kind) {
            interference.nth -= 1;
        }
        let (due, later) =
            std::mem::take(&mut *interferences).into_iter().partition(|interference| interference.nth == 0);
        *interferences = later;
        due
    }

    /// The same path on the other host, with a signature.
    pub(super) fn signed(&self, request: &Request) -> Response {
        let storage = self.hosts.get().map_or("", |(_, storage)| storage);
        let joint = if request.path.contains('?') { '&' } else { '?' };
        respond(307).with("Location", format!("http://{storage}{}{joint}X-Signature=secret", request.path))
    }

    fn reply(&self, request: &Request, kind: Kind, fault: Option<Fault>) -> Response {
        match fault {
            Some(Fault::Status(status)) => {
                return failure(status, "UNKNOWN", "out of order").with("Retry-After", "0");
            }
            Some(Fault::Expired) => {
                self.contents().tokens.expire();
                return self.challenge(request, true);
            }
            Some(Fault::Garbage) => {
                let page = "<html><body>Sign in</body></html>";
                return respond(200).with("Content-Type", "text/html").body(page);
            }
            Some(Fault::Redirect) => return self.signed(request),
            _ => {}
        }
        if kind == Kind::Token {
            return self.token(request);
        }
        if let Some(refused) = self.deny(request, kind) {
            return refused;
        }
        if !request.whole {
            self.broke_off(request);
            return respond(400);
        }
        self.api(request, kind)
    }
}

impl Contents {
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
    fn fault(&self, head: &Request) -> Option<Fault> {
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

    fn bytes_received(&self, bytes: usize) {
        self.0.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn answer(&self, request: Request, fault: Option<Fault>) -> Response {
        self.0.peak_concurrency.fetch_max(self.0.busy.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        std::thread::sleep(self.0.quirks.latency);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        let mut entry = Entry::of(&request, fault);
        for interference in self.0.due(entry.kind) {
            (interference.act)(&DirectAccess(Arc::clone(&self.0)));
        }
        let mut reply = self.0.reply(&request, entry.kind, fault);
        if fault == Some(Fault::WrongDigest) {
            reply = spoilt(reply, request.method == "HEAD");
        }
        entry.status = if request.whole { reply.status } else { 0 };
        self.0.journal.lock().expect("no panic before").push(entry);
        reply
    }
}

/// Where signed URLs lead: it has the bytes, asks for nothing and bears no credentials, as Amazon's storage.
struct Storage(Arc<State>);

impl Service for Storage {
    fn answer(&self, request: Request, _fault: Option<Fault>) -> Response {
        let entry = Entry::of(&request, None);
        let (kind, is_bad) = (entry.kind, entry.authorization.is_some());
        self.0.storage_journal.lock().expect("no panic before").push(entry);
        if is_bad {
            return respond(400).body("<Error>Only one auth mechanism allowed</Error>");
        }
        match kind {
            Kind::GetBlob | Kind::GetRange | Kind::HeadBlob => self.0.bytes(&request),
            Kind::GetManifest | Kind::GetTag | Kind::HeadManifest | Kind::HeadTag => self.0.api(&request, kind),
            _ => respond(403),
        }
    }
}

/// An error as the specification has it.
pub(super) fn failure(status: u16, code: &str, message: &str) -> Response {
    let errors = json!({ "errors": [{ "code": code, "message": message }] });
    respond(status).with("Content-Type", "application/json").body(errors.to_string())
}

/// Other bytes than there should be; where there are none, another digest.
fn spoilt(mut reply: Response, is_head: bool) -> Response {
    if is_head || reply.part.is_empty() {
        reply.headers.retain(|(name, _)| name != "Docker-Content-Digest");
        return reply.with("Docker-Content-Digest", Digest::of(b"another").to_string());
    }
    let mut bytes = reply.body[reply.part.clone()].to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    reply.body(bytes)
}
