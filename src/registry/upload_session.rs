//! The bytes of one blob into an upload session: one PUT where that works, chunks where a body has a limit, and from the
//! middle where a session was interrupted.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use phial_layers::Digest;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::access::RepositoryAccess;
use super::client::{Client, DIGEST_HEADER};
use super::error::RegistryError;
use super::http::{HttpRequest, RequestBody, header, refusal, upload_location};
use super::upload_journal::Checkpoint;
use crate::image::{BlobReader, Descriptor, Verified, shown};

/// The content type of blobs.
const OCTET_STREAM: &str = "application/octet-stream";

/// A blob to upload, and where its bytes come from.
#[derive(Clone, Copy)]
pub(super) struct BlobUpload<'a> {
    pub(super) descriptor: &'a Descriptor,
    /// Opens the blob; called again for each try.
    pub(super) open: &'a dyn Fn() -> Result<BlobReader, RegistryError>,
    /// Bytes that this try has sent.
    pub(super) sent: &'a Arc<AtomicU64>,
}

/// An upload that the registry has opened.
#[derive(Clone, Debug)]
pub(super) struct UploadSession {
    /// Where the upload continues.
    pub(super) url: Url,
    /// Bytes of the blob that the registry has.
    pub(super) offset: u64,
    /// The fewest bytes of a chunk, except for the last one.
    pub(super) min_chunk: u64,
}

/// How a blob is sent.
pub(super) struct UploadMode {
    /// The most bytes of a body; `None` for one PUT with all of them.
    pub(super) chunk: Option<u64>,
    pub(super) checkpoint: Checkpoint,
}

/// How a blob is cut, and where each chunk that was taken is recorded.
struct UploadChunks<'a> {
    /// Bytes of a chunk.
    length: u64,
    checkpoint: &'a mut Checkpoint,
}

/// What the PUT that closes a session carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClosingBody {
    WholeBlob,
    Empty,
}

/// The error of a blob's source. It is kept here, since the HTTP client returns only that the body failed.
type SourceFailure = Arc<Mutex<Option<io::Error>>>;

/// A body that counts its bytes and keeps the error of its source.
struct CountedBody {
    inner: BlobReader,
    sent: Arc<AtomicU64>,
    failure: SourceFailure,
}

impl Read for CountedBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(n) => {
                self.sent.fetch_add(n as u64, Ordering::Relaxed);
                Ok(n)
            }
            Err(error) => {
                let kind = error.kind();
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(kind.into())
            }
        }
    }
}

impl BlobUpload<'_> {
    /// The blob from `offset` on, checked from its first byte.
    fn read_from(&self, offset: u64, failure: &SourceFailure) -> Result<BlobReader, RegistryError> {
        let mut inner: BlobReader = Box::new(Verified::new((self.open)()?, self.descriptor));
        let skipped = io::copy(&mut (&mut inner).take(offset), &mut io::sink());
        skipped.map_err(|error| self.source_error(failure, error))?;
        Ok(Box::new(CountedBody { inner, sent: Arc::clone(self.sent), failure: Arc::clone(failure) }))
    }

    fn source_error(&self, failure: &SourceFailure, error: io::Error) -> RegistryError {
        let first = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        RegistryError::Source { digest: self.descriptor.digest.clone(), source: first.unwrap_or(error).into() }
    }

    /// The result of a request whose body was this blob: if the source failed, its error is the cause of all others.
    fn result<T>(&self, failure: &SourceFailure, result: Result<T, RegistryError>) -> Result<T, RegistryError> {
        match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(RegistryError::Source { digest: self.descriptor.digest.clone(), source: error.into() }),
            None => result,
        }
    }
}

impl Client {
    /// Sends the rest of a blob into its session and closes it. `session.offset` is what the registry has, also after an
    /// error.
    pub(super) fn send_rest(
        &self,
        access: &RepositoryAccess,
        upload: &BlobUpload<'_>,
        session: &mut UploadSession,
        mode: &mut UploadMode,
    ) -> Result<(), RegistryError> {
        upload.sent.store(session.offset, Ordering::Relaxed);
        let size = upload.descriptor.size;
        match mode.chunk {
            None if session.offset == 0 => return self.close(access, upload, session, ClosingBody::WholeBlob),
            None if session.offset < size => self.send_stream(access, upload, session)?,
            None => {}
            Some(chunk) => {
                let length = chunk.max(session.min_chunk);
                let mut chunks = UploadChunks { length, checkpoint: &mut mode.checkpoint };
                self.send_chunks(access, upload, session, &mut chunks)?;
            }
        }
        mode.checkpoint.write(session.url.as_str(), session.offset);
        self.close(access, upload, session, ClosingBody::Empty)
    }

