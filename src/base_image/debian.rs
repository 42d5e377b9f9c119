//! A root filesystem as one plain tar, made of Debian's packages by mmdebstrap.
//!
//! The same packages make the same bytes, on any machine and any day: times are clamped to the order's epoch, and what
//! names the machine that made it (mirror, resolver, host name, logs) is taken out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::error::{ExitKind, UserError};
use crate::event::{Event, Watch};
use crate::host::Host;
use crate::image::DEFAULT_PATH;

use super::{call, mirrors};

/// The day Debian trixie was released, in seconds since 1970: what `phial base debian` clamps file times to unless told
/// otherwise. It must be later than the year 2000 (Mix takes older times for "missing") and must not lie in the future.
pub const EPOCH: i64 = 1_754_697_600;

/// What compiles and runs an Elixir app: Elixir, Hex and rebar3, what releases and tests commonly use of OTP, and the tools
/// that dependencies with C or C++ code need.
pub const ELIXIR_PACKAGES: [&str; 16] = [
    "ca-certificates",
    "elixir",
    "erlang-hex",
    "erlang-mnesia",
    "erlang-os-mon",
    "erlang-runtime-tools",
    "erlang-snmp",
    "erlang-ssh",
    "g++",
    "gcc",
    "git",
    "libc6-dev",
    "make",
    "openssl",
    "procps",
    "rebar3",
];

/// What a Debian base image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Compiling and running Elixir apps: [`ELIXIR_PACKAGES`].
    Elixir,
    /// Anything else: only the packages that are named.
    Minimal,
}

impl Purpose {
    /// Its packages, and `more` after them. The order does not reach the bytes.
    pub fn packages(self, more: &[String]) -> Vec<String> {
        let own: &[&str] = match self {
            Self::Elixir => &ELIXIR_PACKAGES,
            Self::Minimal => &[],
        };
        own.iter().map(ToString::to_string).chain(more.iter().filter(|name| !name.is_empty()).cloned()).collect()
    }
}

/// What a Debian root filesystem is made of. All of it reaches the bytes but `mirrors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debian {
    /// The release, such as `trixie`.
    pub suite: String,
    /// Packages beside the essential ones. `rebar3` is unpacked without what it depends on for its graphical tools.
    pub packages: Vec<String>,
    /// Lines of a sources.list; with none, this machine's own Debian sources with the suite replaced.
    pub mirrors: Vec<String>,
    /// No file is newer than this, in seconds since 1970.
    pub epoch: i64,
}

/// A root filesystem as one plain tar, in the scratch directory it was asked to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// The tar.
    pub tar: PathBuf,
    /// What the image's config should put into the environment, so that its tools find each other for every user.
    pub env: BTreeMap<String, String>,
}

/// Why there is no base.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// Not a name that Debian would give.
    #[error("`{0}` is no name of a Debian suite")]
    Suite(String),
    /// Not a name that Debian would give.
    #[error("`{0}` is no name of a Debian package")]
    Package(String),
    /// A program that makes bases is not installed.
    #[error("`{program}` is not installed")]
    Missing {
        /// The program; Debian's package has the same name.
        program: &'static str,
    },
    /// An ordinary user without the ids that a root filesystem's owners are mapped to.
    #[error("a Debian base needs a range of user ids, and `{user}` has none in `{file}`")]
    NoRange {
        /// The login name.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
    },
    /// The machine's apt sources hold no Debian one.
    #[error("this machine's apt sources name no Debian mirror")]
    NoMirror,
    /// The program ran and failed; what it said last is in here.
    #[error("`{program}` ended with {status}\n{said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        said: String,
    },
    /// A root filesystem that is not a tar, or compressed in a way that is not read.
    #[error("`{}` is {what}, not a tar, plain or compressed by gzip or zstd", path.display())]
    NotATar {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        what: &'static str,
    },
    /// The system refused.
    #[error("{what} `{}`", path.display())]
    Io {
        /// What was tried, such as `cannot read`.
        what: &'static str,
        /// On which file or program.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

impl UserError for BaseError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Suite(_) | Self::Package(_) => ExitKind::Usage,
            Self::NotATar { .. } => ExitKind::Refused,
            Self::Failed { .. } => ExitKind::Unavailable,
            Self::Missing { .. } | Self::NoRange { .. } | Self::NoMirror | Self::Io { .. } => ExitKind::Machine,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { program: "newuidmap" } => Some("`apt-get install uidmap`".into()),
            Self::Missing { program } => Some(format!("`apt-get install {program}`")),
            Self::NoRange { user, .. } => Some(format!(
                "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}` as root, or run this as root"
            )),
            Self::NoMirror => Some("name one with `--mirror 'deb URI SUITE main'`".into()),
            Self::NotATar { what: super::import::XZ, .. } => Some("unpack it with `xz -d` first".into()),
            Self::NotATar { what: super::import::BZIP2, .. } => Some("unpack it with `bzip2 -d` first".into()),
            Self::Suite(_) => Some("a suite is a code name such as `trixie`".into()),
            _ => None,
        }
    }
}

