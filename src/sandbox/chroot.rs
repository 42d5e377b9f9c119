//! The lowest rung: real root in a container that forbids namespaces and mounts. The command sees no other files,
//! but the machine's processes and network; whatever it starts is killed at the end, however it was started.

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

use super::exec;
use super::harden;
use super::init::{enter_cwd, exit};
use super::mount_target::MountTarget;
use super::net;
use super::plan::contents;
use super::protocol::{At, Report, StageError, Step};
use super::spec::{Exit, Network, Spec};
use super::stage::{StageChannel, fd_path, guard};

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The whole life of a command in a chroot. The caller's end is seen on the pipe, not by a death signal: the
/// descendants must be killed first.
pub(super) fn run(order: &Spec, dir: &Path, talk: &mut StageChannel) -> Result<(), StageError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(StageError::NotRoot);
    }
    if let Some(bind) = order.binds.first() {
        return Err(Errno::OPNOTSUPP).at(Step::Bind, bind.source.to_string_lossy());
    }
    if let Some(at) = order.tmpfs.first() {
        return Err(Errno::OPNOTSUPP).at(Step::Bind, at);
    }
    if let Network::Shared(_) = order.network {
        return Err(Errno::OPNOTSUPP).at(Step::NetworkNamespace, "setns");
    }
    if order.network == Network::None {
        unshare(CloneFlags::CLONE_NEWNET).at(Step::NetworkNamespace, "unshare")?;
        net::loopback_up().at(Step::Loopback, "lo")?;
    }
    if unshare(CloneFlags::CLONE_NEWUTS).is_ok() {
        nix::unistd::sethostname("phial").at(Step::HostName, "sethostname")?;
    }
    set_child_subreaper(Some(getpid())).at(Step::Harden, "PR_SET_CHILD_SUBREAPER")?;
    let name = dir.to_string_lossy();
    let root = open(dir, DIR, Mode::empty()).at(Step::Chroot, &name)?;
    let mut place = MountTarget::new(root);
    let aside = furnish(&mut place, order)?;
    if !place.made.is_empty() {
        talk.say(&Report::Made(place.made.clone()))?;
    }
    let machine = open("/proc", DIR, Mode::empty()).at(Step::Chroot, "/proc")?;
    fchdir(place.root()).at(Step::Chroot, &name)?;
    let ended = command(order, talk, &machine);
    aside.into_iter().rev().try_for_each(Shadowed::restore)?;
    talk.say(&Report::Exit(ended?))
}

fn command(order: &Spec, talk: &StageChannel, machine: &OwnedFd) -> Result<Exit, StageError> {
    chroot(".").at(Step::Chroot, "chroot")?;
    enter_cwd(&order.cwd)?;
    harden::limit()?;
    harden::bound(false)?;
    guard(true)?;
    harden::filter(false)?;
    let (wake, waker) = UnixStream::pair().at(Step::Start, "socketpair")?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGCHLD, waker).at(Step::Start, "SIGCHLD")?;
    let user = Some(order.user).filter(|user| *user != (0, 0));
    let ended = exec::start_as(order, None, user).and_then(|pid| follow(pid, &wake, talk));
    exterminate(machine)?;
    ended
}

/// Reaps until the command or the caller has ended.
fn follow(pid: i32, wake: &UnixStream, talk: &StageChannel) -> Result<Exit, StageError> {
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((reaped, status))) if reaped.as_raw_nonzero().get() == pid => return Ok(exit(status)),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(error) => return Err(error).at(Step::Start, "wait"),
            }
        }
        let mut fds = [PollFd::new(wake, PollFlags::IN), PollFd::new(&talk.go, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).at(Step::Start, "poll"),
        }
        if fds[1].revents().contains(PollFlags::HUP) {
            return Err(Errno::SRCH).at(Step::Start, "caller");
        }
        drop(std::io::Read::read(&mut &*wake, &mut [0; 64]));
    }
}

