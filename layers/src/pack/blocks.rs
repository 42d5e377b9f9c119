//! Compresses a tar in blocks on several threads and writes them in order. The bytes do not depend on the number of threads,
//! and memory does not grow with the layer: the queue of blocks is bounded.
//!
//! The producer sends each block to the workers, and the receiver of its result to the writing thread over the bounded
//! queue. No thread waits for one that comes after it, so there is no deadlock: when the writer fails, the producer sees
//! [`WriterGone`] and the workers run out of blocks.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::frame::{block_size, compress_block};
use crate::{CompressedTar, Compression, DiffId, Digest, PackError, PackOptions, Sha256Writer};

/// The writing thread has ended; its own error is the one to report.
#[derive(Debug)]
pub(crate) struct WriterGone;

/// Why a producer stopped early.
pub(crate) enum FillError {
    WriterGone,
    Pack(PackError),
}

impl From<WriterGone> for FillError {
    fn from(_: WriterGone) -> Self {
        Self::WriterGone
    }
}

impl From<PackError> for FillError {
    fn from(error: PackError) -> Self {
        Self::Pack(error)
    }
}

type CompressedBlock = io::Result<Vec<u8>>;

/// A block for the workers, and the channel for its result.
struct BlockJob {
    block: Vec<u8>,
    result: SyncSender<CompressedBlock>,
}

/// Takes the bytes of a tar and cuts them into blocks.
pub(crate) struct BlockWriter {
    block: Vec<u8>,
    filled: usize,
    tar: Sha256Writer<io::Sink>,
    jobs: Sender<BlockJob>,
    results: SyncSender<Receiver<CompressedBlock>>,
}

impl BlockWriter {
    /// The rest of the current block, never empty. After writing to its front, call [`advance`](Self::advance).
    pub(crate) fn unfilled(&mut self) -> &mut [u8] {
        &mut self.block[self.filled..]
    }

    /// Counts the first `n` bytes of [`unfilled`](Self::unfilled) as written.
    pub(crate) fn advance(&mut self, n: usize) -> Result<(), WriterGone> {
        self.filled += n;
        if self.filled == self.block.len() { self.send_block(self.block.len()) } else { Ok(()) }
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), WriterGone> {
        while !bytes.is_empty() {
            let buffer = self.unfilled();
            let n = buffer.len().min(bytes.len());
            buffer[..n].copy_from_slice(&bytes[..n]);
            self.advance(n)?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Writes `n` zero bytes.
    pub(crate) fn zeros(&mut self, n: u64) -> Result<(), WriterGone> {
        const ZEROS: [u8; 1024] = [0; 1024];
        let mut left = n;
        while left > 0 {
            let chunk = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.write(&ZEROS[..chunk])?;
            left -= chunk as u64;
        }
        Ok(())
    }

    /// Sends the filled part of the block and starts one of `next` bytes.
    fn send_block(&mut self, next: usize) -> Result<(), WriterGone> {
        let mut block = std::mem::replace(&mut self.block, vec![0; next]);
        block.truncate(self.filled);
        self.filled = 0;
        self.tar.write_all(&block).map_err(|_| WriterGone)?;
        let (result, receiver) = mpsc::sync_channel(1);
        self.results.send(receiver).map_err(|_| WriterGone)?;
        self.jobs.send(BlockJob { block, result }).map_err(|_| WriterGone)
    }

    /// Sends the last block; returns the digest and size of the tar.
    fn finish(mut self) -> Result<(Digest, u64), WriterGone> {
        if self.filled > 0 {
            self.send_block(0)?;
        }
        let (_, digest, size) = self.tar.finish();
        Ok((digest, size))
    }
}

/// Runs `fill` and writes the bytes that it puts into the blocks to `out`, compressed.
pub(crate) fn compress_blocks<T>(
    options: &PackOptions,
    out: &mut (dyn Write + Send),
    fill: impl FnOnce(&mut BlockWriter) -> Result<T, FillError>,
) -> Result<(T, CompressedTar), PackError> {
    let workers = worker_count(options);
    let (jobs, queue) = mpsc::channel::<BlockJob>();
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        let (results, receivers) = mpsc::sync_channel(workers + 1);
        let jobs = jobs; // dropped on every return from this closure, which ends the workers
        for _ in 0..workers {
            thread::Builder::new()
                .name("phial-pack".into())
                .spawn_scoped(scope, || compress_jobs(options.compression, &queue))
                .map_err(PackError::Thread)?;
        }
        let writer = thread::Builder::new()
            .name("phial-write".into())
            .spawn_scoped(scope, move || write_in_order(&receivers, out))
            .map_err(PackError::Thread)?;
        let block = vec![0; block_size(options.compression)];
        let mut blocks = BlockWriter { block, filled: 0, tar: Sha256Writer::new(io::sink()), jobs, results };
        let filled = match fill(&mut blocks) {
            Ok(value) => blocks.finish().map(|tar| (value, tar)).map_err(FillError::from),
            Err(error) => {
                drop(blocks);
                Err(error)
            }
        };
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (filled, written) {
            (Err(FillError::Pack(error)), _) => Err(error),
            (_, Err(error)) => Err(PackError::Write(error)),
            (Err(FillError::WriterGone), Ok(_)) => Err(PackError::Write(io::ErrorKind::BrokenPipe.into())),
            (Ok((value, (tar, tar_size))), Ok((digest, size))) => {
                Ok((value, CompressedTar { diff_id: DiffId(tar), digest, size, tar_size }))
            }
        }
    })
}

