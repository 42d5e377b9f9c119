//! Stage 2, PID 1 of the sandbox: mounts the root and enters it, gives up what it may, starts the command, and reaps
//! whatever is orphaned until the command has ended. When PID 1 ends, the kernel kills all that is left.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgid, setgroups, sethostname, setuid};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use rustix::process::{
    DumpableBehavior, WaitOptions, WaitStatus, chdir, fchdir, getcwd, pivot_root, set_dumpable_behavior, setsid, wait,
};

use super::mount_target::{MountTarget, restrict};
use super::protocol::{At, Report, StageError, Step};
use super::spec::{Exit, Ids, Ready, Spec, Stdio};
use super::stage::{StageChannel, guard};
use super::stage1::map_self;
use super::{exec, harden, mounts};

/// Becomes PID 1 of an order, having been copied from stage 1.
pub(super) fn run(order: &Spec, talk: &mut StageChannel) -> Result<(), StageError> {
    guard(false)?;
    if talk.alone() {
        return Err(StageError::Refused {
            step: Step::Start,
            on: "caller".to_owned(),
            errno: Errno::SRCH.raw_os_error(),
        });
    }
    let _ = setsid();
    let place = mounts::build(order)?;
    if !place.made.is_empty() {
        talk.say(&Report::Made(place.made.clone()))?;
    }
    enter(&place, order)?;
    drop(place);
    become_user(order)?;
    harden::filter(true)?;
    let stdin = match order.stdio {
        Stdio::Stream => Some(OpenOptions::new().read(true).open("/dev/null").at(Step::Device, "/dev/null")?),
        Stdio::Inherit => None,
    };
    let exit = follow(order, stdin, talk)?;
    talk.say(&Report::Exit(exit))
}

fn enter(place: &MountTarget, order: &Spec) -> Result<(), StageError> {
    fchdir(place.root()).at(Step::Pivot, "fchdir")?;
    pivot_root(".", ".").at(Step::Pivot, "pivot_root")?;
    unmount(".", UnmountFlags::DETACH).at(Step::Pivot, "umount")?;
    chdir("/").at(Step::Pivot, "chdir")?;
    if order.read_only {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        open("/", flags, Mode::empty()).and_then(|root| restrict(&root, MountFlags::RDONLY)).at(Step::Root, "/")?;
    }
    sethostname("phial").at(Step::HostName, "sethostname")?;
    enter_cwd(&order.cwd)
}

/// Changes to the working directory and sees that the kernel can name it, which it cannot outside the root
/// (CVE-2024-21626).
pub(super) fn enter_cwd(cwd: &str) -> Result<(), StageError> {
    chdir(cwd).at(Step::Cwd, cwd)?;
    match getcwd(Vec::new()) {
        Ok(real) if real.as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(Errno::NOENT).at(Step::Cwd, cwd),
    }
}

/// Gets the ordered ids, and loses the capabilities.
///
/// With one id mapped, another user is the same id under another name, in a second user namespace; a new namespace
/// starts with all capabilities, so they go afterwards. With ranges, they must go while we may still drop them.
fn become_user(order: &Spec) -> Result<(), StageError> {
    let (uid, gid) = order.user;
    if (uid, gid) != (0, 0) && order.ids == Ids::Single {
        unshare(CloneFlags::CLONE_NEWUSER).at(Step::User, "unshare")?;
        set_dumpable_behavior(DumpableBehavior::Dumpable).at(Step::Harden, "PR_SET_DUMPABLE")?;
        map_self((uid, 0), (gid, 0))?;
    }
    harden::limit()?;
    harden::bound(true)?;
    if order.ids == Ids::Ranges {
        let name = format!("{uid}:{gid}");
        setgroups(&[]).at(Step::User, &name)?;
        setgid(Gid::from_raw(gid)).at(Step::User, &name)?;
        setuid(Uid::from_raw(uid)).at(Step::User, &name)?;
    }
    guard(false)
}

/// Starts the command and reaps children until it is among them.
fn follow(order: &Spec, stdin: Option<File>, talk: &mut StageChannel) -> Result<Exit, StageError> {
    let pid = exec::start(order, stdin)?;
    if let Some(exit) = attend(order, pid)? {
        return Ok(exit);
    }
    talk.say(&Report::Ready)?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((reaped, status))) if reaped.as_raw_nonzero().get() == pid => return Ok(exit(status)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).at(Step::Start, "wait"),
        }
    }
}

/// How often it is asked whether the command is ready.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the command is ready; if it ends before, how.
fn attend(order: &Spec, pid: i32) -> Result<Option<Exit>, StageError> {
    let mut asking = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((reaped, status))) => {
                let reaped = reaped.as_raw_nonzero().get();
                if reaped == pid {
                    return Ok(Some(exit(status)));
                }
                if asking == Some(reaped) {
                    asking = None;
                    if exit(status) == Exit::Code(0) {
                        return Ok(None);
                    }
                }
                continue;
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).at(Step::Start, "wait"),
        }
        match &order.ready {
            None => return Ok(None),
            Some(Ready::Port(port)) if TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok() => return Ok(None),
            Some(Ready::Command(argv)) if asking.is_none() => {
                let null = OpenOptions::new().read(true).open("/dev/null").at(Step::Device, "/dev/null")?;
                asking = Some(exec::start(&Spec { argv: argv.clone(), ..order.clone() }, Some(null))?);
            }
            Some(_) => {}
        }
        std::thread::sleep(PAUSE);
    }
}

pub(super) fn exit(status: WaitStatus) -> Exit {
    match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or(0)),
    }
}
