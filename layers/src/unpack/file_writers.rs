//! Threads that write small files. The thread that reads the tar creates all names, in its order; the threads write content,
//! mode and time of files that are already open, so no later entry can interfere.

use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};

use rustix::fs::{Mode, Timespec, Timestamps};

use super::error::UnpackError;

/// The largest file in bytes that is buffered and written by the threads.
pub(super) const MAX_BUFFERED: u64 = 1 << 20;
const THREADS: usize = 2;
/// The number of files in the queue; with [`MAX_BUFFERED`] it bounds the memory.
const QUEUED_FILES: usize = 24;

/// An open file and what to write to it.
pub(super) struct FileJob {
    pub(super) file: File,
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
    /// The entry's name, for the error.
    pub(super) entry: Vec<u8>,
}

/// What the threads share with the reader of the tar.
pub(super) struct Queue {
    jobs: Mutex<Receiver<FileJob>>,
    failed: AtomicBool,
    error: Mutex<Option<UnpackError>>,
    pending: Mutex<usize>,
    idle: Condvar,
}

/// The reader's side of the threads.
pub(super) struct FileWriters<'scope> {
    jobs: SyncSender<FileJob>,
    queue: &'scope Queue,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

/// An empty queue and the sender of its jobs.
pub(super) fn queue() -> (SyncSender<FileJob>, Queue) {
    let (sender, jobs) = mpsc::sync_channel(QUEUED_FILES);
    let (jobs, error, pending) = (Mutex::new(jobs), Mutex::new(None), Mutex::new(0));
    (sender, Queue { jobs, failed: AtomicBool::new(false), error, pending, idle: Condvar::new() })
}

impl<'scope> FileWriters<'scope> {
    /// Starts the threads.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        jobs: SyncSender<FileJob>,
        queue: &'scope Queue,
    ) -> Result<Self, UnpackError> {
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            let builder = thread::Builder::new().name("phial-files".into());
            threads.push(builder.spawn_scoped(scope, || write_files(queue)).map_err(UnpackError::Thread)?);
        }
        Ok(Self { jobs, queue, threads })
    }

    /// Queues `job`. An error may be that of an earlier job.
    pub(super) fn submit(&self, job: FileJob) -> Result<(), UnpackError> {
        *lock(&self.queue.pending) += 1;
        let name = job.entry.clone();
        self.jobs
            .send(job)
            .map_err(|_| UnpackError::write(&name, std::io::Error::other("the writing threads have ended")))?;
        self.check()
    }

    /// Waits until every file queued so far is written.
    pub(super) fn wait(&self) -> Result<(), UnpackError> {
        let mut pending = lock(&self.queue.pending);
        while *pending > 0 {
            pending = self.queue.idle.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        drop(pending);
        self.check()
    }

    /// Waits for all files and for the threads to end.
    pub(super) fn finish(self) -> Result<(), UnpackError> {
        drop(self.jobs);
        for thread in self.threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        lock(&self.queue.error).take().map_or(Ok(()), Err)
    }

    fn check(&self) -> Result<(), UnpackError> {
        if self.queue.failed.load(Ordering::Relaxed) {
            return lock(&self.queue.error).take().map_or(Ok(()), Err);
        }
        Ok(())
    }
}

fn write_files(queue: &Queue) {
    loop {
        let job = lock(&queue.jobs).recv();
        let Ok(mut job) = job else { return };
        // After a failure the queue is drained, so that the reader of the tar never blocks on it.
        if !queue.failed.load(Ordering::Relaxed) {
            let done = job.file.write_all(&job.data).and_then(|()| set_mode_and_mtime(&job.file, job.mode, job.mtime));
            if let Err(error) = done {
                *lock(&queue.error) = Some(UnpackError::write(&job.entry, error));
                queue.failed.store(true, Ordering::Relaxed);
            }
        }
        drop(job);
        let mut pending = lock(&queue.pending);
        *pending -= 1;
        if *pending == 0 {
            queue.idle.notify_all();
        }
    }
}

/// Sets the mode and time of a file whose content is complete.
pub(super) fn set_mode_and_mtime(file: &File, mode: u32, mtime: (i64, u32)) -> std::io::Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    rustix::fs::futimens(file, &timestamps(mtime))?;
    Ok(())
}

/// Access and modification time of a file, both `mtime`.
pub(super) fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use super::*;

    fn job(path: &Path, data: &[u8]) -> FileJob {
        let file = File::create(path).unwrap();
        FileJob { file, data: data.to_vec(), mode: 0o640, mtime: (5, 6), entry: b"f".to_vec() }
    }

    fn with_writers<T>(act: impl FnOnce(&FileWriters<'_>) -> T) -> (T, Result<(), UnpackError>) {
        let (jobs, queue) = queue();
        thread::scope(|scope| {
            let writers = FileWriters::start(scope, jobs, &queue).unwrap();
            let value = act(&writers);
            (value, writers.finish())
        })
    }

    #[test]
    fn a_file_is_complete_after_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: usize| dir.path().join(n.to_string());
        let ((), finished) = with_writers(|writers| {
            for n in 0..100 {
                writers.submit(job(&path(n), n.to_string().as_bytes())).unwrap();
            }
            writers.wait().unwrap();
            for n in 0..100 {
                let stat = std::fs::metadata(path(n)).unwrap();
                assert_eq!((stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec()), (0o640, 5, 6));
                assert_eq!((stat.atime(), stat.atime_nsec()), (5, 6));
                assert_eq!(std::fs::read_to_string(path(n)).unwrap(), n.to_string());
            }
        });
        finished.unwrap();
    }

    #[test]
    fn the_error_of_a_file_is_reported_once_and_nothing_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let unwritable = || {
            let file = File::open(&path).unwrap();
            FileJob { file, ..job(&path, b"x") }
        };
        std::fs::write(&path, "").unwrap();
        let (waited, finished) = with_writers(|writers| writers.submit(unwritable()).and_then(|()| writers.wait()));
        assert_eq!(waited.unwrap_err().to_string(), "cannot write `f`");
        finished.unwrap();
        for _ in 0..20 {
            let (submitted, finished) = with_writers(|writers| writers.submit(unwritable()));
            assert_eq!([submitted, finished].iter().filter(|result| result.is_err()).count(), 1);
        }
        let (failures, finished) =
            with_writers(|writers| (0..200).filter(|_| writers.submit(unwritable()).is_err()).count());
        assert_eq!(failures + usize::from(finished.is_err()), 1);
    }
}
