//! A registry in memory, as small as records and releases need it, with the habits in which real ones differ.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use phial::image::RegistryRef;
use phial_layers::Digest;
use serde_json::{Value, json};

use crate::registry::scripted::{Answer, Asked, Server, answer};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// In what it differs from the plainest registry.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a habit of its own")]
pub(super) struct Habits {
    /// It has the referrers API.
    pub(super) referrers: bool,
    /// It answers `OCI-Subject`, whether it has that API or not (ECR in early 2024).
    pub(super) says_subject: bool,
    /// It answers 200 and a page to any path that it does not know.
    pub(super) pages: bool,
    /// It lists so many referrers in one answer.
    pub(super) page: usize,
    /// The API is so many questions late.
    pub(super) late: usize,
    /// It reads the tag `sha256-<hex>` as the digest (GitLab).
    pub(super) reads_tags_as_digests: bool,
    /// No tag is moved or put again (ECR).
    pub(super) immutable: bool,
}

#[derive(Default)]
pub(super) struct State {
    /// By repository and digest.
    pub(super) blobs: BTreeMap<(String, String), Vec<u8>>,
    /// By repository and digest: media type and bytes.
    pub(super) manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    /// By repository and tag: a digest.
    pub(super) tags: BTreeMap<(String, String), String>,
    asked_for_referrers: usize,
}

/// What happens before a request is answered: another client.
type Meddler = dyn Fn(&Asked, &mut State) + Send + Sync;

#[derive(Clone)]
pub(super) struct Memory {
    pub(super) server: Server,
    state: Arc<Mutex<State>>,
}

impl Memory {
    pub(super) fn start(habits: Habits) -> Self {
        Self::meddled(habits, |_, _| {})
    }

    pub(super) fn meddled(habits: Habits, meddler: impl Fn(&Asked, &mut State) + Send + Sync + 'static) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let (inner, meddler): (_, Arc<Meddler>) = (Arc::clone(&state), Arc::new(meddler));
        let server = Server::start(move |asked| {
            let mut state = inner.lock().unwrap();
            meddler(asked, &mut state);
            state.answer(habits, asked)
        });
        Self { server, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn host(&self) -> &str {
        &self.server.host
    }

    pub(super) fn reference(&self, rest: &str) -> RegistryRef {
        self.server.reference(rest)
    }

    /// The digest that a tag names.
    pub(super) fn tag(&self, repository: &str, tag: &str) -> Option<String> {
        self.state().tags.get(&(repository.to_owned(), tag.to_owned())).cloned()
    }

    /// The document under a tag.
    pub(super) fn document(&self, repository: &str, tag: &str) -> Value {
        let digest = self.tag(repository, tag).expect("a tag");
        let state = self.state();
        serde_json::from_slice(&state.manifests[&(repository.to_owned(), digest)].1).expect("JSON")
    }
}

impl State {
    /// Puts a manifest, as a client would.
    pub(super) fn put(&mut self, repository: &str, tag: Option<&str>, kind: &str, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        self.manifests.insert((repository.into(), digest.clone()), (kind.into(), bytes.to_vec()));
        if let Some(tag) = tag {
            self.tags.insert((repository.into(), tag.into()), digest.clone());
        }
        digest
    }

    fn answer(&mut self, habits: Habits, asked: &Asked) -> Answer {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let unknown = || {
            if habits.pages { answer(200).with("Content-Type", "text/html").body("<html>hello") } else { answer(404) }
        };
        let Some(path) = path.strip_prefix("/v2/") else { return unknown() };
        if let Some((repository, upload)) = path.split_once("/blobs/uploads/") {
            return self.upload(asked, repository, upload, query);
        }
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            return match self.blobs.get(&(repository.into(), digest.into())) {
                Some(bytes) => answer(200).body(bytes.clone()),
                None => answer(404),
            };
        }
        if let Some((repository, subject)) = path.split_once("/referrers/") {
            return if habits.referrers { self.referrers(habits, repository, subject, query) } else { unknown() };
        }
        match path.split_once("/manifests/") {
            Some((repository, name)) if asked.method == "PUT" => self.put_manifest(habits, asked, repository, name),
            Some((repository, name)) => self.manifest(habits, repository, name),
            None => unknown(),
        }
    }

    fn upload(&mut self, asked: &Asked, repository: &str, upload: &str, query: &str) -> Answer {
        let value = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.map(|value| value.replace("%3A", ":").replace("%2F", "/"))
        };
        if asked.method == "PUT" && upload == "1" {
            let digest = value("digest").expect("a digest");
            assert_eq!(Digest::of(&asked.body).as_str(), digest, "bytes that are not what their digest says");
            self.blobs.insert((repository.into(), digest), asked.body.clone());
            return answer(201);
        }
        if let (Some(digest), Some(from)) = (value("mount"), value("from"))
            && let Some(bytes) = self.blobs.get(&(from, digest.clone())).cloned()
        {
            self.blobs.insert((repository.into(), digest), bytes);
            return answer(201);
        }
        answer(202).with("Location", format!("/v2/{repository}/blobs/uploads/1"))
    }

