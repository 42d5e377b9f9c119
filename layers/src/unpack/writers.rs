//! Threads that fill small files. Names are made on the thread that reads the tar, in its order; what is left to others is
//! the content, mode and time of a file already open, which no later entry can confuse.

use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};

use rustix::fs::{Mode, Timespec, Timestamps};

use super::error::UnpackError;

/// Files up to this size are buffered and left to the threads.
pub(super) const SMALL: u64 = 1 << 20;
const THREADS: usize = 2;
/// Files under way at once; with [`SMALL`] it bounds the memory.
const QUEUE: usize = 24;

/// One file to fill.
pub(super) struct Job {
    pub(super) file: File,
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
    /// The entry's name, for the error.
    pub(super) entry: Vec<u8>,
}

/// What the threads share with the reader.
pub(super) struct Shared {
    jobs: Mutex<Receiver<Job>>,
    failed: AtomicBool,
    error: Mutex<Option<UnpackError>>,
    pending: Mutex<usize>,
    idle: Condvar,
}

/// The threads.
pub(super) struct Writers<'scope> {
    jobs: SyncSender<Job>,
    shared: &'scope Shared,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

/// A queue and what goes with it.
pub(super) fn queue() -> (SyncSender<Job>, Shared) {
    let (sender, jobs) = mpsc::sync_channel(QUEUE);
    let (jobs, error, pending) = (Mutex::new(jobs), Mutex::new(None), Mutex::new(0));
    (sender, Shared { jobs, failed: AtomicBool::new(false), error, pending, idle: Condvar::new() })
}

impl<'scope> Writers<'scope> {
    /// Starts the threads on `shared`.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        jobs: SyncSender<Job>,
        shared: &'scope Shared,
    ) -> Result<Self, UnpackError> {
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            let builder = thread::Builder::new().name("phial-files".into());
            threads.push(builder.spawn_scoped(scope, || work(shared)).map_err(UnpackError::Thread)?);
        }
        Ok(Self { jobs, shared, threads })
    }

    /// Leaves `job` to a thread. An error is that of an earlier file.
    pub(super) fn leave(&self, job: Job) -> Result<(), UnpackError> {
        *locked(&self.shared.pending) += 1;
        let name = job.entry.clone();
        self.jobs.send(job).map_err(|_| UnpackError::write(&name, std::io::Error::other("the writers have ended")))?;
        self.check()
    }

    /// Waits until every file left so far is whole.
    pub(super) fn wait(&self) -> Result<(), UnpackError> {
        let mut pending = locked(&self.shared.pending);
        while *pending > 0 {
            pending = self.shared.idle.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        drop(pending);
        self.check()
    }

    /// Waits for all files and threads.
    pub(super) fn finish(self) -> Result<(), UnpackError> {
        drop(self.jobs);
        for thread in self.threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        locked(&self.shared.error).take().map_or(Ok(()), Err)
    }

    fn check(&self) -> Result<(), UnpackError> {
        if self.shared.failed.load(Ordering::Relaxed) {
            return locked(&self.shared.error).take().map_or(Ok(()), Err);
        }
        Ok(())
    }
}

fn work(shared: &Shared) {
    loop {
        let job = locked(&shared.jobs).recv();
        let Ok(mut job) = job else { return };
        // After a failure the rest is drained, so that the reader never waits for a queue nobody empties.
        if !shared.failed.load(Ordering::Relaxed) {
            let done = job.file.write_all(&job.data).and_then(|()| settle(&job.file, job.mode, job.mtime));
            if let Err(error) = done {
                *locked(&shared.error) = Some(UnpackError::write(&job.entry, error));
                shared.failed.store(true, Ordering::Relaxed);
            }
        }
        drop(job);
        let mut pending = locked(&shared.pending);
        *pending -= 1;
        if *pending == 0 {
            shared.idle.notify_all();
        }
    }
}

/// Mode and time of a file that is complete.
pub(super) fn settle(file: &File, mode: u32, mtime: (i64, u32)) -> std::io::Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    rustix::fs::futimens(file, &times(mtime))?;
    Ok(())
}

/// Both times of a file: its modification time; it was never read.
pub(super) fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
