//! `phial explain`.

use std::process::ExitCode;

use clap::Args;

use super::escape;
use super::format::seconds;
use super::ui::Ui;
use super::{Common, ExitResult};
use crate::build::BuildRecord;
use crate::context::Context;
use crate::explain::{self, Explanation, LayerExplanation};
use crate::image::{rfc3339, shown};

/// Explain why each layer was rebuilt or reused, compared with the build before
#[derive(Args)]
pub(super) struct ExplainArgs {
    /// Image or digest of a build on this machine [default: the last build of `--source`]
    image: Option<String>,
    /// Git repository whose last build is explained, as for `phial build`
    #[arg(long, value_name = "SOURCE", default_value = ".", conflicts_with = "image")]
    source: String,
    /// Directory of the app in the repository, as for `phial build`
    #[arg(long, value_name = "DIR", conflicts_with = "image")]
    app: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn explain(args: &ExplainArgs, context: &Context<'_>, ui: &Ui) -> ExitResult {
    let explanation = explain::explain(args.image.as_deref(), &args.source.parse()?, args.app.as_deref(), context)?;
    if args.json {
        ui.json(&serde_json::to_string(&explanation).unwrap_or_default())?;
    } else {
        ui.data(&as_text(&explanation))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_text(explanation: &Explanation) -> String {
    let mut lines = vec![format!("image {}", describe(&explanation.build))];
    lines.push(match &explanation.previous {
        Some(previous) => format!("after {}", describe(previous)),
        None => "no earlier build of the repository is on record".into(),
    });
    // One step makes the layers of all environments: what they have in common is printed once.
    for layers_of_step in explanation.layers.chunk_by(differ_in_name_only) {
        layers(layers_of_step, explanation.previous.is_some(), &mut lines);
    }
    lines.extend(explanation.gone.iter().map(|name| format!("{}: gone", shown(name))));
    lines.iter().map(|line| escape::line(line)).collect::<Vec<_>>().join("\n")
}

fn describe(record: &BuildRecord) -> String {
    let (image, commit) = (&record.image, &record.commit);
    format!("{image} of commit {commit} of {} ({})", shown(&record.source), rfc3339(record.time))
}

fn differ_in_name_only(one: &LayerExplanation, other: &LayerExplanation) -> bool {
    *one == LayerExplanation { name: one.name.clone(), ..other.clone() }
}

fn layers(layers_of_step: &[LayerExplanation], has_previous: bool, lines: &mut Vec<String>) {
    let Some(layer) = layers_of_step.first() else { return };
    let names: Vec<String> = layers_of_step.iter().map(|layer| shown(&layer.name)).collect();
    let how = if layer.cached { "cached" } else { "built" };
    lines.push(format!("{}: {how} in {}", names.join(", "), seconds(layer.millis)));
    let (files, named): (Vec<_>, Vec<_>) = layer.inputs.iter().partition(|name| name.starts_with("file "));
    let files: Vec<String> = files.iter().map(|name| shown(name.trim_start_matches("file "))).collect();
    let named: Vec<String> = named.iter().map(|name| shown(name)).collect();
    lines.push(format!("  inputs: {}", [named, files].concat().join(", ")));
    match &layer.changed {
        None if has_previous => lines.push("  new: the build before had no such layer".into()),
        None => {}
        Some(changed) if changed.is_empty() && layer.note.is_none() => lines.push("  no input changed".into()),
        Some(changed) => {
            lines.extend(changed.iter().flat_map(|input| &input.description).map(|words| format!("  {words}")));
        }
    }
    lines.extend(layer.note.iter().map(|note| format!("  {note}")));
}
