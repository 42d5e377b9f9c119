//! `phial release`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use phial_layers::Digest;
use serde_json::json;

use super::Common;
use super::ExitResult;
use super::ui::Ui;
use crate::context::Context;
use crate::release::{self, ReleaseName, ReleasePlan, ReleasePolicy, ReleaseRequest, Released};

/// Give a tested image its tags, in its own repository or in others
#[derive(Args)]
pub(super) struct ReleaseArgs {
    /// Image to release: `registry/repo[:tag][@digest]`, `oci:DIR[:tag]` or `oci-archive:FILE[:tag]`
    image: String,
    /// Tag that the image gets; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Repository that gets the image and its tags: `registry/repo` or `oci:DIR`; may be repeated [default: where the image is]
    #[arg(long, value_name = "REPOSITORY")]
    to: Vec<String>,
    /// Move tags that point to other images
    #[arg(long = "move")]
    may_move: bool,
    /// Move tags only if they point to this image
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    expect: Option<Digest>,
    /// Test command that must have passed; may be repeated [default: `release.requires` of the image's `phial.toml`, or all its test commands]
    #[arg(long, value_name = "NAME")]
    require: Vec<String>,
    /// Settings file to use instead of the image's `phial.toml`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Release without passing tests, for this reason, which is recorded with the image
    #[arg(long, value_name = "REASON")]
    untested: Option<String>,
    /// Check everything and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

fn digest(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|_| "not a digest: `sha256:` and 64 hexadecimal digits".to_owned())
}

pub(super) fn release(args: &ReleaseArgs, context: &Context<'_>, ui: &Ui) -> ExitResult {
    let request = ReleaseRequest {
        image: args.image.clone(),
        tags: args.tag.clone(),
        to: args.to.clone(),
        policy: ReleasePolicy { may_move: args.may_move, expect: args.expect.clone(), untested: args.untested.clone() },
        requires: args.require.clone(),
        config: args.config.clone(),
        dry_run: args.dry_run,
    };
    let released = release::release(&request, context)?;
    for line in summary(&released.plan, args.dry_run) {
        ui.info(&line);
    }
    if args.json {
        ui.json(&as_json(&released, args.dry_run))?;
    } else if !args.dry_run {
        for name in &released.plan.names {
            ui.data(&format!("{}@{}", name, released.plan.digest))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a release does to a name that has the digest already.
const UNCHANGED: &str = "unchanged";

/// What a release does to a name.
fn change(name: &ReleaseName, digest: &Digest) -> &'static str {
    match &name.previous {
        _ if name.tag.is_none() => "copied",
        None => "new",
        Some(was) if was == digest => UNCHANGED,
        Some(_) => "moved",
    }
}

/// A line for each thing that is written or would be, in order.
fn summary(plan: &ReleasePlan, dry_run: bool) -> Vec<String> {
    let would = if dry_run { "would be " } else { "" };
    let mut lines = Vec::new();
    if dry_run {
        lines.extend(plan.copies.iter().map(|place| format!("  {place}  would get the image and its referrers")));
        lines.extend(
            plan.untested.iter().map(|untested| format!("  the reason would be recorded: {}", untested.reason)),
        );
    }
    for name in &plan.names {
        let from = match &name.previous {
            Some(was) if *was != plan.digest => format!(" from {was}"),
            _ => String::new(),
        };
        let change = change(name, &plan.digest);
        let would = if change == UNCHANGED { "" } else { would };
        lines.push(format!("  {name}  {would}{change}{from}"));
    }
    lines
}

fn as_json(released: &Released, dry_run: bool) -> String {
    let plan = &released.plan;
    let names: Vec<_> = plan
        .names
        .iter()
        .map(|name| json!({ "name": name.to_string(), "change": change(name, &plan.digest), "was": name.previous }))
        .collect();
    json!({
        "digest": plan.digest,
        "dry_run": dry_run,
        "names": names,
        "copies": plan.copies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "proven": released.proven,
        "untested": plan.untested.as_ref().map(|untested| json!({ "reason": untested.reason, "doubts": untested.problems })),
    })
    .to_string()
}
