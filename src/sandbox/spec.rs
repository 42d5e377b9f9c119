//! What a sandbox has to do: a value that is sent to its stages as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The root filesystem, and with it the kind of isolation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// An overlay in namespaces, mounted with `userxattr`: whiteouts are character devices 0:0, opaque directories have
    /// the extended attribute `user.overlay.opaque`. The file systems of all three must support overlayfs.
    ///
    /// The mount is volatile: nothing is synced to disk, not even by fsync(2) in the sandbox. Who keeps `upper` must
    /// sync it.
    ///
    /// Mount points that no lower directory has (`/proc`, `/dev`, `/tmp`, `/run`, `/etc/hosts`, `/etc/resolv.conf`,
    /// targets of binds) are created and removed again, but a directory above one stays in `upper`, with a new
    /// modification time.
    Overlay {
        /// Lower directories, topmost first; at most 500.
        lowers: Vec<PathBuf>,
        /// The upper directory, which gets what the command writes.
        upper: PathBuf,
        /// The work directory of overlayfs: empty, on the file system of `upper`.
        work: PathBuf,
    },
    /// A directory, in namespaces. The command writes to it directly.
    Plain {
        /// The root: a copy that the caller owns.
        dir: PathBuf,
    },
    /// A directory, without a user namespace; needs real root. In the other namespaces and with the usual mounts where root
    /// may make them, else in a plain chroot. The command writes to it directly.
    Chroot {
        /// The root: a copy that the caller owns.
        dir: PathBuf,
    },
}

/// The network of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The caller's network.
    Host,
    /// A loopback interface of its own, nothing else.
    None,
    /// The loopback interface of a [`Loopback`](super::Loopback), given by the id of its process.
    Shared(i32),
}

/// When a service is ready. Checked in the sandbox repeatedly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ready {
    /// When this command, run beside the service, ends with exit code 0.
    Command(Vec<String>),
    /// When this TCP port of 127.0.0.1 accepts connections.
    Port(u16),
}

/// Which ids exist in the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ids {
    /// One: the caller is 0. chown(2) to any other id fails with `EINVAL`.
    Single,
    /// The caller is 0, and 1.. are the caller's largest ranges in `/etc/subuid` and `/etc/subgid`, mapped by
    /// `newuidmap` and `newgidmap`.
    Ranges,
}

/// A bind mount of a file or directory of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute, on the host.
    pub source: PathBuf,
    /// Absolute, in the sandbox: resolved in its root, and created if it does not exist.
    pub target: String,
    /// Whether writes fail with `EROFS`.
    pub read_only: bool,
}

/// Where the command's standard streams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// stdin is `/dev/null`; stdout and stderr, merged, go to the callback of [`run`](super::run).
    Stream,
    /// The caller's. As with `Stream` there is no controlling terminal.
    Inherit,
}

/// What a command and all that it starts may use; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageLimits {
    /// Wall time.
    pub time: Option<Duration>,
    /// Bytes on its standard streams, if they are streamed.
    pub output: Option<u64>,
    /// Processes and threads at one time. Root has no such limit in a chroot, nor before Linux 6.14.
    pub processes: Option<u32>,
    /// Bytes of memory of all its processes together, and of each file system in memory. Looked at a few times in a second, so that
    /// a command may have more for a moment.
    pub memory: Option<u64>,
}

/// A command and its sandbox.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The root filesystem.
    pub root: Root,
    /// The command and its arguments. A command without a slash is searched for in the `PATH` of `env`, in the root.
    pub argv: Vec<String>,
    /// The complete environment.
    pub env: BTreeMap<String, String>,
    /// The working directory in the sandbox; must exist.
    pub cwd: String,
    /// User and group id in the sandbox.
    pub user: (u32, u32),
    /// The network.
    pub network: Network,
    /// Which ids exist. A chroot has all ids.
    pub ids: Ids,
    /// Bind mounts, in this order. An error in a chroot.
    pub binds: Vec<Bind>,
    /// Directories to mount a tmpfs on; created if they do not exist. An error in a chroot.
    pub tmpfs: Vec<String>,
    /// When the command is ready ([`run_with_events`](super::run_with_events)); `None`: once it is started. Not checked
    /// in a chroot.
    pub ready: Option<Ready>,
    /// Content of `/etc/hosts`, mounted read-only over the image's.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`; `None`: the image's.
    pub resolv: Option<String>,
    /// Where the standard streams go.
    pub stdio: Stdio,
    /// Whether the root itself is read-only (`/tmp`, `/run`, `/dev/shm` stay writable). Not enforced in a chroot.
    pub read_only: bool,
    /// Directories and files that the command may write to, absolute in the root, beside `/tmp`, `/dev`, `/proc`, `tmpfs` and
    /// `binds`; `None`: all that permissions allow. With a single id, all files belong to the user of the spec. Held by
    /// Landlock; on a kernel without it, not enforced.
    pub writable: Option<Vec<String>>,
    /// What the command may use.
    pub limits: UsageLimits,
}

impl Spec {
    /// A command as user 0 (a single id) in `/`, with the host's network, streamed output, and no variables, binds or
    /// files.
    pub fn new(root: Root, argv: Vec<String>) -> Self {
        Self {
            root,
            argv,
            env: BTreeMap::new(),
            cwd: "/".to_owned(),
            user: (0, 0),
            network: Network::Host,
            ids: Ids::Single,
            binds: Vec::new(),
            tmpfs: Vec::new(),
            ready: None,
            hosts: String::new(),
            resolv: None,
            stdio: Stdio::Stream,
            read_only: false,
            writable: None,
            limits: UsageLimits::default(),
        }
    }
}

impl fmt::Debug for Spec {
    /// Without the values of variables, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.env.keys().collect();
        f.debug_struct("Spec")
            .field("root", &self.root)
            .field("argv", &self.argv)
            .field("env", &names)
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("network", &self.network)
            .field("ids", &self.ids)
            .field("binds", &self.binds)
            .field("tmpfs", &self.tmpfs)
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

impl Exit {
    /// As a predicate for messages, such as `failed with exit code 2`.
    pub fn describe(self) -> String {
        match self {
            Self::Code(code) => format!("failed with exit code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(name) => format!("was ended by signal {signal} ({name})"),
                Err(_) => format!("was ended by signal {signal}"),
            },
        }
    }
}
