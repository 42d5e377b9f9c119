//! What the stages have in common: their pipes to the caller, how they start, and their protection from the caller's
//! death and from other processes of the same user.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Signal, chdir, getppid, set_dumpable_behavior, set_parent_process_death_signal, setsid, umask,
};

use super::protocol::{self, At, Envelope, SetupStep, StageError, StageReport};

/// What a stage does with its pipes.
pub(super) type Stage = fn(&mut StageChannel) -> Result<(), StageError>;

/// Whether a process is killed when the thread that started it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CallerDeath {
    /// It is killed, so the caller must stay in that thread.
    Dies,
    /// It is not, and has to watch the pipe itself.
    Survives,
}

/// The stage's ends of the pipes.
pub(super) struct StageChannel {
    /// Where reports are written.
    pub(super) status: File,
    /// The caller writes one byte when ids are mapped; it is closed when the caller is gone.
    pub(super) go: File,
}

impl StageChannel {
    /// Sends a report. An error means that the caller is gone.
    pub(super) fn send(&mut self, report: &StageReport) -> Result<(), StageError> {
        protocol::send(&mut self.status, report).at(SetupStep::Start, "status pipe")
    }

    /// Whether the caller is gone.
    pub(super) fn caller_is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.go, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }
}

/// Runs a stage and reports its error.
pub(super) fn run(stage: Stage) -> Result<(), ()> {
    close_fds::set_fds_cloexec(3, &[]);
    let status = protocol::open_for_write(protocol::STATUS_FD).map_err(|_| ())?;
    let go = protocol::open_for_read(protocol::GO_FD).map_err(|_| ())?;
    let mut channel = StageChannel { status, go };
    stage(&mut channel).map_err(|error| drop(channel.send(&StageReport::Failed(error))))
}

/// Protects the memory of this process, and resets what it inherited: session, umask, working directory, signal
/// handlers and mask.
pub(super) fn reset_process() -> Result<(), StageError> {
    guard(CallerDeath::Survives)?;
    let _ = setsid();
    umask(Mode::from_raw_mode(0o022));
    chdir("/").at(SetupStep::Start, "/")?;
    // An ignored signal stays ignored after exec, a handled one does not: a handler resets it to the default.
    let received = Arc::new(AtomicBool::new(false));
    for signal in (1..=31).filter(|signal| !signal_hook::consts::FORBIDDEN.contains(signal)) {
        drop(signal_hook::flag::register(signal, Arc::clone(&received)));
    }
    SigSet::empty().thread_set_mask().at(SetupStep::Start, "sigprocmask")
}

/// Makes this process not dumpable (no other process reads its memory) and sets its parent death signal. Must be called
/// again after every change of credentials, which clears both (prctl(2)).
pub(super) fn guard(on_death: CallerDeath) -> Result<(), StageError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(SetupStep::Harden, "PR_SET_DUMPABLE")?;
    if on_death == CallerDeath::Survives {
        return Ok(());
    }
    set_parent_process_death_signal(Some(Signal::KILL)).at(SetupStep::Start, "PR_SET_PDEATHSIG")
}

/// Reads the envelope, and checks that its sender still lives.
pub(super) fn envelope() -> Result<Envelope, StageError> {
    let envelope = protocol::unseal().at(SetupStep::Start, "envelope")?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if parent != envelope.parent {
        return Err(StageError::Refused { step: SetupStep::Start, on: "caller".to_owned(), errno: nix::libc::ESRCH });
    }
    Ok(envelope)
}

/// The command that starts a stage, with an empty environment and the three descriptors.
pub(super) fn command(
    exe: &std::path::Path,
    stage: &str,
    [job, status, go]: [OwnedFd; 3],
) -> Result<Command, StageError> {
    let mut command = Command::new(exe);
    command.arg0("phial").arg(stage).env_clear();
    let mappings = [(job, protocol::JOB_FD), (status, protocol::STATUS_FD), (go, protocol::GO_FD)];
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.into()).map_err(|_| StageError::Refused {
        step: SetupStep::Start,
        on: "descriptors".to_owned(),
        errno: nix::libc::EINVAL,
    })?;
    Ok(command)
}

/// The path of a descriptor, for system calls that take no descriptor.
pub(super) fn fd_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
