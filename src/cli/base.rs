//! `phial base`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::ui::{Ui, size};
use super::{Common, Outcome};
use crate::base_image::{self, BaseSource};
use crate::base_image::{Debian, EPOCH};
use crate::context::Context;

/// Make a base image
#[derive(Args)]
pub(super) struct BaseArgs {
    #[command(subcommand)]
    of: Of,
}

#[derive(Subcommand)]
enum Of {
    /// Of Debian packages, through mmdebstrap
    Debian(DebianArgs),
    /// Of any root filesystem tar, plain or compressed by gzip or zstd
    Import(ImportArgs),
}

#[derive(Args)]
struct DebianArgs {
    /// The release
    #[arg(long, default_value = "trixie")]
    suite: String,
    /// Packages beside the essential ones, with commas between them
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    packages: Vec<String>,
    /// A line of a sources.list in place of this machine's own mirrors; may be repeated
    #[arg(long, value_name = "LINE")]
    mirror: Vec<String>,
    #[command(flatten)]
    to: To,
}

#[derive(Args)]
struct ImportArgs {
    /// The tar
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

pub(super) fn base(args: &BaseArgs, context: &Context<'_>, ui: &Ui) -> Outcome {
    let (of, to) = match &args.of {
        Of::Debian(args) => {
            let packages = args.packages.iter().filter(|name| !name.is_empty()).cloned().collect();
            let order = Debian { suite: args.suite.clone(), packages, mirrors: args.mirror.clone(), epoch: EPOCH };
            (BaseSource::Debian(order), &args.to.to)
        }
        Of::Import(args) => (BaseSource::Tar(args.rootfs.clone()), &args.to.to),
    };
    let (image, targets) = base_image::create(&of, to, context)?;
    ui.say(&format!("  base             {:>9}", size(image.manifest.layers.iter().map(|layer| layer.size).sum())));
    Ui::data(&format!("{}@{}", targets[0].place(), image.manifest_digest))?;
    Ok(ExitCode::SUCCESS)
}
