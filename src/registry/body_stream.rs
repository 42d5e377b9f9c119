//! A request body that is read from a blob while it is sent.
//!
//! The blob is read in a thread of its own: a source that waits (a blob from another registry) or hashes would hold up the
//! connections of all other requests.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::image::BlobReader;

/// Bytes of one piece of the body.
const PIECE: usize = 256 << 10;
/// Pieces that are read ahead.
const AHEAD: usize = 4;

/// How much of a body is sent.
#[derive(Debug, Default)]
pub(super) struct BodyProgress {
    /// Bytes that the connection has taken.
    pub(super) sent: AtomicU64,
    /// Whether the connection waits for the blob's source.
    pub(super) waits_for_source: AtomicBool,
}

/// The body of a request.
pub(super) struct BodyStream {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    progress: Arc<BodyProgress>,
}

impl BodyStream {
    /// A body of the first `size` bytes of `source`.
    pub(super) fn new(source: BlobReader, size: u64, progress: Arc<BodyProgress>) -> Self {
        let (to, pieces) = mpsc::channel(AHEAD);
        thread::spawn(move || read_pieces(source, size, &to));
        Self { pieces, left: size, progress }
    }
}

fn read_pieces(mut source: BlobReader, size: u64, to: &mpsc::Sender<io::Result<Bytes>>) {
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let mut piece = vec![0; length];
        let result = source.read_exact(&mut piece).map(|()| piece.into());
        let is_last = result.is_err();
        if to.blocking_send(result).is_err() || is_last {
            return; // the request has ended
        }
        left -= length as u64;
    }
}

impl Body for BodyStream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = if self.left == 0 { Poll::Ready(None) } else { self.pieces.poll_recv(context) };
        self.progress.waits_for_source.store(polled.is_pending(), Ordering::Relaxed);
        polled.map(|piece| {
            let piece = piece?;
            if let Ok(piece) = &piece {
                self.left = self.left.saturating_sub(piece.len() as u64);
                self.progress.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            Some(piece.map(Frame::data))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
