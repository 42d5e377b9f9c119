//! `phial verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::ui::Ui;
use super::{Common, ExitResult, IsolationArg};
use crate::build::ReproducibilityError;
use crate::context::Context;
use crate::source::GitHost;
use crate::verify::{self, VerifyRequest};

/// Rebuild an image from its own record and compare the digests
#[derive(Args)]
pub(super) struct VerifyArgs {
    /// Image to verify: `registry/repo[:tag][@digest]`, `oci:DIR[:tag]` or `oci-archive:FILE[:tag]`
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Git repository to use instead of the recorded one
    #[arg(long, value_name = "PATH|URL")]
    source: Option<String>,
    /// Send your git credentials to this server, if the repository of the record or a submodule is there; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    git_host: Vec<GitHost>,
    /// Let the steps see this variable of yours; may be repeated
    #[arg(long, value_name = "NAME")]
    pass: Vec<String>,
    /// Base image to use instead of the recorded reference; it must have the recorded digest
    #[arg(long, value_name = "REF")]
    base: Option<String>,
    /// Settings file that the image was built with, if not the commit's `phial.toml`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sandbox isolation
    #[arg(long, value_enum, default_value_t = IsolationArg::Auto)]
    isolation: IsolationArg,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn verify(args: &VerifyArgs, context: &Context<'_>, ui: &Ui) -> ExitResult {
    let request = VerifyRequest {
        image: args.image.clone(),
        source: args.source.clone(),
        git_hosts: args.git_host.clone(),
        pass: args.pass.clone(),
        base: args.base.clone(),
        config: args.config.clone(),
        isolation: args.isolation.into(),
    };
    let verified = verify::verify(&request, context);
    let line = match &verified {
        Ok(rebuilt) if args.json => {
            Some(json!({ "digest": rebuilt.digest, "equal": true, "record": rebuilt.record }).to_string())
        }
        Ok(rebuilt) => Some(format!("{} is reproducible from commit {}", rebuilt.digest, rebuilt.record.commit)),
        Err(error) if args.json => error.downcast_ref().and_then(difference_as_json),
        Err(_) => None,
    };
    if let Some(line) = line {
        if args.json { ui.json(&line) } else { ui.data(&line) }?;
    }
    verified.map(|_| ExitCode::SUCCESS)
}

/// The result of a rebuild that differs; `None` for other errors.
fn difference_as_json(error: &ReproducibilityError) -> Option<String> {
    let ReproducibilityError::Differs { first, second, comparison, .. } = error else { return None };
    Some(json!({ "digest": first, "equal": false, "built": second, "comparison": comparison }).to_string())
}
