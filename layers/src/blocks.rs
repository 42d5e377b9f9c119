//! The pipeline from tar bytes to blob bytes: cut into blocks, compressed by several threads, written in order. The
//! queue is bounded, so memory does not grow with the layer, and the bytes do not depend on the number of threads.
//!
//! Whoever fills a block hands the block to the workers and the receiver of its result to the writing thread; the latter
//! queue is the bounded one. Nobody waits for anyone later in line, so there is no deadlock: when the writer gives up, the
//! filler is told by [`Closed`] and the workers run dry.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::frame::{block_size, encode};
use crate::pack::PackOptions;
use crate::{Compression, DiffId, Digest, PackError, Sha256Writer};

/// The writing side has failed; its error is the one to report.
#[derive(Debug)]
pub(crate) struct Closed;

/// What the whole stream came to.
pub(crate) struct Sums {
    pub(crate) diff_id: DiffId,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) tar_size: u64,
}

/// Why a filler stopped early.
pub(crate) enum Halt {
    Closed,
    Failed(PackError),
}

impl From<Closed> for Halt {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<PackError> for Halt {
    fn from(error: PackError) -> Self {
        Self::Failed(error)
    }
}

type Piece = io::Result<Vec<u8>>;
type Job = (Vec<u8>, SyncSender<Piece>);

/// Where tar bytes go.
pub(crate) struct Blocks {
    block: Vec<u8>,
    filled: usize,
    tar: Sha256Writer<io::Sink>,
    jobs: Sender<Job>,
    order: SyncSender<Receiver<Piece>>,
}

impl Blocks {
    /// The free room of the current block, never empty; to be filled from the front and then [`advance`](Self::advance)d.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.block[self.filled..]
    }

    /// The first `n` bytes of the room are tar now.
    pub(crate) fn advance(&mut self, n: usize) -> Result<(), Closed> {
        self.filled += n;
        if self.filled == self.block.len() { self.hand_over(self.block.len()) } else { Ok(()) }
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Closed> {
        while !bytes.is_empty() {
            let room = self.room();
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            self.advance(n)?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// `n` zero bytes.
    pub(crate) fn zeros(&mut self, n: usize) -> Result<(), Closed> {
        const ZEROS: [u8; 1024] = [0; 1024];
        let mut left = n;
        while left > 0 {
            let now = left.min(ZEROS.len());
            self.write(&ZEROS[..now])?;
            left -= now;
        }
        Ok(())
    }

    fn hand_over(&mut self, next: usize) -> Result<(), Closed> {
        let mut block = std::mem::replace(&mut self.block, vec![0; next]);
        block.truncate(self.filled);
        self.filled = 0;
        self.tar.write_all(&block).map_err(|_| Closed)?;
        let (done, piece) = mpsc::sync_channel(1);
        self.order.send(piece).map_err(|_| Closed)?;
        self.jobs.send((block, done)).map_err(|_| Closed)
    }

    fn finish(mut self) -> Result<(Digest, u64), Closed> {
        if self.filled > 0 {
            self.hand_over(0)?;
        }
        let (_, digest, size) = self.tar.finish();
        Ok((digest, size))
    }
}

/// Runs `fill` and writes what it puts into the blocks to `out`, compressed as `terms` say.
pub(crate) fn in_blocks<T>(
    terms: &PackOptions,
    out: &mut (dyn Write + Send),
    fill: impl FnOnce(&mut Blocks) -> Result<T, Halt>,
) -> Result<(T, Sums), PackError> {
    let workers = threads(terms);
    let (jobs, todo) = mpsc::channel::<Job>();
    let todo = Mutex::new(todo);
    thread::scope(|scope| {
        let (order, pieces) = mpsc::sync_channel(workers + 1);
        let jobs = jobs; // dropped on every way out of this closure: the workers end with it
        for _ in 0..workers {
            thread::Builder::new()
                .name("phial-pack".into())
                .spawn_scoped(scope, || work(terms.compression, &todo))
                .map_err(PackError::Thread)?;
        }
        let writer = thread::Builder::new()
            .name("phial-write".into())
            .spawn_scoped(scope, move || write_in_order(&pieces, out))
            .map_err(PackError::Thread)?;
        let size = block_size(terms.compression);
        let tar = Sha256Writer::new(io::sink());
        let mut blocks = Blocks { block: vec![0; size], filled: 0, tar, jobs, order };
        let filled = fill(&mut blocks);
        let finished = match filled {
            Ok(value) => blocks.finish().map(|sums| (value, sums)).map_err(Halt::from),
            Err(halt) => {
                drop(blocks);
                Err(halt)
            }
        };
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (finished, written) {
            (Err(Halt::Failed(error)), _) => Err(error),
            (_, Err(error)) => Err(PackError::Write(error)),
            (Err(Halt::Closed), Ok(_)) => Err(PackError::Write(io::ErrorKind::BrokenPipe.into())),
            (Ok((value, (tar, tar_size))), Ok((digest, size))) => {
                Ok((value, Sums { diff_id: DiffId(tar), digest, size, tar_size }))
            }
        }
    })
}

/// As many threads as asked for, but no more than keep the blocks in flight well below 128 MiB.
fn threads(terms: &PackOptions) -> usize {
    let most = match terms.compression {
        Compression::Gzip => 24,
        Compression::Zstd => 6,
        Compression::None => 1,
    };
    terms.workers.get().min(most)
}

fn work(compression: Compression, todo: &Mutex<Receiver<Job>>) {
    loop {
        let job = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((block, done)) = job else { return };
        let _ = done.send(encode(compression, block)); // nobody waits any more once the writer has failed
    }
}

fn write_in_order(pieces: &Receiver<Receiver<Piece>>, out: &mut (dyn Write + Send)) -> io::Result<(Digest, u64)> {
    let mut blob = Sha256Writer::new(out);
    for piece in pieces {
        // The other end is gone only if the filler stopped between its two sends.
        let Ok(piece) = piece.recv() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        blob.write_all(&piece?)?;
    }
    blob.flush()?;
    let (_, digest, size) = blob.finish();
    Ok((digest, size))
}
