//! `phial base`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::format::size;
use super::ui::Ui;
use super::{Common, ExitResult};
use crate::base_image::{self, BaseSource, Debian, EPOCH, Purpose, suite};
use crate::context::Context;

/// Make a base image from Debian packages or a tar
#[derive(Args)]
pub(super) struct BaseArgs {
    #[command(subcommand)]
    of: Of,
}

#[derive(Subcommand)]
enum Of {
    /// From Debian packages, with `mmdebstrap`
    Debian(DebianArgs),
    /// From the tar of a root filesystem, plain or compressed with gzip or zstd
    Import(ImportArgs),
}

#[derive(Args)]
struct DebianArgs {
    /// Debian release, by name or version
    #[arg(long, default_value = "trixie")]
    suite: String,
    /// What the image is for: the packages to start from
    #[arg(long = "for", value_enum, value_name = "PURPOSE", default_value_t = PurposeArg::Elixir)]
    purpose: PurposeArg,
    /// Packages to add, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    packages: Vec<String>,
    /// A line of `sources.list`, instead of the mirrors of this machine; may be repeated
    #[arg(long, value_name = "LINE")]
    mirror: Vec<String>,
    #[command(flatten)]
    to: To,
}

#[derive(Clone, Copy, ValueEnum)]
enum PurposeArg {
    /// Elixir, Erlang, Hex, rebar3, a C and C++ compiler, make, git, openssl, procps, certificates
    Elixir,
    /// What a release that brings its own Erlang needs: libraries, openssl, certificates
    Runtime,
    #[value(help = "A PostgreSQL server, as a service of tests")]
    Postgres,
    /// A Redis server, as a service of tests
    Redis,
    /// Debian's essential packages only
    Minimal,
}

#[derive(Args)]
struct ImportArgs {
    /// Tar of the root filesystem
    rootfs: PathBuf,
    #[command(flatten)]
    to: To,
}

#[derive(Args)]
struct To {
    /// Where the image goes: `registry/repo[:tag]`, `oci:DIR[:tag]`, `oci-archive:FILE[:tag]` or `docker-archive:FILE[:tag]`
    #[arg(long, value_name = "TARGET", required = true)]
    to: Vec<String>,
    #[command(flatten)]
    common: Common,
}

impl BaseArgs {
    pub(super) fn common(&self) -> &Common {
        match &self.of {
            Of::Debian(args) => &args.to.common,
            Of::Import(args) => &args.to.common,
        }
    }
}

pub(super) fn base(args: &BaseArgs, context: &Context<'_>, ui: &Ui) -> ExitResult {
    let (of, to) = match &args.of {
        Of::Debian(args) => {
            let purpose = match args.purpose {
                PurposeArg::Elixir => Purpose::Elixir,
                PurposeArg::Runtime => Purpose::Runtime,
                PurposeArg::Postgres => Purpose::Postgres,
                PurposeArg::Redis => Purpose::Redis,
                PurposeArg::Minimal => Purpose::Minimal,
            };
            let suite = suite(&args.suite);
            let packages = purpose.packages(suite, &args.packages);
            let debian = Debian { suite: suite.to_owned(), packages, mirrors: args.mirror.clone(), epoch: EPOCH };
            (BaseSource::Debian(debian), &args.to.to)
        }
        Of::Import(args) => (BaseSource::Tar(args.rootfs.clone()), &args.to.to),
    };
    let (image, targets) = base_image::create(&of, to, context)?;
    ui.info(&format!("  base             {:>9}", size(image.manifest.layers.iter().map(|layer| layer.size).sum())));
    ui.data(&format!("{}@{}", targets[0].without_digest(), image.manifest_digest))?;
    Ok(ExitCode::SUCCESS)
}
