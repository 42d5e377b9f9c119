//! The distribution API: manifests, blobs, tags, referrers.

use std::collections::BTreeSet;
use std::sync::Arc;

use phial_layers::Digest;
use serde_json::{Value, json};

use super::fault::Kind;
use super::http::{Request, Response, respond};
use super::quirks::Head;
use super::registry::{State, failure};

/// Tags in one answer, unless fewer are asked for.
const PAGE: usize = 1000;

fn last(request: &Request) -> String {
    request.bare_path().rsplit('/').next().unwrap_or_default().to_owned()
}

impl State {
    pub(super) fn api(&self, request: &Request, kind: Kind) -> Response {
        if kind == Kind::Ping {
            return respond(200).with("Docker-Distribution-Api-Version", "registry/2.0").body("{}");
        }
        let Some(repository) = self.repository_of(request) else {
            return failure(404, "BLOB_UPLOAD_UNKNOWN", "no such thing");
        };
        let refused = |head: Head| match head {
            Head::Refused(status) if request.method == "HEAD" => Some(failure(status, "UNSUPPORTED", "no HEAD here")),
            _ => None,
        };
        match kind {
            Kind::PostUpload | Kind::PostMount => self.begin(request, &repository),
            Kind::Patch => self.patch(request),
            Kind::PutBlob => self.put_blob(request),
            Kind::Status => self.status(request),
            Kind::HeadBlob | Kind::GetBlob | Kind::GetRange => refused(self.quirks.head_blob)
                .unwrap_or_else(|| if self.quirks.storage { self.redirected(request) } else { self.bytes(request) }),
            Kind::HeadManifest | Kind::HeadTag | Kind::GetManifest | Kind::GetTag => {
                refused(self.quirks.head_manifest).unwrap_or_else(|| self.manifest(request, &repository))
            }
            Kind::PutManifest | Kind::PutTag => self.put_manifest(request, &repository),
            Kind::Tags => self.tags(request, &repository),
            Kind::Referrers => self.referrers(request, &repository),
            Kind::Delete => self.delete(request, &repository),
            Kind::Token | Kind::Ping | Kind::Other => self.unknown(),
        }
    }

    fn unknown(&self) -> Response {
        if self.quirks.pages {
            return respond(200).with("Content-Type", "text/html").body("<html>hello");
        }
        failure(404, "UNSUPPORTED", "no such thing")
    }

    /// A blob that is there is elsewhere.
    fn redirected(&self, request: &Request) -> Response {
        let found = self.bytes(request);
        if found.status == 404 || request.method == "HEAD" { found } else { self.signed(request) }
    }

