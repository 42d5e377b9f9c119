//! One blob or manifest on its way into a registry.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use phial_layers::Digest;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode, Url};

use super::auth::Access;
use super::client::{Client, DIGEST_HEADER, Site, header};
use super::error::RegistryError;
use super::http::{Body, Call, refusal, upload_location};
use crate::image::{Descriptor, ImageError, MAX_MANIFEST_PUSH, RegistryRef, Verified};

/// New upload sessions for one blob: a session that broke is dead (distribution 2.8).
const SESSIONS: usize = 3;

/// How a blob came to be in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry had it in another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// A blob on its way.
#[derive(Clone, Copy)]
pub(super) struct Parcel<'a> {
    pub(super) descriptor: &'a Descriptor,
    /// Repositories of the same registry that may have it.
    pub(super) mount: &'a [&'a str],
    /// Where its bytes come from: called anew for each try.
    pub(super) open: &'a dyn Fn() -> Result<Box<dyn Read + Send>, RegistryError>,
    /// Bytes sent so far in this try.
    pub(super) sent: &'a Arc<AtomicU64>,
}

/// A body that is counted, and whose own error is not lost in the error of the request.
struct Counted<R> {
    inner: R,
    sent: Arc<AtomicU64>,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(n) => {
                self.sent.fetch_add(n as u64, Ordering::Relaxed);
                Ok(n)
            }
            Err(error) => {
                let kind = error.kind();
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(kind.into())
            }
        }
    }
}

impl Client {
    /// Puts a blob into the repository: looks whether it is there, tries to mount it, else
    /// sends it with one POST and one PUT (chunked uploads are where registries differ).
    pub(super) fn upload(&self, to: &RegistryRef, parcel: &Parcel<'_>) -> Result<Pushed, RegistryError> {
        let site = Site::of(to)?;
        let descriptor = parcel.descriptor;
        // HEAD is advice: whatever is wrong with it shows at the upload, with a text.
        if self.has(&site.access(true), descriptor).unwrap_or(false) {
            return Ok(Pushed::Existed);
        }
        let mut session = None;
        for source in parcel.mount.iter().copied().filter(|source| *source != to.repository) {
            match self.mount(&site, descriptor, source) {
                Ok(None) => return Ok(Pushed::Mounted),
                Ok(Some(location)) => session = Some(location),
                Err(_) => {} // Harbor, ECR and others refuse mounts in many ways: that only means "upload it"
            }
        }
        let mut sessions = 0;
        self.transport.patience.patiently(|| {
            loop {
                sessions += 1;
                parcel.sent.store(0, Ordering::Relaxed);
                let location = match session.take() {
                    Some(location) => location,
                    None => self.begin(&site)?,
                };
                match self.put_blob(&site.access(true), parcel, location) {
                    Err(error) if sessions < SESSIONS && is_dead_session(&error) => {}
                    result => return result.map(|()| Pushed::Uploaded),
                }
            }
        })
    }

    /// `None` if the blob is mounted; else the session that the registry opened instead.
    fn mount(&self, site: &Site<'_>, descriptor: &Descriptor, source: &str) -> Result<Option<Url>, RegistryError> {
        let mut url = site.url("blobs/uploads/");
        url.query_pairs_mut().append_pair("mount", descriptor.digest.as_str()).append_pair("from", source);
        let call = Call::new(Method::POST, url);
        let access = Access { mount: Some(source), ..site.access(true) };
        let response = self.send_once(&access, &call)?;
        match response.status() {
            StatusCode::CREATED if self.has(&site.access(true), descriptor)? => Ok(None),
            StatusCode::ACCEPTED => upload_location(&response, &call.method).map(Some),
            _ => Err(refusal(&call, response)),
        }
    }

