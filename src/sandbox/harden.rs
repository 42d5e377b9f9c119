//! Restrictions of the command: capabilities, system calls (seccomp), resource limits.

use std::collections::BTreeMap;
use std::io;

use caps::{CapSet, Capability};
use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope,
};
use nix::libc;
use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit};
use rustix::thread::set_no_new_privs;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::protocol::{At, SetupStep, StageError};
use super::spec::{Spec, UsageLimits};

/// How the command is confined.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Confinement {
    /// Namespaces and a pivoted root.
    Namespaces,
    /// A plain chroot.
    Chroot,
}

/// The capabilities that remain: Docker's default list without `NET_RAW`, `MKNOD` and `AUDIT_WRITE`.
const KEPT: [Capability; 11] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETFCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_KILL,
];

/// Reduces the capability bounding set to [`KEPT`], so that not even the sandbox's root gets others by executing a
/// file. In a chroot `SYS_CHROOT` is dropped too, because root could leave the chroot with it.
pub(super) fn reduce_bounding_set(confinement: Confinement) -> Result<(), StageError> {
    let is_escape = |capability| confinement == Confinement::Chroot && capability == Capability::CAP_SYS_CHROOT;
    let kept = |capability| KEPT.contains(&capability) && !is_escape(capability);
    for capability in caps::all() {
        if !kept(capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(|_| io::Error::from_raw_os_error(libc::EPERM))
                .at(SetupStep::Harden, "PR_CAPBSET_DROP")?;
        }
    }
    drop(caps::clear(None, CapSet::Ambient));
    caps::clear(None, CapSet::Inheritable)
        .map_err(|_| io::Error::from_raw_os_error(libc::EPERM))
        .at(SetupStep::Harden, "capset")
}

/// Sets resource limits: no core files; a soft limit of 1024 open files and a hard limit of 65536; the processes of the spec.
pub(super) fn set_limits(limits: UsageLimits) -> Result<(), StageError> {
    let least = |limit: Option<u64>, most: u64| Some(limit.map_or(most, |limit| limit.min(most)));
    let maximum = least(getrlimit(Resource::Nofile).maximum, 65536);
    let files = Rlimit { current: least(maximum, 1024), maximum };
    setrlimit(Resource::Nofile, files).at(SetupStep::Harden, "RLIMIT_NOFILE")?;
    if let Some(processes) = limits.processes {
        let most = least(getrlimit(Resource::Nproc).maximum, processes.into());
        setrlimit(Resource::Nproc, Rlimit { current: most, maximum: most }).at(SetupStep::Harden, "RLIMIT_NPROC")?;
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).at(SetupStep::Harden, "RLIMIT_CORE")
}

/// Limits the processes of this PID namespace where its numbers are its own (Linux 6.14): the machine's root has no
/// `RLIMIT_NPROC`. On an older kernel the file would limit the whole machine. Called by PID 1 while it may write to the file.
pub(super) fn limit_pids(limits: UsageLimits) {
    let Some(processes) = limits.processes else { return };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if getpid().is_init() && version >= (6, 14) {
        // The kernel refuses fewer than 301. Where the file is read-only, as in containers, there is no limit.
        let _ = std::fs::write("/proc/sys/kernel/pid_max", processes.max(301).to_string());
    }
}

/// Cuts the command off from the machine's abstract sockets and, in a chroot, from signals to other processes than its own
/// (landlock(7), ABI 6), and from writing where the spec does not let it (ABI 1). An older kernel does without.
fn restrict_access(spec: &Spec) -> Result<(), StageError> {
    let restricted = ruleset(spec).and_then(RulesetCreated::restrict_self);
    restricted.map(|_| ()).map_err(|error| io::Error::other(error.to_string())).at(SetupStep::Harden, "landlock")
}

fn ruleset(spec: &Spec) -> Result<RulesetCreated, RulesetError> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let rules = rules.scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    let Some(writable) = &spec.writable else { return rules.create() };
    // Up to version 3: the later ones are about devices and sockets, not about files.
    let writes = AccessFs::from_write(ABI::V3);
    let mut rules = rules.handle_access(writes)?.create()?;
    let mounts = ["/tmp", "/dev", "/proc"].into_iter().chain(spec.tmpfs.iter().map(String::as_str));
    let binds = spec.binds.iter().map(|bind| bind.target.as_str());
    for path in mounts.chain(binds).chain(writable.iter().map(String::as_str)) {
        // What cannot be opened cannot be written to either.
        if let Ok(path) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(path, writes))?;
        }
    }
    // The caller's files, which a command opens again as `/dev/stdout`. A pipe needs no rule, and the kernel takes none.
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in streams {
        let access: BitFlags<AccessFs> = AccessFs::WriteFile | AccessFs::Truncate;
        let _ = (&mut rules).add_rule(PathBeneath::new(stream, access));
    }
    Ok(rules)
}

