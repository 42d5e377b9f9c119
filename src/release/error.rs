//! Why an image was not released.

use phial_layers::Digest;

use super::verdict::Problem;
use crate::error::{ExitKind, UserError};
use crate::layout::LayoutError;

/// Why a release stopped. All but `Raced` and `Immutable` come before anything is written.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A layout could not be read or written.
    #[error(transparent)]
    Layout(LayoutError),
    /// The test records of the image do not suffice.
    #[error("`{image}` is not released: {}", all(problems))]
    Unproven {
        /// Location and digest.
        image: String,
        /// Why not, one problem at least.
        problems: Vec<Problem>,
    },
    /// A tag points to another image.
    #[error("`{name}` already points to `{found}`")]
    Taken {
        /// Location and tag.
        name: String,
        /// What the tag points to.
        found: Digest,
    },
    /// A tag does not point to the image that `--expect` names.
    #[error("`{name}` points to {}, but `--expect` says `{expected}`", or_nothing(found.as_ref()))]
    Unexpected {
        /// Location and tag.
        name: String,
        /// The argument of `--expect`.
        expected: Digest,
        /// What the tag points to.
        found: Option<Digest>,
    },
    /// Somebody else changed a tag after it was inspected.
    #[error("`{name}` was changed by somebody else during the release, and now points to {}", or_nothing(found.as_ref()))]
    Raced {
        /// Location and tag.
        name: String,
        /// What the tag points to.
        found: Option<Digest>,
    },
    /// The registry does not allow the tag to be moved.
    #[error("`{name}` is immutable in its registry and points to `{found}`")]
    Immutable {
        /// Location and tag.
        name: String,
        /// What the tag points to.
        found: Digest,
    },
    /// The reference is of several images.
    #[error("`{0}` is an index of images, and only a single image can be released")]
    Index(String),
    /// The command line names nothing to write.
    #[error("there is nothing to do: neither `--tag` nor `--to` is given")]
    Nothing,
    /// A location in which the image cannot get names.
    #[error("cannot release to `{location}`: {why}")]
    Location {
        /// The argument of `--to`, or where the image is.
        location: String,
        /// Why not.
        why: &'static str,
    },
    /// A tag of the form under which clients look for referrers.
    #[error("the tag `{0}` is reserved for referrers")]
    Reserved(String),
    /// The reason for `--untested` is empty.
    #[error("`--untested` has no reason")]
    NoReason,
}

fn all(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
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
            Self::Nothing | Self::Location { .. } | Self::Reserved(_) | Self::NoReason => ExitKind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Layout(error) => return error.hint(),
            Self::Unproven { image, problems } => match problems.first() {
                Some(Problem::Invalid { .. }) => {
                    "it may hide a failure: remove that referrer and test again, or give `--untested REASON`".into()
                }
                _ => format!("run `phial test {image}`, or give `--untested REASON`, which is recorded"),
            },
            Self::Taken { .. } => "use `--move` to move the tag to this image".into(),
            Self::Unexpected { .. } | Self::Raced { .. } => "check what it points to now, then release again".into(),
            Self::Immutable { .. } => "choose another tag, or exclude this one from the registry's rule".into(),
            Self::Index(_) => "name the image of one platform by its digest: `REPOSITORY@sha256:...`".into(),
            Self::Nothing => "give `--tag TAG`, or `--to REPOSITORY` to copy the image and its records".into(),
            Self::Location { .. } => {
                "give a repository, `registry/repo`, or a layout, `oci:DIR`, and the tag as `--tag`".into()
            }
            Self::Reserved(_) => "choose another tag".into(),
            Self::NoReason => "say in a few words why the image is released without passing tests".into(),
        })
    }
}
