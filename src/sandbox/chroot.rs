//! Runs a command in a plain chroot: for real root in a container that forbids namespaces and mounts. The command sees no
//! other files, but the machine's processes and its network. All processes that it starts are killed at the end.
//!
//! There is no `/proc`: in the one of the machine, `/proc/PID/root` leads out of the chroot.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, fstat, futimens, makedev, mknodat, open, openat,
    renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, chroot, fchdir, getpid, kill_process, set_child_subreaper, wait};

use super::chroot_streams::ChrootStreams;
use super::exec;
use super::harden::{self, Confinement};
use super::init::{enter_cwd, exit};
use super::mount_target::MountTarget;
use super::net;
use super::plan::contents;
use super::protocol::{At, SetupStep, StageError, StageReport};
use super::spec::{Exit, Network, Spec};
use super::stage::{CallerDeath, StageChannel, fd_path, guard};

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Checks that the spec asks for nothing that a chroot cannot give, with or without mounts.
pub(super) fn check(spec: &Spec) -> Result<(), StageError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(StageError::NotRoot);
    }
    if let Some(bind) = spec.binds.first() {
        return Err(Errno::OPNOTSUPP).at(SetupStep::Bind, bind.source.to_string_lossy());
    }
    if let Some(at) = spec.tmpfs.first() {
        return Err(Errno::OPNOTSUPP).at(SetupStep::Bind, at);
    }
    if let Network::Shared(_) = spec.network {
        return Err(Errno::OPNOTSUPP).at(SetupStep::NetworkNamespace, "setns");
    }
    Ok(())
}

/// Runs the command of a spec. This stage detects the end of the caller on the pipe, not by a parent death signal,
/// because it must kill the descendants first.
pub(super) fn run(spec: &Spec, dir: &Path, channel: &mut StageChannel) -> Result<(), StageError> {
    if spec.network == Network::None {
        unshare(CloneFlags::CLONE_NEWNET).at(SetupStep::NetworkNamespace, "unshare")?;
        net::loopback_up().at(SetupStep::Loopback, "lo")?;
    }
    if unshare(CloneFlags::CLONE_NEWUTS).is_ok() {
        nix::unistd::sethostname("phial").at(SetupStep::HostName, "sethostname")?;
    }
    set_child_subreaper(Some(getpid())).at(SetupStep::Harden, "PR_SET_CHILD_SUBREAPER")?;
    let name = dir.to_string_lossy();
    let root = open(dir, DIR, Mode::empty()).at(SetupStep::Chroot, &name)?;
    let mut target = MountTarget::new(root);
    let (shadowed, streams) = prepare_root(&mut target, spec)?;
    if !target.made.is_empty() {
        channel.send(&StageReport::MountPointsCreated(target.made.clone()))?;
    }
    let host_proc = open("/proc", DIR, Mode::empty()).at(SetupStep::Chroot, "/proc")?;
    fchdir(target.root()).at(SetupStep::Chroot, &name)?;
    let exit = run_in_chroot(spec, channel, &host_proc, &streams);
    streams.copy();
    shadowed.into_iter().rev().try_for_each(Shadowed::restore)?;
    channel.send(&StageReport::Exit(exit?))
}

fn run_in_chroot(
    spec: &Spec,
    channel: &StageChannel,
    host_proc: &OwnedFd,
    streams: &ChrootStreams,
) -> Result<Exit, StageError> {
    chroot(".").at(SetupStep::Chroot, "chroot")?;
    enter_cwd(&spec.cwd)?;
    harden::set_limits(spec.limits)?;
    harden::reduce_bounding_set(Confinement::Chroot)?;
    guard(CallerDeath::Survives)?;
    harden::filter(spec, Confinement::Chroot)?;
    let (wake, waker) = UnixStream::pair().at(SetupStep::Start, "socketpair")?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGCHLD, waker).at(SetupStep::Start, "SIGCHLD")?;
    let user = Some(spec.user).filter(|user| *user != (0, 0));
    let exit = exec::start_as(spec, None, user).and_then(|pid| wait_for_exit(pid, &wake, channel, streams));
    kill_descendants(host_proc)?;
    exit
}

/// Reaps children until the command ends, or fails when the caller is gone.
fn wait_for_exit(
    pid: i32,
    wake: &UnixStream,
    channel: &StageChannel,
    streams: &ChrootStreams,
) -> Result<Exit, StageError> {
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((reaped, status))) if reaped.as_raw_nonzero().get() == pid => return Ok(exit(status)),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(error) => return Err(error).at(SetupStep::Start, "wait"),
            }
        }
        let mut fds = vec![PollFd::new(wake, PollFlags::IN), PollFd::new(&channel.go, PollFlags::empty())];
        fds.extend(streams.poll_fds());
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).at(SetupStep::Start, "poll"),
        }
        if fds[1].revents().contains(PollFlags::HUP) {
            return Err(Errno::SRCH).at(SetupStep::Start, "caller");
        }
        streams.copy();
        if fds[0].revents().contains(PollFlags::IN) {
            drop(std::io::Read::read(&mut &*wake, &mut [0; 64]));
        }
    }
}

