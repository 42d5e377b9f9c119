//! The caller's side of a sandbox: starts stage 1, listens, and sees to it that nothing is left.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio as Standard};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, open, openat2, statat, unlinkat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::SandboxError;
use super::ids::map_ranges;
use super::mounts;
use super::protocol::{self, Envelope, Job, Report, StageError};
use super::spec::{Exit, Root, Spec, Stdio};
use super::stage::command;

/// How often the wish to cancel is looked at.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// What is heard of a command while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// It wrote this.
    Output(&'a [u8]),
    /// It is ready, by [`Spec::ready`].
    Ready,
}

/// Runs a command and gives how it ended; by then all that it started is gone.
///
/// `exe` is this program ([`OURSELVES`](super::OURSELVES)). Output comes to `out` as it is written; a slow `out` slows
/// the command, and puts off `cancel` until it returns. When `cancel` becomes true, everything is killed at once and
/// the result is [`SandboxError::Interrupted`]. The sandbox also dies with the *thread* that called this.
pub fn run(
    exe: &Path,
    order: &Spec,
    cancel: &AtomicBool,
    out: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<Exit, SandboxError> {
    serve(exe, order, cancel, &mut |said| {
        if let Said::Output(bytes) = said {
            out(bytes);
        }
    })
}

/// As [`run`], and `out` also hears when the command is ready.
pub fn serve(
    exe: &Path,
    order: &Spec,
    cancel: &AtomicBool,
    out: &mut (dyn FnMut(Said<'_>) + Send),
) -> Result<Exit, SandboxError> {
    check(order)?;
    let (output, input) = match order.stdio {
        Stdio::Stream => {
            let (read, write) = pipe().map_err(start("make a pipe"))?;
            let copy = write.try_clone().map_err(start("make a pipe"))?;
            (Some(File::from(read)), [Standard::null(), write.into(), copy.into()])
        }
        Stdio::Inherit => (None, [Standard::inherit(), Standard::inherit(), Standard::inherit()]),
    };
    let mut running = Running::launch(exe, Job::Run(Box::new(order.clone())), input)?;
    running.gentle = matches!(order.root, Root::Chroot { .. });
    let listened = listen(&mut running, output, cancel, out);
    let status = running.end(listened.is_err())?;
    tidy(&order.root, listened.as_ref().map_or(&[], |heard| &heard.made));
    let heard = listened?;
    match (heard.trouble, heard.exit) {
        (Some(trouble), _) => Err(trouble.into()),
        (None, Some(exit)) => Ok(exit),
        (None, None) => Err(SandboxError::Lost { how: status.to_string() }),
    }
}

fn check(order: &Spec) -> Result<(), SandboxError> {
    let nul = |text: &String| text.contains('\0');
    let targets = || order.binds.iter().map(|bind| &bind.target).chain(&order.tmpfs);
    let wrong = if order.argv.first().is_none_or(String::is_empty) {
        "no command"
    } else if order.argv.iter().any(nul) || order.env.iter().any(|(name, value)| nul(name) || nul(value)) {
        "a NUL byte in an argument or variable"
    } else if order.env.keys().any(|name| name.is_empty() || name.contains(['=', '\n'])) {
        "a variable's name is empty or has `=` or a line break"
    } else if !order.cwd.starts_with('/') || !targets().all(|target| target.starts_with('/')) {
        "a path inside is not absolute"
    } else if order.binds.iter().any(|bind| !bind.source.is_absolute()) {
        "a path of a bind is not absolute"
    } else if matches!(&order.root, Root::Overlay { lowers, .. } if lowers.is_empty() || lowers.len() > 500) {
        "an overlay has 1 to 500 lower trees"
    } else {
        return Ok(());
    };
    Err(SandboxError::Spec(wrong))
}

#[derive(Default)]
struct Heard {
    exit: Option<Exit>,
    trouble: Option<StageError>,
    made: Vec<String>,
    ready: bool,
}

/// Listens until both pipes are closed, which they are when the sandbox is over.
fn listen(
    running: &mut Running,
    mut output: Option<File>,
    cancel: &AtomicBool,
    out: &mut (dyn FnMut(Said<'_>) + Send),
) -> Result<Heard, SandboxError> {
    let mut heard = Heard::default();
    let mut lines = Vec::new();
    let mut talking = true;
    let mut buffer = vec![0; 1 << 16];
    while talking || output.is_some() {
        if cancel.load(Ordering::Relaxed) {
            return Err(SandboxError::Interrupted);
        }
        let ready = ready(talking.then_some(&running.status), output.as_ref()).map_err(start("poll"))?;
        if ready[0] {
            talking = running.hear(&mut lines, &mut heard)?;
            if std::mem::take(&mut heard.ready) {
                out(Said::Ready);
            }
        }
        if let Some(pipe) = output.as_mut().filter(|_| ready[1]) {
            match pipe.read(&mut buffer).map_err(start("read the output"))? {
                0 => output = None,
                read => out(Said::Output(&buffer[..read])),
            }
        }
    }
    Ok(heard)
}

/// Which of two pipes have something to read or are at their end, after a tick at most.
fn ready(status: Option<&File>, output: Option<&File>) -> io::Result<[bool; 2]> {
    let mut fds: Vec<PollFd<'_>> =
        [status, output].into_iter().flatten().map(|file| PollFd::new(file, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&TICK)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut seen = fds.iter().map(|fd| !fd.revents().is_empty());
    let mut next = |there: bool| there && seen.next().unwrap_or(false);
    Ok([next(status.is_some()), next(output.is_some())])
}

/// A sandbox that may still live. Dropped, it is killed.
pub(super) struct Running {
    pub(super) child: Child,
    status: File,
    go: Option<File>,
    init: Option<OwnedFd>,
    /// A chroot has no kernel that kills for it: stage 1 does, when `go` is closed.
    gentle: bool,
    over: bool,
}

impl Running {
    /// Starts stage 1 with a job and these standard streams.
    pub(super) fn launch(exe: &Path, job: Job, [stdin, stdout, stderr]: [Standard; 3]) -> Result<Self, SandboxError> {
        let stage = match job {
            Job::Run(_) => protocol::OUTER,
            Job::Ids { .. } => protocol::IDS,
            Job::Net { .. } => protocol::NET,
        };
        let parent = std::process::id().cast_signed();
        let order = protocol::seal(&Envelope { parent, job }).map_err(start("write the order"))?;
        let (status, status_end) = pipe().map_err(start("make a pipe"))?;
        let (go_end, go) = pipe().map_err(start("make a pipe"))?;
        let mut command = command(exe, stage, [order, status_end, go_end])?;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let child = command.spawn().map_err(start("execute this program again"))?;
        Ok(Self { child, status: status.into(), go: Some(go.into()), init: None, gentle: false, over: false })
    }

    /// Takes in what is on the status pipe; false at its end.
    fn hear(&mut self, lines: &mut Vec<u8>, heard: &mut Heard) -> Result<bool, SandboxError> {
        let mut buffer = [0; 4096];
        let read = self.status.read(&mut buffer).map_err(start("read the status"))?;
        lines.extend_from_slice(&buffer[..read]);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            match serde_json::from_slice(&line).map_err(io::Error::from).map_err(start("read the status"))? {
                Report::WantsIds => self.map_ids()?,
                Report::Init(pid) => {
                    self.init = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
                }
                Report::Made(made) => heard.made = made,
                Report::StageError(trouble) => heard.trouble = Some(heard.trouble.take().unwrap_or(trouble)),
                Report::Ready => heard.ready = true,
                Report::Exit(exit) => heard.exit = Some(exit),
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

    /// Listens until stage 1 has become another program or has given up: for jobs without a sandbox.
    pub(super) fn settle(&mut self) -> Result<(), SandboxError> {
        let (mut lines, mut heard) = (Vec::new(), Heard::default());
        while self.hear(&mut lines, &mut heard)? {}
        heard.trouble.map_or(Ok(()), |trouble| Err(trouble.into()))
    }

    /// Listens until stage 1 says that it is ready, which it stays.
    pub(super) fn until_ready(&mut self) -> Result<(), SandboxError> {
        let (mut lines, mut heard) = (Vec::new(), Heard::default());
        while !heard.ready && self.hear(&mut lines, &mut heard)? {}
        match heard.trouble {
            Some(trouble) => Err(trouble.into()),
            None if heard.ready => Ok(()),
            None => Err(SandboxError::Lost { how: "before it was ready".to_owned() }),
        }
    }

    /// Waits until everything is gone, having killed it if so wished, and gives how stage 1 ended.
    fn end(&mut self, kill: bool) -> Result<ExitStatus, SandboxError> {
        self.over = true;
        self.go = None;
        if kill && !self.gentle {
            drop(self.child.kill());
        }
        let status = match self.child.wait() {
            // Whoever started us ignores SIGCHLD, and so do we: the kernel has reaped it.
            Err(error) if error.raw_os_error() == Some(nix::libc::ECHILD) => Ok(ExitStatus::default()),
            other => other.map_err(start("wait for the sandbox")),
        };
        let patience = Some(&Timespec { tv_sec: 5, tv_nsec: 0 });
        if kill {
            // PID 1 holds the status pipe, even if we have not heard of it.
            let _ = poll(&mut [PollFd::new(&self.status, PollFlags::empty())], patience);
        }
        if let Some(init) = &self.init {
            // PID 1 counts as ended when its whole process namespace is.
            let _ = poll(&mut [PollFd::new(init, PollFlags::IN)], patience);
        }
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            drop(self.end(true));
        }
    }
}

/// Removes the mount points that had to be made, as far as nothing was put there, and what the kernel leaves.
fn tidy(root: &Root, made: &[String]) {
    if let Root::Overlay { work, .. } = root {
        mounts::clear(work);
    }
    let dir = match root {
        Root::Overlay { upper: dir, .. } | Root::Plain { dir } | Root::Chroot { dir } => dir,
    };
    let Ok(root) = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else { return };
    for path in made.iter().rev() {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let Ok(parent) = openat2(&root, parent, flags, Mode::empty(), resolve) else { continue };
        let Ok(stat) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let flags = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => AtFlags::REMOVEDIR,
            FileType::RegularFile if stat.st_size > 0 => continue,
            _ => AtFlags::empty(),
        };
        let _ = unlinkat(&parent, name, flags);
    }
}

pub(super) fn start(what: &'static str) -> impl Fn(io::Error) -> SandboxError {
    move |source| SandboxError::Start { what, source }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}
