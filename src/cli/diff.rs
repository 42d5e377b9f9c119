//! `phial diff`.

use std::process::ExitCode;

use clap::Args;

use super::ui::Ui;
use super::{Common, ExitResult};
use crate::compare::Times;
use crate::context::Context;
use crate::diff::{self, DiffArgument};
use crate::error::ExitKind;

/// Compare two images or layers; exits with 1 if they differ
#[derive(Args)]
pub(super) struct DiffArgs {
    /// Image, as `registry/repo[:tag][@digest]`, `oci:DIR[:tag]` or `oci-archive:FILE[:tag]`; or the file of a layer, as `./FILE` or `/FILE`
    left: String,
    /// Image or layer to compare it with
    right: String,
    /// Compare only this layer of both images: its name, its number from the bottom, or its digest
    #[arg(long)]
    layer: Option<String>,
    /// Layer of the second image, if it has another name there
    #[arg(long, value_name = "LAYER", requires = "layer")]
    other_layer: Option<String>,
    /// Also list files that differ only in their time
    #[arg(long)]
    times: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn diff(args: &DiffArgs, context: &Context<'_>, ui: &Ui) -> ExitResult {
    let right_layer = args.other_layer.as_deref().or(args.layer.as_deref());
    let left = DiffArgument { name: &args.left, layer: args.layer.as_deref() };
    let found = diff::diff(left, DiffArgument { name: &args.right, layer: right_layer }, context)?;
    if args.json {
        ui.json(&as_json(&found))?;
    } else {
        ui.data(&found.text(if args.times { Times::Listed } else { Times::Counted }))?;
    }
    Ok(if found.is_same() { ExitCode::SUCCESS } else { ExitKind::Failed.into() })
}

fn as_json(found: &crate::compare::Comparison) -> String {
    let mut value = serde_json::to_value(found).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.insert("same".into(), found.is_same().into());
    }
    value.to_string()
}
