//! Stage 1, in the caller's namespaces at first: makes the namespaces, then starts PID 1 in them and waits.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Command;

use fork::{Fork, fork};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::io::retry_on_intr;
use rustix::process::{DumpableBehavior, Pid, WaitOptions, chdir, getegid, geteuid, set_dumpable_behavior, waitpid};

use super::protocol::{At, Job, Report, StageError, Step};
use super::spec::{Ids, Network, Root, Spec};
use super::stage::{self, StageChannel, envelope, guard, settle};
use super::{chroot, init, net};

/// The stage `__sandbox-outer`.
pub(super) fn run(talk: &mut StageChannel) -> Result<(), StageError> {
    settle()?;
    let Job::Run(order) = envelope()?.job else { return Err(wrong_job()) };
    if let Root::Chroot { dir } = &order.root {
        return chroot::run(&order, dir, talk);
    }
    guard(false)?;
    envelope()?;
    match order.network {
        Network::Shared(holder) => join(holder)?,
        Network::Host | Network::None => user_namespace(order.ids, talk)?,
    }
    namespaces(&order)?;
    // This process has one thread and its memory holds what PID 1 is to know, so PID 1 may be a copy of it.
    match fork().at(Step::Start, "fork")? {
        Fork::Child => init::run(&order, talk),
        Fork::Parent(pid) => {
            talk.say(&Report::Init(pid))?;
            retry_on_intr(|| waitpid(Pid::from_raw(pid), WaitOptions::empty())).at(Step::Start, "wait")?;
            Ok(())
        }
    }
}

/// The stage `__sandbox-ids`: becomes ourselves again with other arguments, as 0 of a user namespace.
pub(super) fn ids(talk: &mut StageChannel) -> Result<(), StageError> {
    guard(false)?;
    let Job::Ids { ids, hidden } = envelope()?.job else { return Err(wrong_job()) };
    user_namespace(ids, talk)?;
    unshare(CloneFlags::CLONE_NEWNS).at(Step::Namespaces, "unshare")?;
    chdir("/").at(Step::Start, "/")?;
    let error = Command::new("/proc/self/exe").args(hidden).env_clear().exec();
    Err(error).at(Step::Start, "/proc/self/exe")
}

/// The stage `__sandbox-net`: holds a user and a network namespace until the caller is gone. Nothing of the caller is in
/// its memory, so the caller, and nobody who joins, may look at it.
pub(super) fn net(talk: &mut StageChannel) -> Result<(), StageError> {
    settle()?;
    guard(false)?;
    let Job::Net { ids } = envelope()?.job else { return Err(wrong_job()) };
    user_namespace(ids, talk)?;
    unshare(CloneFlags::CLONE_NEWNET).at(Step::Namespaces, "unshare")?;
    net::loopback_up().at(Step::Loopback, "lo")?;
    guard(false)?;
    set_dumpable_behavior(DumpableBehavior::Dumpable).at(Step::Harden, "PR_SET_DUMPABLE")?;
    talk.say(&Report::Ready)?;
    drop(talk.go.read(&mut [0]));
    Ok(())
}

/// Becomes 0 of the user namespace that a [`net`] holds, in its network.
fn join(holder: i32) -> Result<(), StageError> {
    let _ = nix::unistd::setgroups(&[]);
    let open = |kind: &str| {
        let path = format!("/proc/{holder}/ns/{kind}");
        fs::File::open(&path).at(Step::Join, &path)
    };
    let (user, net) = (open("user")?, open("net")?);
    setns(&user, CloneFlags::CLONE_NEWUSER).at(Step::Join, "user")?;
    setns(&net, CloneFlags::CLONE_NEWNET).at(Step::Join, "net")?;
    guard(false)
}

fn wrong_job() -> StageError {
    StageError::Refused { step: Step::Start, on: "order".to_owned(), errno: nix::libc::EINVAL }
}

/// A user namespace in which the caller is 0.
///
/// The map is written by ourselves when one id is enough. `/proc/self/uid_map` belongs to root while a process is not
/// dumpable, so it is dumpable for that moment, in which nobody else is in the namespace.
fn user_namespace(ids: Ids, talk: &mut StageChannel) -> Result<(), StageError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let _ = nix::unistd::setgroups(&[]); // root's supplementary groups; nobody else may
    unshare(CloneFlags::CLONE_NEWUSER).at(Step::UserNamespace, "unshare")?;
    set_dumpable_behavior(DumpableBehavior::Dumpable).at(Step::Harden, "PR_SET_DUMPABLE")?;
    match ids {
        Ids::Single => map_self((0, uid), (0, gid))?,
        Ids::Ranges => {
            talk.say(&Report::WantsIds)?;
            talk.go.read_exact(&mut [0]).at(Step::MapIds, "newuidmap")?;
        }
    }
    guard(false)?;
    if talk.alone() {
        return Err(StageError::Refused { step: Step::Start, on: "caller".to_owned(), errno: nix::libc::ESRCH });
    }
    Ok(())
}

/// Maps one id, (inside, outside), of each kind, for this process's own new user namespace.
pub(super) fn map_self(uid: (u32, u32), gid: (u32, u32)) -> Result<(), StageError> {
    fs::write("/proc/self/setgroups", "deny").at(Step::MapIds, "/proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("{} {} 1", uid.0, uid.1)).at(Step::MapIds, "/proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("{} {} 1", gid.0, gid.1)).at(Step::MapIds, "/proc/self/gid_map")
}

fn namespaces(order: &Spec) -> Result<(), StageError> {
    let all = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(all).at(Step::Namespaces, "unshare")?;
    let _ = unshare(CloneFlags::CLONE_NEWCGROUP); // Linux 4.6, and nothing here depends on it
    if order.network == Network::None {
        unshare(CloneFlags::CLONE_NEWNET).at(Step::Namespaces, "unshare")?;
        net::loopback_up().at(Step::Loopback, "lo")?;
    }
    stage::guard(false)
}
