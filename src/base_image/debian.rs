//! A root filesystem as one plain tar, made of Debian's packages by mmdebstrap.
//!
//! The same packages make the same bytes, on any machine and any day: times are clamped to the order's epoch, and what
//! names the machine that made it (mirror, resolver, host name, logs) is taken out.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::IoError;
use crate::event::{Event, Watch};
use crate::host::Host;
use crate::image::DEFAULT_PATH;
use crate::runtime::OutputTail;

use super::error::BaseError;
pub use super::packages::{Debian, ELIXIR_PACKAGES, EPOCH, Purpose};
use super::{call, mirrors};

/// A root filesystem as one plain tar, in the scratch directory it was asked to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianRootfs {
    /// The tar.
    pub tar: PathBuf,
    /// What the image's config should put into the environment, so that its tools find each other for every user.
    pub env: BTreeMap<String, String>,
}

/// Makes a Debian root filesystem in `scratch` by `mmdebstrap`: as root directly, else in a user namespace with a range
/// of ids.
pub fn debian(order: &Debian, host: &Host, scratch: &Path, watch: Watch<'_>) -> Result<DebianRootfs, BaseError> {
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
            return Err(IoError { action: "create", path: empty, source: e }.into());
        }
        _ => {}
    }
    let mut append = tool("tar", host);
    append.args(call::append_dev(&tar, scratch, order.epoch));
    run("tar", append, watch)?;
    Ok(DebianRootfs { tar, env: call::env(order) })
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

/// Runs it to its end; its output is an event as it comes, and its last lines are in the error.
fn run(program: &'static str, mut command: Command, watch: Watch<'_>) -> Result<(), BaseError> {
    let io = |source| IoError { action: "run", path: program.into(), source };
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(BaseError::Missing { program }),
        spawned => spawned.map_err(io)?,
    };
    let mut output = OutputTail::default();
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
            output.push(&piece[..n]);
            watch(Event::StepOutput { step: "base".into(), bytes: piece[..n].to_vec() });
        }
    }
    let status = child.wait().map_err(io)?;
    if status.success() { Ok(()) } else { Err(BaseError::Failed { program, status, output: output.lines() }) }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
