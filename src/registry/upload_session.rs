//! The bytes of one blob into an upload session: one PUT where that works, chunks where a body may only be so long, and from
//! the middle where a session was interrupted.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use phial_layers::Digest;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::auth::Access;
use super::client::{Client, DIGEST_HEADER, header};
use super::error::RegistryError;
use super::http::{Body, Call, refusal, upload_location};
use super::upload::BlobUpload;
use super::upload_journal::Checkpoint;
use crate::image::{Verified, shown};

/// What bodies hold.
const BYTES: &str = "application/octet-stream";

/// An upload that the registry has opened.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Where it goes on.
    pub(super) url: Url,
    /// What the registry has of the blob.
    pub(super) offset: u64,
    /// The shortest chunk that it takes, but for the last.
    pub(super) shortest: u64,
}

/// How a blob is sent, and where that is noted.
pub(super) struct UploadMode {
    /// The longest body, if the registry takes only so much.
    pub(super) chunk: Option<u64>,
    pub(super) note: Checkpoint,
}

/// A body that is counted, and whose own error is not lost in the error of the request.
struct Counted {
    inner: Box<dyn Read + Send>,
    sent: Arc<AtomicU64>,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Read for Counted {
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
    /// Brings the rest of a blob into its session and closes it. The session tells how far it got, whatever happens.
    pub(super) fn fill(
        &self,
        access: &Access<'_>,
        parcel: &BlobUpload<'_>,
        session: &mut Session,
        way: &mut UploadMode,
    ) -> Result<(), RegistryError> {
        parcel.sent.store(session.offset, Ordering::Relaxed);
        let size = parcel.descriptor.size;
        match way.chunk {
            None if session.offset == 0 => return self.close(access, parcel, session, true),
            None if session.offset < size => self.stream(access, parcel, session)?,
            None => {}
            Some(chunk) => self.chunks(access, parcel, session, (chunk.max(session.shortest), &mut way.note))?,
        }
        way.note.keep(session.url.as_str(), session.offset);
        self.close(access, parcel, session, false)
    }

    /// One PATCH with all that is missing.
    fn stream(&self, access: &Access<'_>, parcel: &BlobUpload<'_>, session: &mut Session) -> Result<(), RegistryError> {
        let range = session.offset..parcel.descriptor.size;
        let failed = Arc::default();
        let open = || {
            parcel.sent.store(range.start, Ordering::Relaxed);
            from(parcel, range.start, &failed)
        };
        let body = Body::Stream { size: range.end - range.start, open: &open };
        let sent = self.patch(access, session, range.clone(), body);
        refine(parcel, &failed, sent)
    }

    /// PATCH after PATCH. A chunk is held in memory, so that it can be sent again.
    fn chunks(
        &self,
        access: &Access<'_>,
        parcel: &BlobUpload<'_>,
        session: &mut Session,
        (chunk, note): (u64, &mut Checkpoint),
    ) -> Result<(), RegistryError> {
        let size = parcel.descriptor.size;
        let failed = Arc::default();
        let mut source = from(parcel, session.offset, &failed)?;
        while session.offset < size {
            let length = chunk.min(size - session.offset);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            source.read_exact(&mut bytes).map_err(|error| lost(parcel, &failed, error))?;
            let range = session.offset..session.offset + length;
            self.patch(access, session, range, Body::Shared(Bytes::from(bytes)))?;
            note.keep(session.url.as_str(), session.offset);
        }
        Ok(())
    }

    /// `Content-Range` has neither a unit nor a total: the registry of Azure takes no other.
    fn patch(
        &self,
        access: &Access<'_>,
        session: &mut Session,
        range: std::ops::Range<u64>,
        body: Body<'_>,
    ) -> Result<(), RegistryError> {
        let content_range = format!("{}-{}", range.start, range.end - 1);
        let mut call =
            Call::new(Method::PATCH, session.url.clone()).with(CONTENT_TYPE, BYTES).with(CONTENT_RANGE, &content_range);
        call.body = body;
        let response = self.send_once(access, &call)?;
        let is_taken = matches!(response.status().as_u16(), 200 | 201 | 202 | 204);
        if !is_taken {
            return Err(refusal(&call, response));
        }
        if response.headers().contains_key(LOCATION) {
            session.url = upload_location(&response, &call.method)?;
        }
        // What its `Range` says is not believed: Amazon's stays at the first chunk. The digest decides.
        session.offset = range.end;
        Ok(())
    }

    /// The PUT that ends a session, with the whole blob or without any of it.
    fn close(
        &self,
        access: &Access<'_>,
        parcel: &BlobUpload<'_>,
        session: &Session,
        is_whole: bool,
    ) -> Result<(), RegistryError> {
        let descriptor = parcel.descriptor;
        let failed = Arc::default();
        let open = || {
            parcel.sent.store(0, Ordering::Relaxed);
            from(parcel, 0, &failed)
        };
        let mut call =
            Call::new(Method::PUT, with_digest(session.url.clone(), &descriptor.digest)).with(CONTENT_TYPE, BYTES);
        if is_whole {
            call.body = Body::Stream { size: descriptor.size, open: &open };
        }
        let response = refine(parcel, &failed, self.send_once(access, &call))?;
        if !response.status().is_success() {
            return Err(refusal(&call, response));
        }
        let said = header(&response, DIGEST_HEADER);
        let is_sure =
            response.status() == StatusCode::CREATED && said.as_deref().is_none_or(|d| d == descriptor.digest.as_str());
        if is_sure || self.has(access, descriptor)? {
            return Ok(());
        }
        let found = said.map_or_else(|| "that it has nothing".into(), |said| format!("`{}`", shown(&said)));
        let reference = format!("{}/{}", access.host, access.repository);
        Err(RegistryError::Verify { reference, expected: descriptor.digest.clone(), found })
    }

    /// How far the registry says a session is; `None` if it is dead, or has nothing to go on from. `0-0` is said for nothing
    /// and for one byte alike.
    pub(super) fn progress(&self, access: &Access<'_>, session: &Session) -> Option<Session> {
        let call = Call::new(Method::GET, session.url.clone());
        let response = self.send_once(access, &call).ok().filter(|response| response.status().is_success())?;
        let end: u64 = header(&response, RANGE.as_str())?.strip_prefix("0-")?.parse().ok().filter(|end| *end > 0)?;
        let url = if response.headers().contains_key(LOCATION) {
            upload_location(&response, &call.method).ok()?
        } else {
            session.url.clone()
        };
        // It has at least what it has confirmed, whatever it says now.
        Some(Session { url, offset: session.offset.max(end + 1), shortest: session.shortest })
    }

    /// Tells the registry that a session is of no use any more.
    pub(super) fn cancel(&self, access: &Access<'_>, session: &Session) {
        let _ = self.send_once(access, &Call::new(Method::DELETE, session.url.clone())); // it may know no DELETE
    }
}

/// The blob from `offset` on, checked from its first byte.
fn from(
    parcel: &BlobUpload<'_>,
    offset: u64,
    failed: &Arc<Mutex<Option<io::Error>>>,
) -> Result<Box<dyn Read + Send>, RegistryError> {
    let mut inner: Box<dyn Read + Send> = Box::new(Verified::new((parcel.open)()?, parcel.descriptor));
    io::copy(&mut (&mut inner).take(offset), &mut io::sink()).map_err(|error| lost(parcel, failed, error))?;
    Ok(Box::new(Counted { inner, sent: Arc::clone(parcel.sent), failed: Arc::clone(failed) }))
}

/// Whatever became of the request: if its source failed, that is why.
fn refine<T>(
    parcel: &BlobUpload<'_>,
    failed: &Mutex<Option<io::Error>>,
    result: Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    match failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(RegistryError::Source { digest: parcel.descriptor.digest.clone(), source: error.into() }),
        None => result,
    }
}

fn lost(parcel: &BlobUpload<'_>, failed: &Mutex<Option<io::Error>>, error: io::Error) -> RegistryError {
    let first = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    RegistryError::Source { digest: parcel.descriptor.digest.clone(), source: first.unwrap_or(error).into() }
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
