//! One blob into a repository: HEAD, resume, mount or upload, and what follows from each way in which that can fail.

use std::thread::sleep;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};

use super::access::{RepositoryAccess, Rights};
use super::client::Client;
use super::ecr::has_ecr_limits;
use super::error::RegistryError;
use super::http::{HttpRequest, Response, header, refusal, upload_location};
use super::upload_journal::Checkpoint;
use super::upload_session::{BlobUpload, UploadMode, UploadSession};
use super::url::display_url;
use crate::image::{Descriptor, RegistryRef};

/// Upload sessions for one blob, if the registry loses them or what is in them.
const MAX_SESSIONS: u32 = 3;
/// How often the length of chunks is halved.
const MAX_HALVINGS: u32 = 6;
/// Connections that break in the middle of a body before chunks are tried.
const BREAKS_BEFORE_CHUNKS: u32 = 3;
/// Bytes after which the tries are counted from zero again.
const PROGRESS: u64 = 1 << 20;
/// The longest `OCI-Chunk-Min-Length` that is followed: four chunks are in memory at once.
const MAX_MIN_CHUNK: u64 = 64 << 20;

/// How a blob came into the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pushed {
    /// It was there before.
    Existed,
    /// It was mounted from another repository of the registry.
    Mounted,
    /// It was uploaded.
    Uploaded,
}

/// Whether the registry is asked for the blob before it is uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExistenceCheck {
    Head,
    /// The registry has just reported that something it should have is missing.
    Skip,
}

impl Client {
    /// Puts a blob into the repository: if it is not there, resumes an upload of an earlier run, or mounts the blob from one
    /// of the repositories `mount`, or uploads it.
    pub(super) fn upload(
        &self,
        to: &RegistryRef,
        upload: &BlobUpload<'_>,
        mount: &[&str],
        check: ExistenceCheck,
    ) -> Result<Pushed, RegistryError> {
        let access = self.access(to, Rights::Push)?;
        let descriptor = upload.descriptor;
        let mut checkpoint = self.uploads.checkpoint(&to.host, &to.repository, &descriptor.digest, descriptor.size);
        // HEAD is a hint: whatever is wrong shows again at the upload, with a text.
        if check == ExistenceCheck::Head && self.has(&access, descriptor).unwrap_or(false) {
            checkpoint.remove();
            return Ok(Pushed::Existed);
        }
        let mut session = self.earlier_session(&access, descriptor, &mut checkpoint);
        for source in mount.iter().copied().filter(|source| *source != to.repository) {
            if session.is_some() {
                break;
            }
            match self.mount_with_retries(&access, descriptor, source) {
                Ok(None) => return Ok(Pushed::Mounted),
                Ok(opened) => session = opened,
                Err(_) => {} // Harbor, ECR and others refuse mounts in many ways: the blob is uploaded then
            }
        }
        let mut mode = UploadMode { chunk: None, checkpoint };
        self.send_blob(&access, upload, session, &mut mode)?;
        mode.checkpoint.remove();
        Ok(Pushed::Uploaded)
    }

    /// The session of an earlier run, if the registry still has it.
    fn earlier_session(
        &self,
        access: &RepositoryAccess,
        descriptor: &Descriptor,
        checkpoint: &mut Checkpoint,
    ) -> Option<UploadSession> {
        let position = checkpoint.read()?;
        let session = UploadSession { url: position.url.parse().ok()?, offset: position.offset, min_chunk: 0 };
        self.session_state(access, &session).filter(|session| session.offset <= descriptor.size)
    }

