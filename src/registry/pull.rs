//! Downloads of blobs: a download that breaks off is resumed where it broke, at another mirror if need be.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::thread::sleep;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{Method, StatusCode};

use super::access::Rights;
use super::client::Client;
use super::error::RegistryError;
use super::http::{HttpRequest, Response, header, refusal};
use super::http_runtime::TransferError;
use super::url::display_url;
use crate::image::{BlobReader, Descriptor, RegistryRef, Verified, stream_error};

/// Bytes after which the tries are counted from zero again.
const PROGRESS: u64 = 1 << 20;

/// A blob as a stream, not yet checked.
pub(super) struct BlobDownload {
    /// Where it is read.
    client: Client,
    repository: RegistryRef,
    /// Where it can be read instead.
    others: VecDeque<(Client, RegistryRef)>,
    descriptor: Descriptor,
    response: Option<Response>,
    /// Bytes that the reader has.
    offset: u64,
    /// Tries since the last progress.
    tried: u32,
    /// The offset at the last failure.
    failed_at: u64,
    /// Whether the registry is asked for the rest alone (`Range`).
    use_range: bool,
    /// Whether a response of another length than the blob's was rejected already.
    rejected_length: bool,
}

impl BlobDownload {
    /// Requests the blob. A blob that is not there is an error here, not at the first read.
    pub(super) fn begin(
        client: &Client,
        repository: &RegistryRef,
        descriptor: &Descriptor,
    ) -> Result<Self, RegistryError> {
        let mut others: VecDeque<_> = client.sources(&repository.repository_only())?.into();
        let first = others.pop_front();
        let (client, repository) = first.unwrap_or_else(|| (client.clone(), repository.repository_only()));
        let mut download = Self {
            client,
            repository,
            others,
            descriptor: descriptor.clone(),
            response: None,
            offset: 0,
            tried: 0,
            failed_at: 0,
            use_range: true,
            rejected_length: false,
        };
        let first = download.request_rest();
        download.response = Some(first.or_else(|error| download.try_next_source(error))?);
        Ok(download)
    }

    /// Continues at the next mirror or location, if there is one: the digest is the same everywhere.
    fn try_next_source(&mut self, mut error: RegistryError) -> Result<Response, RegistryError> {
        while let Some((client, repository)) = self.others.pop_front() {
            self.client.report_failed_mirror(&self.repository, &error);
            (self.client, self.repository) = (client, repository);
            (self.tried, self.use_range, self.rejected_length) = (0, true, false);
            match self.request_rest() {
                Ok(response) => return Ok(response),
                Err(again) => error = again,
            }
        }
        Err(error)
    }

    /// A response whose next byte is the one at `offset`. The registry is asked each time: a signed URL that it
    /// redirected to before may have expired.
    fn request_rest(&mut self) -> Result<Response, RegistryError> {
        loop {
            let access = self.client.access(&self.repository, Rights::Pull)?;
            let range = format!("bytes={}-", self.offset);
            let mut request = HttpRequest::new(Method::GET, access.blob_url(&self.descriptor.digest))
                .with(ACCEPT_ENCODING, "identity");
            let use_range = self.use_range && self.offset > 0;
            if use_range {
                request = request.with(RANGE, &range);
            }
            let response = self.client.send(&access, &request)?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT if use_range && self.is_rest(&response) => return Ok(response),
                StatusCode::OK => {}
                _ if use_range => {
                    self.use_range = false;
                    continue;
                }
                StatusCode::NOT_FOUND => {
                    let reference = format!("{}@{}", self.repository.name(), self.descriptor.digest);
                    return Err(RegistryError::NotFound { reference });
                }
                _ => return Err(refusal(&request, response)),
            }
            if header(&response, CONTENT_ENCODING.as_str()).is_some_and(|encoding| encoding != "identity") {
                let why = "the blob came with a `Content-Encoding` that was not requested".into();
                return Err(RegistryError::NotARegistry { place: display_url(response.url()), why });
            }
            let is_other_length = response.content_length().is_some_and(|length| length != self.descriptor.size);
            if is_other_length && !std::mem::replace(&mut self.rejected_length, true) {
                continue; // an HTML page, perhaps; if it comes again, the check of the bytes reports what is wrong
            }
            return self.skip_to_offset(response);
        }
    }

    /// Whether a response begins at the offset and ends where the blob does (RFC 9110, 14.4).
    fn is_rest(&self, response: &Response) -> bool {
        let range = header(response, CONTENT_RANGE.as_str());
        let Some((range, total)) = range.as_deref().and_then(|range| range.strip_prefix("bytes ")?.split_once('/'))
        else {
            return false;
        };
        let ends =
            (format!("{}-{}", self.offset, self.descriptor.size.saturating_sub(1)), self.descriptor.size.to_string());
        range == ends.0 && (total == "*" || total == ends.1)
    }

    /// Reads away what the reader has already, of a response with the whole blob.
    fn skip_to_offset(&self, mut response: Response) -> Result<Response, RegistryError> {
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

    /// Waits after an error and requests the rest, as often as the retry policy says.
    fn resume(&mut self, mut error: RegistryError) -> Result<(), RegistryError> {
        let policy = self.client.transport.retry_policy;
        if self.offset - self.failed_at >= PROGRESS {
            self.tried = 0;
        }
        self.failed_at = self.offset;
        loop {
            self.tried += 1;
            let pause = policy.pause_after(&error, self.tried).filter(|_| error.is_transient());
            let Some(pause) = pause.filter(|_| self.tried < policy.tries) else {
                self.response = Some(self.try_next_source(error)?);
                return Ok(());
            };
            sleep(pause);
            match self.request_rest() {
                Ok(response) => {
                    self.response = Some(response);
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
    }

    /// Reads some bytes; 0 at the end of the blob, or where every response ends.
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        loop {
            let Some(response) = self.response.as_mut() else { return Ok(0) };
            let is_complete = self.offset >= self.descriptor.size;
            let error = match response.read(buffer) {
                Ok(0) if !is_complete && !buffer.is_empty() => TransferError::Ended,
                Ok(n) => {
                    self.offset += n as u64;
                    return Ok(n);
                }
                Err(_) if is_complete => return Ok(0), // every byte is here: how the connection ended does not matter
                Err(error) => error,
            };
            let is_end = matches!(error, TransferError::Ended);
            self.response = None;
            match self.resume(error.during_body(&self.request())) {
                Ok(()) => {}
                // Every response ends here: the check of the bytes reports how many are missing.
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

impl Read for BlobDownload {
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
        Ok(Verified::new(Box::new(BlobDownload::begin(self, repository, descriptor)?), descriptor))
    }

    /// The checked bytes of a blob that is small enough for memory.
    pub(super) fn whole_blob(
        &self,
        repository: &RegistryRef,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        let bytes = BlobDownload::begin(self, repository, descriptor)?.read_whole()?;
        let reference = format!("{}@{}", repository.name(), descriptor.digest);
        descriptor.check(&bytes).map_err(RegistryError::blob(&reference))?;
        Ok(bytes)
    }
}
