//! The blob's side of unpacking, on a thread of its own: read, hash, decompress, hand over in chunks.
//!
//! Every member of a gzip blob (RFC 1952 section 2.2) and every frame of a zstd blob (RFC 8878 section 3.1) is read to its
//! end, checksums included, even when the tar ended before.

use std::io::{self, BufRead, Read, Write as _};
use std::sync::mpsc::{Receiver, SyncSender};

use flate2::bufread::GzDecoder;

use super::error::{Rule, UnpackError};
use crate::{Compression, Digest, Sha256Writer};

pub(super) const CHUNK: usize = 256 << 10;
const WINDOW_LOG_MAX: u32 = 27;
/// Indexes of seekable and chunked layers are skippable frames of a few MiB.
const SKIPPABLE_MAX: u64 = 64 << 20;

/// The sums of a blob that was read to its end.
pub(super) type BlobSums = (Digest, u64);

/// Where chunks go, and where their buffers come back from. Without a receiver there is nothing left to do.
pub(super) struct Chunks {
    pub(super) full: SyncSender<Vec<u8>>,
    pub(super) empty: Receiver<Vec<u8>>,
}

/// Reads `blob` to its end. `Ok(None)`: the other side wanted no more.
pub(super) fn pump(
    blob: impl Read,
    compression: Compression,
    chunks: &Chunks,
) -> Result<Option<BlobSums>, UnpackError> {
    let mut blob = Hashed::new(blob);
    let all = match compression {
        Compression::None => plain(&mut blob, chunks)?,
        Compression::Gzip => gzip(&mut blob, chunks)?,
        Compression::Zstd => zstd(&mut blob, chunks)?,
    };
    Ok(all.then(|| blob.finish()))
}

fn plain(blob: &mut Hashed<impl Read>, chunks: &Chunks) -> Result<bool, UnpackError> {
    const COMPRESSED: [&[u8]; 2] = [&[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd]];
    let start = blob.peek(4)?;
    if COMPRESSED.iter().any(|magic| start.starts_with(magic)) {
        return Err(UnpackError::declared(Compression::None));
    }
    copy(blob, chunks).map_err(UnpackError::Read)
}

fn gzip(blob: &mut Hashed<impl Read>, chunks: &Chunks) -> Result<bool, UnpackError> {
    let mut first = true;
    loop {
        match (blob.peek(2)?, first) {
            ([0x1f, 0x8b], _) => {}
            ([], false) => return Ok(true),
            (_, true) => return Err(UnpackError::declared(Compression::Gzip)),
            (_, false) => return Err(UnpackError::stream(Rule::Trailing)),
        }
        first = false;
        match copy(&mut GzDecoder::new(&mut *blob), chunks) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => return Err(blob.blame(error)),
        }
    }
}

fn zstd(blob: &mut Hashed<impl Read>, chunks: &Chunks) -> Result<bool, UnpackError> {
    let mut first = true;
    let mut skipped = 0;
    loop {
        match (blob.peek(4)?, first) {
            ([0x28, 0xb5, 0x2f, 0xfd], _) => {
                let frame = zstd::stream::read::Decoder::with_buffer(&mut *blob).and_then(|mut frame| {
                    frame.window_log_max(WINDOW_LOG_MAX)?;
                    Ok(frame.single_frame())
                });
                match frame.and_then(|mut frame| copy(&mut frame, chunks)) {
                    Ok(true) => {}
                    Ok(false) => return Ok(false),
                    Err(error) => return Err(blob.blame(error)),
                }
            }
            ([0x50..=0x5f, 0x2a, 0x4d, 0x18], _) => skip_frame(blob, &mut skipped)?,
            ([], false) => return Ok(true),
            (_, true) => return Err(UnpackError::declared(Compression::Zstd)),
            (_, false) => return Err(UnpackError::stream(Rule::Trailing)),
        }
        first = false;
    }
}

fn skip_frame(blob: &mut Hashed<impl Read>, skipped: &mut u64) -> Result<(), UnpackError> {
    let &[_, _, _, _, a, b, c, d] = blob.peek(8)? else { return Err(UnpackError::stream(Rule::Truncated)) };
    let size = u64::from(u32::from_le_bytes([a, b, c, d])) + 8;
    *skipped += size;
    if *skipped > SKIPPABLE_MAX {
        return Err(UnpackError::stream(Rule::ZstdSkippable));
    }
    let passed = io::copy(&mut blob.take(size), &mut io::sink()).map_err(UnpackError::Read)?;
    if passed < size { Err(UnpackError::stream(Rule::Truncated)) } else { Ok(()) }
}

/// All of `from`, in chunks; false if nobody takes them.
fn copy(from: &mut impl Read, chunks: &Chunks) -> io::Result<bool> {
    loop {
        let mut chunk = chunks.empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        while filled < CHUNK {
            match from.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        chunk.truncate(filled);
        if filled > 0 && chunks.full.send(chunk).is_err() {
            return Ok(false);
        }
        if filled < CHUNK {
            return Ok(true);
        }
    }
}

/// A buffered reader that hashes what it reads, and remembers whether the source itself failed.
struct Hashed<R> {
    source: R,
    buffer: Vec<u8>,
    at: usize,
    hash: Sha256Writer<io::Sink>,
    failed: bool,
}

impl<R: Read> Hashed<R> {
    fn new(source: R) -> Self {
        let hash = Sha256Writer::new(io::sink());
        Self { source, buffer: Vec::with_capacity(CHUNK), at: 0, hash, failed: false }
    }

    /// The next `n` bytes or all that are left, without consuming them; `n` is small.
    fn peek(&mut self, n: usize) -> Result<&[u8], UnpackError> {
        while self.buffer.len() - self.at < n && self.more().map_err(UnpackError::Read)? {}
        let end = self.buffer.len().min(self.at + n);
        Ok(&self.buffer[self.at..end])
    }

    /// Reads once more behind what is there; false at the end.
    fn more(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let old = self.buffer.len();
        self.buffer.resize(CHUNK, 0);
        let read = loop {
            match self.source.read(&mut self.buffer[old..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.failed |= read.is_err();
        self.buffer.truncate(old + *read.as_ref().unwrap_or(&0));
        self.hash.write_all(&self.buffer[old..])?;
        read.map(|n| n > 0)
    }

    /// Whose fault an error of a decompressor over this reader is.
    fn blame(&self, error: io::Error) -> UnpackError {
        if self.failed {
            return UnpackError::Read(error);
        }
        let rule = match error.kind() {
            io::ErrorKind::UnexpectedEof => Rule::Truncated,
            // The zstd library has no stable error codes in its Rust face; its names are documented and stable.
            _ if error.to_string().contains("requires too much memory") => Rule::ZstdWindow,
            _ => Rule::Corrupt,
        };
        UnpackError::Stream { rule, source: Some(error) }
    }

    fn finish(self) -> BlobSums {
        let (_, digest, size) = self.hash.finish();
        (digest, size)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: Read> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() {
            self.more()?;
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}
