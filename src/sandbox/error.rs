//! Why a sandbox could not be set up or did not start its command, and what to do about it. The hints name the setting
//! of the machine that is known to cause an error.

use std::fs;
use std::io;
use std::time::Duration;

use super::protocol::{Obstacle, SetupStep, StageError};

use crate::error::{ExitKind, UserError};

/// The sandbox could not run its command to its end.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// What is to be started cannot be: the text is what is wrong with it.
    #[error("the command cannot be started: {0}")]
    Spec(&'static str),
    /// The sandbox did what it never does.
    #[error("the sandbox is at fault: {0}")]
    Fault(&'static str),
    /// Stage 1 could not be started, or the connection to it failed.
    #[error("cannot {what} for the sandbox")]
    Start {
        /// The action: a verb and its object.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A system call failed while the sandbox was set up.
    #[error("cannot {what} `{on}`")]
    Refused {
        /// The action, such as `mount an overlay at`.
        what: &'static str,
        /// Its object, such as a path.
        on: String,
        /// What to do about it, if that is known.
        hint: Option<String>,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A path in the root filesystem leads nowhere, or in a circle.
    #[error("cannot {what} `{on}`")]
    InImage {
        /// The action, such as `enter the working directory`.
        what: &'static str,
        /// The path in the root.
        on: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A path in the root filesystem has the wrong type.
    #[error("`{path}` of the root filesystem {why}")]
    Image {
        /// The path in the root.
        path: String,
        /// What is wrong with it: a predicate.
        why: String,
    },
    /// The command is not in the root filesystem.
    #[error("there is no command `{command}` in the root filesystem")]
    Missing {
        /// As given in the spec.
        command: String,
    },
    /// The command exists, but not the program that its first line or its ELF header names.
    #[error("`{command}` needs `{interpreter}`, which is not in the root filesystem")]
    Interpreter {
        /// As given in the spec.
        command: String,
        /// That program.
        interpreter: String,
    },
    /// The command exists and the kernel does not start it.
    #[error("cannot start `{command}`")]
    Unstartable {
        /// As given in the spec.
        command: String,
        /// What to do about it, if that is known.
        hint: Option<String>,
        /// Whether the machine is the cause, and not the command.
        is_of_machine: bool,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A chroot was asked for without real root.
    #[error("a chroot needs root")]
    NotRoot,
    /// Ranges of ids were asked for and the user has none.
    #[error("no range of ids for this user in `{file}`")]
    NoRanges {
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
    },
    /// `newuidmap` or `newgidmap` failed.
    #[error("`{program}` failed: {output}")]
    Mapper {
        /// Which one.
        program: &'static str,
        /// Its stderr.
        output: String,
    },
    /// A helper in a user namespace failed.
    #[error("the helper in a user namespace failed with exit code {code}: {output}")]
    Helper {
        /// Its exit code.
        code: i32,
        /// The end of its stderr.
        output: String,
    },
    /// The caller cancelled it.
    #[error("interrupted")]
    Interrupted,
    /// The command did not end in time.
    #[error("it did not end within {} s", .0.as_secs())]
    TimeLimit(Duration),
    /// The command wrote too much.
    #[error("it wrote more than {0} bytes of output")]
    OutputLimit(u64),
    /// The command's processes had too much memory.
    #[error("it took more than {0} bytes of memory")]
    MemoryLimit(u64),
    /// A process that was killed did not end: it waits for a disk or a network file system.
    #[error("processes of the sandbox did not end when they were killed")]
    StillRunning,
    /// The stage ended without a report.
    #[error("the sandbox exited unexpectedly ({how})")]
    Lost {
        /// How its process ended.
        how: String,
    },
}

impl UserError for SandboxError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Refused { .. }
            | Self::NotRoot
            | Self::NoRanges { .. }
            | Self::Mapper { .. }
            | Self::StillRunning
            | Self::Unstartable { is_of_machine: true, .. } => ExitKind::Machine,
            Self::Spec(_)
            | Self::Image { .. }
            | Self::InImage { .. }
            | Self::Missing { .. }
            | Self::Interpreter { .. }
            | Self::Unstartable { .. } => ExitKind::Refused,
            Self::Interrupted => ExitKind::Interrupted,
            Self::TimeLimit(_) | Self::OutputLimit(_) | Self::MemoryLimit(_) => ExitKind::Failed,
            // What the kernel refuses (memory, descriptors, an error of the disk) is the machine's.
            Self::Start { source, .. } if source.raw_os_error().is_some() => ExitKind::Machine,
            Self::Fault(_) | Self::Start { .. } | Self::Helper { .. } | Self::Lost { .. } => ExitKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } | Self::Unstartable { hint, .. } => hint.clone(),
            Self::NotRoot => {
                Some("run as root, or use `--isolation auto` on a machine with user namespaces".to_owned())
            }
            Self::NoRanges { file } => Some(format!(
                "`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER` adds one to `{file}`"
            )),
            Self::Mapper { program, .. } => {
                Some(format!("install `{program}` (package `uidmap`), or build without ranges"))
            }
            Self::Missing { .. } | Self::Interpreter { .. } => {
                Some("install it in the base image, or name another base".to_owned())
            }
            Self::Image { .. } => Some("make it a directory in the base image".to_owned()),
            Self::InImage { .. } => {
                Some("correct that path in the image, or name another working directory".to_owned())
            }
            _ => None,
        }
    }
}

impl From<StageError> for SandboxError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Refused { step, on, errno } if is_of_image(step, errno) => {
                Self::InImage { what: step.text(), on, source: io::Error::from_raw_os_error(errno) }
            }
            StageError::Refused { step, on, errno } => Self::Refused {
                what: step.text(),
                on,
                hint: hint_for(step, errno),
                source: io::Error::from_raw_os_error(errno),
            },
            StageError::Image { path, why } => Self::Image { path, why },
            StageError::Missing { command } => Self::Missing { command },
            StageError::Interpreter { command, interpreter } => Self::Interpreter { command, interpreter },
            StageError::Unstartable { command, errno, obstacle } => Self::Unstartable {
                command,
                hint: obstacle_hint(errno, obstacle.as_ref()),
                is_of_machine: obstacle == Some(Obstacle::NoExecMount) || is_of_machine(errno),
                source: io::Error::from_raw_os_error(errno),
            },
            StageError::NotRoot => Self::NotRoot,
        }
    }
}

