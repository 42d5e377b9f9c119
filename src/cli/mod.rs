//! The command line: one file per command, one ui that prints, one table of exit codes.
//!
//! stdout is data; everything else goes to stderr.

mod base;
mod build;
mod cache;
mod diff;
mod doctor;
mod exit;
mod explain;
mod cli_error;
mod panic_hook;
mod lock;
mod ui;
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

use self::cli_error::CliError;
use self::ui::{Progress, Ui};
use crate::context::Context;
use crate::error::{Error, ExitKind};
use crate::host::Host;
use crate::registry::{Client, NetworkOptions};
use crate::rootfs::Isolation;
use crate::runtime::IsolationChoice;
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
    fn network_options(&self, host: &Host) -> NetworkOptions {
        NetworkOptions {
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

impl From<IsolationArg> for IsolationChoice {
    fn from(arg: IsolationArg) -> Self {
        match arg {
            IsolationArg::Auto => Self::Auto,
            IsolationArg::Overlay => Self::Only(Isolation::Overlay),
            IsolationArg::Copy => Self::Only(Isolation::Copy),
            IsolationArg::Chroot => Self::Only(Isolation::Chroot),
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
type Outcome = Result<ExitCode, Error>;

/// Reads the arguments, does what they say, and tells how it ended.
pub fn main() -> ExitCode {
    panic_hook::own_panics();
    own_what_we_write();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitKind::Usage.into() };
        }
    };
    let host = Host::read();
    match cli.command {
        Command::Build(args) => with_context(&host, &args.common, |context, ui| {
            build::build(&args, context, ui).inspect(|_| cache::tidy(context))
        }),
        Command::Verify(args) => with_context(&host, &args.common, |context, _| verify::verify(&args, context)),
        Command::Run(args) => with_context(&host, &args.common, |context, _| run::run(&args, context)),
        Command::Test(args) => with_context(&host, &args.common, |context, ui| {
            test::test(&args, context, ui).inspect(|_| cache::tidy(context))
        }),
        Command::Base(args) => with_context(&host, args.common(), |context, ui| {
            base::base(&args, context, ui).inspect(|_| cache::tidy(context))
        }),
        Command::Lock(args) => with_context(&host, &args.common, |context, ui| lock::lock(&args, context, ui)),
        Command::Release(args) => with_context(&host, &args.common, |context, ui| release::release(&args, context, ui)),
        Command::Cache(args) => with_context(&host, args.common(), |context, ui| cache::cache(&args, context, ui)),
        Command::Doctor(args) => with_context(&host, &args.common, |context, ui| doctor::doctor(&args, context, ui)),
        Command::Diff(args) => with_context(&host, &args.common, |context, _| diff::diff(&args, context)),
        Command::Explain(args) => with_context(&host, &args.common, |context, _| explain::explain(&args, context)),
    }
}

/// Whatever the caller's umask takes from others, we can read and enter what we write.
fn own_what_we_write() {
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask & Mode::from_raw_mode(0o077));
}

/// Runs a verb and turns its end into an exit code; the only place where errors are printed.
fn with_context(host: &Host, common: &Common, act: impl FnOnce(&Context<'_>, &Ui) -> Outcome) -> ExitCode {
    let ui = Arc::new(Ui::new(common.progress));
    let run = || {
        let cancel: &'static AtomicBool = signals::listen().map_err(CliError::Signals)?;
        let store = Store::open(&cache_dir(host, common))?;
        let listener = Arc::clone(&ui);
        let client = Client::from_host(host, &common.network_options(host))?.with_upload_journal(store.uploads_dir());
        let client = client.with_notices(move |event| listener.hear(event));
        let watch = |event| ui.hear(event);
        act(&Context { host, store: &store, client: &client, watch: &watch, cancel }, &ui)
    };
    let ended = run();
    ui.quiet_line();
    ended.unwrap_or_else(|error| {
        if let Some(code) = signals::code() {
            Ui::interrupted();
            return code;
        }
        ui.error(&error);
        error.exit_kind().into()
    })
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
