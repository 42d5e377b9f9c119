//! The command line: one file per command, one mouth that prints, one table of exit codes.
//!
//! stdout is data; everything else goes to stderr.

mod base;
mod build;
mod cache;
mod diff;
mod doctor;
mod exit;
mod explain;
mod failure;
mod fault;
mod lock;
mod mouth;
mod release;
mod run;
mod signals;
mod test;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::fs::Mode;
use rustix::process::umask;

use self::failure::Failure;
use self::mouth::{Mouth, Progress};
use crate::host::Host;
use crate::pipeline::{BuildError, Isolation, World};
use crate::registry::{Client, Wishes};
use crate::rootfs::Rung;
use crate::store::Store;

/// Puts an Elixir app into a container image: no daemon, no root, the same digest anywhere.
#[derive(Parser)]
#[command(name = "phial", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build an image from a git commit
    Build(build::BuildArgs),
    /// Make an image again from what it records of itself, and compare
    Verify(verify::VerifyArgs),
    /// Run a command in an image, without root
    Run(run::RunArgs),
    /// Run an app's tests in its image, and leave a record beside it
    Test(test::TestArgs),
    /// Make a base image
    Base(base::BaseArgs),
    /// Write the digest of the base image to `phial.lock`
    Lock(lock::LockArgs),
    /// Give a tested image its names
    Release(release::ReleaseArgs),
    /// Look at what is kept between builds, and remove it
    Cache(cache::CacheArgs),
    /// Say what works here and what does not
    Doctor(doctor::DoctorArgs),
    /// Compare two images or layers
    Diff(diff::DiffArgs),
    /// Say from what each layer of a build followed, and what differs from the build before
    Explain(explain::ExplainArgs),
}

/// What every command takes.
#[derive(Args)]
struct Common {
    /// How to talk on stderr
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    /// Where blobs and trees are kept [default: `PHIAL_CACHE_DIR`, or `phial` in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// The only file to look for logins to registries in
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Certificates to trust beside the system's [default: `PHIAL_CA_FILE`]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A registry that is spoken to in plain http; may be repeated [default: `PHIAL_PLAIN_HTTP`, commas between]
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,
}

impl Common {
    fn wishes(&self, host: &Host) -> Wishes {
        Wishes {
            authfile: self.authfile.as_ref().map(|path| host.cwd.join(path)),
            ca_file: self.ca_file.clone(),
            plain_http: self.plain_http.clone(),
        }
    }
}

/// How steps are kept apart from the machine.
#[derive(Clone, Copy, ValueEnum)]
enum IsolationArg {
    /// The best that works here
    Auto,
    /// User namespace, overlay
    Overlay,
    /// User namespace, a copy of the base
    Copy,
    /// No namespaces: for root in a plain container
    Chroot,
}

impl From<IsolationArg> for Isolation {
    fn from(arg: IsolationArg) -> Self {
        match arg {
            IsolationArg::Auto => Self::Auto,
            IsolationArg::Overlay => Self::Only(Rung::Overlay),
            IsolationArg::Copy => Self::Only(Rung::Copy),
            IsolationArg::Chroot => Self::Only(Rung::Chroot),
        }
    }
}

/// Whether a command reaches the network.
#[derive(Clone, Copy, ValueEnum)]
enum NetworkArg {
    /// The machine's
    Host,
    /// Loopback only
    None,
}

/// The command's end: an error, or the exit code of what was run.
type Outcome = Result<ExitCode, BuildError>;

/// Reads the arguments, does what they say, and tells how it ended.
pub fn main() -> ExitCode {
    fault::own_panics();
    own_what_we_write();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(exit::USAGE) };
        }
    };
    let host = Host::read();
    match cli.command {
        Command::Build(args) => with_world(&host, &args.common, |world, mouth| {
            build::build(&args, world, mouth).inspect(|_| cache::tidy(world))
        }),
        Command::Verify(args) => with_world(&host, &args.common, |world, _| verify::verify(&args, world)),
        Command::Run(args) => with_world(&host, &args.common, |world, _| run::run(&args, world)),
        Command::Test(args) => with_world(&host, &args.common, |world, mouth| {
            test::test(&args, world, mouth).inspect(|_| cache::tidy(world))
        }),
        Command::Base(args) => with_world(&host, args.common(), |world, mouth| {
            base::base(&args, world, mouth).inspect(|_| cache::tidy(world))
        }),
        Command::Lock(args) => with_world(&host, &args.common, |world, mouth| lock::lock(&args, world, mouth)),
        Command::Release(args) => with_world(&host, &args.common, |world, mouth| release::release(&args, world, mouth)),
        Command::Cache(args) => with_world(&host, args.common(), |world, mouth| cache::cache(&args, world, mouth)),
        Command::Doctor(args) => with_world(&host, &args.common, |world, mouth| doctor::doctor(&args, world, mouth)),
        Command::Diff(args) => with_world(&host, &args.common, |world, _| diff::diff(&args, world)),
        Command::Explain(args) => with_world(&host, &args.common, |world, _| explain::explain(&args, world)),
    }
}

/// Whatever the caller's umask takes from others, we can read and enter what we write.
fn own_what_we_write() {
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask & Mode::from_raw_mode(0o077));
}

fn with_world<E: Into<Failure>>(
    host: &Host,
    common: &Common,
    act: impl FnOnce(&World<'_>, &Mouth) -> Result<ExitCode, E>,
) -> ExitCode {
    let mouth = Arc::new(Mouth::new(common.progress));
    let tools = || {
        let cancel: &'static AtomicBool = signals::listen().map_err(BuildError::Signals)?;
        let store = Store::open(&cache_dir(host, common))?;
        let heard = Arc::clone(&mouth);
        let client = Client::from_host(host, &common.wishes(host))?.with_notes(store.uploads_dir());
        Ok((cancel, store, client.telling(move |event| heard.hear(event))))
    };
    let ended = tools().map_err(|error: BuildError| error.into()).and_then(|(cancel, store, client)| {
        let watch = |event| mouth.hear(event);
        act(&World { host, store: &store, client: &client, watch: &watch, cancel }, &mouth).map_err(Into::into)
    });
    mouth.quiet_line();
    match ended {
        Ok(code) => code,
        Err::<_, Failure>(error) => {
            if let Some(code) = signals::code() {
                Mouth::interrupted();
                return code;
            }
            mouth.error(&error);
            ExitCode::from(error.code)
        }
    }
}

/// Where things are kept: as told, or where the XDG base directory specification says.
fn cache_dir(host: &Host, common: &Common) -> PathBuf {
    let given = common.cache_dir.clone().or_else(|| host.var("PHIAL_CACHE_DIR").map(PathBuf::from));
    let dir = given.unwrap_or_else(|| match host.var("XDG_CACHE_HOME").filter(|dir| dir.starts_with('/')) {
        Some(xdg) => PathBuf::from(xdg).join("phial"),
        None => host.home.join(".cache/phial"),
    });
    host.cwd.join(dir)
}
