//! Reads, hashes and decompresses a blob on a thread of its own, and sends the tar in chunks.
//!
//! Every member of a gzip blob (RFC 1952, section 2.2) and every frame of a zstd blob (RFC 8878, section 3.1) is read to its
//! end, checksums included, even if the tar ends before.
//! The decompressors are `flate2` and `zstd`; the framing is ours, since both end at the first member or frame, or pass over what follows.

use std::io::{self, BufRead, Read, Write as _};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender};

use flate2::bufread::GzDecoder;

use super::error::{UnpackError, Violation};
use crate::{Compression, Digest, Sha256Writer};

/// The size of a chunk in bytes.
const CHUNK: usize = 256 << 10;
/// 128 MiB, the limit of the zstd program.
const MAX_WINDOW_LOG: u32 = 27;
/// The bytes of all skippable frames. Indexes of seekable and chunked layers take a few MiB.
const MAX_SKIPPABLE: u64 = 64 << 20;

/// A blob that was read to its end.
pub(super) struct BlobRead {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// The decompressor's end of the channels.
pub(super) struct Chunks {
    /// Takes chunks of the tar. Once its receiver is gone, decompression stops.
    pub(super) filled: SyncSender<Vec<u8>>,
    /// Returns their buffers for reuse.
    pub(super) used: Receiver<Vec<u8>>,
}

/// Whether all bytes were sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    ReceiverGone,
}

/// Decompresses `blob` to its end; none if the receiver of the chunks stopped before.
pub(super) fn decompress(
    blob: impl Read,
    compression: Compression,
    chunks: &Chunks,
) -> Result<Option<BlobRead>, UnpackError> {
    let mut blob = HashingReader::new(blob);
    let sent = match compression {
        Compression::None => plain(&mut blob, chunks)?,
        Compression::Gzip => gzip(&mut blob, chunks)?,
        Compression::Zstd => zstd(&mut blob, chunks)?,
    };
    Ok((sent == Sent::All).then(|| blob.finish()))
}

fn plain(blob: &mut HashingReader<impl Read>, chunks: &Chunks) -> Result<Sent, UnpackError> {
    if Compression::sniff(blob.peek(4)?) != Compression::None {
        return Err(UnpackError::declared(Compression::None));
    }
    send_all(blob, chunks).map_err(UnpackError::Read)
}

fn gzip(blob: &mut HashingReader<impl Read>, chunks: &Chunks) -> Result<Sent, UnpackError> {
    let mut first = true;
    loop {
        match (blob.peek(2)?, first) {
            ([0x1f, 0x8b], _) => {}
            ([], false) => return Ok(Sent::All),
            (_, true) => return Err(UnpackError::declared(Compression::Gzip)),
            (_, false) => return Err(UnpackError::stream(Violation::Trailing)),
        }
        first = false;
        match send_all(&mut GzDecoder::new(&mut *blob), chunks) {
            Ok(Sent::All) => {}
            Ok(Sent::ReceiverGone) => return Ok(Sent::ReceiverGone),
            Err(error) => return Err(blob.classify(error)),
        }
    }
}

fn zstd(blob: &mut HashingReader<impl Read>, chunks: &Chunks) -> Result<Sent, UnpackError> {
    let mut first = true;
    let mut skipped = 0;
    loop {
        match (blob.peek(4)?, first) {
            ([0x28, 0xb5, 0x2f, 0xfd], _) => {
                let frame = zstd::stream::read::Decoder::with_buffer(&mut *blob).and_then(|mut frame| {
                    frame.window_log_max(MAX_WINDOW_LOG)?;
                    Ok(frame.single_frame())
                });
                match frame.and_then(|mut frame| send_all(&mut frame, chunks)) {
                    Ok(Sent::All) => {}
                    Ok(Sent::ReceiverGone) => return Ok(Sent::ReceiverGone),
                    Err(error) => return Err(blob.classify(error)),
                }
            }
            ([0x50..=0x5f, 0x2a, 0x4d, 0x18], _) => skip_frame(blob, &mut skipped)?,
            ([], false) => return Ok(Sent::All),
            (_, true) => return Err(UnpackError::declared(Compression::Zstd)),
            (_, false) => return Err(UnpackError::stream(Violation::Trailing)),
        }
        first = false;
    }
}