fn obstacle_hint(errno: i32, obstacle: Option<&Obstacle>) -> Option<String> {
    let text = match obstacle {
        Some(Obstacle::CarriageReturn) => {
            "its lines end as on Windows: convert it, for example by `sed -i 's/\\r$//' FILE`"
        }
        Some(Obstacle::ByteOrderMark) => {
            "it begins with a byte order mark, which hides its first line: save it as UTF-8 without one"
        }
        Some(Obstacle::NotExecutable(path)) => {
            return Some(format!("`{path}` must be a file that may be executed: `chmod +x`"));
        }
        Some(Obstacle::NoExecMount) => {
            "the disk of the cache is mounted with `noexec`: set `PHIAL_CACHE_DIR` to another one, or use `--isolation overlay`"
        }
        None if errno == nix::libc::ENOEXEC => {
            "a script must begin with a line such as `#!/bin/sh`, and a program must be built for this CPU architecture"
        }
        None if errno == nix::libc::ENOENT => {
            "it is there, and what it needs to be started is not, or it is built for another CPU architecture"
        }
        None if errno == nix::libc::E2BIG => {
            "its arguments and the environment are larger than the kernel takes: pass less"
        }
        None if errno == nix::libc::EAGAIN => "the limit of processes is reached (`ulimit -u`)",
        None if errno == nix::libc::ENOMEM => "the machine may be out of memory",
        None => return None,
    };
    Some(text.to_owned())
}

/// Whether the kernel refuses a command for want of something of the machine.
fn is_of_machine(errno: i32) -> bool {
    use nix::libc::{EAGAIN, EIO, EMFILE, ENFILE, ENOMEM};
    matches!(errno, EAGAIN | EIO | EMFILE | ENFILE | ENOMEM)
}

/// Whether a path of the image is the cause: it leads nowhere, through a file, or in a circle.
fn is_of_image(step: SetupStep, errno: i32) -> bool {
    use nix::libc::{ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR};
    match step {
        SetupStep::MountPoint | SetupStep::File => matches!(errno, ELOOP | ENAMETOOLONG | ENOTDIR),
        SetupStep::Cwd => matches!(errno, ELOOP | ENAMETOOLONG | ENOTDIR | ENOENT),
        _ => false,
    }
}

/// Whether the kernel refuses for want of permission.
fn is_denied(errno: i32) -> bool {
    matches!(errno, nix::libc::EPERM | nix::libc::EACCES)
}

/// The known causes of a failed step, the most certain first.
fn hint_for(step: SetupStep, errno: i32) -> Option<String> {
    let denied = is_denied(errno);
    let text = match step {
        SetupStep::UserNamespace | SetupStep::Namespaces | SetupStep::MapIds | SetupStep::Join => {
            return namespace_hint(step, errno);
        }
        SetupStep::NetworkNamespace | SetupStep::Loopback => {
            "a chroot has no network of its own on this machine: `build` and `run` can use the machine's (`--network host`); \
             tests need user namespaces"
        }
        SetupStep::Overlay if errno == nix::libc::EINVAL => {
            "this file system cannot hold an overlay's upper directory (another overlay, NFS): \
             move the cache to another disk, or use `--isolation copy`"
        }
        SetupStep::Overlay => "overlays in a user namespace need Linux 5.11: use `--isolation copy`",
        SetupStep::Proc if denied => {
            "`/proc` of this container is masked, so a new one is refused: run it with an unmasked `/proc` \
             (`--security-opt systempaths=unconfined`), or as root with `--isolation chroot`"
        }
        SetupStep::Root | SetupStep::Bind | SetupStep::Cwd | SetupStep::File if errno == nix::libc::EACCES => {
            "this user may not enter the directory or one above it"
        }
        SetupStep::Bind if errno == nix::libc::EOPNOTSUPP => {
            "a chroot has no mounts: copy the file or directory into the root"
        }
        _ if denied => return namespace_hint(step, errno),
        _ if errno == nix::libc::ENOSYS => "Linux 5.6 or newer is needed, and a container that lets `openat2` through",
        _ if errno == nix::libc::ENOSPC => "free some space",
        _ => return None,
    };
    Some(text.to_owned())
}

/// Which setting of the machine forbids namespaces.
fn namespace_hint(step: SetupStep, errno: i32) -> Option<String> {
    let denied = is_denied(errno);
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let text = if is("/proc/sys/user/max_user_namespaces", "0") {
        "user namespaces are switched off: `sudo sysctl user.max_user_namespaces=15000`"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "user namespaces are switched off for ordinary users: `sudo sysctl kernel.unprivileged_userns_clone=1`"
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor restricts user namespaces: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, \
         or an AppArmor profile with `userns` for this program"
    } else if step == SetupStep::UserNamespace && !denied {
        "the limit of user namespaces is reached: raise it by `sudo sysctl user.max_user_namespaces=15000`"
    } else if denied {
        "a container or a chroot around this program forbids namespaces: run it with `--security-opt seccomp=unconfined`, \
         or as root with `--isolation chroot`"
    } else {
        return None;
    };
    Some(text.to_owned())
}
