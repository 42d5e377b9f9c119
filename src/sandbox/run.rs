//! The caller's side of a sandbox: starts stage 1, reads its reports and the command's output, and makes sure that
//! nothing is left.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio as Standard};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::SandboxError;
use super::id_map::map_ranges;
use super::memory::MemoryWatch;
use super::mounts;
use super::protocol::{self, Envelope, Job, StageError, StageReport};
use super::spec::{Exit, Root, Spec, Stdio, UsageLimits};
use super::stage::command;
use crate::tree::TreeRoot;

/// How often `cancel` is checked.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// How long to wait for processes that were killed.
const END_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What happens while a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxEvent<'a> {
    /// The command wrote these bytes to stdout or stderr.
    Output(&'a [u8]),
    /// The command is ready, by [`Spec::ready`].
    Ready,
}

/// Runs a command and returns how it ended. All processes that it started are gone by then.
///
/// `exe` is this program ([`OURSELVES`](super::OURSELVES)). `out` gets the output as it is written; while it runs, the
/// command may block and `cancel` is not checked. When `cancel` becomes true, all processes are killed and the result
/// is [`SandboxError::Interrupted`]. The sandbox also ends with the *thread* that called this.
pub fn run(
    exe: &Path,
    spec: &Spec,
    cancel: &AtomicBool,
    out: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<Exit, SandboxError> {
    run_with_events(exe, spec, cancel, &mut |event| {
        if let SandboxEvent::Output(bytes) = event {
            out(bytes);
        }
    })
}

/// As [`run`]; `out` also learns when the command is ready.
pub fn run_with_events(
    exe: &Path,
    spec: &Spec,
    cancel: &AtomicBool,
    out: &mut (dyn FnMut(SandboxEvent<'_>) + Send),
) -> Result<Exit, SandboxError> {
    check(spec)?;
    let (output, input) = match spec.stdio {
        Stdio::Stream => {
            let (read, write) = pipe().map_err(start("make a pipe"))?;
            let copy = write.try_clone().map_err(start("make a pipe"))?;
            (Some(File::from(read)), [Standard::null(), write.into(), copy.into()])
        }
        Stdio::Inherit => (None, [Standard::inherit(), Standard::inherit(), Standard::inherit()]),
    };
    let mut running = Running::launch(exe, Job::Run(Box::new(spec.clone())), input)?;
    running.is_chroot = matches!(spec.root, Root::Chroot { .. });
    let mut watch =
        CommandWatch { cancel, limits: spec.limits, start: Instant::now(), written: 0, memory: MemoryWatch::new() };
    let outcome = listen(&mut running, output, &mut watch, out);
    let status = if outcome.is_err() { running.kill()? } else { running.wait()? };
    clean_up(&spec.root, outcome.as_ref().map_or(&[], |outcome| &outcome.made));
    let outcome = outcome?;
    match (outcome.error, outcome.exit) {
        (Some(error), _) => Err(error.into()),
        (None, Some(exit)) => Ok(exit),
        (None, None) => Err(SandboxError::Lost { how: status.to_string() }),
    }
}

fn check(spec: &Spec) -> Result<(), SandboxError> {
    let nul = |text: &String| text.contains('\0');
    let targets = || spec.binds.iter().map(|bind| &bind.target).chain(&spec.tmpfs);
    let wrong = if spec.argv.first().is_none_or(String::is_empty) {
        "it has no name"
    } else if spec.argv.iter().any(nul)
        || nul(&spec.cwd)
        || spec.env.iter().any(|(name, value)| nul(name) || nul(value))
    {
        "an argument, a variable or the working directory has a NUL"
    } else if spec.env.keys().any(|name| name.is_empty() || name.contains(['=', '\n'])) {
        "a variable's name is empty or has `=` or a line break"
    } else if !spec.cwd.starts_with('/') || !targets().all(|target| target.starts_with('/')) {
        "its working directory, or another path inside, is not absolute"
    } else if spec.binds.iter().any(|bind| !bind.source.is_absolute()) {
        "a path of a bind is not absolute"
    } else if matches!(&spec.root, Root::Overlay { lowers, .. } if lowers.is_empty() || lowers.len() > 500) {
        "an overlay has 1 to 500 lower trees"
    } else {
        return Ok(());
    };
    Err(SandboxError::Spec(wrong))
}

/// What stage 1 and PID 1 reported.
#[derive(Default)]
struct Outcome {
    exit: Option<Exit>,
    error: Option<StageError>,
    /// Mount points that were created.
    made: Vec<String>,
    ready: bool,
}

/// What ends a command before it ends itself.
struct CommandWatch<'a> {
    cancel: &'a AtomicBool,
    limits: UsageLimits,
    start: Instant,
    /// Bytes of output so far.
    written: u64,
    memory: MemoryWatch,
}

impl CommandWatch<'_> {
    /// `stage1` is the process above all others of the sandbox.
    fn check(&mut self, stage1: u32) -> Result<(), SandboxError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(SandboxError::Interrupted);
        }
        if let Some(limit) = self.limits.time.filter(|limit| self.start.elapsed() > *limit) {
            return Err(SandboxError::TimeLimit(limit));
        }
        if let Some(limit) = self.limits.memory.filter(|limit| self.memory.is_beyond(stage1, *limit)) {
            return Err(SandboxError::MemoryLimit(limit));
        }
        match self.limits.output.filter(|limit| self.written > *limit) {
            Some(limit) => Err(SandboxError::OutputLimit(limit)),
            None => Ok(()),
        }
    }
}