    /// Uploads a blob through broken connections, lost sessions and limits on the length of a body.
    fn send_blob(
        &self,
        access: &RepositoryAccess,
        upload: &BlobUpload<'_>,
        mut session: Option<UploadSession>,
        mode: &mut UploadMode,
    ) -> Result<(), RegistryError> {
        let (policy, descriptor) = (self.transport.retry_policy, upload.descriptor);
        let (mut lost_sessions, mut halvings, mut breaks, mut tried, mut mismatches) = (0, 0, 0, 0, 0);
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None => policy.retry(|| self.open_session(access))?,
            };
            mode.checkpoint.write(current.url.as_str(), current.offset);
            let before = current.offset;
            let Err(error) = self.send_rest(access, upload, &mut current, mode) else { return Ok(()) };
            let start = if mode.chunk.is_some() || before == 0 { SessionStart::Known } else { SessionStart::Resumed };
            match UploadFailure::of(&error, start) {
                UploadFailure::TooLong if halvings < MAX_HALVINGS => {
                    halvings += 1;
                    self.cancel(access, &current);
                    let shorter = mode.chunk.map_or_else(|| first_chunk(&access.host), |chunk| chunk / 2);
                    mode.chunk = Some(shorter.min(descriptor.size / 2).max(1));
                }
                UploadFailure::SessionLost if lost_sessions + 1 < MAX_SESSIONS => lost_sessions += 1,
                UploadFailure::DigestMismatch if mismatches == 0 => {
                    mismatches += 1;
                    self.cancel(access, &current);
                }
                UploadFailure::Transient if tried + 1 < policy.tries => {
                    tried = if current.offset - before >= PROGRESS { 1 } else { tried + 1 };
                    breaks += 1;
                    let Some(pause) = policy.pause_after(&error, tried) else { return Err(error) };
                    sleep(pause);
                    // Perhaps only the response was lost.
                    if self.has(access, descriptor).unwrap_or(false) {
                        return Ok(());
                    }
                    session = self.session_state(access, &current).filter(|session| session.offset <= descriptor.size);
                    if breaks >= BREAKS_BEFORE_CHUNKS && mode.chunk.is_none() {
                        mode.chunk = Some(first_chunk(&access.host));
                    }
                }
                UploadFailure::Transient => return Err(error),
                _ => {
                    mode.checkpoint.remove();
                    self.cancel(access, &current);
                    return Err(error);
                }
            }
        }
    }

    /// As [`Client::mount`], again while the registry is busy. Every other refusal is final: the blob is uploaded then.
    fn mount_with_retries(
        &self,
        access: &RepositoryAccess,
        descriptor: &Descriptor,
        source: &str,
    ) -> Result<Option<UploadSession>, RegistryError> {
        let mut is_final = None;
        let result = self.transport.retry_policy.retry(|| match self.mount(access, descriptor, source) {
            Err(error) if matches!(&error, RegistryError::Status { status, .. } if !matches!(status, 429 | 503)) => {
                is_final = Some(error);
                Ok(None)
            }
            result => result,
        });
        is_final.map_or(result, Err)
    }

    /// Mounts a blob from the repository `source`. `None` if that is done, or else the session that the registry opened
    /// instead.
    pub(super) fn mount(
        &self,
        access: &RepositoryAccess,
        descriptor: &Descriptor,
        source: &str,
    ) -> Result<Option<UploadSession>, RegistryError> {
        let mut url = access.url("blobs/uploads/");
        url.query_pairs_mut().append_pair("mount", descriptor.digest.as_str()).append_pair("from", source);
        let request = HttpRequest::new(Method::POST, url);
        let response = self.send_once(&access.mounting(source), &request)?;
        match response.status() {
            StatusCode::CREATED if self.has(&access.with(Rights::Push), descriptor)? => Ok(None),
            StatusCode::ACCEPTED => opened_session(&response, &request.method).map(Some),
            _ => Err(refusal(&request, response)),
        }
    }

    /// Opens an upload session.
    pub(super) fn open_session(&self, access: &RepositoryAccess) -> Result<UploadSession, RegistryError> {
        let request = HttpRequest::new(Method::POST, access.url("blobs/uploads/"));
        let response = self.send_once(&access.with(Rights::Push), &request)?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::CREATED => {
                opened_session(&response, &request.method)
            }
            _ => Err(refusal(&request, response)),
        }
    }
}

fn opened_session(response: &Response, method: &Method) -> Result<UploadSession, RegistryError> {
    if header(response, CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("text/html")) {
        let why = "an HTML page came instead of an upload session".into();
        return Err(RegistryError::NotARegistry { place: display_url(response.url()), why });
    }
    let min_chunk = header(response, "oci-chunk-min-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let url = upload_location(response, method)?;
    Ok(UploadSession { url, offset: 0, min_chunk: u64::min(min_chunk, MAX_MIN_CHUNK) })
}

/// What is known of the offset at which a try began.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SessionStart {
    /// The beginning of the blob, or the end of a chunk that the registry took.
    Known,
    /// Where an earlier try broke off: the registry may have another offset.
    Resumed,
}

/// What an error in the middle of an upload calls for.
enum UploadFailure {
    /// Shorter bodies.
    TooLong,
    /// A new session.
    SessionLost,
    /// The blob from its source once more: it had other bytes than its digest.
    DigestMismatch,
    /// Another try, as the retry policy says.
    Transient,
    /// Nothing: the upload fails.
    Final,
}

impl UploadFailure {
    fn of(error: &RegistryError, start: SessionStart) -> Self {
        match error {
            RegistryError::Status { status: 413, .. } => Self::TooLong,
            RegistryError::Status { status: 416, .. } if start == SessionStart::Known => Self::TooLong,
            RegistryError::Status { status: 404 | 416, .. } | RegistryError::Verify { .. } => Self::SessionLost,
            RegistryError::Status { status: 400, text, .. } => {
                let codes = ["DIGEST_INVALID", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN"];
                if codes.iter().any(|code| text.contains(code)) { Self::SessionLost } else { Self::Final }
            }
            RegistryError::Source { source, .. } if source.is_mismatch() => Self::DigestMismatch,
            error if error.is_transient() => Self::Transient,
            _ => Self::Final,
        }
    }
}

/// Bytes of the first chunk for a registry that refused a longer body.
fn first_chunk(host: &str) -> u64 {
    if has_ecr_limits(host) {
        10 << 20 // parts of 5 to 10 MiB
    } else if host == "ghcr.io" {
        (4 << 20) - (64 << 10)
    } else {
        8 << 20
    }
}
