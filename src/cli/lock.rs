//! `phial lock`.

use std::process::ExitCode;

use clap::Args;

use super::mouth::Mouth;
use super::{Common, Outcome};
use crate::pipeline::{self, World};

/// Write the digest of the base image to `phial.lock`, for the user to commit
#[derive(Args)]
pub(super) struct LockArgs {
    /// Path of a working tree
    #[arg(default_value = ".")]
    source: String,
    /// The image to lock, if `phial.toml` names none
    #[arg(long, value_name = "REF")]
    base: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn lock(args: &LockArgs, world: &World<'_>, mouth: &Mouth) -> Outcome {
    let (path, lock) = pipeline::lock(&args.source.parse()?, args.base.as_deref(), world)?;
    mouth.say(&format!("wrote `{}`", path.display()));
    Mouth::data(&format!("{}@{}", lock.base.name, lock.base.digest)).map_err(pipeline::BuildError::Stdout)?;
    Ok(ExitCode::SUCCESS)
}