    /// A blob of a repository, or a part of it.
    pub(super) fn bytes(&self, request: &Request) -> Response {
        let (repository, digest) = (self.repository_of(request).unwrap_or_default(), last(request));
        let contents = self.contents();
        let is_there =
            contents.repositories.get(&repository).is_some_and(|repository| repository.blobs.contains(&digest));
        let Some(bytes) = contents.blobs.get(&digest).filter(|_| is_there).map(Arc::clone) else {
            return failure(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        drop(contents);
        let (length, digest_header) = (bytes.len(), "Docker-Content-Digest");
        let reply = respond(200).with("Content-Type", "application/octet-stream").with(digest_header, digest);
        let wanted =
            request.header("range").filter(|_| self.quirks.ranges).and_then(|range| range.strip_prefix("bytes="));
        let Some((start, end)) = wanted.and_then(|wanted| wanted.split_once('-')) else {
            return reply.with("Accept-Ranges", "bytes").shared(bytes, 0..length);
        };
        let start: usize = start.parse().unwrap_or(0);
        let end = end.parse().map_or(length, |end: usize| length.min(end + 1));
        if start >= end {
            return respond(416).with("Content-Range", format!("bytes */{length}"));
        }
        let range = format!("bytes {start}-{}/{length}", end - 1);
        Response { status: 206, ..reply }.with("Content-Range", range).shared(bytes, start..end)
    }

    fn manifest(&self, request: &Request, repository: &str) -> Response {
        let name = last(request);
        let contents = self.contents();
        let unknown = || failure(404, "MANIFEST_UNKNOWN", "manifest unknown");
        let Some(repository) = contents.repositories.get(repository) else { return unknown() };
        let as_digest = name.strip_prefix("sha256-").filter(|hex| self.quirks.tags_as_digests && hex.len() == 64);
        let as_digest = as_digest.map(|hex| format!("sha256:{hex}"));
        let digest = as_digest.as_ref().or(repository.tags.get(&name)).unwrap_or(&name);
        let Some((media_type, bytes)) = repository.manifests.get(digest) else { return unknown() };
        let reply = respond(200).with("Content-Type", media_type).shared(Arc::clone(bytes), 0..bytes.len());
        if self.quirks.no_digest { reply } else { reply.with("Docker-Content-Digest", digest) }
    }

    fn put_manifest(&self, request: &Request, repository: &str) -> Response {
        let (name, digest) = (last(request), Digest::of(&request.body).to_string());
        let invalid = |text: &str| failure(400, "MANIFEST_INVALID", text);
        let Ok(manifest) = serde_json::from_slice::<Value>(&request.body) else { return invalid("no JSON") };
        let media_type = request.header("content-type").unwrap_or_default();
        if manifest["mediaType"].as_str().is_some_and(|own| own != media_type) {
            return invalid("media types differ");
        }
        if self.quirks.only_oci && media_type.contains("docker") {
            return invalid("unknown media type");
        }
        if name.contains(':') && name != digest {
            return failure(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        let mut contents = self.contents();
        if self.quirks.made_first && !contents.repositories.contains_key(repository) {
            return failure(404, "NAME_UNKNOWN", "no such repository");
        }
        let own = contents.repositories.entry(repository.into()).or_default();
        if let Some(status) = self.quirks.immutable.filter(|_| own.tags.contains_key(&name)) {
            let text = format!("The image tag '{name}' already exists and cannot be overwritten: it is immutable");
            return failure(status, "ImageTagAlreadyExistsException", &text);
        }
        let before = own.manifests.insert(digest.clone(), (media_type.into(), Arc::new(request.body.clone())));
        let is_complete = contents.is_complete(repository, &digest);
        let own = contents.repositories.entry(repository.into()).or_default();
        if !is_complete && !self.quirks.lax {
            if before.is_none() {
                own.manifests.remove(&digest);
            }
            return failure(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
        }
        if !name.contains(':') {
            own.tags.insert(name.clone(), digest.clone());
            if !is_complete {
                contents.broken.push(format!("{repository}:{name}"));
            }
        }
        let location = format!("/v2/{repository}/manifests/{digest}");
        let mut reply = respond(201).with("Location", location);
        if !self.quirks.no_digest {
            reply = reply.with("Docker-Content-Digest", digest);
        }
        let says_subject = self.quirks.says_subject.unwrap_or(self.quirks.referrers);
        match manifest["subject"]["digest"].as_str().filter(|_| says_subject) {
            Some(subject) => reply.with("OCI-Subject", subject),
            None => reply,
        }
    }

    fn tags(&self, request: &Request, repository: &str) -> Response {
        let contents = self.contents();
        let Some(own) = contents.repositories.get(repository) else {
            return failure(404, "NAME_UNKNOWN", "no such name");
        };
        let mut names: BTreeSet<&String> = own.tags.keys().collect();
        if self.quirks.odd_tags {
            names.extend(own.manifests.keys());
        }
        let most = request.query("n").and_then(|n| n.parse().ok()).unwrap_or(PAGE).min(PAGE);
        let after = request.query("last").unwrap_or_default();
        let mut names: Vec<&String> = names.into_iter().filter(|name| **name > after).collect();
        let is_last = names.len() <= most;
        names.truncate(most);
        let tags = if self.quirks.odd_tags && names.is_empty() { Value::Null } else { json!(names) };
        let reply = respond(200).with("Content-Type", "application/json");
        let reply = match names.last().filter(|_| !is_last) {
            Some(last) => {
                reply.with("Link", format!("</v2/{repository}/tags/list?n={most}&last={last}>; rel=\"next\""))
            }
            None => reply,
        };
        reply.body(json!({ "name": repository, "tags": tags }).to_string())
    }

    fn referrers(&self, request: &Request, repository: &str) -> Response {
        if !self.quirks.referrers {
            return self.unknown();
        }
        let (subject, wanted) = (last(request), request.query("artifactType"));
        let mut contents = self.contents();
        contents.asked_for_referrers += 1;
        let is_late = contents.asked_for_referrers <= self.quirks.referrers_late;
        let manifests = contents.repositories.get(repository).into_iter().flat_map(|own| &own.manifests);
        let mut found = Vec::new();
        for (digest, (media_type, bytes)) in manifests {
            let manifest: Value = serde_json::from_slice(bytes).unwrap_or_default();
            let of_config = manifest["config"]["mediaType"].as_str();
            let kind = manifest["artifactType"].as_str().or(of_config).unwrap_or_default();
            let is_wanted = wanted.as_deref().is_none_or(|wanted| wanted == kind);
            if manifest["subject"]["digest"].as_str() == Some(&subject) && is_wanted {
                let mut descriptor = json!({
                    "mediaType": media_type, "digest": digest, "size": bytes.len(), "artifactType": kind,
                });
                if let Some(annotations) = manifest.get("annotations") {
                    descriptor["annotations"] = annotations.clone();
                }
                found.push(descriptor);
            }
        }
        if is_late {
            found.clear();
        }
        let index = "application/vnd.oci.image.index.v1+json";
        let from: usize = request.query("from").and_then(|from| from.parse().ok()).unwrap_or(0);
        let next = from.saturating_add(self.quirks.referrers_page);
        let mut reply = respond(200).with("Content-Type", index);
        if next < found.len() {
            reply = reply.with("Link", format!("</v2/{repository}/referrers/{subject}?from={next}>; rel=\"next\""));
        }
        let found: Vec<Value> = found.into_iter().skip(from).take(self.quirks.referrers_page).collect();
        let reply = if wanted.is_some() { reply.with("OCI-Filters-Applied", "artifactType") } else { reply };
        reply.body(json!({ "schemaVersion": 2, "mediaType": index, "manifests": found }).to_string())
    }

    fn delete(&self, request: &Request, repository: &str) -> Response {
        if request.path.contains("uploads/") {
            return if self.quirks.deletes { self.cancel(request) } else { failure(405, "UNSUPPORTED", "no deletes") };
        }
        if !self.quirks.deletes {
            return failure(405, "UNSUPPORTED", "no deletes");
        }
        let name = last(request);
        let mut contents = self.contents();
        let Some(own) = contents.repositories.get_mut(repository) else {
            return failure(404, "NAME_UNKNOWN", "no name");
        };
        let was_there = if request.path.contains("/blobs/") {
            own.blobs.remove(&name)
        } else if name.contains(':') {
            own.tags.retain(|_, digest| *digest != name);
            own.manifests.remove(&name).is_some()
        } else {
            own.tags.remove(&name).is_some()
        };
        if was_there { respond(202) } else { failure(404, "MANIFEST_UNKNOWN", "it is not there") }
    }
}