    /// One PATCH with all that is missing.
    fn send_stream(
        &self,
        access: &RepositoryAccess,
        upload: &BlobUpload<'_>,
        session: &mut UploadSession,
    ) -> Result<(), RegistryError> {
        let range = session.offset..upload.descriptor.size;
        let failure = SourceFailure::default();
        let open = || {
            upload.sent.store(range.start, Ordering::Relaxed);
            upload.read_from(range.start, &failure)
        };
        let body = RequestBody::Stream { size: range.end - range.start, open: &open };
        let patched = self.patch(access, session, range.clone(), body);
        upload.result(&failure, patched)
    }

    /// PATCH after PATCH of at most `chunk` bytes. A chunk is held in memory, so that it can be sent again.
    fn send_chunks(
        &self,
        access: &RepositoryAccess,
        upload: &BlobUpload<'_>,
        session: &mut UploadSession,
        chunks: &mut UploadChunks<'_>,
    ) -> Result<(), RegistryError> {
        let size = upload.descriptor.size;
        let failure = SourceFailure::default();
        let mut source = upload.read_from(session.offset, &failure)?;
        while session.offset < size {
            let length = chunks.length.min(size - session.offset);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            source.read_exact(&mut bytes).map_err(|error| upload.source_error(&failure, error))?;
            let range = session.offset..session.offset + length;
            self.patch(access, session, range, RequestBody::Shared(Bytes::from(bytes)))?;
            chunks.checkpoint.write(session.url.as_str(), session.offset);
        }
        Ok(())
    }

    /// `Content-Range` has neither a unit nor a total: Azure's registry takes no other form.
    fn patch(
        &self,
        access: &RepositoryAccess,
        session: &mut UploadSession,
        range: Range<u64>,
        body: RequestBody<'_>,
    ) -> Result<(), RegistryError> {
        let content_range = format!("{}-{}", range.start, range.end - 1);
        let mut request = HttpRequest::new(Method::PATCH, session.url.clone())
            .with(CONTENT_TYPE, OCTET_STREAM)
            .with(CONTENT_RANGE, &content_range);
        request.body = body;
        let response = self.send_once(access, &request)?;
        let is_accepted = matches!(response.status().as_u16(), 200 | 201 | 202 | 204);
        if !is_accepted {
            return Err(refusal(&request, response));
        }
        if response.headers().contains_key(LOCATION) {
            session.url = upload_location(&response, &request.method)?;
        }
        // `Range` is ignored: Amazon's stays at the first chunk. The digest decides in the end.
        session.offset = range.end;
        Ok(())
    }

    /// The PUT that ends a session.
    fn close(
        &self,
        access: &RepositoryAccess,
        upload: &BlobUpload<'_>,
        session: &UploadSession,
        body: ClosingBody,
    ) -> Result<(), RegistryError> {
        let descriptor = upload.descriptor;
        let failure = SourceFailure::default();
        let open = || {
            upload.sent.store(0, Ordering::Relaxed);
            upload.read_from(0, &failure)
        };
        let url = with_digest(session.url.clone(), &descriptor.digest);
        let mut request = HttpRequest::new(Method::PUT, url).with(CONTENT_TYPE, OCTET_STREAM);
        if body == ClosingBody::WholeBlob {
            request.body = RequestBody::Stream { size: descriptor.size, open: &open };
        }
        let response = upload.result(&failure, self.send_once(access, &request))?;
        if !response.status().is_success() {
            return Err(refusal(&request, response));
        }
        let stated = header(&response, DIGEST_HEADER);
        let is_expected = stated.as_deref().is_none_or(|digest| digest == descriptor.digest.as_str());
        if response.status() == StatusCode::CREATED && is_expected || self.has(access, descriptor)? {
            return Ok(());
        }
        let found = stated.map_or_else(|| "no blob".into(), |stated| format!("`{}`", shown(&stated)));
        Err(RegistryError::Verify { reference: access.name(), expected: descriptor.digest.clone(), found })
    }

    /// The state of a session as the registry reports it; `None` if the session is gone or has no bytes: registries report
    /// `0-0` for none and for one byte alike.
    pub(super) fn session_state(&self, access: &RepositoryAccess, session: &UploadSession) -> Option<UploadSession> {
        let request = HttpRequest::new(Method::GET, session.url.clone());
        let response = self.send_once(access, &request).ok().filter(|response| response.status().is_success())?;
        let end: u64 = header(&response, RANGE.as_str())?.strip_prefix("0-")?.parse().ok().filter(|end| *end > 0)?;
        let url = if response.headers().contains_key(LOCATION) {
            upload_location(&response, &request.method).ok()?
        } else {
            session.url.clone()
        };
        // It has at least what it confirmed before, whatever it reports now.
        Some(UploadSession { url, offset: session.offset.max(end + 1), min_chunk: session.min_chunk })
    }

    /// Tells the registry to forget a session. Whether it did: some registries have no DELETE.
    pub(super) fn cancel(&self, access: &RepositoryAccess, session: &UploadSession) -> bool {
        let request = HttpRequest::new(Method::DELETE, session.url.clone());
        self.send_once(access, &request).is_ok_and(|response| response.status().is_success())
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
