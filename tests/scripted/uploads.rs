//! Blobs on their way in: sessions, chunks, mounts.

use std::sync::Arc;

use phial_layers::Digest;

use super::http::{Answer, Asked, answer};
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
fn id(asked: &Asked) -> String {
    asked.bare_path().rsplit('/').next().unwrap_or_default().to_owned()
}

impl State {
    /// The repository that a request is about.
    pub(super) fn repository_of(&self, asked: &Asked) -> Option<String> {
        let path = asked.bare_path();
        if path.starts_with("/artifacts-uploads/") {
            return self.kept().uploads.get(&id(asked)).map(|upload| upload.repository.clone());
        }
        let path = path.strip_prefix("/v2/")?;
        let ends =
            ["/blobs/", "/manifests/", "/tags/list", "/referrers/"].into_iter().filter_map(|mark| path.find(mark));
        ends.min().map(|end| path[..end].to_owned())
    }

    pub(super) fn begin(&self, asked: &Asked, repository: &str) -> Answer {
        let mut kept = self.kept();
        if self.quirks.made_first && !kept.repositories.contains_key(repository) {
            let text = format!("The repository with name '{repository}' does not exist in the registry");
            return failure(404, "NAME_UNKNOWN", &text);
        }
        if let (Some(digest), Some(from)) = (asked.query("mount"), asked.query("from")) {
            match self.quirks.mount {
                Mount::Refused(status) => return failure(status, "UNSUPPORTED", "no mounts here"),
                Mount::Works if kept.repositories.get(&from).is_some_and(|from| from.blobs.contains(&digest)) => {
                    kept.repositories.entry(repository.into()).or_default().blobs.insert(digest.clone());
                    return self.stored(answer(201), repository, &digest);
                }
                _ => {}
            }
        }
        kept.begun += 1;
        let id = format!("upload-{}", kept.begun);
        kept.uploads.insert(id.clone(), Upload { repository: repository.into(), ..Upload::default() });
        let mut reply = self.located(answer(self.quirks.post_status), &id, repository, 0);
        if self.quirks.says_min {
            reply = reply.with("OCI-Chunk-Min-Length", self.quirks.min_chunk.to_string());
        }
        reply.with("Range", "0-0")
    }

    /// A body that did not come to its end.
    pub(super) fn broke_off(&self, asked: &Asked) {
        let mut kept = self.kept();
        let keeps = self.quirks.keeps_partial && matches!(asked.method.as_str(), "PATCH" | "PUT");
        if !keeps {
            kept.uploads.remove(&id(asked));
        } else if let Some(upload) = kept.uploads.get_mut(&id(asked)) {
            upload.bytes.extend(&asked.body);
        }
    }

    pub(super) fn patch(&self, asked: &Asked) -> Answer {
        let id = id(asked);
        let mut kept = self.kept();
        if let Some(refused) = self.refuse(asked, &mut kept.uploads, true) {
            return refused;
        }
        let Some(upload) = kept.uploads.get_mut(&id) else { return unknown() };
        let start = asked.header("content-range").and_then(|range| range.split('-').next()?.parse().ok());
        if start.is_some_and(|start: usize| start != upload.bytes.len()) {
            let range = range(upload.bytes.len());
            return failure(416, "RANGE_INVALID", "the chunk does not fit").with("Range", range);
        }
        if upload.short {
            return failure(400, "BLOB_UPLOAD_INVALID", "LayerPartTooSmallException");
        }
        upload.short = (asked.body.len() as u64) < self.quirks.min_chunk;
        upload.bytes.extend(&asked.body);
        if upload.first == 0 {
            upload.first = upload.bytes.len();
        }
        let output = if self.quirks.sticky_range { upload.first } else { upload.bytes.len() };
        let (repository, length) = (upload.repository.clone(), upload.bytes.len());
        self.located(answer(self.quirks.patch_status), &id, &repository, length).with("Range", range(output))
    }

    pub(super) fn put_blob(&self, asked: &Asked) -> Answer {
        let mut kept = self.kept();
        if let Some(refused) = self.refuse(asked, &mut kept.uploads, self.quirks.max_put) {
            return refused;
        }
        let Some(mut upload) = kept.uploads.remove(&id(asked)) else { return unknown() };
        upload.bytes.extend(&asked.body);
        let Some(digest) = asked.query("digest") else { return failure(400, "DIGEST_INVALID", "no digest") };
        if Digest::of(&upload.bytes).as_str() != digest {
            return failure(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        kept.blobs.insert(digest.clone(), Arc::new(upload.bytes));
        kept.repositories.entry(upload.repository.clone()).or_default().blobs.insert(digest.clone());
        self.stored(answer(201), &upload.repository, &digest)
    }

    pub(super) fn status(&self, asked: &Asked) -> Answer {
        let mut kept = self.kept();
        if let Some(refused) = self.refuse(asked, &mut kept.uploads, false) {
            return refused;
        }
        let id = id(asked);
        let Some(upload) = kept.uploads.get(&id) else { return unknown() };
        let output = if self.quirks.sticky_range { upload.first } else { upload.bytes.len() };
        self.located(answer(204), &id, &upload.repository, upload.bytes.len()).with("Range", range(output))
    }

    pub(super) fn cancel(&self, asked: &Asked) -> Answer {
        match self.kept().uploads.remove(&id(asked)) {
            Some(_) => answer(204),
            None => unknown(),
        }
    }

    /// What is wrong with a request for a session: too long a body, a state that is not the session's.
    fn refuse(
        &self,
        asked: &Asked,
        uploads: &mut std::collections::BTreeMap<String, Upload>,
        limits: bool,
    ) -> Option<Answer> {
        let id = id(asked);
        let upload = uploads.get(&id)?;
        if self.quirks.location == Location::State {
            let offset: Option<usize> = asked.query("_state").and_then(|state| state.split('/').next()?.parse().ok());
            if offset != Some(upload.bytes.len()) {
                uploads.remove(&id); // as distribution 2.8 does
                return Some(failure(404, "BLOB_UPLOAD_INVALID", "blob upload invalid"));
            }
        }
        let (most, status) = self.quirks.max_body.filter(|_| limits)?;
        let text = "upload exceeds the maximum permissible limit";
        (asked.body.len() as u64 > most).then(|| failure(status, "SIZE_INVALID", text))
    }

    fn located(&self, reply: Answer, id: &str, repository: &str, offset: usize) -> Answer {
        let location = match self.quirks.location {
            Location::Path => format!("/v2/{repository}/blobs/uploads/{id}"),
            Location::State => {
                format!("http://{}/v2/{repository}/blobs/uploads/{id}?_state={offset}%2Fa%3D", self.own())
            }
            Location::Outside => format!("/artifacts-uploads/{id}?b=1&a=2"),
        };
        reply.with("Location", location).with("Docker-Upload-UUID", id)
    }

    pub(super) fn stored(&self, reply: Answer, repository: &str, digest: &str) -> Answer {
        let reply = reply.with("Location", format!("/v2/{repository}/blobs/{digest}"));
        if self.quirks.no_digest { reply } else { reply.with("Docker-Content-Digest", digest) }
    }
}

/// `0-0` for nothing, too, as registries have it.
fn range(length: usize) -> String {
    format!("0-{}", length.saturating_sub(1))
}

fn unknown() -> Answer {
    failure(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}
