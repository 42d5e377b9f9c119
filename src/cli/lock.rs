//! `phial lock`.

use std::process::ExitCode;

use clap::Args;

use super::ui::Ui;
use super::{Common, ExitResult};
use crate::context::Context;
use crate::lock;

/// Write the digest of the base image to `phial.lock`, a file to commit
#[derive(Args)]
pub(super) struct LockArgs {
    /// Path of a git working tree
    #[arg(default_value = ".")]
    source: String,
    /// Directory of the app in the repository, as for `phial build`
    #[arg(long, value_name = "DIR")]
    app: Option<String>,
    /// Base image to lock, if `phial.toml` names none
    #[arg(long, value_name = "REF")]
    base: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn lock(args: &LockArgs, context: &Context<'_>, ui: &Ui) -> ExitResult {
    let (path, lock) = lock::lock(&args.source.parse()?, args.app.as_deref(), args.base.as_deref(), context)?;
    ui.info(&format!("wrote `{}`", path.display()));
    ui.data(&format!("{}@{}", lock.base.name, lock.base.digest))?;
    Ok(ExitCode::SUCCESS)
}
