//! The command line: one file for each command. Results go to stdout; progress, notices and errors go to stderr.

mod base;
mod build;
mod cache;
mod cli_error;
mod diff;
mod doctor;
mod escape;
mod exit;
mod explain;
mod format;
mod lock;
mod panic_hook;
mod progress;
mod release;
mod run;
mod signals;
mod test;
mod ui;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::fs::Mode;
use rustix::process::umask;

use self::cli_error::CliError;
use self::ui::{ProgressStyle, Ui};
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
    /// Rebuild an image from its own record and compare
    Verify(verify::VerifyArgs),
    /// Run a command in an image, without root
    Run(run::RunArgs),
    /// Run an app's tests inside its image and record the result
    Test(test::TestArgs),
    /// Make a base image from Debian packages or a tar
    Base(base::BaseArgs),
    /// Write the digest of the base image to `phial.lock`
    Lock(lock::LockArgs),
    /// Give a tested image its tags
    Release(release::ReleaseArgs),
    /// List, inspect and prune what is cached between builds
    Cache(cache::CacheArgs),
    /// Check access to a registry: login, pull, push, mount, referrers
    Doctor(doctor::DoctorArgs),
    /// Compare two images or layers
    Diff(diff::DiffArgs),
    /// Explain why each layer was rebuilt or reused
    Explain(explain::ExplainArgs),
}

/// Options of every command.
#[derive(Args)]
struct Common {
    /// Progress style
    #[arg(long, value_enum, default_value_t = ProgressStyle::Auto)]
    progress: ProgressStyle,
    /// Directory of the local cache [default: `PHIAL_CACHE_DIR`, or `phial` in the user's cache directory]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Read registry logins from this file only
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Trust the certificates in this PEM file, in addition to the system's [default: `PHIAL_CA_FILE`]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Use plain HTTP for this registry; may be repeated [default: `PHIAL_PLAIN_HTTP`, separated by commas]
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

/// `--isolation`.
#[derive(Clone, Copy, ValueEnum)]
enum IsolationArg {
    /// The first of overlay, copy and chroot that works on this machine
    Auto,
    /// User namespace, with an overlay over the image
    Overlay,
    /// User namespace, with a copy of the image
    Copy,
    /// No namespaces, chroot into a copy of the image: for root in a container
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

/// `--network`.
#[derive(Clone, Copy, ValueEnum)]
enum NetworkArg {
    /// The network of this machine
    Host,
    /// Loopback only
    None,
}

/// How a command ends: with an exit code, or with an error that is to be printed.
type ExitResult = Result<ExitCode, Error>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    panic_hook::install();
    keep_own_access();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            Ui::arguments(error);
            return if is_help { ExitCode::SUCCESS } else { ExitKind::Usage.into() };
        }
    };
    let host = Host::read();
    match cli.command {
        Command::Build(args) => with_context(&host, &args.common, |context, ui| {
            build::build(&args, context, ui).inspect(|_| cache::prune_to_limit(context))
        }),
        Command::Verify(args) => with_context(&host, &args.common, |context, ui| verify::verify(&args, context, ui)),
        Command::Run(args) => with_context(&host, &args.common, |context, _| run::run(&args, context)),
        Command::Test(args) => with_context(&host, &args.common, |context, ui| {
            test::test(&args, context, ui).inspect(|_| cache::prune_to_limit(context))
        }),
        Command::Base(args) => with_context(&host, args.common(), |context, ui| {
            base::base(&args, context, ui).inspect(|_| cache::prune_to_limit(context))
        }),
        Command::Lock(args) => with_context(&host, &args.common, |context, ui| lock::lock(&args, context, ui)),
        Command::Release(args) => with_context(&host, &args.common, |context, ui| release::release(&args, context, ui)),
        Command::Cache(args) => with_context(&host, args.common(), |context, ui| cache::cache(&args, context, ui)),
        Command::Doctor(args) => with_context(&host, &args.common, |context, ui| doctor::doctor(&args, context, ui)),
        Command::Diff(args) => with_context(&host, &args.common, |context, ui| diff::diff(&args, context, ui)),
        Command::Explain(args) => with_context(&host, &args.common, |context, ui| explain::explain(&args, context, ui)),
    }
}

/// Takes from the umask the bits that would keep Phial from reading the files it creates.
fn keep_own_access() {
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask & Mode::from_raw_mode(0o077));
}

/// Runs a command and turns its end into an exit code; the only place where an [`Error`] is printed.
fn with_context(host: &Host, common: &Common, command: impl FnOnce(&Context<'_>, &Ui) -> ExitResult) -> ExitCode {
    let ui = Arc::new(Ui::new(common.progress));
    let run = || {
        let cancel: &'static AtomicBool = signals::listen().map_err(CliError::Signals)?;
        let store = Store::open(&cache_dir(host, common))?;
        let listener = Arc::clone(&ui);
        let client = Client::from_host(host, &common.network_options(host))?.with_upload_journal(store.uploads_dir());
        let client = client.with_notices(move |event| listener.event(event));
        let watch = |event| ui.event(event);
        command(&Context { host, store: &store, client: &client, watch: &watch, cancel }, &ui)
    };
    let outcome = run();
    ui.clear_progress();
    outcome.unwrap_or_else(|error| {
        if let Some(code) = signals::code() {
            Ui::interrupted();
            return code;
        }
        if error.exit_kind() != ExitKind::BrokenPipe {
            ui.error(&error);
        }
        error.exit_kind().into()
    })
}

/// The directory of the local cache: from the flag, the variable, or the XDG base directory specification.
fn cache_dir(host: &Host, common: &Common) -> PathBuf {
    let chosen = common.cache_dir.clone().or_else(|| host.var("PHIAL_CACHE_DIR").map(PathBuf::from));
    let dir = chosen.unwrap_or_else(|| match host.var("XDG_CACHE_HOME").filter(|dir| dir.starts_with('/')) {
        Some(xdg) => PathBuf::from(xdg).join("phial"),
        None => host.home.join(".cache/phial"),
    });
    host.cwd.join(dir)
}