/// The number of threads asked for, limited so that the blocks in flight stay well below 128 MiB.
fn worker_count(options: &PackOptions) -> usize {
    let max = match options.compression {
        Compression::Gzip => 24,
        Compression::Zstd => 6,
        Compression::None => 1,
    };
    options.workers.get().min(max)
}

fn compress_jobs(compression: Compression, queue: &Mutex<Receiver<BlockJob>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(BlockJob { block, result }) = job else { return };
        let _ = result.send(compress_block(compression, block)); // the writer may have failed and be gone
    }
}

fn write_in_order(
    results: &Receiver<Receiver<CompressedBlock>>,
    out: &mut (dyn Write + Send),
) -> io::Result<(Digest, u64)> {
    let mut blob = Sha256Writer::new(out);
    for result in results {
        // The sender is gone only if the producer stopped between its two sends.
        let Ok(block) = result.recv() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        blob.write_all(&block?)?;
    }
    blob.flush()?;
    let (_, digest, size) = blob.finish();
    Ok((digest, size))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn the_number_of_threads_is_limited_by_the_size_of_the_blocks() {
        for (compression, max) in [(Compression::None, 1), (Compression::Gzip, 24), (Compression::Zstd, 6)] {
            for (workers, expected) in [(1, 1), (3, max.min(3)), (1000, max)] {
                let options = PackOptions { compression, mtime: 0, workers: NonZeroUsize::new(workers).unwrap() };
                assert_eq!(worker_count(&options), expected, "{compression}, {workers}");
            }
        }
    }

    #[test]
    fn bytes_are_cut_into_blocks_and_none_is_empty() {
        let options = PackOptions { compression: Compression::Gzip, mtime: 0, workers: NonZeroUsize::MIN };
        for (size, members) in [(0, 0), (1, 1), (1 << 20, 1), ((1 << 20) + 1, 2), (3 << 20, 3)] {
            let mut blob = Vec::new();
            let fill = |blocks: &mut BlockWriter| {
                blocks.write(&vec![7; size / 2])?;
                Ok(blocks.zeros((size - size / 2) as u64)?)
            };
            let ((), compressed) = compress_blocks(&options, &mut blob, fill).unwrap();
            let tar = [vec![7; size / 2], vec![0; size - size / 2]].concat();
            assert_eq!((compressed.diff_id.0, compressed.tar_size), (Digest::of(&tar), size as u64));
            assert_eq!((compressed.digest, compressed.size), (Digest::of(&blob), blob.len() as u64));
            let magic = Compression::GZIP_MAGIC;
            assert_eq!(blob.windows(10).filter(|w| w.starts_with(&magic) && w.ends_with(&[0xff])).count(), members);
        }
    }

    #[test]
    fn the_error_of_the_producer_comes_before_that_of_the_writer() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let options = PackOptions { compression: Compression::None, mtime: 0, workers: NonZeroUsize::MIN };
        let fail = |blocks: &mut BlockWriter| -> Result<(), FillError> {
            blocks.write(b"x")?;
            Err(PackError::Changed { entry: "f".into() }.into())
        };
        assert_eq!(compress_blocks(&options, &mut Full, fail).unwrap_err().code(), "layer.changed");
        assert_eq!(compress_blocks(&options, &mut Full, |_| Ok(())).unwrap_err().code(), "layer.write", "at the flush");
    }
}
