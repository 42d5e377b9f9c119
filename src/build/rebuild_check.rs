//! `phial build --twice`: builds the same commit a second time with nothing cached and under other conditions, and compares
//! the digests.
//!
//! The second build is a process with another cache directory (on tmpfs if there is room, where directories are listed in
//! another order), another user id, host name, umask, time zone and locale, and a single core. It begins in another second.

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

use super::reproducibility::{LeftSide, OtherImage, ReproducibilityError, difference};
use super::{BuildRequest, UnpublishedImage};
use crate::context::Context;
use crate::error::{Error, ExitKind, IoError};
use crate::image::{BlobReader, Platform};
use crate::layout::Layout;
use crate::runtime::IsolationChoice;
use crate::sandbox::OURSELVES;

/// The first argument by which `main` recognizes a call of [`entry`].
pub const NAME: &str = "__rebuild";

/// Prefix of the lines on stderr that the first build shows as notices.
const NOTICE: &str = "rebuild notice: ";

/// The user and group id of the second build.
const OTHER_ID: u32 = 4321;

/// Builds `request` a second time and compares the image with `first`.
pub(super) fn check(request: &BuildRequest, first: &UnpublishedImage<'_>, context: &Context<'_>) -> Result<(), Error> {
    let scratch = context.store.scratch()?;
    let to = scratch.path().join("second");
    let start = context.step_started("second build");
    context.host.wait_for_next_second();
    let digest = build_again(request, first, &to, context)?;
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
    let second = OtherImage { image: &second, blobs: &blobs };
    Err(difference(first, &second, LeftSide::Built, context)?.into())
}

/// Starts the second build, which writes its image to the layout `to`, and returns that image's digest.
fn build_again(
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
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last: Vec<String> = stderr.lines().rev().take(25).map(str::to_owned).collect();
        return Err(ReproducibilityError::SecondBuild(last.into_iter().rev().collect()).into());
    }
    for line in stderr.lines().filter_map(|line| line.strip_prefix(NOTICE)) {
        context.notice(format!("the second build {line}"));
    }
    let line = String::from_utf8_lossy(&output.stdout);
    let digest = line.trim().rsplit_once('@').and_then(|(_, digest)| digest.parse().ok());
    digest.ok_or_else(|| ReproducibilityError::SecondBuild(vec![line.into_owned()]).into())
}

/// The command line of the second build: the same build with the commit and the base image by digest.
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
    let app = first.built.app.path();
    args.extend(["--app".into(), if app.is_empty() { "." } else { app }.into()]);
    args.extend(["--base".into(), first.base_name.to_string().into()]);
    let network_options = &request.network_options;
    args.extend(network_options.authfile.iter().flat_map(|file| ["--authfile".into(), file.into()]));
    args.extend(network_options.ca_file.iter().flat_map(|file| ["--ca-file".into(), file.into()]));
    args.extend(network_options.plain_http.iter().flat_map(|name| ["--plain-http".into(), name.into()]));
    args.extend(flags.envs.iter().flat_map(|env| ["--env".into(), env.into()]));
    args.extend(flags.pass.iter().flat_map(|name| ["--pass".into(), name.into()]));
    args.extend(flags.network.iter().flat_map(|network| ["--network".into(), network.as_str().into()]));
    args.extend(flags.compression.iter().flat_map(|compression| ["--compression".into(), compression.as_str().into()]));
    args.extend(request.config.iter().flat_map(|path| ["--config".into(), path.into()]));
    args.push(request.source.clone().into());
    args
}

/// Changes the conditions of this process as far as the machine allows, and executes `phial` again. For `main`, when its
/// first argument is [`NAME`]; `args` are the cache directory and the command line.
pub fn entry(args: &[OsString]) -> ExitCode {
    let Some((cache, rest)) = args.split_first() else { return ExitKind::Internal.into() };
    umask(Mode::from_bits_truncate(0o077));
    let changes = [
        ("has the same cores", use_one_core()),
        ("has the same user id and host name", enter_namespaces(Path::new(cache))),
    ];
    for (unchanged, result) in changes {
        if let Err(error) = result {
            print(&format!("{NOTICE}{unchanged}: {error}"));
        }
    }
    let failed = Command::new(OURSELVES).args(rest).exec();
    print(&format!("cannot start `{OURSELVES}`: {failed}"));
    ExitKind::Internal.into()
}

#[expect(clippy::print_stderr, reason = "the first build reads it")]
fn print(text: &str) {
    eprintln!("{text}");
}

/// Restricts this process to the first of its cores.
fn use_one_core() -> io::Result<()> {
    let allowed = sched_getaffinity(Pid::this())?;
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.unwrap_or(0))?;
    Ok(sched_setaffinity(Pid::this(), &one)?)
}

/// Enters new namespaces with another id, another host name and, if there is room, a tmpfs for the cache directory.
fn enter_namespaces(cache: &Path) -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{OTHER_ID} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{OTHER_ID} {gid} 1"))?;
    sethostname("rebuild")?;
    fs::create_dir_all(cache)?;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    let none: Option<&str> = None;
    nix::mount::mount(none, "/", none, private, none)?;
    if has_room_in_memory() {
        nix::mount::mount(Some("rebuild"), cache, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("mode=0700"))?;
    }
    Ok(())
}

/// Whether a base image and a build fit in memory: 6 GiB of it are available.
fn has_room_in_memory() -> bool {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.is_some_and(|kib| kib > 6 << 20)
}