/// Makes a Debian root filesystem in `scratch` by `mmdebstrap`: as root directly, else in a user namespace with a range
/// of ids.
pub fn debian(order: &Debian, host: &Host, scratch: &Path, watch: Watch<'_>) -> Result<Rootfs, BaseError> {
    call::check(order)?;
    let mode = if host.uid == 0 { "root" } else { unshare(host)? };
    let mirrors =
        if order.mirrors.is_empty() { mirrors::of_this_machine(&order.suite)? } else { order.mirrors.clone() };

    let tar = scratch.join("rootfs.tar");
    let mut command = tool("mmdebstrap", host);
    command.args(call::arguments(order, &mirrors, mode, &tar)).env("SOURCE_DATE_EPOCH", order.epoch.to_string());
    command.env("TMPDIR", if host.uid == 0 || open_to_others(scratch) { scratch } else { Path::new("/tmp") });
    run("mmdebstrap", command, watch)?;

    // mmdebstrap leaves out /dev with its device nodes; the directory itself is a mount point that everyone expects.
    let empty = scratch.join("dev");
    match fs::create_dir(&empty) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(BaseError::Io { what: "cannot make", path: empty, source: e });
        }
        _ => {}
    }
    let mut append = tool("tar", host);
    append.args(call::append_dev(&tar, scratch, order.epoch));
    run("tar", append, watch)?;
    Ok(Rootfs { tar, env: call::env(order) })
}

/// Whether an ordinary user may map a range of ids, which the owners in a root filesystem need.
fn unshare(host: &Host) -> Result<&'static str, BaseError> {
    if !host.var("PATH").unwrap_or(DEFAULT_PATH).split(':').any(|dir| Path::new(dir).join("newuidmap").exists()) {
        return Err(BaseError::Missing { program: "newuidmap" });
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = login(&passwd, host.uid).unwrap_or_else(|| host.uid.to_string());
    for file in ["/etc/subuid", "/etc/subgid"] {
        let ranges = fs::read_to_string(file).unwrap_or_default();
        if !has_range(&ranges, &user, host.uid) {
            return Err(BaseError::NoRange { user, file });
        }
    }
    Ok("unshare")
}

fn login(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|f| {
        let same = f.get(2).is_some_and(|field| *field == uid);
        same.then(|| f.first().map(ToString::to_string)).flatten()
    })
}

fn has_range(ranges: &str, user: &str, uid: u32) -> bool {
    let uid = uid.to_string();
    ranges.lines().any(|line| {
        let mut fields = line.split(':');
        let owner = fields.next().unwrap_or_default();
        let count = fields.nth(1).and_then(|n| n.trim().parse::<u32>().ok()).unwrap_or(0);
        (owner == user || owner == uid) && count >= 65536
    })
}

/// The ids of a range are other users to the kernel: a scratch directory below a private home is closed to them.
fn open_to_others(dir: &Path) -> bool {
    dir.ancestors().all(|d| fs::metadata(d).is_ok_and(|m| m.permissions().mode() & 0o001 != 0))
}

/// A program with a clean environment: what a user's shell says must not reach the bytes. Proxies do not.
fn tool(program: &'static str, host: &Host) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", host.var("PATH").unwrap_or(DEFAULT_PATH)).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.env("HOME", &host.home);
    for name in ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        if let Some(value) = host.var(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs it to its end; what it says is an event as it comes, and its last lines are in the error.
fn run(program: &'static str, mut command: Command, watch: Watch<'_>) -> Result<(), BaseError> {
    let io = |source| BaseError::Io { what: "cannot run", path: PathBuf::from(program), source };
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(BaseError::Missing { program }),
        spawned => spawned.map_err(io)?,
    };
    let mut said = Vec::new();
    if let Some(mut pipe) = child.stderr.take() {
        let mut piece = [0; 4096];
        loop {
            let n = match pipe.read(&mut piece) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(io)?,
            };
            if n == 0 {
                break;
            }
            said.extend_from_slice(&piece[..n]);
            watch(Event::StepOutput { step: "base".into(), bytes: piece[..n].to_vec() });
        }
    }
    let status = child.wait().map_err(io)?;
    if status.success() { Ok(()) } else { Err(BaseError::Failed { program, status, said: tail(&said) }) }
}

fn tail(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Opens a file for reading, with its name in the error.
pub(super) fn open(path: &Path) -> Result<File, BaseError> {
    File::open(path).map_err(|source| BaseError::Io { what: "cannot read", path: path.into(), source })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
