//! Stage 1 starts in the caller's namespaces. It creates the namespaces of the sandbox, starts PID 1 in them and waits.
//! Two variants of it only create namespaces: one for a helper, one for a network that sandboxes share.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use fork::{Fork, fork};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::io::retry_on_intr;
use rustix::process::{DumpableBehavior, Pid, WaitOptions, chdir, getegid, geteuid, set_dumpable_behavior, waitpid};

use super::id_map::{MappedId, map_self};
use super::protocol::{At, Job, SetupStep, StageError, StageReport};
use super::spec::{Ids, Network, Root, Spec};
use super::stage::{CallerDeath, StageChannel, envelope, guard, reset_process};
use super::{chroot, init, mounts, net};

/// The stage `__sandbox-stage1`.
pub(super) fn run(channel: &mut StageChannel) -> Result<(), StageError> {
    reset_process()?;
    let Job::Run(spec) = envelope()?.job else { return Err(wrong_job()) };
    if let Root::Chroot { dir } = &spec.root {
        chroot::check(&spec)?;
        if !may_mount(dir)? {
            return chroot::run(&spec, dir, channel);
        }
    }
    guard(CallerDeath::Dies)?;
    envelope()?;
    match (&spec.root, spec.network) {
        (Root::Chroot { .. }, _) => drop(nix::unistd::setgroups(&[])), // real root makes namespaces itself
        (_, Network::Shared(holder)) => join(holder)?,
        (_, Network::Host | Network::None) => user_namespace(spec.ids, channel)?,
    }
    namespaces(&spec)?;
    // This process has one thread, and its memory holds only what PID 1 may know: a copy of it becomes PID 1.
    match fork().at(SetupStep::Start, "fork")? {
        Fork::Child => init::run(&spec, channel),
        Fork::Parent(pid) => {
            channel.send(&StageReport::Init(pid))?;
            retry_on_intr(|| waitpid(Pid::from_raw(pid), WaitOptions::empty())).at(SetupStep::Start, "wait")?;
            Ok(())
        }
    }
}

/// Whether root may make namespaces and mounts here: tried with the directory `dir` in a process that ends at once.
fn may_mount(dir: &Path) -> Result<bool, StageError> {
    match fork().at(SetupStep::Start, "fork")? {
        Fork::Child => {
            let tried = unshare(SEPARATE).at(SetupStep::Namespaces, "unshare").and_then(|()| mounts::try_at(dir));
            std::process::exit(i32::from(tried.is_err()))
        }
        Fork::Parent(pid) => {
            let status =
                retry_on_intr(|| waitpid(Pid::from_raw(pid), WaitOptions::empty())).at(SetupStep::Start, "wait")?;
            Ok(status.is_some_and(|(_, status)| status.exit_status() == Some(0)))
        }
    }
}

/// The stage `__sandbox-userns`: executes this program again with other arguments, as user 0 of a user namespace.
pub(super) fn exec_in_user_namespace(channel: &mut StageChannel) -> Result<(), StageError> {
    guard(CallerDeath::Dies)?;
    let Job::ExecInUserNamespace { ids, args } = envelope()?.job else { return Err(wrong_job()) };
    user_namespace(ids, channel)?;
    unshare(CloneFlags::CLONE_NEWNS).at(SetupStep::Namespaces, "unshare")?;
    chdir("/").at(SetupStep::Start, "/")?;
    let error = Command::new("/proc/self/exe").args(args).env_clear().exec();
    Err(error).at(SetupStep::Start, "/proc/self/exe")
}

/// The stage `__sandbox-net`: holds a user and a network namespace until the caller is gone. It has nothing secret in
/// its memory and stays dumpable, so that sandboxes can open its namespaces.
pub(super) fn hold_network(channel: &mut StageChannel) -> Result<(), StageError> {
    reset_process()?;
    guard(CallerDeath::Dies)?;
    let Job::HoldNetwork { ids } = envelope()?.job else { return Err(wrong_job()) };
    user_namespace(ids, channel)?;
    unshare(CloneFlags::CLONE_NEWNET).at(SetupStep::Namespaces, "unshare")?;
    net::loopback_up().at(SetupStep::Loopback, "lo")?;
    guard(CallerDeath::Dies)?;
    set_dumpable_behavior(DumpableBehavior::Dumpable).at(SetupStep::Harden, "PR_SET_DUMPABLE")?;
    channel.send(&StageReport::Ready)?;
    drop(channel.go.read(&mut [0]));
    Ok(())
}

/// Joins the user and network namespaces that the process `holder` holds ([`hold_network`]).
fn join(holder: i32) -> Result<(), StageError> {
    let _ = nix::unistd::setgroups(&[]);
    let open = |kind: &str| {
        let path = format!("/proc/{holder}/ns/{kind}");
        fs::File::open(&path).at(SetupStep::Join, &path)
    };
    let (user, net) = (open("user")?, open("net")?);
    setns(&user, CloneFlags::CLONE_NEWUSER).at(SetupStep::Join, "user")?;
    setns(&net, CloneFlags::CLONE_NEWNET).at(SetupStep::Join, "net")?;
    guard(CallerDeath::Dies)
}

fn wrong_job() -> StageError {
    StageError::Refused { step: SetupStep::Start, on: "envelope".to_owned(), errno: nix::libc::EINVAL }
}

/// Creates and enters a user namespace in which the caller is 0.
///
/// This process writes the map itself if one id is enough. `/proc/self/uid_map` belongs to root while a process is not
/// dumpable, so it is dumpable for that moment, when no other process is in the namespace.
fn user_namespace(ids: Ids, channel: &mut StageChannel) -> Result<(), StageError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let _ = nix::unistd::setgroups(&[]); // only root has the right, and supplementary groups to drop
    unshare(CloneFlags::CLONE_NEWUSER).at(SetupStep::UserNamespace, "unshare")?;
    set_dumpable_behavior(DumpableBehavior::Dumpable).at(SetupStep::Harden, "PR_SET_DUMPABLE")?;
    match ids {
        Ids::Single => map_self(MappedId { inside: 0, outside: uid }, MappedId { inside: 0, outside: gid })?,
        Ids::Ranges => {
            channel.send(&StageReport::WantsIds)?;
            channel.go.read_exact(&mut [0]).at(SetupStep::MapIds, "newuidmap")?;
        }
    }
    guard(CallerDeath::Dies)?;
    if channel.caller_is_gone() {
        return Err(StageError::Refused { step: SetupStep::Start, on: "caller".to_owned(), errno: nix::libc::ESRCH });
    }
    Ok(())
}

/// The namespaces of every sandbox.
const SEPARATE: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

fn namespaces(spec: &Spec) -> Result<(), StageError> {
    unshare(SEPARATE).at(SetupStep::Namespaces, "unshare")?;
    let _ = unshare(CloneFlags::CLONE_NEWCGROUP); // Linux 4.6, and nothing here depends on it
    if spec.network == Network::None {
        unshare(CloneFlags::CLONE_NEWNET).at(SetupStep::Namespaces, "unshare")?;
        net::loopback_up().at(SetupStep::Loopback, "lo")?;
    }
    guard(CallerDeath::Dies)
}
