//! Giving names to a digest that has proof: the same bytes under more tags, in more places.
//!
//! First everything is looked at, then it is decided ([`plan`]), then it is done: whatever is refused is refused before
//! anything is written, and a name is given last.

mod apply;
mod error;
mod verdict;
mod inspect;
mod plan;

use std::path::PathBuf;

use phial_layers::Digest;

pub use error::ReleaseError;
pub use plan::{Facts, Name, Override, Plan, ReleasePolicy, Seen, plan};
pub use verdict::{Doubt, Verdict, judge};

use crate::context::Context;
use crate::error::Error;
use crate::event::Event;

/// One call of `phial release`.
#[derive(Clone, Debug, Default)]
pub struct ReleaseRequest {
    /// The image, by digest or tag.
    pub image: String,
    /// The tags it gets.
    pub tags: Vec<String>,
    /// The places it gets them in; where it is, if there are none.
    pub to: Vec<String>,
    /// What the user allows.
    pub leave: ReleasePolicy,
    /// The commands that must have passed, in place of those of the settings.
    pub requires: Vec<String>,
    /// Settings in place of the image's own `phial.toml`.
    pub config: Option<PathBuf>,
    /// Whether only to look and decide.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Released {
    /// What was written, or would be.
    pub plan: Plan,
    /// Each command that counts, and the record that proves it.
    pub proven: std::collections::BTreeMap<String, Digest>,
}

/// Gives the names that are asked for, or none.
pub fn release(ask: &ReleaseRequest, context: &Context<'_>) -> Result<Released, Error> {
    if ask.leave.untested.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
        return Err(ReleaseError::NoReason.into());
    }
    let start = context.step_started("image");
    let image = inspect::find(ask, context)?;
    context.step_finished("image", &format!("{}@{}", image.place, image.image.manifest_digest), Some(start));
    let facts = inspect::facts(ask, &image, context)?;
    for text in &facts.verdict.notes {
        (context.watch)(Event::Notice { text: text.clone() });
    }
    if facts.verdict.doubts.is_empty() && ask.leave.untested.is_some() {
        (context.watch)(Event::Notice {
            text: "its records are enough: `--untested` is not needed, and not recorded".into(),
        });
    }
    let proven = facts.verdict.proven.clone();
    let plan = plan(facts, &ask.leave)?;
    if !ask.dry_run {
        apply::act(&plan, &image, context)?;
    }
    Ok(Released { plan, proven })
}
