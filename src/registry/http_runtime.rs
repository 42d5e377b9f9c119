//! Requests under way: each runs on one background thread, and is given up when it stands still, however long it may take.
//!
//! Silence and slowness end a request, its length does not: a layer of a gigabyte may take its time over a thin line.

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

use super::body_stream::Progress;
use super::retry::RetryPolicy;

/// Pieces of an answer that are read ahead.
const AHEAD: usize = 8;
/// How fast a registry stores at least what it has got, in bytes a second: so long it may keep silent afterwards.
const STORING: u64 = 8 << 20;

/// Why there is no answer to a request, or no more of it.
#[derive(Debug)]
pub(super) enum TransferError {
    /// The HTTP client failed. Its error has no URL.
    Http(reqwest::Error),
    /// Less than [`RetryPolicy::slowest`] bytes a second came or went for so long.
    Stalled(Duration),
    /// The body ended early, and nothing is known of why.
    Ended,
}

/// The thread that drives all connections of a client; it ends with the client and its last answer.
pub(super) struct Wire {
    handle: Handle,
    stop: Arc<oneshot::Sender<()>>,
}

/// What a request sends, as far as it must be watched.
pub(super) struct Load {
    pub(super) size: u64,
    pub(super) progress: Arc<Progress>,
}

/// An answer: its head, and its body as it comes.
#[derive(Debug)]
pub(super) struct Response {
    status: StatusCode,
    headers: HeaderMap,
    url: Url,
    length: Option<u64>,
    /// An empty piece is the end; none at all is not.
    pieces: mpsc::Receiver<Result<Bytes, TransferError>>,
    piece: Bytes,
    is_over: bool,
    _stop: Arc<oneshot::Sender<()>>,
}

impl Wire {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new().name("registry".into()).spawn(move || {
            let _: Result<(), _> = runtime.block_on(stopped); // it errs when the other end is dropped
        })?;
        Ok(Self { handle, stop: Arc::new(stop) })
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) fn send(
        &self,
        client: &reqwest::Client,
        request: reqwest::Request,
        load: Option<Load>,
        patience: RetryPolicy,
    ) -> Result<Response, TransferError> {
        let (to, head) = oneshot::channel();
        let (client, stop) = (client.clone(), Arc::clone(&self.stop));
        self.handle.spawn(async move {
            let answer = match watched(client.execute(request), load.as_ref(), patience).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return drop(to.send(Err(TransferError::Http(error.without_url())))),
                Err(stalled) => return drop(to.send(Err(stalled))),
            };
            let (pieces, body) = mpsc::channel(AHEAD);
            let response = Response {
                status: answer.status(),
                headers: answer.headers().clone(),
                url: answer.url().clone(),
                length: answer.content_length(),
                pieces: body,
                piece: Bytes::new(),
                is_over: false,
                _stop: stop,
            };
            if to.send(Ok(response)).is_ok() {
                pump(answer, &pieces, patience).await;
            }
        });
        // The thread lives as long as `self`, so that there is always an answer.
        head.blocking_recv().unwrap_or(Err(TransferError::Ended))
    }
}

/// Waits for `work` as long as its load moves, and after that as long as the registry may need to store it.
async fn watched<F: Future>(work: F, load: Option<&Load>, patience: RetryPolicy) -> Result<F::Output, TransferError> {
    let mut work = pin!(work);
    let mut since = Instant::now();
    let mut before = 0;
    let mut is_sent = false;
    loop {
        if let Ok(output) = timeout(patience.silence / 8, &mut work).await {
            return Ok(output);
        }
        let mut limit = patience.silence;
        let mut moved = 0;
        if let Some(Load { size, progress }) = load {
            let taken = progress.taken.load(Ordering::Relaxed);
            moved = taken - before;
            let was_sent = std::mem::replace(&mut is_sent, taken >= *size);
            if progress.hungry.load(Ordering::Relaxed) && !is_sent || is_sent != was_sent {
                (since, before) = (Instant::now(), taken);
                continue;
            }
            if is_sent {
                limit += Duration::from_secs(size / STORING);
            }
        }
        if since.elapsed() >= limit {
            if patience.is_too_slow(moved, limit) {
                return Err(TransferError::Stalled(limit));
            }
            (since, before) = (Instant::now(), before + moved);
        }
    }
}

/// Hands an answer's body over. Time that the reader takes does not count against the network.
async fn pump(mut answer: reqwest::Response, to: &mpsc::Sender<Result<Bytes, TransferError>>, patience: RetryPolicy) {
    let (mut waited, mut moved) = (Duration::ZERO, 0);
    loop {
        let start = Instant::now();
        let chunk = timeout(patience.silence, answer.chunk()).await;
        waited += start.elapsed();
        let mut piece = match chunk {
            Ok(Ok(Some(piece))) if piece.is_empty() => continue,
            Ok(Ok(piece)) => Ok(piece.unwrap_or_default()),
            Ok(Err(error)) => Err(TransferError::Http(error.without_url())),
            Err(_) => Err(TransferError::Stalled(patience.silence)),
        };
        moved += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        let is_last = piece.as_ref().map_or(true, Bytes::is_empty);
        if waited >= patience.silence && !is_last {
            if patience.is_too_slow(moved, waited) {
                piece = Err(TransferError::Stalled(waited));
            }
            (waited, moved) = (Duration::ZERO, 0);
        }
        let is_last = is_last || piece.is_err();
        if to.send(piece).await.is_err() || is_last {
            return; // nobody reads on
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

    /// Where it came from: after a redirect, not where it was asked for.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// How long the body is said to be.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// Reads some bytes of the body; 0 at its end. As `Read::read`, but with the error that it is.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransferError> {
        if self.piece.is_empty() && !self.is_over && !buffer.is_empty() {
            self.piece = self.pieces.blocking_recv().unwrap_or(Err(TransferError::Ended))?;
            self.is_over = self.piece.is_empty();
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