    fn begin(&self, site: &Site<'_>) -> Result<Url, RegistryError> {
        let call = Call::new(Method::POST, site.url("blobs/uploads/"));
        let response = self.send_once(&site.access(true), &call)?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::CREATED => {
                upload_location(&response, &call.method)
            }
            _ => Err(refusal(&call, response)),
        }
    }

    fn put_blob(&self, access: &Access<'_>, parcel: &Parcel<'_>, location: Url) -> Result<(), RegistryError> {
        let descriptor = parcel.descriptor;
        let failed = Arc::new(Mutex::new(None));
        let counted = || -> Result<Box<dyn Read + Send>, RegistryError> {
            let inner = Verified::new((parcel.open)()?, descriptor);
            Ok(Box::new(Counted { inner, sent: Arc::clone(parcel.sent), failed: Arc::clone(&failed) }))
        };
        let mut call = Call::new(Method::PUT, with_digest(location, &descriptor.digest))
            .with(CONTENT_TYPE, "application/octet-stream");
        call.body = Body::Stream { size: descriptor.size, open: &counted };
        let result = self.send_once(access, &call);
        if let Some(source) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(RegistryError::Source { digest: descriptor.digest.clone(), source });
        }
        let response = result?;
        if !response.status().is_success() {
            return Err(refusal(&call, response));
        }
        let said = header(&response, DIGEST_HEADER);
        let is_sure =
            response.status() == StatusCode::CREATED && said.as_deref().is_none_or(|d| d == descriptor.digest.as_str());
        if is_sure || self.has(access, descriptor)? {
            return Ok(());
        }
        let found =
            said.map_or_else(|| "that it has nothing".into(), |said| format!("`{}`", crate::image::shown(&said)));
        let reference = format!("{}/{}", access.host, access.repository);
        Err(RegistryError::Verify { reference, expected: descriptor.digest.clone(), found })
    }

    /// Puts a manifest under its digest or a tag, and looks whether it is there.
    pub(super) fn put(
        &self,
        to: &RegistryRef,
        selector: &str,
        bytes: &[u8],
        media_type: &str,
    ) -> Result<(), RegistryError> {
        let digest = Digest::of(bytes);
        let mut named = to.repository_only();
        if selector == digest.as_str() {
            named.digest = Some(digest.clone());
        } else {
            named.tag = Some(selector.into());
        }
        let (length, limit) = (bytes.len() as u64, MAX_MANIFEST_PUSH);
        if length > limit {
            let source = ImageError::TooLarge { what: "the manifest", size: length, limit };
            return Err(RegistryError::Image { reference: named.to_string(), source });
        }
        let site = Site::of(to)?;
        let mut call = Call::new(Method::PUT, site.manifest(selector)).with(CONTENT_TYPE, media_type);
        call.body = Body::Bytes(bytes);
        let response = self.send(&site.access(true), &call)?;
        let status = response.status();
        // Registries with immutable tags refuse even the same manifest: only what the tag names counts.
        let may_be_there = matches!(status.as_u16(), 400 | 409 | 412);
        if !status.is_success() && !may_be_there {
            return Err(refusal(&call, response));
        }
        let refused = (!status.is_success()).then(|| refusal(&call, response));
        match (self.head(&named, true), refused) {
            (Ok(Some(found)), _) if found == digest => Ok(()),
            (Ok(Some(found)), Some(error)) if named.tag.is_some() => Err(if is_immutable(&error) {
                RegistryError::Immutable { reference: named.to_string(), found }
            } else {
                error
            }),
            (_, Some(error)) | (Err(error), None) => Err(error),
            (Ok(found), None) => {
                let found = found.map_or_else(|| "that there is none".into(), |found| format!("`{found}`"));
                Err(RegistryError::Verify { reference: named.to_string(), expected: digest, found })
            }
        }
    }
}

fn is_immutable(error: &RegistryError) -> bool {
    let RegistryError::Status { status, text, .. } = error else { return false };
    let text = text.to_ascii_lowercase();
    *status != 400
        || ["immutable", "already exists", "alreadyexists", "tag_invalid"].iter().any(|word| text.contains(word))
}

/// The session is of no use any more, but a new one may be.
fn is_dead_session(error: &RegistryError) -> bool {
    match error {
        RegistryError::Status { status: 404 | 416, .. } => true,
        RegistryError::Status { status: 400, text, .. } => {
            ["DIGEST_INVALID", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN"].iter().any(|code| text.contains(code))
        }
        _ => false,
    }
}

/// Adds `digest` to the location's query and leaves the rest of it as it is, order and escapes included.
fn with_digest(mut location: Url, digest: &Digest) -> Url {
    let kept = location.query().unwrap_or_default().split('&');
    let kept = kept.filter(|pair| !pair.is_empty() && !pair.starts_with("digest="));
    let own = format!("digest={}", digest.as_str().replace(':', "%3A"));
    let query: Vec<&str> = kept.chain([own.as_str()]).collect();
    let query = query.join("&");
    location.set_query(Some(&query));
    location
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_joins_whatever_query_the_location_has() {
        let digest = Digest::of(b"");
        let own = format!("digest=sha256%3A{}", digest.hex());
        for (location, expected) in [
            ("http://r/v2/u/1", format!("http://r/v2/u/1?{own}")),
            ("http://r/v2/u/1?", format!("http://r/v2/u/1?{own}")),
            ("http://r/u?_state=a%2Fb&x=1", format!("http://r/u?_state=a%2Fb&x=1&{own}")),
            ("http://r/u?digest=sha256:old&x=1", format!("http://r/u?x=1&{own}")),
        ] {
            assert_eq!(with_digest(location.parse().unwrap(), &digest).as_str(), expected);
        }
    }
}
