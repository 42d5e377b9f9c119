//! `/dev/stdout` and `/dev/stderr` of a plain chroot, which has no `/proc` that they could be links into: FIFOs, from which
//! stage 1 copies to its own stdout and stderr.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags, mknodat, openat};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdout};

use super::mount_target::MountTarget;
use super::protocol::{At, SetupStep, StageError};

/// The FIFOs that do not exist in the image.
pub(super) struct ChrootStreams(Vec<Fifo>);

struct Fifo {
    read: OwnedFd,
    /// Keeps the FIFO open: a reader without a writer is at its end at once.
    _write: OwnedFd,
    to: BorrowedFd<'static>,
}

impl ChrootStreams {
    /// Makes the FIFOs in `dev`. What the image has at these paths stays.
    pub(super) fn make(target: &mut MountTarget, dev: &OwnedFd) -> Result<Self, StageError> {
        let mut fifos = Vec::new();
        for (name, to) in [("stdout", stdout()), ("stderr", stderr())] {
            let made = || {
                let mode = Mode::from_raw_mode(0o666);
                mknodat(dev, name, FileType::Fifo, mode, 0)?;
                let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let read = openat(dev, name, OFlags::RDONLY | flags, Mode::empty())?;
                rustix::fs::fchmod(&read, mode)?;
                Ok(Fifo { read, _write: openat(dev, name, OFlags::WRONLY | flags, Mode::empty())?, to })
            };
            match made() {
                Ok(fifo) => fifos.push(fifo),
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error).at(SetupStep::Device, format!("/dev/{name}")),
            }
            target.made.push(format!("dev/{name}"));
        }
        Ok(Self(fifos))
    }

    /// What to wait for.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.0.iter().map(|fifo| PollFd::new(&fifo.read, PollFlags::IN))
    }

    /// Copies what was written so far.
    pub(super) fn copy(&self) {
        let mut buffer = vec![0; 1 << 16];
        for fifo in &self.0 {
            while let Ok(length @ 1..) = rustix::io::read(&fifo.read, &mut buffer) {
                let mut rest = &buffer[..length];
                while !rest.is_empty() {
                    match rustix::io::write(fifo.to, rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(Errno::INTR) => {}
                        Err(_) => return, // nobody reads it
                    }
                }
            }
        }
    }
}