/// Kills every descendant. Orphans become our children, so it is over when there are no children.
fn exterminate(machine: &OwnedFd) -> Result<(), StageError> {
    loop {
        for pid in descendants(machine).at(Step::Start, "/proc")? {
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

fn descendants(machine: &OwnedFd) -> rustix::io::Result<Vec<Pid>> {
    let mut parents = BTreeMap::new();
    for entry in Dir::read_from(machine)? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = openat(machine, format!("{pid}/stat"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
            continue;
        };
        let text = std::io::read_to_string(File::from(stat)).unwrap_or_default();
        // "pid (name) state ppid ...": the name may hold anything.
        let parent = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let me = getpid().as_raw_nonzero().get();
    let ours = |mut pid: i32| {
        (0..parents.len()).any(|_| {
            pid = parents.get(&pid).copied().unwrap_or(0);
            pid == me
        })
    };
    Ok(parents.keys().copied().filter(|pid| *pid != me && ours(*pid)).filter_map(Pid::from_raw).collect())
}

/// Directories and device nodes that a command expects, and our files in place of the image's.
fn furnish(place: &mut MountTarget, order: &Spec) -> Result<Vec<Shadowed>, StageError> {
    place.real_dir("/proc")?;
    for path in ["/tmp", "/run"] {
        let before = place.made.len();
        let dir = place.dir(path)?;
        if path == "/tmp" && place.made.len() > before {
            open_to_all(&dir, 0o1777).at(Step::MountPoint, path)?;
        }
    }
    let dev = place.real_dir("/dev")?;
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        let mode = Mode::from_raw_mode(0o666);
        let path = format!("/dev/{name}");
        match mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(1, minor)) {
            Ok(()) => place.made.push(path.trim_start_matches('/').to_owned()),
            Err(Errno::EXIST) => {}
            // A container without the right to make nodes: an empty file is better than none for `> /dev/null`.
            Err(Errno::PERM) => drop(place.file(&path)?),
            Err(error) => return Err(error).at(Step::Device, path),
        }
        let node = openat(&dev, name, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
        node.map_err(Into::into).and_then(|node| open_to_all(&node, 0o666)).at(Step::Device, &path)?;
    }
    contents(order).map(|(at, content)| Shadowed::put(place, at, content)).collect()
}

fn open_to_all(file: &OwnedFd, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(fd_path(file), fs::Permissions::from_mode(mode))
}

/// A file of the image that is out of the way while one of ours stands in its place.
#[derive(Debug)]
struct Shadowed {
    dir: OwnedFd,
    name: String,
    existed: bool,
    times: Timestamps,
}

impl Shadowed {
    fn put(place: &mut MountTarget, at: &str, content: &str) -> Result<Self, StageError> {
        let (parent, name) = at.rsplit_once('/').unwrap_or(("/", at));
        place.dir(parent)?;
        let handle = place.find(parent).at(Step::File, at)?;
        let dir = openat(&handle, ".", DIR, Mode::empty()).at(Step::File, at)?;
        let stat = fstat(&dir).at(Step::File, at)?;
        let time = |tv_sec, tv_nsec: u64| Timespec { tv_sec, tv_nsec: tv_nsec.cast_signed() };
        let times = Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        let existed = match renameat(&dir, name, &dir, kept(name)) {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(error) => return Err(error).at(Step::File, at),
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&dir, name, flags, Mode::from_raw_mode(0o644)).at(Step::File, at)?;
        File::from(file).write_all(content.as_bytes()).at(Step::File, at)?;
        futimens(&dir, &times).at(Step::File, at)?;
        Ok(Self { dir, name: name.to_owned(), existed, times })
    }

    fn restore(self) -> Result<(), StageError> {
        let before = fstat(&self.dir).at(Step::File, &self.name)?;
        let _ = unlinkat(&self.dir, &self.name, AtFlags::empty());
        if self.existed {
            renameat(&self.dir, kept(&self.name), &self.dir, &self.name).at(Step::File, &self.name)?;
        }
        // What the command did to the directory's time stays to be seen; what we did does not.
        let time = Timespec { tv_sec: before.st_mtime, tv_nsec: before.st_mtime_nsec.cast_signed() };
        let times = Timestamps { last_access: self.times.last_access, last_modification: time };
        futimens(&self.dir, &times).at(Step::File, &self.name)
    }
}

fn kept(name: &str) -> String {
    format!(".{name}.phial")
}
