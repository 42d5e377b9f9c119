//! A blob on its way out: whatever breaks off is gone on with from where it broke.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::thread::sleep;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{Method, StatusCode};

use super::client::{Client, header};
use super::error::RegistryError;
use super::http::{Call, Response, place, refusal};
use super::http_runtime::TransferError;
use crate::image::{BlobError, BlobReader, Descriptor, RegistryRef, Verified, stream_error};

/// Bytes that make up for a try.
const PROGRESS: u64 = 1 << 20;

/// A blob as a stream, not yet checked.
pub(super) struct Pull {
    /// Where it is read, and where it can be read instead.
    client: Client,
    repository: RegistryRef,
    others: VecDeque<(Client, RegistryRef)>,
    descriptor: Descriptor,
    answer: Option<Response>,
    /// Bytes handed out.
    offset: u64,
    /// Tries since the last good piece, and where that began.
    tried: u32,
    mark: u64,
    /// Whether parts are worth asking for.
    in_parts: bool,
    /// Whether an answer of another length was sent back already.
    doubted: bool,
}

impl Pull {
    /// Asks for the blob; that it is not there is said at once.
    pub(super) fn begin(
        client: &Client,
        repository: &RegistryRef,
        descriptor: &Descriptor,
    ) -> Result<Self, RegistryError> {
        let mut others: VecDeque<_> = client.sources(&repository.repository_only())?.into();
        let first = others.pop_front();
        let (client, repository) = first.unwrap_or_else(|| (client.clone(), repository.repository_only()));
        let mut pull = Self {
            client,
            repository,
            others,
            descriptor: descriptor.clone(),
            answer: None,
            offset: 0,
            tried: 0,
            mark: 0,
            in_parts: true,
            doubted: false,
        };
        let asked = pull.ask();
        pull.answer = Some(asked.or_else(|error| pull.elsewhere(error))?);
        Ok(pull)
    }

    /// Goes on at the next place, if there is one: bytes that are named by their digest are the same everywhere.
    fn elsewhere(&mut self, mut error: RegistryError) -> Result<Response, RegistryError> {
        while let Some((client, repository)) = self.others.pop_front() {
            self.client.pass_over(&self.repository, &error);
            (self.client, self.repository) = (client, repository);
            (self.tried, self.in_parts, self.doubted) = (0, true, false);
            match self.ask() {
                Ok(answer) => return Ok(answer),
                Err(again) => error = again,
            }
        }
        Err(error)
    }

