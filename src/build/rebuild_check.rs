//! `phial build --twice`: the same commit once more, with nothing cached and under other conditions, to see whether the
//! digest is a function of the inputs.
//!
//! The second build runs in a process of its own: another cache folder (on tmpfs where there is room, since directories are
//! listed in another order there), another user id, host name, umask, time zone and locale, one core where there are several,
//! and later.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getegid, geteuid, sethostname};
use phial_layers::Digest;

use super::reproducibility::{Order, ReproducibilityError, difference};
use super::{BuildRequest, UnpublishedImage};
use crate::context::Context;
use crate::error::{Error, IoError};
use crate::image::{BlobReader, Platform};
use crate::layout::Layout;
use crate::runtime::IsolationChoice;
use crate::sandbox::OURSELVES;

/// The name under which `main` finds [`entry`].
pub const NAME: &str = "__elsewhere";

/// Stands before what the second build tells the first.
const TOLD: &str = "elsewhere: ";

/// The user that the second build believes to be.
const OTHER_ID: u32 = 4321;

/// Builds once more, and compares.
pub(super) fn check(request: &BuildRequest, first: &UnpublishedImage<'_>, context: &Context<'_>) -> Result<(), Error> {
    let scratch = context.store.scratch()?;
    let to = scratch.path().join("second");
    let start = context.step_started("second build");
    let digest = again(request, first, &to, context)?;
    context.step_finished("second build", digest.as_str(), Some(start));
    if digest == first.image.manifest_digest {
        return Ok(());
    }
    let layout = Layout::open_dir(&to)?;
    let second = layout.resolve(None, Some(&digest), &Platform::host())?;
    let blobs = |digest: &Digest| {
        let layer = second.manifest.layers.iter().find(|layer| layer.digest == *digest);
        Ok(layer.map(|layer| layout.blob(layer)).transpose()?.map(|blob| Box::new(blob) as BlobReader))
    };
    Err(difference(first, (&second, &blobs), Order::BuiltFirst, context)?.into())
}

/// Builds the same to the layout `to`, elsewhere.
fn again(
    request: &BuildRequest,
    first: &UnpublishedImage<'_>,
    to: &Path,
    context: &Context<'_>,
) -> Result<Digest, Error> {
    let cache = to.with_file_name("cache");
    let mut command = Command::new(OURSELVES);
    command.arg(NAME).arg(&cache).args(arguments(request, first, to));
    command.env_clear().envs(&context.host.env).envs([("TZ", "Pacific/Chatham"), ("LC_ALL", "POSIX"), ("LANG", "C")]);
    command.env("PHIAL_CACHE_DIR", &cache).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().map_err(IoError::at("start", Path::new(OURSELVES)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let tail: Vec<String> = said.lines().rev().take(25).map(str::to_owned).collect();
        return Err(ReproducibilityError::Again(tail.into_iter().rev().collect()).into());
    }
    for line in said.lines().filter_map(|line| line.strip_prefix(TOLD)) {
        context.notice(format!("the second build {line}"));
    }
    let line = String::from_utf8_lossy(&output.stdout);
    let digest = line.trim().rsplit_once('@').and_then(|(_, digest)| digest.parse().ok());
    digest.ok_or_else(|| ReproducibilityError::Again(vec![line.into_owned()]).into())
}

/// The command line of the second build: what the first one came to, spelt out.
fn arguments(request: &BuildRequest, first: &UnpublishedImage<'_>, to: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> =
        ["build", "--no-cache", "--progress", "plain", "--rev", &first.built.commit].map(Into::into).to_vec();
    args.extend(["--to".into(), format!("oci:{}", to.display()).into()]);
    let isolation = match request.isolation {
        IsolationChoice::Auto => "auto".to_owned(),
        IsolationChoice::Only(isolation) => isolation.to_string(),
    };
    args.extend(["--isolation".into(), isolation.into()]);
    let flags = &request.flags;
    args.extend(["--base".into(), first.base_name.to_string().into()]);
    let network_options = &request.network_options;
    args.extend(network_options.authfile.iter().flat_map(|file| ["--authfile".into(), file.into()]));
    args.extend(network_options.ca_file.iter().flat_map(|file| ["--ca-file".into(), file.into()]));
    args.extend(network_options.plain_http.iter().flat_map(|name| ["--plain-http".into(), name.into()]));
    args.extend(flags.envs.iter().flat_map(|env| ["--env".into(), env.into()]));
    args.extend(flags.network.iter().flat_map(|network| ["--network".into(), network.as_str().into()]));
    args.extend(flags.compression.iter().flat_map(|compression| ["--compression".into(), compression.as_str().into()]));
    args.extend(request.config.iter().flat_map(|path| ["--config".into(), path.into()]));
    args.push(request.source.clone().into());
    args
}

/// Changes what can be changed about this process's shims, and builds. For `main`, when it is called by [`NAME`];
/// `args` are the cache folder and the command line.
pub fn entry(args: &[OsString]) -> ExitCode {
    let Some((cache, rest)) = args.split_first() else { return ExitCode::from(70) };
    umask(Mode::from_bits_truncate(0o077));
    let told = [("keeps its cores", cores()), ("keeps its user id and host name", elsewhere(Path::new(cache)))];
    for (what, done) in told {
        if let Err(why) = done {
            complain(&format!("{TOLD}{what}: {why}"));
        }
    }
    let failed = Command::new(OURSELVES).args(rest).exec();
    complain(&format!("cannot start `{OURSELVES}`: {failed}"));
    ExitCode::from(70)
}

#[expect(clippy::print_stderr, reason = "the first build reads it")]
fn complain(text: &str) {
    eprintln!("{text}");
}

/// One core instead of several; with one there is nothing to change.
fn cores() -> io::Result<()> {
    let mine = sched_getaffinity(Pid::this())?;
    let first = (0..CpuSet::count()).find(|cpu| mine.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.unwrap_or(0))?;
    Ok(sched_setaffinity(Pid::this(), &one)?)
}

/// Another id, host name and file system, in namespaces of our own.
fn elsewhere(cache: &Path) -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{OTHER_ID} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{OTHER_ID} {gid} 1"))?;
    sethostname("elsewhere")?;
    fs::create_dir_all(cache)?;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    let nothing: Option<&str> = None;
    nix::mount::mount(nothing, "/", nothing, private, nothing)?;
    if room() {
        nix::mount::mount(Some("elsewhere"), cache, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("mode=0700"))?;
    }
    Ok(())
}

/// Whether a base and a build may lie in memory: 6 GiB of it are free.
fn room() -> bool {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.is_some_and(|kib| kib > 6 << 20)
}
