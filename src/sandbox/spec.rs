//! What a sandbox is asked to do, as a value that crosses to the stages as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the root filesystem comes from, and with it the rung of isolation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// An overlay in namespaces, mounted with `userxattr` (whiteouts are 0/0 devices, opaque directories carry
    /// `user.overlay.opaque`). All three are on file systems that overlayfs takes.
    ///
    /// The mount is volatile: nothing is flushed to the disk, not even by `fsync` inside. Who keeps `upper` sees to that.
    ///
    /// Mount points that no lower tree has (`/proc`, `/dev`, `/tmp`, `/run`, `/etc/hosts`, `/etc/resolv.conf`, targets of
    /// binds) are made and removed again, but a directory above one stays copied up, with a new time.
    Overlay {
        /// Read-only trees, the topmost first; at most 500.
        lowers: Vec<PathBuf>,
        /// Receives what the command writes.
        upper: PathBuf,
        /// An empty directory on the file system of `upper`, for the kernel.
        work: PathBuf,
    },
    /// A directory that is written to directly, in namespaces.
    Plain {
        /// The root: a copy that the caller owns.
        dir: PathBuf,
    },
    /// A directory as root of a plain `chroot`: no namespaces, no mounts, real root only.
    Chroot {
        /// The root: a copy that the caller owns.
        dir: PathBuf,
    },
}

/// What the command reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Whatever the caller reaches.
    Host,
    /// Its own loopback and nothing else.
    None,
    /// The loopback that all who are given the same [`Loopback`](super::Loopback) share, by the id of its process.
    Shared(i32),
}

/// When a command that goes on running is ready; asked again and again from inside, until it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ready {
    /// This command, beside the other one, ends with 0.
    Command(Vec<String>),
    /// Somebody answers on this TCP port of 127.0.0.1.
    Port(u16),
}

/// Which ids exist in the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ids {
    /// One: the caller is 0. `chown` to any other id fails with `EINVAL`.
    Single,
    /// The caller is 0, and 1.. are the caller's largest ranges of `/etc/subuid` and `/etc/subgid`, mapped by
    /// `newuidmap` and `newgidmap`.
    Ranges,
}

/// A file or directory of the host, in sight of the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute, on the host.
    pub source: PathBuf,
    /// Absolute, inside: resolved in the root and created if it is missing.
    pub target: String,
    /// Whether writing fails with `EROFS`.
    pub read_only: bool,
}

/// Where the command's standard streams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// stdin is `/dev/null`; stdout and stderr, merged, go to the closure given to [`run`](super::run).
    Stream,
    /// The caller's own three. There is no controlling terminal either way.
    Inherit,
}

/// One command and everything around it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The root filesystem.
    pub root: Root,
    /// The command and its arguments; without a slash the command is looked for in `PATH` of `env`, inside the root.
    pub argv: Vec<String>,
    /// The whole environment: nothing is added.
    pub env: BTreeMap<String, String>,
    /// The working directory inside; must exist.
    pub cwd: String,
    /// User and group inside.
    pub user: (u32, u32),
    /// What the command reaches.
    pub network: Network,
    /// Which ids exist. A chroot has all of them.
    pub ids: Ids,
    /// More files in sight, bound in this order. Refused in a chroot.
    pub binds: Vec<Bind>,
    /// Directories that are empty, in memory and gone with the sandbox; made if they are missing. Refused in a chroot.
    pub tmpfs: Vec<String>,
    /// When [`serve`](super::serve) says that the command is ready; at once without it. Not asked in a chroot.
    pub ready: Option<Ready>,
    /// Content of `/etc/hosts`, read-only over the image's.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`; the image's own stays in sight without it.
    pub resolv: Option<String>,
    /// Where the standard streams go.
    pub stdio: Stdio,
    /// Whether the root itself is read-only (`/tmp`, `/run`, `/dev/shm` stay writable). Not enforced in a chroot.
    pub read_only: bool,
}

impl Spec {
    /// A command as 0 of one id in `/`, without variables, files of ours or a limit on what it reaches; its output is streamed.
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
        }
    }
}

impl fmt::Debug for Spec {
    /// Without the values of variables, which may be secret.
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
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The end in words: `failed with exit code 2`.
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
