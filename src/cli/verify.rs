//! `phial verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::ui::Ui;
use super::{Common, IsolationArg, Outcome};
use crate::build::ReproducibilityError;
use crate::context::Context;
use crate::verify::{self, VerifyRequest};

/// Make an image again from what it records of itself, and compare
#[derive(Args)]
pub(super) struct VerifyArgs {
    /// The image: `registry/repo[:tag][@digest]`, `oci:DIR[:tag]` or `oci-archive:FILE[:tag]`
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The repository, where the recorded one cannot be reached
    #[arg(long, value_name = "PATH|URL")]
    source: Option<String>,
    /// The base, where the recorded one cannot be reached; it must have the recorded digest
    #[arg(long, value_name = "REF")]
    base: Option<String>,
    /// The settings it was built with, if they are not the commit's `phial.toml`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How steps are kept apart from the machine
    #[arg(long, value_enum, default_value_t = IsolationArg::Auto)]
    isolation: IsolationArg,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn verify(args: &VerifyArgs, context: &Context<'_>) -> Outcome {
    let of = VerifyRequest {
        image: args.image.clone(),
        source: args.source.clone(),
        base: args.base.clone(),
        config: args.config.clone(),
        isolation: args.isolation.into(),
    };
    let verified = verify::verify(&of, context);
    let line = match &verified {
        Ok(verdict) if args.json => {
            Some(json!({ "digest": verdict.digest, "equal": true, "record": verdict.record }).to_string())
        }
        Ok(verdict) => Some(format!("{} is what commit {} makes", verdict.digest, verdict.record.commit)),
        Err(error) if args.json => error.downcast_ref().and_then(differs),
        Err(_) => None,
    };
    if let Some(line) = line {
        Ui::data(&line)?;
    }
    verified.map(|_| ExitCode::SUCCESS)
}

fn differs(error: &ReproducibilityError) -> Option<String> {
    let ReproducibilityError::Differs { first, second, comparison, .. } = error else { return None };
    Some(json!({ "digest": first, "equal": false, "built": second, "comparison": comparison }).to_string())
}
