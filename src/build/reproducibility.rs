//! Why a digest is not proven: what `phial verify` and `phial build --twice` stop with.

use phial_layers::Digest;

use super::UnpublishedImage;
use crate::compare::{Comparison, Culprit, Section, Side, compare};
use crate::config::Plan;
use crate::context::Context;
use crate::error::{Error, ExitKind, UserError};
use crate::image::{BlobSourceError, Blobs, Image, Provenance};
use crate::publish::stored_blob;
use crate::recipe::FORMAT;

/// Why a digest is not proven.
#[derive(Debug, thiserror::Error)]
pub enum ReproducibilityError {
    /// Not one of ours.
    #[error("`{0}` has no record of how it was made")]
    NoRecord(String),
    /// A record of another version.
    #[error("`{image}` has format {found}, and this Phial makes format {FORMAT}")]
    Format {
        /// The image.
        image: String,
        /// Its version.
        found: u32,
    },
    /// The image does not say what to make it from.
    #[error("`{image}` does not record where its {what} is")]
    Unrecorded {
        /// The image.
        image: String,
        /// The repository or the base.
        what: &'static str,
        /// The flag that says it.
        flag: &'static str,
    },
    /// What the image was made from cannot be had.
    #[error("the {what} that the image records cannot be had: `{name}`")]
    Gone {
        /// The repository or the base.
        what: &'static str,
        /// Its name.
        name: String,
        /// The flag that says where else it is.
        flag: &'static str,
        /// Why not.
        #[source]
        source: Error,
    },
    /// The commit's settings are not those that the image was made with.
    #[error("the image was made with other settings (`{recorded}`) than those of {here} (`{found}`)")]
    Settings {
        /// What the image records.
        recorded: Digest,
        /// Which settings were read.
        here: &'static str,
        /// What they come to.
        found: Digest,
    },
    /// A layer of the image is not what its digest says.
    #[error("the layer `{digest}` of the image is damaged")]
    Damaged {
        /// Its digest.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: BlobSourceError,
    },
    /// The second build failed where the first one did not.
    #[error("the second build failed; its last lines:\n{}", .0.join("\n"))]
    Again(Vec<String>),
    /// The two are not the same.
    #[error("not reproducible: `{first}` and `{second}` differ{}", told(.culprit.as_ref()))]
    Differs {
        /// The digest of the one.
        first: Digest,
        /// The digest of the other.
        second: Digest,
        /// What to look at first.
        culprit: Option<Culprit>,
        /// All that differs.
        comparison: Box<Comparison>,
    },
}

fn told(culprit: Option<&Culprit>) -> String {
    let Some(culprit) = culprit else { return String::new() };
    let place = match &culprit.place {
        Section::Layer(name) => format!("layer `{name}`"),
        Section::Config => "config".into(),
        Section::Manifest => "manifest".into(),
    };
    let path = culprit.path.as_ref().map(|path| format!(" `{}`:", path.trim_matches('"'))).unwrap_or_default();
    format!(", first in {place}:{path} {}", culprit.reason)
}

impl UserError for ReproducibilityError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::NoRecord(_) | Self::Format { .. } | Self::Damaged { .. } => ExitKind::Refused,
            Self::Unrecorded { .. } | Self::Settings { .. } => ExitKind::Usage,
            Self::Gone { source, .. } => source.exit_kind(),
            Self::Again(_) => ExitKind::Failed,
            Self::Differs { .. } => ExitKind::NotReproducible,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoRecord(_) => "only images that `phial build` made can be made again".into(),
            Self::Format { found, .. } if *found > FORMAT => "use the newer Phial that made it".into(),
            Self::Format { .. } => "use the older Phial that made it".into(),
            Self::Unrecorded { flag, .. } => format!("name it with `{flag}`"),
            Self::Gone { flag, source, .. } => match source.hint() {
                Some(hint) => format!("{hint}; or name another place with `{flag}`"),
                None => format!("name another place with `{flag}`"),
            },
            Self::Settings { .. } => "name the file of settings that it was built with, `--config FILE`".into(),
            Self::Differs { culprit: Some(culprit), .. } if by_chance(culprit) => {
                "if it goes through names that it makes up while it compiles, put `strict = true` under `[prepare]`"
                    .into()
            }
            _ => return None,
        })
    }
}

/// Whether it looks like the order of a map's keys: another part of a compiled module.
fn by_chance(culprit: &Culprit) -> bool {
    culprit.path.as_ref().is_some_and(|path| path.contains(".beam")) && culprit.reason.contains("chunk")
}

/// Which of two images a comparison shows on the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The image that was built here.
    BuiltFirst,
    /// The image that it is compared with.
    OtherFirst,
}

/// How a built image differs from another one, whose blobs come from `blobs`.
pub(crate) fn difference(
    built: &UnpublishedImage<'_>,
    (image, blobs): (&Image, Blobs<'_>),
    order: Order,
    context: &Context<'_>,
) -> Result<ReproducibilityError, Error> {
    let own = |digest: &Digest| match stored_blob(context, &built.image, digest)? {
        Some(blob) => Ok(Some(blob)),
        None => built.base.blob(context, digest),
    };
    let (left, right) = (Side::image(&built.image, &own), Side::image(image, blobs));
    let (left_digest, right_digest) = (built.image.manifest_digest.clone(), image.manifest_digest.clone());
    let (left, right, first, second) = match order {
        Order::BuiltFirst => (left, right, left_digest, right_digest),
        Order::OtherFirst => (right, left, right_digest, left_digest),
    };
    let comparison = compare(&left, &right)?;
    Ok(ReproducibilityError::Differs { first, second, culprit: comparison.first(), comparison: Box::new(comparison) })
}

/// Makes a plan follow an image's record: the recorded base digest, and settings with the recorded digest. `given` says
/// that the settings come from `--config`.
pub(super) fn follow_record(plan: &mut Plan, recorded: &Provenance, given: bool) -> Result<(), ReproducibilityError> {
    plan.pinned = Some(recorded.base_digest.clone());
    let here = if given { "`--config`" } else { "the commit" };
    let (recorded, found) = (recorded.settings.clone(), plan.digest());
    if found == recorded { Ok(()) } else { Err(ReproducibilityError::Settings { recorded, here, found }) }
}