/// Reads both pipes until they are closed, which they are when the sandbox has ended.
fn listen(
    running: &mut Running,
    mut output: Option<File>,
    watch: &mut CommandWatch<'_>,
    out: &mut (dyn FnMut(SandboxEvent<'_>) + Send),
) -> Result<Outcome, SandboxError> {
    let mut outcome = Outcome::default();
    let mut lines = Vec::new();
    let mut is_open = true;
    let mut buffer = vec![0; 1 << 16];
    while is_open || output.is_some() {
        watch.check(running.child.id())?;
        let readable = readable(is_open.then_some(&running.status), output.as_ref()).map_err(start("poll"))?;
        if readable[0] {
            is_open = running.read_reports(&mut lines, &mut outcome)?;
            if std::mem::take(&mut outcome.ready) {
                out(SandboxEvent::Ready);
            }
        }
        if let Some(pipe) = output.as_mut().filter(|_| readable[1]) {
            match pipe.read(&mut buffer).map_err(start("read the output"))? {
                0 => output = None,
                read => {
                    out(SandboxEvent::Output(&buffer[..read]));
                    watch.written += read as u64;
                }
            }
        }
    }
    Ok(outcome)
}

/// Which of two pipes have data or are at their end, after one poll interval at most.
fn readable(status: Option<&File>, output: Option<&File>) -> io::Result<[bool; 2]> {
    let mut fds: Vec<PollFd<'_>> =
        [status, output].into_iter().flatten().map(|file| PollFd::new(file, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&POLL_INTERVAL)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut events = fds.iter().map(|fd| !fd.revents().is_empty());
    let mut next = |is_polled: bool| is_polled && events.next().unwrap_or(false);
    Ok([next(status.is_some()), next(output.is_some())])
}

/// A running stage 1. It is killed when this is dropped.
pub(super) struct Running {
    pub(super) child: Child,
    status: File,
    go: Option<File>,
    init: Option<OwnedFd>,
    /// Stage 1 of a plain chroot is not killed: it kills the other processes itself when `go` is closed.
    is_chroot: bool,
    has_ended: bool,
}

impl Running {
    /// Starts stage 1 with a job and these standard streams.
    pub(super) fn launch(exe: &Path, job: Job, [stdin, stdout, stderr]: [Standard; 3]) -> Result<Self, SandboxError> {
        let stage = match job {
            Job::Run(_) => protocol::STAGE1,
            Job::ExecInUserNamespace { .. } => protocol::USER_NAMESPACE,
            Job::HoldNetwork { .. } => protocol::NETWORK,
        };
        let parent = std::process::id().cast_signed();
        let job = protocol::seal(&Envelope { parent, job }).map_err(start("write the job"))?;
        let (status, status_end) = pipe().map_err(start("make a pipe"))?;
        let (go_end, go) = pipe().map_err(start("make a pipe"))?;
        let mut command = command(exe, stage, [job, status_end, go_end])?;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let child = command.spawn().map_err(start("execute this program again"))?;
        Ok(Self { child, status: status.into(), go: Some(go.into()), init: None, is_chroot: false, has_ended: false })
    }

    /// Reads reports from the status pipe; false at its end.
    fn read_reports(&mut self, lines: &mut Vec<u8>, outcome: &mut Outcome) -> Result<bool, SandboxError> {
        let mut buffer = [0; 4096];
        let read = self.status.read(&mut buffer).map_err(start("read the status"))?;
        lines.extend_from_slice(&buffer[..read]);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            match serde_json::from_slice(&line).map_err(io::Error::from).map_err(start("read the status"))? {
                StageReport::WantsIds => self.map_ids()?,
                StageReport::Init(pid) => {
                    self.is_chroot = false;
                    self.init = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
                }
                StageReport::MountPointsCreated(made) => outcome.made = made,
                StageReport::Failed(error) => outcome.error = Some(outcome.error.take().unwrap_or(error)),
                StageReport::Ready => outcome.ready = true,
                StageReport::Exit(exit) => outcome.exit = Some(exit),
            }
        }
        Ok(read > 0)
    }

    fn map_ids(&mut self) -> Result<(), SandboxError> {
        map_ranges(self.child.id())?;
        match self.go.as_mut().map(|go| go.write_all(b"!")) {
            Some(Err(error)) => Err(start("start the sandbox")(error)),
            _ => Ok(()),
        }
    }

    /// Waits until stage 1 executes another program or fails: for [`Job::ExecInUserNamespace`].
    pub(super) fn wait_for_exec(&mut self) -> Result<(), SandboxError> {
        let (mut lines, mut outcome) = (Vec::new(), Outcome::default());
        while self.read_reports(&mut lines, &mut outcome)? {}
        outcome.error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Waits until stage 1 is ready: for [`Job::HoldNetwork`].
    pub(super) fn wait_until_ready(&mut self) -> Result<(), SandboxError> {
        let (mut lines, mut outcome) = (Vec::new(), Outcome::default());
        while !outcome.ready && self.read_reports(&mut lines, &mut outcome)? {}
        match outcome.error {
            Some(error) => Err(error.into()),
            None if outcome.ready => Ok(()),
            None => Err(SandboxError::Lost { how: "before it was ready".to_owned() }),
        }
    }

    /// Kills all processes of the sandbox and waits until they are gone. Returns how stage 1 ended.
    fn kill(&mut self) -> Result<ExitStatus, SandboxError> {
        self.go = None;
        // Whether there is a PID 1, which ends with stage 1, or this is a plain chroot, is not known until it is reported.
        let (mut lines, mut outcome) = (Vec::new(), Outcome::default());
        while self.is_chroot && self.read_reports(&mut lines, &mut outcome).unwrap_or(false) {}
        if !self.is_chroot {
            drop(self.child.kill());
        }
        let status = self.wait_for_stage1();
        // PID 1 holds the status pipe, even if its report was not read yet.
        let _ = poll(&mut [PollFd::new(&self.status, PollFlags::empty())], Some(&END_TIMEOUT));
        self.wait_for_init()?;
        status
    }

    /// Waits until all processes of the sandbox are gone. Returns how stage 1 ended.
    fn wait(&mut self) -> Result<ExitStatus, SandboxError> {
        self.go = None;
        let status = self.wait_for_stage1();
        self.wait_for_init()?;
        status
    }

    fn wait_for_stage1(&mut self) -> Result<ExitStatus, SandboxError> {
        self.has_ended = true;
        match self.child.wait() {
            // SIGCHLD is ignored, inherited from the caller's parent: the kernel has reaped the process.
            Err(error) if error.raw_os_error() == Some(nix::libc::ECHILD) => Ok(ExitStatus::default()),
            other => other.map_err(start("wait for the sandbox")),
        }
    }

    /// Waits for PID 1, which ends when all processes of its namespace have. Nothing that they wrote is read before.
    fn wait_for_init(&self) -> Result<(), SandboxError> {
        let Some(init) = &self.init else { return Ok(()) };
        let mut fds = [PollFd::new(init, PollFlags::IN)];
        match retry_on_intr(|| poll(&mut fds, Some(&END_TIMEOUT))) {
            Ok(0) => Err(SandboxError::StillRunning),
            Ok(_) => Ok(()),
            Err(error) => Err(start("wait for its processes")(error.into())),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            drop(self.kill());
        }
    }
}

/// Removes the mount points that were created, unless the command put something there, and what the kernel leaves in
/// `work`.
fn clean_up(root: &Root, made: &[String]) {
    if let Root::Overlay { work, .. } = root {
        mounts::clear_work_dir(work);
    }
    let dir = match root {
        Root::Overlay { upper: dir, .. } | Root::Plain { dir } | Root::Chroot { dir } => dir,
    };
    let Ok(root) = TreeRoot::new(dir).open() else { return };
    for path in made.iter().rev() {
        let _ = match root.stat(path) {
            Ok(Some(stat)) if stat.is_directory() => root.remove_dir(path),
            Ok(Some(stat)) if stat.is_regular_file() && stat.size() > 0 => continue,
            Ok(Some(_)) => root.remove_file(path),
            _ => continue,
        };
    }
}

/// For `map_err`: an error of the caller's side.
pub(super) fn start(what: &'static str) -> impl Fn(io::Error) -> SandboxError {
    move |source| SandboxError::Start { what, source }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}
