//! `phial explain`.

use std::process::ExitCode;

use clap::Args;

use super::ui::{Ui, seconds};
use super::{Common, Outcome};
use crate::build::BuildRecord;
use crate::context::Context;
use crate::explain::{self, Explanation, LayerExplanation};
use crate::image::{rfc3339, shown};

/// Say from what each layer of a build followed, and what differs from the build before
#[derive(Args)]
pub(super) struct ExplainArgs {
    /// A digest, or an image as for `phial run` [default: the last build of the repository]
    image: Option<String>,
    /// Path or URL of the repository whose last build is meant
    #[arg(long, value_name = "SOURCE", default_value = ".", conflicts_with = "image")]
    source: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn explain(args: &ExplainArgs, context: &Context<'_>) -> Outcome {
    let told = explain::explain(args.image.as_deref(), &args.source.parse()?, context)?;
    let text = if args.json { serde_json::to_string(&told).unwrap_or_default() } else { in_words(&told) };
    Ui::data(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn in_words(told: &Explanation) -> String {
    let mut lines = vec![format!("image {}", which(&told.build))];
    lines.push(match &told.previous {
        Some(previous) => format!("after {}", which(previous)),
        None => "no earlier build of the repository is on record".into(),
    });
    // One call makes the layers of all environments: what is the same of them is said once.
    for stories in told.layers.chunk_by(is_of_one_call) {
        layers(stories, told.previous.is_some(), &mut lines);
    }
    lines.extend(told.gone.iter().map(|name| format!("{}: gone", shown(name))));
    lines.join("\n")
}

fn which(record: &BuildRecord) -> String {
    let (image, commit) = (&record.image, &record.commit);
    format!("{image} of commit {commit} of {} ({})", shown(&record.source), rfc3339(record.time))
}

fn is_of_one_call(one: &LayerExplanation, other: &LayerExplanation) -> bool {
    *one == LayerExplanation { name: one.name.clone(), ..other.clone() }
}

fn layers(stories: &[LayerExplanation], has_previous: bool, lines: &mut Vec<String>) {
    let Some(story) = stories.first() else { return };
    let names: Vec<String> = stories.iter().map(|story| shown(&story.name)).collect();
    let how = if story.cached { "cached" } else { "made" };
    lines.push(format!("{}: {how} in {}", names.join(", "), seconds(story.millis)));
    let (files, named): (Vec<_>, Vec<_>) = story.inputs.iter().partition(|name| name.starts_with("file "));
    let files: Vec<String> = files.iter().map(|name| shown(name.trim_start_matches("file "))).collect();
    let named: Vec<String> = named.iter().map(|name| shown(name)).collect();
    lines.push(format!("  follows from {}", [named, files].concat().join(", ")));
    match &story.changed {
        None if has_previous => lines.push("  new: the build before had no such layer".into()),
        None => {}
        Some(changed) if changed.is_empty() && story.note.is_none() => lines.push("  no input changed".into()),
        Some(changed) => {
            lines.extend(changed.iter().flat_map(|input| &input.description).map(|words| format!("  {words}")))
        }
    }
    lines.extend(story.note.iter().map(|note| format!("  {note}")));
}
