//! One blob on its way into a registry: looked for, mounted, gone on with, or sent.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::sleep;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};

use super::auth::Access;
use super::client::{Client, Site, header};
use super::error::RegistryError;
use super::http::{Call, Response, place, refusal, upload_location};
use super::upload_journal::Checkpoint;
use super::upload_session::{Session, UploadMode};
use crate::image::{Descriptor, RegistryRef};

/// New upload sessions for one blob that the registry has lost or spoilt.
const SESSIONS: u32 = 3;
/// How often a chunk that is too long is halved.
const SHRINKS: u32 = 6;
/// Connections that break in the middle of a body before smaller bodies are tried.
const BREAKS: u32 = 3;
/// Bytes that make up for a try.
const PROGRESS: u64 = 1 << 20;
/// The longest `OCI-Chunk-Min-Length` that is heeded: four chunks are in memory at once.
const LONGEST_CHUNK: u64 = 64 << 20;

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
pub(super) struct BlobUpload<'a> {
    pub(super) descriptor: &'a Descriptor,
    /// Whether it is looked for first.
    pub(super) look: bool,
    /// Repositories of the same registry that may have it.
    pub(super) mount: &'a [&'a str],
    /// Where its bytes come from: called anew for each try.
    pub(super) open: &'a dyn Fn() -> Result<Box<dyn Read + Send>, RegistryError>,
    /// Bytes sent so far in this try.
    pub(super) sent: &'a Arc<AtomicU64>,
}

impl Client {
    /// Puts a blob into the repository: looks whether it is there, goes on with an upload that an earlier run began, tries to
    /// mount it, else sends it.
    pub(super) fn upload(&self, to: &RegistryRef, parcel: &BlobUpload<'_>) -> Result<Pushed, RegistryError> {
        let site = self.site(to)?;
        let access = site.access(true);
        let descriptor = parcel.descriptor;
        let mut note = self.sessions.note(&to.host, &to.repository, &descriptor.digest, descriptor.size);
        // HEAD is advice: whatever is wrong with it shows at the upload, with a text.
        if parcel.look && self.has(&access, descriptor).unwrap_or(false) {
            note.forget();
            return Ok(Pushed::Existed);
        }
        let mut session = self.interrupted(&access, descriptor, &mut note);
        for source in parcel.mount.iter().copied().filter(|source| *source != to.repository) {
            if session.is_some() {
                break;
            }
            match self.mount_patiently(&site, descriptor, source) {
                Ok(None) => return Ok(Pushed::Mounted),
                Ok(opened) => session = opened,
                Err(_) => {} // Harbor, ECR and others refuse mounts in many ways: that only means "upload it"
            }
        }
        let mut way = UploadMode { chunk: None, note };
        self.send_blob(&site, parcel, session, &mut way)?;
        way.note.forget();
        Ok(Pushed::Uploaded)
    }

    /// The session that an earlier run has left, as far as it is alive.
    fn interrupted(&self, access: &Access<'_>, descriptor: &Descriptor, note: &mut Checkpoint) -> Option<Session> {
        let noted = note.read()?;
        let left = Session { url: noted.url.parse().ok()?, offset: noted.offset, shortest: 0 };
        self.progress(access, &left).filter(|session| session.offset <= descriptor.size)
    }

