//! The protocol between the caller and a stage: a job one way, reports the other, both JSON.
//!
//! The job is in an anonymous file in memory (descriptor 3), reports are lines on a pipe (4), and a second pipe (5)
//! lets a stage continue; the caller's end of it closes when the caller is gone. Stages open the descriptors again
//! through `/proc/self/fd`: that gives an owned descriptor for a number without unsafe code.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::spec::{Exit, Ids, Spec};

/// The argument that names each stage.
pub(super) const STAGE1: &str = "__sandbox-stage1";
pub(super) const USER_NAMESPACE: &str = "__sandbox-userns";
pub(super) const NETWORK: &str = "__sandbox-net";

pub(super) const JOB_FD: i32 = 3;
pub(super) const STATUS_FD: i32 = 4;
pub(super) const GO_FD: i32 = 5;

/// What a stage has to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Run a command.
    Run(Box<Spec>),
    /// Execute this program with these arguments, in a user namespace.
    ExecInUserNamespace { ids: Ids, args: Vec<String> },
    /// Hold a user and a network namespace for sandboxes to join.
    HoldNetwork { ids: Ids },
}

/// The content of the file in memory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    /// The caller's process id, to check that it still lives.
    pub(super) parent: i32,
    pub(super) job: Job,
}

/// A report of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StageReport {
    /// The user namespace needs its id map.
    WantsIds,
    /// The process id of the sandbox's PID 1.
    Init(i32),
    /// Mount points that did not exist in the root and were created (relative to it, the outermost first).
    MountPointsCreated(Vec<String>),
    /// The stage failed.
    Failed(StageError),
    /// The command is ready, or the namespaces are.
    Ready,
    /// The command ended.
    Exit(Exit),
}

/// Why a stage failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StageError {
    /// A system call failed.
    Refused { step: SetupStep, on: String, errno: i32 },
    /// A path of the image has the wrong type.
    Image { path: String, why: String },
    /// The command does not exist.
    Missing { command: String },
    /// The interpreter or loader of the command does not exist.
    Interpreter { command: String, interpreter: String },
    /// The command exists and the kernel does not start it.
    Unstartable { command: String, errno: i32, obstacle: Option<Obstacle> },
    /// A chroot needs real root.
    NotRoot,
}

/// A known reason why the kernel does not start a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Obstacle {
    /// The first line of a script ends as on Windows, and the kernel takes the end for a part of the interpreter's name.
    CarriageReturn,
    /// A script begins with a byte order mark, so that the kernel does not see its first line.
    ByteOrderMark,
    /// This file, which the command is or needs, has no executable bit or is no file.
    NotExecutable(String),
    /// The file system is mounted with `noexec`.
    NoExecMount,
}

/// The operations of setting up a sandbox that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SetupStep {
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

impl SetupStep {
    /// The operation as it follows "cannot" in an error, before its object.
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

/// Adds the operation and its object to a failed system call.
pub(super) trait At<T> {
    fn at(self, step: SetupStep, on: impl AsRef<str>) -> Result<T, StageError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: SetupStep, on: impl AsRef<str>) -> Result<T, StageError> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            StageError::Refused { step, on: on.as_ref().to_owned(), errno: error.raw_os_error().unwrap_or(0) }
        })
    }
}

/// Writes the envelope to a new file in memory, positioned at its start.
pub(super) fn seal(envelope: &Envelope) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("phial-job", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(envelope)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads the envelope in a stage.
pub(super) fn unseal() -> io::Result<Envelope> {
    let mut bytes = Vec::new();
    open_for_read(JOB_FD)?.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Opens an inherited descriptor again, for reading: the result is owned and close-on-exec.
pub(super) fn open_for_read(fd: i32) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{fd}"))
}

/// Opens an inherited descriptor again, for writing: the result is owned and close-on-exec.
pub(super) fn open_for_write(fd: i32) -> io::Result<File> {
    OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}"))
}

/// Sends one report as a line. It is shorter than `PIPE_BUF`, so lines of two stages never mix.
pub(super) fn send(status: &mut File, report: &StageReport) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    status.write_all(&line)
}
