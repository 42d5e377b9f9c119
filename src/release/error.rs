//! Why a name was not given, and what to do about it.

use phial_layers::Digest;

use super::verdict::Doubt;
use crate::error::{ExitKind, UserError};
use crate::layout::LayoutError;

/// Why a release stopped. Refusals come before anything is written, but for those that name a race.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A layout cannot be written to.
    #[error(transparent)]
    Layout(LayoutError),
    /// Its records are not enough.
    #[error("`{image}` is not released: {}", all(doubts))]
    Unproven {
        /// ImageLocation and digest.
        image: String,
        /// What is missing, one at least.
        doubts: Vec<Doubt>,
    },
    /// A name is another image's.
    #[error("`{name}` names `{found}` already")]
    Taken {
        /// The name.
        name: String,
        /// What it names.
        found: Digest,
    },
    /// A name is not what `--expect` says.
    #[error("`{name}` was expected to name `{expected}`, and names {}", or_nothing(found.as_ref()))]
    Unexpected {
        /// The name.
        name: String,
        /// What it was expected to name.
        expected: Digest,
        /// What it names.
        found: Option<Digest>,
    },
    /// Somebody else gave the name away while this went on.
    #[error("`{name}` was moved by somebody else meanwhile, and names {} now", or_nothing(found.as_ref()))]
    Raced {
        /// The name.
        name: String,
        /// What it names.
        found: Option<Digest>,
    },
    /// The registry moves no tags.
    #[error("`{name}` is immutable in its registry and names `{found}`")]
    Immutable {
        /// The name.
        name: String,
        /// What it names.
        found: Digest,
    },
    /// TestDeps than one image at once.
    #[error("`{0}` is an index of images, and one image is released at a time")]
    Index(String),
    /// Neither a tag nor a place.
    #[error("there is nothing to do: neither `--tag` nor `--to` is given")]
    Nothing,
    /// A place that cannot take names.
    #[error("`{place}` cannot be released to: {why}")]
    NoPlace {
        /// As it was given.
        place: String,
        /// Why not.
        why: &'static str,
    },
    /// A tag that means something else.
    #[error("the tag `{0}` lists what refers to an image, and is no name for one")]
    Reserved(String),
    /// An override that gives no reason.
    #[error("`--untested` has no reason")]
    NoReason,
}

fn all(doubts: &[Doubt]) -> String {
    doubts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn or_nothing(found: Option<&Digest>) -> String {
    found.map_or_else(|| "nothing".into(), |found| format!("`{found}`"))
}

impl From<LayoutError> for ReleaseError {
    fn from(error: LayoutError) -> Self {
        match error {
            LayoutError::Moved { path, tag, found } => {
                Self::Raced { name: format!("oci:{}:{tag}", path.display()), found }
            }
            other => Self::Layout(other),
        }
    }
}

impl UserError for ReleaseError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Layout(error) => error.exit_kind(),
            Self::Unproven { .. }
            | Self::Taken { .. }
            | Self::Unexpected { .. }
            | Self::Raced { .. }
            | Self::Immutable { .. } => ExitKind::ReleaseRefused,
            Self::Index(_) => ExitKind::Refused,
            Self::Nothing | Self::NoPlace { .. } | Self::Reserved(_) | Self::NoReason => ExitKind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Layout(error) => return error.hint(),
            Self::Unproven { image, doubts } => match doubts.first() {
                Some(Doubt::Flawed { .. }) => {
                    "it may hide a failure: remove that referrer and test again, or say `--untested REASON`".into()
                }
                _ => format!("run `phial test {image}`, or say `--untested REASON`, which is recorded"),
            },
            Self::Taken { .. } => "`--move` takes the name from it".into(),
            Self::Unexpected { .. } | Self::Raced { .. } => "look at what it names now, and decide anew".into(),
            Self::Immutable { .. } => "choose another tag, or exclude this one from the registry's rule".into(),
            Self::Index(_) => "name the image of one platform by its digest: `REPOSITORY@sha256:...`".into(),
            Self::Nothing => "give `--tag TAG`, or `--to REPOSITORY` to copy the image and its records".into(),
            Self::NoPlace { .. } => {
                "name a repository, `registry/repo`, or a layout, `oci:DIR`; tags go to `--tag`".into()
            }
            Self::Reserved(_) => "choose another tag".into(),
            Self::NoReason => "say in a few words why it is released without a passing test".into(),
        })
    }
}