/// Kills all descendants. Orphans become children of this process (a subreaper), so it ends when there are no children.
fn kill_descendants(host_proc: &OwnedFd) -> Result<(), StageError> {
    loop {
        for pid in descendants(host_proc).at(SetupStep::Start, "/proc")? {
            let _ = kill_process(pid, Signal::KILL);
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return Ok(()),
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// The descendants of this process, by the `/proc` of the machine.
fn descendants(host_proc: &OwnedFd) -> rustix::io::Result<Vec<Pid>> {
    let mut parents = BTreeMap::new();
    for entry in Dir::read_from(host_proc)? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = openat(host_proc, format!("{pid}/stat"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
            continue;
        };
        let text = std::io::read_to_string(File::from(stat)).unwrap_or_default();
        // "pid (name) state ppid ...": the name may hold anything.
        let parent = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let own = getpid().as_raw_nonzero().get();
    let is_descendant = |mut pid: i32| {
        (0..parents.len()).any(|_| {
            pid = parents.get(&pid).copied().unwrap_or(0);
            pid == own
        })
    };
    Ok(parents.keys().copied().filter(|pid| *pid != own && is_descendant(*pid)).filter_map(Pid::from_raw).collect())
}

/// Creates the directories and device nodes that a command expects, and puts the sandbox's files in place of the
/// image's.
fn prepare_root(target: &mut MountTarget, spec: &Spec) -> Result<(Vec<Shadowed>, ChrootStreams), StageError> {
    target.real_dir("/proc")?;
    for path in ["/tmp", "/run"] {
        let before = target.made.len();
        let dir = target.dir(path)?;
        if path == "/tmp" && target.made.len() > before {
            set_mode(&dir, 0o1777).at(SetupStep::MountPoint, path)?;
        }
    }
    let dev = target.real_dir("/dev")?;
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        let mode = Mode::from_raw_mode(0o666);
        let path = format!("/dev/{name}");
        match mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(1, minor)) {
            Ok(()) => target.made.push(path.trim_start_matches('/').to_owned()),
            Err(Errno::EXIST) => {}
            // A container without CAP_MKNOD: an empty file is better than none for `> /dev/null`.
            Err(Errno::PERM) => drop(target.file(&path)?),
            Err(error) => return Err(error).at(SetupStep::Device, path),
        }
        let node = openat(&dev, name, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
        node.map_err(Into::into).and_then(|node| set_mode(&node, 0o666)).at(SetupStep::Device, &path)?;
    }
    let before = target.made.len();
    let shm = target.dir("/dev/shm")?;
    if target.made.len() > before {
        set_mode(&shm, 0o1777).at(SetupStep::MountPoint, "/dev/shm")?;
    }
    let streams = ChrootStreams::make(target, &dev)?;
    let shadowed: Result<_, _> = contents(spec).map(|(at, content)| Shadowed::put(target, at, content)).collect();
    Ok((shadowed?, streams))
}

fn set_mode(file: &OwnedFd, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(fd_path(file), fs::Permissions::from_mode(mode))
}

/// A file of the image that is renamed while one of the sandbox has its name. The times of its directory do
/// not change.
#[derive(Debug)]
struct Shadowed {
    dir: OwnedFd,
    name: String,
    existed: bool,
    times: Timestamps,
}

impl Shadowed {
    fn put(target: &mut MountTarget, at: &str, content: &str) -> Result<Self, StageError> {
        let (parent, name) = at.rsplit_once('/').unwrap_or(("/", at));
        target.dir(parent)?;
        let handle = target.find(parent).at(SetupStep::File, at)?;
        let dir = openat(&handle, ".", DIR, Mode::empty()).at(SetupStep::File, at)?;
        let stat = fstat(&dir).at(SetupStep::File, at)?;
        let time = |tv_sec, tv_nsec: u64| Timespec { tv_sec, tv_nsec: tv_nsec.cast_signed() };
        let times = Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        let existed = match renameat(&dir, name, &dir, backup_name(name)) {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(error) => return Err(error).at(SetupStep::File, at),
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&dir, name, flags, Mode::from_raw_mode(0o644)).at(SetupStep::File, at)?;
        File::from(file).write_all(content.as_bytes()).at(SetupStep::File, at)?;
        futimens(&dir, &times).at(SetupStep::File, at)?;
        Ok(Self { dir, name: name.to_owned(), existed, times })
    }

    fn restore(self) -> Result<(), StageError> {
        let before = fstat(&self.dir).at(SetupStep::File, &self.name)?;
        let _ = unlinkat(&self.dir, &self.name, AtFlags::empty());
        if self.existed {
            renameat(&self.dir, backup_name(&self.name), &self.dir, &self.name).at(SetupStep::File, &self.name)?;
        }
        // Keeps the modification time that the directory has by the command, not by this function.
        let time = Timespec { tv_sec: before.st_mtime, tv_nsec: before.st_mtime_nsec.cast_signed() };
        let times = Timestamps { last_access: self.times.last_access, last_modification: time };
        futimens(&self.dir, &times).at(SetupStep::File, &self.name)
    }
}

fn backup_name(name: &str) -> String {
    format!(".{name}.phial")
}
