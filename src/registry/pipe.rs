//! A body that is read, and checked, beside its sending.
//!
//! `reqwest` pulls a blocking body from inside the wait for its request. A source that waits too (a blob from another
//! registry) would rob that wait of its wake-ups; a source that hashes would slow it down.

use std::io::{self, Read};
use std::sync::mpsc;
use std::thread;

/// How much is handed over at once.
const PIECE: usize = 256 << 10;
/// How many pieces may lie ready.
const AHEAD: usize = 4;

/// Reads its source in a thread of its own, a few pieces ahead.
pub(super) struct Pipe {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
}

impl Pipe {
    pub(super) fn from(mut source: impl Read + Send + 'static) -> Self {
        let (to, pieces) = mpsc::sync_channel(AHEAD);
        thread::spawn(move || {
            loop {
                let mut piece = vec![0; PIECE];
                let result = source.read(&mut piece);
                let is_last = !matches!(result, Ok(n) if n > 0);
                let piece = result.map(|n| {
                    piece.truncate(n);
                    piece
                });
                if to.send(piece).is_err() || is_last {
                    return; // nobody reads on
                }
            }
        });
        Self { pieces, piece: io::Cursor::default() }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.piece.read(buffer)?;
        if n > 0 || buffer.is_empty() {
            return Ok(n);
        }
        match self.pieces.recv() {
            Ok(piece) => self.piece = io::Cursor::new(piece?),
            Err(_) => return Ok(0),
        }
        self.piece.read(buffer)
    }
}
