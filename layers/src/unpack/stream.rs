//! The uncompressed tar as a stream of bytes: hashed, and counted against the limit as they are read.

use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, Sender};

use super::error::{UnpackError, Violation};
use crate::tar_block::BLOCK;
use crate::{Digest, Sha256Writer};

/// The bytes of a tar, received in chunks from the decompressor.
pub(super) struct TarStream {
    chunks: Receiver<Vec<u8>>,
    /// Returns used buffers to the decompressor.
    used: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
    hash: Sha256Writer<io::Sink>,
    /// Bytes that may still be read, by the limit.
    budget: u64,
}

impl TarStream {
    /// A stream over `chunks` of at most `max_bytes`; buffers that are used up go to `used`.
    pub(super) fn new(chunks: Receiver<Vec<u8>>, used: Sender<Vec<u8>>, max_bytes: u64) -> Self {
        let hash = Sha256Writer::new(io::sink());
        Self { chunks, used, chunk: Vec::new(), position: 0, hash, budget: max_bytes }
    }

    /// The rest of the current chunk, or the next one; empty at the end of the stream.
    fn buffered(&mut self) -> Result<&[u8], UnpackError> {
        if self.position == self.chunk.len() {
            let next = self.chunks.recv().unwrap_or_default();
            self.charge(next.len() as u64)?;
            self.hash.write_all(&next).map_err(UnpackError::Read)?;
            let _ = self.used.send(std::mem::replace(&mut self.chunk, next)); // the decompressor may have ended
            self.position = 0;
        }
        Ok(&self.chunk[self.position..])
    }

    /// Counts `bytes` against the limit: those of the stream, and the size of a sparse file with its holes.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.budget = self.budget.checked_sub(bytes).ok_or_else(|| UnpackError::stream(Violation::TooLarge))?;
        Ok(())
    }

    /// Passes the next `n` bytes to `sink`, chunk by chunk.
    pub(super) fn copy(
        &mut self,
        n: u64,
        mut sink: impl FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        let mut left = n;
        while left > 0 {
            let buffered = self.buffered()?;
            if buffered.is_empty() {
                return Err(UnpackError::stream(Violation::Truncated));
            }
            let chunk = usize::try_from(left).map_or(buffered.len(), |left| left.min(buffered.len()));
            sink(&buffered[..chunk])?;
            self.position += chunk;
            left -= chunk as u64;
        }
        Ok(())
    }

    /// The next `n` bytes in memory; the caller bounds `n`.
    pub(super) fn read(&mut self, n: usize) -> Result<Vec<u8>, UnpackError> {
        let mut bytes = Vec::with_capacity(n);
        self.copy(n as u64, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Drops the next `n` bytes.
    pub(super) fn skip(&mut self, n: u64) -> Result<(), UnpackError> {
        self.copy(n, |_| Ok(()))
    }

    /// The next block; none at the end of the stream.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        if self.buffered()?.is_empty() {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let mut filled = 0;
        self.copy(BLOCK as u64, |chunk| {
            block[filled..filled + chunk.len()].copy_from_slice(chunk);
            filled += chunk.len();
            Ok(())
        })?;
        Ok(Some(block))
    }

    /// Reads to the end of the stream, beyond the end of the tar; returns the digest of all its bytes.
    pub(super) fn finish(mut self) -> Result<Digest, UnpackError> {
        loop {
            let n = self.buffered()?.len();
            if n == 0 {
                let (_, digest, _) = self.hash.finish();
                return Ok(digest);
            }
            self.position += n;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A stream of `chunks`.
    pub(in crate::unpack) fn stream(chunks: &[&[u8]], max_bytes: u64) -> TarStream {
        let (sender, receiver) = mpsc::channel();
        for chunk in chunks {
            sender.send(chunk.to_vec()).unwrap();
        }
        TarStream::new(receiver, mpsc::channel().0, max_bytes)
    }

    #[test]
    fn bytes_come_in_order_across_chunks() {
        let mut block = [3; BLOCK];
        block[0] = 2;
        let chunks = [&b"0123"[..], b"45", &[9, 9, 2], &[3; 510], &[3], b"end"];
        let mut stream = stream(&chunks, 1000);
        assert_eq!(stream.read(5).unwrap(), b"01234");
        stream.skip(3).unwrap();
        assert_eq!(stream.block().unwrap(), Some(block));
        assert_eq!(stream.read(2).unwrap(), b"en");
        assert_eq!(stream.finish().unwrap(), Digest::of(&chunks.concat()), "of all bytes, the last included");
    }

    #[test]
    fn an_end_between_blocks_is_the_end_and_one_inside_is_an_error() {
        let mut whole = stream(&[&[1; BLOCK]], 1000);
        assert!(whole.block().unwrap().is_some());
        assert!(whole.block().unwrap().is_none());
        assert_eq!(whole.skip(1).unwrap_err().code(), "layer.truncated");
        assert_eq!(stream(&[&[1; BLOCK - 1]], 1000).block().unwrap_err().code(), "layer.truncated");
    }

    #[test]
    fn the_limit_is_exact() {
        assert!(stream(&[b"12", b"34"], 4).skip(4).is_ok());
        assert_eq!(stream(&[b"12", b"34"], 3).skip(4).unwrap_err().code(), "layer.too-large");
        let mut stream = stream(&[b"12"], 5);
        stream.charge(3).unwrap();
        assert!(stream.skip(2).is_ok());
        assert!(stream.charge(1).is_err());
    }
}