/// Skips a frame without data (RFC 8878, section 3.1.2): magic number, size, bytes.
fn skip_frame(blob: &mut HashingReader<impl Read>, skipped: &mut u64) -> Result<(), UnpackError> {
    let &[_, _, _, _, a, b, c, d] = blob.peek(8)? else { return Err(UnpackError::stream(Violation::Truncated)) };
    let size = u64::from(u32::from_le_bytes([a, b, c, d])) + 8;
    *skipped += size;
    if *skipped > MAX_SKIPPABLE {
        return Err(UnpackError::stream(Violation::ZstdSkippable));
    }
    let read = io::copy(&mut blob.take(size), &mut io::sink()).map_err(UnpackError::Read)?;
    if read < size { Err(UnpackError::stream(Violation::Truncated)) } else { Ok(()) }
}

/// Sends all bytes of `from` in chunks.
fn send_all(from: &mut impl Read, chunks: &Chunks) -> io::Result<Sent> {
    loop {
        let mut chunk = chunks.used.try_recv().unwrap_or_default();
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
        if filled > 0 && chunks.filled.send(chunk).is_err() {
            return Ok(Sent::ReceiverGone);
        }
        if filled < CHUNK {
            return Ok(Sent::All);
        }
    }
}

/// A buffered reader that hashes what it reads and records whether the source itself failed.
struct HashingReader<R> {
    source: R,
    buffer: Box<[u8]>,
    /// What is read and not consumed, in the buffer.
    unread: Range<usize>,
    hash: Sha256Writer<io::Sink>,
    failed: bool,
}

impl<R: Read> HashingReader<R> {
    fn new(source: R) -> Self {
        let hash = Sha256Writer::new(io::sink());
        Self { source, buffer: vec![0; CHUNK].into(), unread: 0..0, hash, failed: false }
    }

    /// The next `n` bytes, or all that are left, without consuming them; `n` is small.
    fn peek(&mut self, n: usize) -> Result<&[u8], UnpackError> {
        while self.unread.len() < n && self.fill().map_err(UnpackError::Read)? {}
        let end = self.unread.end.min(self.unread.start + n);
        Ok(&self.buffer[self.unread.start..end])
    }

    /// Reads once more, after the bytes that are buffered; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let old = self.unread.end;
        let read = loop {
            match self.source.read(&mut self.buffer[old..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.failed |= read.is_err();
        self.unread.end += *read.as_ref().unwrap_or(&0);
        self.hash.write_all(&self.buffer[old..self.unread.end])?;
        read.map(|n| n > 0)
    }

    /// The cause of an error of a decompressor over this reader: the source, or the bytes.
    fn classify(&self, error: io::Error) -> UnpackError {
        if self.failed {
            return UnpackError::Read(error);
        }
        let violation = match error.kind() {
            io::ErrorKind::UnexpectedEof => Violation::Truncated,
            // The zstd crate exposes no error codes; the messages of the library are documented and stable.
            _ if error.to_string().contains("requires too much memory") => Violation::ZstdWindow,
            _ => Violation::Corrupt,
        };
        UnpackError::Stream { violation, source: Some(error) }
    }

    fn finish(self) -> BlobRead {
        let (_, digest, size) = self.hash.finish();
        BlobRead { digest, size }
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: Read> BufRead for HashingReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.unread.is_empty() {
            self.fill()?;
        }
        Ok(&self.buffer[self.unread.clone()])
    }

    fn consume(&mut self, n: usize) {
        self.unread.start += n;
    }
}
