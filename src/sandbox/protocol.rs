//! What the stages and the caller tell each other: the order one way, reports the other.
//!
//! The order is a file in memory (descriptor 3), reports are JSON lines on a pipe (4), and a second pipe (5) tells a
//! stage to go on; its other end is closed when the caller is gone. Stages open them anew through `/proc/self/fd`,
//! which is the way to an owned descriptor from a number in safe code.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::spec::{Exit, Ids, Spec};

pub(super) const OUTER: &str = "__sandbox-outer";
pub(super) const IDS: &str = "__sandbox-ids";
pub(super) const NET: &str = "__sandbox-net";

pub(super) const ORDER_FD: i32 = 3;
pub(super) const STATUS_FD: i32 = 4;
pub(super) const GO_FD: i32 = 5;

/// What a stage is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Run a command.
    Run(Box<Spec>),
    /// Become ourselves with these arguments, in a user namespace.
    Ids { ids: Ids, hidden: Vec<String> },
    /// Hold a user and a network namespace for others to join.
    Net { ids: Ids },
}

/// The first thing that a stage reads.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    /// The caller's process id, to see that it still lives.
    pub(super) parent: i32,
    pub(super) job: Job,
}

/// What a stage says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The user namespace waits for its map.
    WantsIds,
    /// PID 1 of the sandbox is this process.
    Init(i32),
    /// These mount points were missing in the root and were made (relative to it, the outermost first).
    Made(Vec<String>),
    /// Something was refused.
    StageError(StageError),
    /// The command is ready, or the namespaces are.
    Ready,
    /// The command ended.
    Exit(Exit),
}

/// Why a stage gave up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StageError {
    /// A system call failed.
    Refused { step: Step, on: String, errno: i32 },
    /// The image is not as it must be.
    Image { path: String, why: String },
    /// The command is not there.
    Missing { command: String },
    /// What would run the command is not there.
    Interpreter { command: String, interpreter: String },
    /// The command is there and cannot be started.
    Unstartable { command: String, errno: i32 },
    /// A chroot needs real root.
    NotRoot,
}

/// The steps of setting up that may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    Start,
    UserNamespace,
    MapIds,
    Namespaces,
    Join,
    NetworkNamespace,
    Private,
    Overlay,
    Root,
    MountPoint,
    Tmpfs,
    Device,
    Proc,
    Mask,
    Bind,
    File,
    Pivot,
    HostName,
    Loopback,
    Cwd,
    User,
    Harden,
    Chroot,
}

impl Step {
    /// As it reads after "cannot".
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Start => "start the sandbox's stage at",
            Self::UserNamespace => "make a user namespace by",
            Self::MapIds => "map user ids through",
            Self::Namespaces => "make namespaces by",
            Self::Join => "join the namespace",
            Self::NetworkNamespace => "make a network namespace by",
            Self::Private => "make mounts private at",
            Self::Overlay => "mount an overlay at",
            Self::Root => "use as the root",
            Self::MountPoint => "make the mount point",
            Self::Tmpfs => "mount a tmpfs at",
            Self::Device => "provide the device",
            Self::Proc => "mount proc at",
            Self::Mask => "mask",
            Self::Bind => "bind",
            Self::File => "write the file",
            Self::Pivot => "enter the root by",
            Self::HostName => "set the host name by",
            Self::Loopback => "bring up the interface",
            Self::Cwd => "enter the working directory",
            Self::User => "become the user",
            Self::Harden => "give up privileges by",
            Self::Chroot => "change the root to",
        }
    }
}

/// Attaches step and object to a failed system call.
pub(super) trait At<T> {
    fn at(self, step: Step, on: impl AsRef<str>) -> Result<T, StageError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step, on: impl AsRef<str>) -> Result<T, StageError> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            StageError::Refused { step, on: on.as_ref().to_owned(), errno: error.raw_os_error().unwrap_or(0) }
        })
    }
}

/// The envelope as a file in memory, read from its beginning by whoever opens it.
pub(super) fn seal(envelope: &Envelope) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("phial-order", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(envelope)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads the envelope in a stage.
pub(super) fn unseal() -> io::Result<Envelope> {
    let mut bytes = Vec::new();
    reopen(ORDER_FD, false)?.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Opens an inherited descriptor anew: the result is close-on-exec and owned.
pub(super) fn reopen(fd: i32, write: bool) -> io::Result<File> {
    OpenOptions::new().read(!write).write(write).open(format!("/proc/self/fd/{fd}"))
}

/// Sends one report: less than `PIPE_BUF`, so that two stages never mix.
pub(super) fn say(status: &mut File, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    status.write_all(&line)
}
