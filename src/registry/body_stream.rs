//! A body that is read, and checked, beside its sending.
//!
//! Its source is read in a thread of its own: one that waits (a blob from another registry) or hashes would hold up the
//! connections of all others.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// How much is handed over at once.
const PIECE: usize = 256 << 10;
/// How many pieces may lie ready.
const AHEAD: usize = 4;

/// How far a body is, for whoever watches that it moves.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes that the connection took.
    pub(super) taken: AtomicU64,
    /// Whether the connection waits for the source, and not the other way round.
    pub(super) hungry: AtomicBool,
}

/// The body of a request.
pub(super) struct Pipe {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    progress: Arc<Progress>,
}

impl Pipe {
    /// Sends `size` bytes of `source`.
    pub(super) fn from(source: Box<dyn Read + Send>, size: u64, progress: Arc<Progress>) -> Self {
        let (to, pieces) = mpsc::channel(AHEAD);
        thread::spawn(move || pour(source, size, &to));
        Self { pieces, left: size, progress }
    }
}

fn pour(mut source: Box<dyn Read + Send>, size: u64, to: &mpsc::Sender<io::Result<Bytes>>) {
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let mut piece = vec![0; length];
        let result = source.read_exact(&mut piece).map(|()| piece.into());
        let is_last = result.is_err();
        if to.blocking_send(result).is_err() || is_last {
            return; // nobody reads on
        }
        left -= length as u64;
    }
}

impl Body for Pipe {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = if self.left == 0 { Poll::Ready(None) } else { self.pieces.poll_recv(context) };
        self.progress.hungry.store(polled.is_pending(), Ordering::Relaxed);
        polled.map(|piece| {
            let piece = piece?;
            if let Ok(piece) = &piece {
                self.left = self.left.saturating_sub(piece.len() as u64);
                self.progress.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
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
