//! What every stage does first, and the names by which `main` finds the stages.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Signal, chdir, getppid, set_dumpable_behavior, set_parent_process_death_signal, setsid, umask,
};

use super::protocol::{self, At, Envelope, Report, StageError, Step};
use super::stage1;

/// Does a stage of the sandbox if the arguments of the process name one: the first thing in `main`, while the process
/// has one thread and has read nothing. `None` means that this is no stage.
///
/// The stages' names begin with `__sandbox-` and are no interface.
pub fn entry(args: &[OsString]) -> Option<ExitCode> {
    let stage: fn(&mut StageChannel) -> Result<(), StageError> = match args.get(1)?.to_str()? {
        protocol::OUTER => stage1::run,
        protocol::IDS => stage1::ids,
        protocol::NET => stage1::net,
        _ => return None,
    };
    Some(if tell(stage).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(70) })
}

/// The stage's ends of the pipes.
pub(super) struct StageChannel {
    /// Reports go here.
    pub(super) status: File,
    /// One byte comes when ids are mapped; the end of the file means that the caller is gone.
    pub(super) go: File,
}

impl StageChannel {
    /// Reports, and holds that a caller who does not listen is gone.
    pub(super) fn say(&mut self, report: &Report) -> Result<(), StageError> {
        protocol::say(&mut self.status, report).at(Step::Start, "status pipe")
    }

    /// Whether the caller is gone.
    pub(super) fn alone(&self) -> bool {
        let mut fds = [PollFd::new(&self.go, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }
}

fn tell(stage: fn(&mut StageChannel) -> Result<(), StageError>) -> Result<(), ()> {
    close_fds::set_fds_cloexec(3, &[]);
    let status = protocol::reopen(protocol::STATUS_FD, true).map_err(|_| ())?;
    let go = protocol::reopen(protocol::GO_FD, false).map_err(|_| ())?;
    let mut talk = StageChannel { status, go };
    stage(&mut talk).map_err(|trouble| drop(talk.say(&Report::StageError(trouble))))
}

/// Nobody reads our memory, nothing is left of the caller's session, signals and file mode mask.
pub(super) fn settle() -> Result<(), StageError> {
    guard(true)?;
    let _ = setsid();
    umask(Mode::from_raw_mode(0o022));
    chdir("/").at(Step::Start, "/")?;
    // An ignored signal stays ignored over exec, a handled one does not: a handler is the way back to the default.
    let heard = Arc::new(AtomicBool::new(false));
    for signal in (1..=31).filter(|signal| !signal_hook::consts::FORBIDDEN.contains(signal)) {
        drop(signal_hook::flag::register(signal, Arc::clone(&heard)));
    }
    SigSet::empty().thread_set_mask().at(Step::Start, "sigprocmask")
}

/// Not dumpable and, unless `outlive`, dead with the parent *thread* (so the caller must stay in it). A change of
/// credentials clears both, so this is done again after every one.
pub(super) fn guard(outlives: bool) -> Result<(), StageError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Harden, "PR_SET_DUMPABLE")?;
    if outlives {
        return Ok(());
    }
    set_parent_process_death_signal(Some(Signal::KILL)).at(Step::Start, "PR_SET_PDEATHSIG")
}

/// Reads the envelope, and makes sure that its sender lives.
pub(super) fn envelope() -> Result<Envelope, StageError> {
    let envelope = protocol::unseal().at(Step::Start, "order")?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if parent != envelope.parent {
        return Err(StageError::Refused { step: Step::Start, on: "caller".to_owned(), errno: nix::libc::ESRCH });
    }
    Ok(envelope)
}

/// A command for a stage of ours with an empty environment and the three descriptors.
pub(super) fn command(
    exe: &std::path::Path,
    stage: &str,
    [order, status, go]: [OwnedFd; 3],
) -> Result<Command, StageError> {
    let mut command = Command::new(exe);
    command.arg0("phial").arg(stage).env_clear();
    let mappings = [(order, protocol::ORDER_FD), (status, protocol::STATUS_FD), (go, protocol::GO_FD)];
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.into()).map_err(|_| StageError::Refused {
        step: Step::Start,
        on: "descriptors".to_owned(),
        errno: nix::libc::EINVAL,
    })?;
    Ok(command)
}

/// How a descriptor is named as a path: for calls that take no descriptor.
pub(super) fn fd_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
