//! `phial release`: gives a tested image its tags, in its own repository or in others, without changing its bytes.
//!
//! Everything is inspected first, then planned ([`plan`]), then applied: refusals come before anything is written, and tags
//! are written last.

mod apply;
mod error;
mod verdict;
mod inspect;
mod plan;

use std::path::PathBuf;

use phial_layers::Digest;

pub use error::ReleaseError;
pub use plan::{Destination, Inspection, Override, ReleaseName, ReleasePlan, ReleasePolicy, TagState, plan};
pub use verdict::{Problem, Verdict, evaluate};

use crate::context::Context;
use crate::error::Error;

/// One call of `phial release`.
#[derive(Clone, Debug, Default)]
pub struct ReleaseRequest {
    /// The image's reference, as the user wrote it.
    pub image: String,
    /// `--tag`: the tags that it gets.
    pub tags: Vec<String>,
    /// `--to`: repositories and layouts in which it gets them; where the image is, if there are none.
    pub to: Vec<String>,
    /// What the release may do.
    pub policy: ReleasePolicy,
    /// `--require`: commands that must have passed, in place of those of the settings.
    pub requires: Vec<String>,
    /// Settings in place of the image's own `phial.toml`.
    pub config: Option<PathBuf>,
    /// Whether nothing is written.
    pub dry_run: bool,
}

/// A release that was done, or only planned.
#[derive(Debug)]
pub struct Released {
    /// What was written, or would be written.
    pub plan: ReleasePlan,
    /// Each required command, and the digest of the record that proves it.
    pub proven: std::collections::BTreeMap<String, Digest>,
}

/// Releases an image: it gets all names that are asked for, or none.
pub fn release(request: &ReleaseRequest, context: &Context<'_>) -> Result<Released, Error> {
    if request.policy.untested.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
        return Err(ReleaseError::NoReason.into());
    }
    let start = context.step_started("image");
    let source = inspect::source(request, context)?;
    context.step_finished("image", &format!("{}@{}", source.location, source.image.manifest_digest), Some(start));
    let inspection = inspect::inspect(request, &source, context)?;
    for text in &inspection.verdict.notes {
        context.notice(text.as_str());
    }
    if inspection.verdict.problems.is_empty() && request.policy.untested.is_some() {
        context.notice("the image has passed its tests: `--untested` is not needed, and not recorded");
    }
    let proven = inspection.verdict.proven.clone();
    let plan = plan(inspection, &request.policy)?;
    if !request.dry_run {
        apply::apply(&plan, &source, context)?;
    }
    Ok(Released { plan, proven })
}