    fn manifest(&self, habits: Habits, repository: &str, name: &str) -> Answer {
        let tagged = self.tags.get(&(repository.to_owned(), name.to_owned())).cloned();
        let as_digest = name.strip_prefix("sha256-").filter(|hex| habits.reads_tags_as_digests && hex.len() == 64);
        let digest = as_digest.map(|hex| format!("sha256:{hex}")).or(tagged).unwrap_or_else(|| name.to_owned());
        match self.manifests.get(&(repository.to_owned(), digest.clone())) {
            Some((kind, bytes)) => {
                answer(200).with("Content-Type", kind).with("Docker-Content-Digest", digest).body(bytes.clone())
            }
            None => answer(404),
        }
    }

    fn put_manifest(&mut self, habits: Habits, asked: &Asked, repository: &str, name: &str) -> Answer {
        let value: Value = serde_json::from_slice(&asked.body).expect("a manifest");
        let blobs = value["layers"].as_array().into_iter().flatten().chain(value.get("config"));
        for blob in blobs {
            let digest = blob["digest"].as_str().expect("a digest");
            if !self.blobs.contains_key(&(repository.into(), digest.into())) {
                return answer(400).body(r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#);
            }
        }
        let is_tag = !name.contains(':');
        if is_tag && habits.immutable && self.tags.contains_key(&(repository.into(), name.into())) {
            let text = format!("The image tag '{name}' already exists and cannot be overwritten");
            return answer(400)
                .body(json!({"errors": [{"code": "ImageTagAlreadyExistsException", "message": text}]}).to_string());
        }
        let kind = asked.headers.get("content-type").expect("a content type");
        assert_eq!(value["mediaType"].as_str(), Some(kind.as_str()));
        let digest = self.put(repository, is_tag.then_some(name), kind, &asked.body);
        assert!(is_tag || digest == name, "a manifest under another digest");
        let reply = answer(201).with("Docker-Content-Digest", digest);
        match value["subject"]["digest"].as_str() {
            Some(subject) if habits.says_subject => reply.with("OCI-Subject", subject),
            _ => reply,
        }
    }

    fn referrers(&mut self, habits: Habits, repository: &str, subject: &str, query: &str) -> Answer {
        self.asked_for_referrers += 1;
        let mut found = Vec::new();
        for ((at, digest), (kind, bytes)) in &self.manifests {
            let value: Value = serde_json::from_slice(bytes).expect("a manifest");
            if at == repository && value["subject"]["digest"].as_str() == Some(subject) {
                let kind_of = value.get("artifactType").unwrap_or(&value["config"]["mediaType"]);
                found.push(json!({"mediaType": kind, "digest": digest, "size": bytes.len(), "artifactType": kind_of}));
            }
        }
        if self.asked_for_referrers <= habits.late {
            found.clear();
        }
        let from: usize = query.strip_prefix("from=").map_or(0, |from| from.parse().expect("a number"));
        let page = if habits.page == 0 { found.len() } else { habits.page };
        let rest: Vec<Value> = found.iter().skip(from).take(page).cloned().collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": rest});
        let reply = answer(200).with("Content-Type", INDEX).body(index.to_string());
        if from + page < found.len() {
            let next = format!("</v2/{repository}/referrers/{subject}?from={}>; rel=\"next\"", from + page);
            return reply.with("Link", next);
        }
        reply
    }
}