    /// An answer whose next byte is the one at `offset`. The registry is asked each time: a signed address that it gave
    /// before may have expired.
    fn ask(&mut self) -> Result<Response, RegistryError> {
        loop {
            let site = self.client.site(&self.repository)?;
            let range = format!("bytes={}-", self.offset);
            let mut call = Call::new(Method::GET, site.blob(&self.descriptor.digest)).with(ACCEPT_ENCODING, "identity");
            let in_parts = self.in_parts && self.offset > 0;
            if in_parts {
                call = call.with(RANGE, &range);
            }
            let response = self.client.send(&site.access(false), &call)?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT if in_parts && self.fits(&response) => return Ok(response),
                StatusCode::OK => {}
                _ if in_parts => {
                    self.in_parts = false;
                    continue;
                }
                StatusCode::NOT_FOUND => {
                    let reference = format!("{}@{}", self.repository.name(), self.descriptor.digest);
                    return Err(RegistryError::NotFound { reference });
                }
                _ => return Err(refusal(&call, response)),
            }
            if header(&response, CONTENT_ENCODING.as_str()).is_some_and(|encoding| encoding != "identity") {
                let why = "the blob came with a `Content-Encoding` that was not asked for".into();
                return Err(RegistryError::NotARegistry { place: place(response.url()), why });
            }
            let is_odd = response.content_length().is_some_and(|length| length != self.descriptor.size);
            if is_odd && !std::mem::replace(&mut self.doubted, true) {
                continue; // a page for people, perhaps; if it comes again, the check of the bytes says what is wrong
            }
            return self.skipped(response);
        }
    }

    /// Whether a part begins where it should and ends where the blob does (RFC 9110, 14.4).
    fn fits(&self, response: &Response) -> bool {
        let range = header(response, CONTENT_RANGE.as_str());
        let Some((range, total)) = range.as_deref().and_then(|range| range.strip_prefix("bytes ")?.split_once('/'))
        else {
            return false;
        };
        let ends =
            (format!("{}-{}", self.offset, self.descriptor.size.saturating_sub(1)), self.descriptor.size.to_string());
        range == ends.0 && (total == "*" || total == ends.1)
    }

    /// The whole came: what is known of it already is read away.
    fn skipped(&self, mut response: Response) -> Result<Response, RegistryError> {
        let mut left = self.offset;
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            match response.read(&mut buffer[..length]) {
                Ok(0) => break,
                Ok(n) => left -= n as u64,
                Err(error) => return Err(error.during_body(&self.request())),
            }
        }
        Ok(response)
    }

    fn request(&self) -> String {
        format!("GET {}@{}", self.repository.name(), self.descriptor.digest)
    }

    /// Takes an error in, waits, and asks again; gives up in the end.
    fn go_on(&mut self, mut error: RegistryError) -> Result<(), RegistryError> {
        let patience = self.client.transport.patience;
        if self.offset - self.mark >= PROGRESS {
            self.tried = 0;
        }
        self.mark = self.offset;
        loop {
            self.tried += 1;
            let pause = patience.before_next(&error, self.tried).filter(|_| error.is_transient());
            let Some(pause) = pause.filter(|_| self.tried < patience.tries) else {
                self.answer = Some(self.elsewhere(error)?);
                return Ok(());
            };
            sleep(pause);
            match self.ask() {
                Ok(answer) => {
                    self.answer = Some(answer);
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
    }

    /// Reads some bytes; 0 at the end of the blob, or where every answer ends.
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        loop {
            let Some(answer) = self.answer.as_mut() else { return Ok(0) };
            let is_complete = self.offset >= self.descriptor.size;
            let error = match answer.read(buffer) {
                Ok(0) if !is_complete && !buffer.is_empty() => TransferError::Ended,
                Ok(n) => {
                    self.offset += n as u64;
                    return Ok(n);
                }
                Err(_) if is_complete => return Ok(0), // every byte is here: how the connection ended does not matter
                Err(error) => error,
            };
            let is_end = matches!(error, TransferError::Ended);
            self.answer = None;
            match self.go_on(error.during_body(&self.request())) {
                Ok(()) => {}
                // Every answer ends here: the check of the bytes reports how many are missing.
                Err(RegistryError::BrokeOff { .. }) if is_end => return Ok(0),
                Err(error) => return Err(error),
            }
        }
    }

    /// All bytes of the blob, and one more if it is longer than its descriptor states.
    fn read_whole(&mut self) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while bytes.len() as u64 <= self.descriptor.size {
            let left = self.descriptor.size + 1 - bytes.len() as u64;
            let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            match self.read_some(&mut buffer[..length])? {
                0 => break,
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        }
        Ok(bytes)
    }
}

impl Read for Pull {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(stream_error)
    }
}

impl Client {
    /// A blob as a stream that is resumed when it breaks off. It fails before its last bytes unless they have the digest
    /// and size of `descriptor`.
    pub fn blob(
        &self,
        repository: &RegistryRef,
        descriptor: &Descriptor,
    ) -> Result<Verified<BlobReader>, RegistryError> {
        Ok(Verified::new(Box::new(Pull::begin(self, repository, descriptor)?), descriptor))
    }

    /// The checked bytes of a blob that is small enough for memory.
    pub(super) fn whole_blob(
        &self,
        repository: &RegistryRef,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        let bytes = Pull::begin(self, repository, descriptor)?.read_whole()?;
        let reference = format!("{}@{}", repository.name(), descriptor.digest);
        BlobError::check_blob(descriptor, &bytes).map_err(RegistryError::blob(&reference))?;
        Ok(bytes)
    }
}