    /// Sends a blob through whatever comes: connections that break, sessions that die, bodies that are too long.
    fn send_blob(
        &self,
        site: &Site,
        parcel: &BlobUpload<'_>,
        mut session: Option<Session>,
        way: &mut UploadMode,
    ) -> Result<(), RegistryError> {
        let (access, patience, descriptor) = (site.access(true), self.transport.patience, parcel.descriptor);
        let (mut sessions, mut shrinks, mut breaks, mut tried, mut lies) = (0, 0, 0, 0, 0);
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None => patience.retry(|| self.begin(site))?,
            };
            way.note.keep(current.url.as_str(), current.offset);
            let before = current.offset;
            let Err(error) = self.fill(&access, parcel, &mut current, way) else { return Ok(()) };
            match trouble(&error, way.chunk.is_some() || before == 0) {
                UploadError::TooLong if shrinks < SHRINKS => {
                    shrinks += 1;
                    self.cancel(&access, &current);
                    let shorter = way.chunk.map_or_else(|| first_chunk(access.host), |chunk| chunk / 2);
                    way.chunk = Some(shorter.min(descriptor.size / 2).max(1));
                }
                UploadError::Dead if sessions + 1 < SESSIONS => sessions += 1,
                UploadError::Lie if lies == 0 => {
                    lies += 1;
                    self.cancel(&access, &current);
                }
                UploadError::Passing if tried + 1 < patience.tries => {
                    tried = if current.offset - before >= PROGRESS { 1 } else { tried + 1 };
                    breaks += 1;
                    let Some(pause) = patience.before_next(&error, tried) else { return Err(error) };
                    sleep(pause);
                    // Only the answer may be lost.
                    if self.has(&access, descriptor).unwrap_or(false) {
                        return Ok(());
                    }
                    session = self.progress(&access, &current).filter(|session| session.offset <= descriptor.size);
                    if breaks >= BREAKS && way.chunk.is_none() {
                        way.chunk = Some(first_chunk(access.host));
                    }
                }
                UploadError::Passing => return Err(error),
                _ => {
                    way.note.forget();
                    self.cancel(&access, &current);
                    return Err(error);
                }
            }
        }
    }

    /// A mount is not worth much patience, but what is mounted need not be sent.
    fn mount_patiently(
        &self,
        site: &Site,
        descriptor: &Descriptor,
        source: &str,
    ) -> Result<Option<Session>, RegistryError> {
        let mut is_final = None;
        let result = self.transport.patience.retry(|| match self.mount(site, descriptor, source) {
            Err(error) if matches!(&error, RegistryError::Status { status, .. } if !matches!(status, 429 | 503)) => {
                is_final = Some(error);
                Ok(None)
            }
            result => result,
        });
        is_final.map_or(result, Err)
    }

    /// `None` if the blob is mounted; else the session that the registry opened instead.
    pub(super) fn mount(
        &self,
        site: &Site,
        descriptor: &Descriptor,
        source: &str,
    ) -> Result<Option<Session>, RegistryError> {
        let mut url = site.url("blobs/uploads/");
        url.query_pairs_mut().append_pair("mount", descriptor.digest.as_str()).append_pair("from", source);
        let call = Call::new(Method::POST, url);
        let access = Access { mount: Some(source), ..site.access(true) };
        let response = self.send_once(&access, &call)?;
        match response.status() {
            StatusCode::CREATED if self.has(&site.access(true), descriptor)? => Ok(None),
            StatusCode::ACCEPTED => opened(&response, &call.method).map(Some),
            _ => Err(refusal(&call, response)),
        }
    }

    pub(super) fn begin(&self, site: &Site) -> Result<Session, RegistryError> {
        let call = Call::new(Method::POST, site.url("blobs/uploads/"));
        let response = self.send_once(&site.access(true), &call)?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::CREATED => {
                opened(&response, &call.method)
            }
            _ => Err(refusal(&call, response)),
        }
    }
}

fn opened(response: &Response, method: &Method) -> Result<Session, RegistryError> {
    if header(response, CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("text/html")) {
        let why = "an HTML page came instead of an upload session".into();
        return Err(RegistryError::NotARegistry { place: place(response.url()), why });
    }
    let shortest = header(response, "oci-chunk-min-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Session { url: upload_location(response, method)?, offset: 0, shortest: u64::min(shortest, LONGEST_CHUNK) })
}

/// What an error in the middle of an upload asks for.
enum UploadError {
    /// Shorter bodies.
    TooLong,
    /// A new session.
    Dead,
    /// The blob from its source once more.
    Lie,
    /// RetryPolicy.
    Passing,
    /// Nothing.
    Final,
}

/// `is_fresh`: no session of an earlier try was gone on with, whose offset the registry may see otherwise.
fn trouble(error: &RegistryError, is_fresh: bool) -> UploadError {
    match error {
        RegistryError::Status { status: 413, .. } => UploadError::TooLong,
        RegistryError::Status { status: 416, .. } if is_fresh => UploadError::TooLong,
        RegistryError::Status { status: 404 | 416, .. } | RegistryError::Verify { .. } => UploadError::Dead,
        RegistryError::Status { status: 400, text, .. } => {
            let codes = ["DIGEST_INVALID", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN"];
            if codes.iter().any(|code| text.contains(code)) { UploadError::Dead } else { UploadError::Final }
        }
        RegistryError::Source { source, .. } if source.is_mismatch() => UploadError::Lie,
        error if error.is_transient() => UploadError::Passing,
        _ => UploadError::Final,
    }
}

/// How long the bodies are that a registry takes which refused a longer one.
fn first_chunk(host: &str) -> u64 {
    if host.contains(".dkr.ecr") || host.contains(".dkr-ecr") {
        10 << 20 // parts of 5 to 10 MiB
    } else if host == "ghcr.io" {
        (4 << 20) - (64 << 10)
    } else {
        8 << 20
    }
}
