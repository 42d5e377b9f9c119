//! The asynchronous HTTP client behind a synchronous interface: requests run on one background thread.
//!
//! A request has no time limit, since a large layer takes long over a slow line. It fails when no data, or almost none,
//! moves for [`RetryPolicy::stall_timeout`].

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::body_stream::BodyProgress;
use super::error::RegistryError;
use super::retry::RetryPolicy;

/// Pieces of a response that are read ahead.
const AHEAD: usize = 8;
/// Bytes a second that a registry stores at least: it may take so long to respond to a body.
const STORING_SPEED: u64 = 8 << 20;

/// Why a response did not come, or broke off.
#[derive(Debug)]
pub(super) enum TransferError {
    /// The HTTP client failed. Its error has no URL.
    Http(reqwest::Error),
    /// Less than [`RetryPolicy::min_speed`] bytes a second came or went for so long.
    Stalled(Duration),
    /// The body ended early, and nothing is known of why.
    Ended,
}

impl TransferError {
    /// The error of a request that got no response.
    pub(super) fn during_request(self, request: String, proxy: Option<String>) -> RegistryError {
        match self {
            Self::Http(source) => RegistryError::Reach { request, proxy, source },
            other => other.during_body(&request),
        }
    }

    /// The error of a response that broke off while its body was read.
    pub(super) fn during_body(self, request: &str) -> RegistryError {
        let request = request.to_owned();
        match self {
            Self::Http(source) => RegistryError::BrokeOff { request, source: Some(source) },
            Self::Stalled(after) => RegistryError::Stalled { request, after },
            Self::Ended => RegistryError::BrokeOff { request, source: None },
        }
    }
}

/// The thread that drives all connections of a client; it ends with the client and its last response.
pub(super) struct HttpRuntime {
    handle: Handle,
    stop: Arc<oneshot::Sender<()>>,
}

/// A body whose progress is watched.
pub(super) struct SentBody {
    /// Bytes of the whole body.
    pub(super) size: u64,
    pub(super) progress: Arc<BodyProgress>,
}

/// A response: its head, and its body as it arrives.
#[derive(Debug)]
pub(super) struct Response {
    status: StatusCode,
    headers: HeaderMap,
    url: Url,
    length: Option<u64>,
    /// An empty piece is the end of the body; a closed channel is an error.
    pieces: mpsc::Receiver<Result<Bytes, TransferError>>,
    piece: Bytes,
    has_ended: bool,
    _stop: Arc<oneshot::Sender<()>>,
}

impl HttpRuntime {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new().name("registry".into()).spawn(move || {
            let _: Result<(), _> = runtime.block_on(stopped); // it errs when the other end is dropped
        })?;
        Ok(Self { handle, stop: Arc::new(stop) })
    }

    /// Sends a request and waits for the head of its response.
    pub(super) fn send(
        &self,
        client: &reqwest::Client,
        request: reqwest::Request,
        body: Option<SentBody>,
        policy: RetryPolicy,
    ) -> Result<Response, TransferError> {
        let (to, head) = oneshot::channel();
        let (client, stop) = (client.clone(), Arc::clone(&self.stop));
        self.handle.spawn(async move {
            let answer = match watched(client.execute(request), body.as_ref(), policy).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return drop(to.send(Err(TransferError::Http(error.without_url())))),
                Err(stalled) => return drop(to.send(Err(stalled))),
            };
            let (to_reader, pieces) = mpsc::channel(AHEAD);
            let response = Response {
                status: answer.status(),
                headers: answer.headers().clone(),
                url: answer.url().clone(),
                length: answer.content_length(),
                pieces,
                piece: Bytes::new(),
                has_ended: false,
                _stop: stop,
            };
            if to.send(Ok(response)).is_ok() {
                pass_body(answer, &to_reader, policy).await;
            }
        });
        // The thread lives as long as `self`, so that it always responds.
        head.blocking_recv().unwrap_or(Err(TransferError::Ended))
    }
}

/// Waits for a request while its body moves, and then for as long as the registry may need to store the body.
async fn watched<F: Future>(
    request: F,
    body: Option<&SentBody>,
    policy: RetryPolicy,
) -> Result<F::Output, TransferError> {
    let mut request = pin!(request);
    let mut since = Instant::now();
    let mut before = 0;
    let mut is_sent = false;
    loop {
        if let Ok(output) = timeout(policy.stall_timeout / 8, &mut request).await {
            return Ok(output);
        }
        let mut limit = policy.stall_timeout;
        let mut moved = 0;
        if let Some(SentBody { size, progress }) = body {
            let sent = progress.sent.load(Ordering::Relaxed);
            moved = sent - before;
            let was_sent = std::mem::replace(&mut is_sent, sent >= *size);
            if progress.waits_for_source.load(Ordering::Relaxed) && !is_sent || is_sent != was_sent {
                (since, before) = (Instant::now(), sent);
                continue;
            }
            if is_sent {
                limit += Duration::from_secs(size / STORING_SPEED);
            }
        }
        if since.elapsed() >= limit {
            if policy.is_too_slow(moved, limit) {
                return Err(TransferError::Stalled(limit));
            }
            (since, before) = (Instant::now(), before + moved);
        }
    }
}

/// Passes the body of a response on. Time that the reader takes does not count.
async fn pass_body(
    mut answer: reqwest::Response,
    to: &mpsc::Sender<Result<Bytes, TransferError>>,
    policy: RetryPolicy,
) {
    let (mut waited, mut moved) = (Duration::ZERO, 0);
    loop {
        let start = Instant::now();
        let chunk = timeout(policy.stall_timeout, answer.chunk()).await;
        waited += start.elapsed();
        let mut piece = match chunk {
            Ok(Ok(Some(piece))) if piece.is_empty() => continue,
            Ok(Ok(piece)) => Ok(piece.unwrap_or_default()),
            Ok(Err(error)) => Err(TransferError::Http(error.without_url())),
            Err(_) => Err(TransferError::Stalled(policy.stall_timeout)),
        };
        moved += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        let is_last = piece.as_ref().map_or(true, Bytes::is_empty);
        if waited >= policy.stall_timeout && !is_last {
            if policy.is_too_slow(moved, waited) {
                piece = Err(TransferError::Stalled(waited));
            }
            (waited, moved) = (Duration::ZERO, 0);
        }
        let is_last = is_last || piece.is_err();
        if to.send(piece).await.is_err() || is_last {
            return; // the reader has stopped
        }
    }
}

impl Response {
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The URL that sent it: after a redirect, not the one of the request.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The stated length of the body in bytes.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// Reads some bytes of the body; 0 at its end. As `Read::read`, but with the error that it is.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransferError> {
        if self.piece.is_empty() && !self.has_ended && !buffer.is_empty() {
            self.piece = self.pieces.blocking_recv().unwrap_or(Err(TransferError::Ended))?;
            self.has_ended = self.piece.is_empty();
        }
        let n = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }

    /// The body as far as `limit` bytes, and the error if it broke off before.
    pub(super) fn read_up_to(&mut self, limit: u64) -> (Vec<u8>, Option<TransferError>) {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 16 << 10];
        loop {
            let left = usize::try_from(limit - bytes.len() as u64).map_or(buffer.len(), |left| left.min(buffer.len()));
            match self.read(&mut buffer[..left]) {
                Ok(0) => return (bytes, None),
                Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                Err(error) => return (bytes, Some(error)),
            }
        }
    }
}
