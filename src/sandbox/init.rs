//! Stage 2, PID 1 of the sandbox: mounts the root and enters it, drops its privileges, starts the command, and reaps
//! orphans until the command ends. When PID 1 ends, the kernel kills all other processes of the sandbox.

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

use super::harden::{self, Confinement};
use super::id_map::{MappedId, map_self};
use super::mount_target::{MountTarget, restrict};
use super::protocol::{At, SetupStep, StageError, StageReport};
use super::spec::{Exit, Ids, Ready, Root, Spec, Stdio};
use super::stage::{CallerDeath, StageChannel, guard};
use super::{exec, mounts};

/// Runs a spec as PID 1 of its sandbox; called in the copy of stage 1.
pub(super) fn run(spec: &Spec, channel: &mut StageChannel) -> Result<(), StageError> {
    guard(CallerDeath::Dies)?;
    if channel.caller_is_gone() {
        return Err(StageError::Refused {
            step: SetupStep::Start,
            on: "caller".to_owned(),
            errno: Errno::SRCH.raw_os_error(),
        });
    }
    let _ = setsid();
    harden::limit_pids(spec.limits);
    let target = mounts::build(spec)?;
    if !target.made.is_empty() {
        channel.send(&StageReport::MountPointsCreated(target.made.clone()))?;
    }
    enter(&target, spec)?;
    drop(target);
    become_user(spec)?;
    harden::filter(spec, confinement(spec))?;
    let stdin = match spec.stdio {
        Stdio::Stream => Some(OpenOptions::new().read(true).open("/dev/null").at(SetupStep::Device, "/dev/null")?),
        Stdio::Inherit => None,
    };
    let exit = run_command(spec, stdin, channel)?;
    channel.send(&StageReport::Exit(exit))
}

fn enter(target: &MountTarget, spec: &Spec) -> Result<(), StageError> {
    fchdir(target.root()).at(SetupStep::Pivot, "fchdir")?;
    pivot_root(".", ".").at(SetupStep::Pivot, "pivot_root")?;
    unmount(".", UnmountFlags::DETACH).at(SetupStep::Pivot, "umount")?;
    chdir("/").at(SetupStep::Pivot, "chdir")?;
    if spec.read_only {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        open("/", flags, Mode::empty())
            .and_then(|root| restrict(&root, MountFlags::RDONLY))
            .at(SetupStep::Root, "/")?;
    }
    sethostname("phial").at(SetupStep::HostName, "sethostname")?;
    enter_cwd(&spec.cwd)
}

/// Changes to the working directory and checks that getcwd(2) gives a path, which it does not for a directory outside
/// the root (CVE-2024-21626).
pub(super) fn enter_cwd(cwd: &str) -> Result<(), StageError> {
    chdir(cwd).at(SetupStep::Cwd, cwd)?;
    match getcwd(Vec::new()) {
        Ok(real) if real.as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(Errno::NOENT).at(SetupStep::Cwd, cwd),
    }
}

/// Real root in namespaces is confined as in a plain chroot.
fn confinement(spec: &Spec) -> Confinement {
    if matches!(spec.root, Root::Chroot { .. }) { Confinement::Chroot } else { Confinement::Namespaces }
}

/// Becomes the user of the spec, and drops capabilities.
///
/// If one id is mapped, another user is the same id in a second user namespace. A new user namespace starts with all
/// capabilities, so they are dropped after that. With ranges they must be dropped before setuid(2), which removes the
/// right to.
fn become_user(spec: &Spec) -> Result<(), StageError> {
    let (uid, gid) = spec.user;
    let has_all_ids = spec.ids == Ids::Ranges || confinement(spec) == Confinement::Chroot;
    if (uid, gid) != (0, 0) && !has_all_ids {
        unshare(CloneFlags::CLONE_NEWUSER).at(SetupStep::User, "unshare")?;
        set_dumpable_behavior(DumpableBehavior::Dumpable).at(SetupStep::Harden, "PR_SET_DUMPABLE")?;
        map_self(MappedId { inside: uid, outside: 0 }, MappedId { inside: gid, outside: 0 })?;
    }
    harden::set_limits(spec.limits)?;
    harden::reduce_bounding_set(confinement(spec))?;
    if has_all_ids {
        let name = format!("{uid}:{gid}");
        setgroups(&[]).at(SetupStep::User, &name)?;
        setgid(Gid::from_raw(gid)).at(SetupStep::User, &name)?;
        setuid(Uid::from_raw(uid)).at(SetupStep::User, &name)?;
    }
    guard(CallerDeath::Dies)
}

/// Starts the command and reaps children until it ends.
fn run_command(spec: &Spec, stdin: Option<File>, channel: &mut StageChannel) -> Result<Exit, StageError> {
    let pid = exec::start(spec, stdin)?;
    if let Some(exit) = wait_until_ready(spec, pid)? {
        return Ok(exit);
    }
    channel.send(&StageReport::Ready)?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((reaped, status))) if reaped.as_raw_nonzero().get() == pid => return Ok(exit(status)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).at(SetupStep::Start, "wait"),
        }
    }
}

/// The time between two checks whether the command is ready.
const READY_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until the command is ready ([`Spec::ready`]). Returns how it ended if it ends before.
fn wait_until_ready(spec: &Spec, pid: i32) -> Result<Option<Exit>, StageError> {
    let mut check = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((reaped, status))) => {
                let reaped = reaped.as_raw_nonzero().get();
                if reaped == pid {
                    return Ok(Some(exit(status)));
                }
                if check == Some(reaped) {
                    check = None;
                    if exit(status) == Exit::Code(0) {
                        return Ok(None);
                    }
                }
                continue;
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).at(SetupStep::Start, "wait"),
        }
        match &spec.ready {
            None => return Ok(None),
            Some(Ready::Port(port)) if TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok() => return Ok(None),
            Some(Ready::Command(argv)) if check.is_none() => {
                let null = OpenOptions::new().read(true).open("/dev/null").at(SetupStep::Device, "/dev/null")?;
                check = Some(exec::start(&Spec { argv: argv.clone(), ..spec.clone() }, Some(null))?);
            }
            Some(_) => {}
        }
        std::thread::sleep(READY_INTERVAL);
    }
}

/// How a process ended, by its wait status.
pub(super) fn exit(status: WaitStatus) -> Exit {
    match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or(0)),
    }
}
