//! `phial diff`.

use std::process::ExitCode;

use clap::Args;

use super::mouth::Mouth;
use super::{Common, Outcome, exit};
use crate::pipeline::{self, BuildError, World};

/// Compare two images or layers: exit code 0 if nothing differs, 1 if something does
#[derive(Args)]
pub(super) struct DiffArgs {
    /// `registry/repo[:tag][@digest]`, `oci:DIR[:tag]`, `oci-archive:FILE[:tag]`; or a layer's file, as `./FILE` or `/FILE`
    left: String,
    /// The other one
    right: String,
    /// Compare this layer of the images alone: its name, its number from below, or a digest
    #[arg(long)]
    layer: Option<String>,
    /// The second image's layer, where it is called otherwise
    #[arg(long, value_name = "LAYER", requires = "layer")]
    other_layer: Option<String>,
    /// List files that differ in their time alone, too
    #[arg(long)]
    times: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn diff(args: &DiffArgs, world: &World<'_>) -> Outcome {
    let of_right = args.other_layer.as_deref().or(args.layer.as_deref());
    let found = pipeline::diff((&args.left, args.layer.as_deref()), (&args.right, of_right), world)?;
    let text = if args.json { as_json(&found) } else { found.text(args.times) };
    Mouth::data(&text).map_err(BuildError::Stdout)?;
    Ok(if found.is_same() { ExitCode::SUCCESS } else { ExitCode::from(exit::DIFFERENT) })
}

fn as_json(found: &crate::compare::Comparison) -> String {
    let mut value = serde_json::to_value(found).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.insert("same".into(), found.is_same().into());
    }
    value.to_string()
}