/// Sets `no_new_privs`, the Landlock rules and the seccomp filters for this thread and all processes that it starts. The last step: the
/// filters forbid what the steps before need.
pub(super) fn filter(spec: &Spec, confinement: Confinement) -> Result<(), StageError> {
    set_no_new_privs(true).at(SetupStep::Harden, "PR_SET_NO_NEW_PRIVS")?;
    restrict_access(spec)?;
    for (errno, rules) in [(libc::EPERM, denied(confinement)), (libc::ENOSYS, Ok(absent()))] {
        let program = rules.and_then(|rules| compile(rules, errno)).at(SetupStep::Harden, "seccomp")?;
        seccompiler::apply_filter(&program).map_err(|_| io::Error::last_os_error()).at(SetupStep::Harden, "seccomp")?;
    }
    Ok(())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn compile(rules: Rules, errno: i32) -> io::Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).map_err(io::Error::other)?;
    BpfProgram::try_from(filter).map_err(io::Error::other)
}

/// System calls that fail with `ENOSYS`, as on an older kernel: programs then use an older call.
fn absent() -> Rules {
    let mut rules = Rules::new();
    for call in [
        libc::SYS_clone3, // its flags are in memory, out of a filter's sight; libraries fall back to clone
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        SYS_OPEN_TREE_ATTR,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ] {
        deny(&mut rules, call, vec![]);
    }
    rules
}

/// System calls that fail with `EPERM`: mounts, namespaces, keys, kernel interfaces with a history of vulnerabilities.
/// From flatpak's `syscall_blocklist` and Docker's default profile. In its own PID namespace the command may trace
/// processes.
fn denied(confinement: Confinement) -> io::Result<Rules> {
    let mut rules = Rules::new();
    let tracing: &[i64] = if confinement == Confinement::Namespaces { &[] } else { TRACING };
    for &call in ALWAYS.iter().chain(tracing) {
        deny(&mut rules, call, vec![]);
    }
    #[cfg(target_arch = "x86_64")]
    deny(&mut rules, libc::SYS_uselib, vec![]);

    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWCGROUP,
    ];
    let clone = namespaces.map(|flag| rule([(0, masked(flag.cast_unsigned()), flag.cast_unsigned())]));
    deny(&mut rules, libc::SYS_clone, clone.into_iter().collect::<Result<_, _>>()?);

    let netlink = libc::AF_NETLINK.cast_unsigned();
    let mut socket = vec![rule([(0, SeccompCmpOp::Eq, netlink), (2, SeccompCmpOp::Ne, 0)])?]; // all but NETLINK_ROUTE
    for family in [libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK, libc::AF_XDP] {
        socket.push(rule([(0, SeccompCmpOp::Eq, family.cast_unsigned())])?);
    }
    deny(&mut rules, libc::SYS_socket, socket);

    let ioctl = [0x5412, 0x541c].map(|request| rule([(1, SeccompCmpOp::Eq, request)])); // TIOCSTI, TIOCLINUX
    deny(&mut rules, libc::SYS_ioctl, ioctl.into_iter().collect::<Result<_, _>>()?);

    let usual = [0, 8, 0x2_0000, 0x2_0008, u32::MAX].map(|persona| (0, SeccompCmpOp::Ne, persona));
    deny(&mut rules, libc::SYS_personality, vec![rule(usual)?]);

    let devices = |argument| {
        let kinds = [libc::S_IFCHR, libc::S_IFBLK].map(|kind| rule([(argument, masked(libc::S_IFMT), kind)]));
        kinds.into_iter().collect::<io::Result<Vec<_>>>()
    };
    deny(&mut rules, libc::SYS_mknodat, devices(2)?);
    #[cfg(target_arch = "x86_64")]
    deny(&mut rules, libc::SYS_mknod, devices(1)?);
    Ok(rules)
}

/// `open_tree_attr` of Linux 6.15, on all architectures.
const SYS_OPEN_TREE_ATTR: i64 = 467;

const TRACING: &[i64] = &[libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];

const ALWAYS: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_move_pages,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_set_mempolicy,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
];

/// Denies a system call if any of the rules matches, or always if there are none. Also denies its x32 variants: an
/// `x86_64` kernel reports the same architecture for them, with another number.
fn deny(rules: &mut Rules, call: i64, when: Vec<SeccompRule>) {
    #[cfg(target_arch = "x86_64")]
    {
        const X32: i64 = 0x4000_0000;
        let renumbered = match call {
            libc::SYS_ioctl => 514,
            libc::SYS_ptrace => 521,
            libc::SYS_kexec_load => 528,
            libc::SYS_move_pages => 533,
            libc::SYS_process_vm_readv => 539,
            libc::SYS_process_vm_writev => 540,
            other => other,
        };
        rules.insert(X32 | call, when.clone());
        rules.insert(X32 | renumbered, when.clone());
    }
    rules.insert(call, when);
}

fn masked(mask: u32) -> SeccompCmpOp {
    SeccompCmpOp::MaskedEq(u64::from(mask))
}

/// A rule that matches if all conditions hold: argument number, comparison, value; on the lower 32 bits, as the kernel
/// reads them.
fn rule<const N: usize>(conditions: [(u8, SeccompCmpOp, u32); N]) -> io::Result<SeccompRule> {
    let conditions = conditions
        .into_iter()
        .map(|(argument, op, value)| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, u64::from(value)))
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    SeccompRule::new(conditions).map_err(io::Error::other)
}
