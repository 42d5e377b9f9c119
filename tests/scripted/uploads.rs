//! Blobs on their way in: sessions, chunks, mounts.

use std::sync::Arc;

use phial_layers::Digest;

use super::http::{Request, Response, respond};
use super::quirks::{Location, Mount};
use super::registry::{State, failure};

/// A session.
#[derive(Debug, Default)]
pub(super) struct Upload {
    pub(super) repository: String,
    pub(super) bytes: Vec<u8>,
    /// A chunk that was too short, which only the last may be.
    short: bool,
    /// The end of the first chunk.
    first: usize,
}

/// The name of a session in a path.
fn id(request: &Request) -> String {
    request.bare_path().rsplit('/').next().unwrap_or_default().to_owned()
}

impl State {
    /// The repository that a request is about.
    pub(super) fn repository_of(&self, request: &Request) -> Option<String> {
        let path = request.bare_path();
        if path.starts_with("/artifacts-uploads/") {
            return self.contents().uploads.get(&id(request)).map(|upload| upload.repository.clone());
        }
        let path = path.strip_prefix("/v2/")?;
        let ends =
            ["/blobs/", "/manifests/", "/tags/list", "/referrers/"].into_iter().filter_map(|mark| path.find(mark));
        ends.min().map(|end| path[..end].to_owned())
    }

    pub(super) fn begin(&self, request: &Request, repository: &str) -> Response {
        let mut contents = self.contents();
        if self.quirks.made_first && !contents.repositories.contains_key(repository) {
            let text = format!("The repository with name '{repository}' does not exist in the registry");
            return failure(404, "NAME_UNKNOWN", &text);
        }
        if let (Some(digest), Some(from)) = (request.query("mount"), request.query("from")) {
            match self.quirks.mount {
                Mount::Refused(status) => return failure(status, "UNSUPPORTED", "no mounts here"),
                Mount::Works if contents.repositories.get(&from).is_some_and(|from| from.blobs.contains(&digest)) => {
                    contents.repositories.entry(repository.into()).or_default().blobs.insert(digest.clone());
                    return self.stored(respond(201), repository, &digest);
                }
                _ => {}
            }
        }
        contents.begun += 1;
        let id = format!("upload-{}", contents.begun);
        contents.uploads.insert(id.clone(), Upload { repository: repository.into(), ..Upload::default() });
        let mut reply = self.located(respond(self.quirks.post_status), &id, repository, 0);
        if self.quirks.says_min {
            reply = reply.with("OCI-Chunk-Min-Length", self.quirks.min_chunk.to_string());
        }
        reply.with("Range", "0-0")
    }

    /// A body that did not come to its end.
    pub(super) fn broke_off(&self, request: &Request) {
        let mut contents = self.contents();
        let keeps = self.quirks.keeps_partial && matches!(request.method.as_str(), "PATCH" | "PUT");
        if !keeps {
            contents.uploads.remove(&id(request));
        } else if let Some(upload) = contents.uploads.get_mut(&id(request)) {
            upload.bytes.extend(&request.body);
        }
    }

    pub(super) fn patch(&self, request: &Request) -> Response {
        let id = id(request);
        let mut contents = self.contents();
        if let Some(refused) = self.refuse(request, &mut contents.uploads, true) {
            return refused;
        }
        let Some(upload) = contents.uploads.get_mut(&id) else { return unknown() };
        let start = request.header("content-range").and_then(|range| range.split('-').next()?.parse().ok());
        if start.is_some_and(|start: usize| start != upload.bytes.len()) {
            let range = range(upload.bytes.len());
            return failure(416, "RANGE_INVALID", "the chunk does not fit").with("Range", range);
        }
        if upload.short {
            return failure(400, "BLOB_UPLOAD_INVALID", "LayerPartTooSmallException");
        }
        upload.short = (request.body.len() as u64) < self.quirks.min_chunk;
        upload.bytes.extend(&request.body);
        if upload.first == 0 {
            upload.first = upload.bytes.len();
        }
        let output = if self.quirks.sticky_range { upload.first } else { upload.bytes.len() };
        let (repository, length) = (upload.repository.clone(), upload.bytes.len());
        self.located(respond(self.quirks.patch_status), &id, &repository, length).with("Range", range(output))
    }

    pub(super) fn put_blob(&self, request: &Request) -> Response {
        let mut contents = self.contents();
        if let Some(refused) = self.refuse(request, &mut contents.uploads, self.quirks.max_put) {
            return refused;
        }
        let Some(mut upload) = contents.uploads.remove(&id(request)) else { return unknown() };
        upload.bytes.extend(&request.body);
        let Some(digest) = request.query("digest") else { return failure(400, "DIGEST_INVALID", "no digest") };
        if Digest::of(&upload.bytes).as_str() != digest {
            return failure(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        contents.blobs.insert(digest.clone(), Arc::new(upload.bytes));
        contents.repositories.entry(upload.repository.clone()).or_default().blobs.insert(digest.clone());
        self.stored(respond(201), &upload.repository, &digest)
    }

    pub(super) fn status(&self, request: &Request) -> Response {
        let mut contents = self.contents();
        if let Some(refused) = self.refuse(request, &mut contents.uploads, false) {
            return refused;
        }
        let id = id(request);
        let Some(upload) = contents.uploads.get(&id) else { return unknown() };
        let output = if self.quirks.sticky_range { upload.first } else { upload.bytes.len() };
        self.located(respond(204), &id, &upload.repository, upload.bytes.len()).with("Range", range(output))
    }

    pub(super) fn cancel(&self, request: &Request) -> Response {
        match self.contents().uploads.remove(&id(request)) {
            Some(_) => respond(204),
            None => unknown(),
        }
    }

    /// What is wrong with a request for a session: too long a body, a state that is not the session's.
    fn refuse(
        &self,
        request: &Request,
        uploads: &mut std::collections::BTreeMap<String, Upload>,
        limits: bool,
    ) -> Option<Response> {
        let id = id(request);
        let upload = uploads.get(&id)?;
        if self.quirks.location == Location::State {
            let offset: Option<usize> = request.query("_state").and_then(|state| state.split('/').next()?.parse().ok());
            if offset != Some(upload.bytes.len()) {
                uploads.remove(&id); // as distribution 2.8 does
                return Some(failure(404, "BLOB_UPLOAD_INVALID", "blob upload invalid"));
            }
        }
        let (most, status) = self.quirks.max_body.filter(|_| limits)?;
        let text = "upload exceeds the maximum permissible limit";
        (request.body.len() as u64 > most).then(|| failure(status, "SIZE_INVALID", text))
    }

    fn located(&self, reply: Response, id: &str, repository: &str, offset: usize) -> Response {
        let location = match self.quirks.location {
            Location::Path => format!("/v2/{repository}/blobs/uploads/{id}"),
            Location::State => {
                format!("http://{}/v2/{repository}/blobs/uploads/{id}?_state={offset}%2Fa%3D", self.own())
            }
            Location::Outside => format!("/artifacts-uploads/{id}?b=1&a=2"),
        };
        reply.with("Location", location).with("Docker-Upload-UUID", id)
    }

    pub(super) fn stored(&self, reply: Response, repository: &str, digest: &str) -> Response {
        let reply = reply.with("Location", format!("/v2/{repository}/blobs/{digest}"));
        if self.quirks.no_digest { reply } else { reply.with("Docker-Content-Digest", digest) }
    }
}

/// `0-0` for nothing, too, as registries have it.
fn range(length: usize) -> String {
    format!("0-{}", length.saturating_sub(1))
}

fn unknown() -> Response {
    failure(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}
