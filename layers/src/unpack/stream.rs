//! The tar's side of unpacking: the bytes in order, hashed and counted as they come, never more than the limit.

use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, Sender};

use super::error::{Rule, UnpackError};
use crate::{Digest, Sha256Writer};

pub(super) const BLOCK: usize = 512;

/// The uncompressed stream.
pub(super) struct TarStream {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    hash: Sha256Writer<io::Sink>,
    left: u64,
}

impl TarStream {
    /// The stream of what comes over `full`; used buffers go back over `empty`. `limit` is in bytes.
    pub(super) fn new(full: Receiver<Vec<u8>>, empty: Sender<Vec<u8>>, limit: u64) -> Self {
        Self { full, empty, chunk: Vec::new(), at: 0, hash: Sha256Writer::new(io::sink()), left: limit }
    }

    /// Some of the bytes ahead; none at the end.
    fn ahead(&mut self) -> Result<&[u8], UnpackError> {
        if self.at == self.chunk.len() {
            let next = self.full.recv().unwrap_or_default();
            self.spend(next.len() as u64)?;
            self.hash.write_all(&next).map_err(UnpackError::Read)?;
            let _ = self.empty.send(std::mem::replace(&mut self.chunk, next)); // the other side may have ended
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    /// Counts `bytes` against the limit: what comes, and what a sparse file adds.
    pub(super) fn spend(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| UnpackError::stream(Rule::TooLarge))?;
        Ok(())
    }

    /// Hands the next `n` bytes to `take`, piece by piece.
    pub(super) fn copy(
        &mut self,
        n: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        let mut left = n;
        while left > 0 {
            let ahead = self.ahead()?;
            if ahead.is_empty() {
                return Err(UnpackError::stream(Rule::Truncated));
            }
            let now = usize::try_from(left).map_or(ahead.len(), |left| left.min(ahead.len()));
            take(&ahead[..now])?;
            self.at += now;
            left -= now as u64;
        }
        Ok(())
    }

    /// The next `n` bytes, which the caller has bounded.
    pub(super) fn take(&mut self, n: usize) -> Result<Vec<u8>, UnpackError> {
        let mut bytes = Vec::with_capacity(n);
        self.copy(n as u64, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// The next `n` bytes and the padding behind them, dropped.
    pub(super) fn skip(&mut self, n: u64) -> Result<(), UnpackError> {
        self.copy(n, |_| Ok(()))
    }

    /// The next header block; none if the stream ends here.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        if self.ahead()?.is_empty() {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let mut filled = 0;
        self.copy(BLOCK as u64, |piece| {
            block[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
            Ok(())
        })?;
        Ok(Some(block))
    }

    /// Reads to the real end of the stream and returns the digest of all of it.
    pub(super) fn finish(mut self) -> Result<Digest, UnpackError> {
        loop {
            let n = self.ahead()?.len();
            if n == 0 {
                let (_, digest, _) = self.hash.finish();
                return Ok(digest);
            }
            self.at += n;
        }
    }
}

/// How many bytes of padding follow a body of `size` bytes.
pub(super) fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}
