//! What `phial verify` and `phial build --twice` stop with: an image that cannot be rebuilt, or that is rebuilt differently.

use phial_layers::Digest;

use super::UnpublishedImage;
use crate::compare::{Cause, Comparison, FirstDifference, ImagePart, Side, cause, compare};
use crate::config::BuildPlan;
use crate::context::Context;
use crate::error::{Error, ExitKind, UserError};
use crate::image::{BlobSourceError, Blobs, Image, Provenance};
use crate::publish::stored_blob;
use crate::recipe::FORMAT;

/// Why an image is not shown to be reproducible.
#[derive(Debug, thiserror::Error)]
pub enum ReproducibilityError {
    /// The image was not built by Phial.
    #[error("`{0}` has no record of how it was made")]
    NoRecord(String),
    /// The image was built by another version.
    #[error("`{image}` has format {found}, and this Phial makes format {FORMAT}")]
    Format {
        /// The image.
        image: String,
        /// The format in its record.
        found: u32,
    },
    /// The record lacks the name of the repository or the base image.
    #[error("`{image}` does not record where its {what} is")]
    Unrecorded {
        /// The image.
        image: String,
        /// `repository` or `base image`.
        what: &'static str,
        /// The flag that names it.
        flag: &'static str,
    },
    /// The repository or the base image of the record is not available.
    #[error("the {what} `{name}` that the image records is not available")]
    Unavailable {
        /// `repository` or `base image`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The flag that names it elsewhere.
        flag: &'static str,
        /// Why not.
        #[source]
        source: Error,
    },
    /// The settings are not those that the image was built with.
    #[error("the image was built with other settings (`{recorded}`) than those of {settings_file} (`{found}`)")]
    Settings {
        /// The digest of the settings in the image's record.
        recorded: Digest,
        /// Which settings were read: `--config` or the commit's.
        settings_file: &'static str,
        /// The digest of the settings that were read.
        found: Digest,
    },
    /// A layer of the image cannot be read, or is not the one that its digest names.
    #[error("the layer `{digest}` of the image is damaged")]
    Damaged {
        /// Digest of the blob.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: BlobSourceError,
    },
    /// The second build of `--twice` failed where the first one did not; its last lines of output.
    #[error("the second build failed")]
    SecondBuild(Vec<String>),
    /// The two builds differ.
    #[error("not reproducible: `{first}` and `{second}` differ{}", first_in(.first_difference.as_ref()))]
    Differs {
        /// Digest of the image on the left of the comparison.
        first: Digest,
        /// Digest of the image on the right.
        second: Digest,
        /// The difference to look at first.
        first_difference: Option<FirstDifference>,
        /// Why that file differs, if its bytes tell.
        cause: Option<Cause>,
        /// All differences.
        comparison: Box<Comparison>,
    },
}

fn first_in(difference: Option<&FirstDifference>) -> String {
    let Some(FirstDifference { part, path, reason }) = difference else { return String::new() };
    let part = match part {
        ImagePart::Layer(name) => format!("layer `{name}`"),
        ImagePart::Config => "config".into(),
        ImagePart::Manifest => "manifest".into(),
    };
    let path = path.as_ref().map(|path| format!(" `{}`:", path.trim_matches('"'))).unwrap_or_default();
    format!(", first in {part}:{path} {reason}")
}

impl UserError for ReproducibilityError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::NoRecord(_) | Self::Format { .. } | Self::Damaged { .. } => ExitKind::Refused,
            Self::Unrecorded { .. } | Self::Settings { .. } => ExitKind::Usage,
            Self::Unavailable { source, .. } => source.exit_kind(),
            Self::SecondBuild(_) => ExitKind::Failed,
            Self::Differs { .. } => ExitKind::NotReproducible,
        }
    }

    fn output(&self) -> &[String] {
        if let Self::SecondBuild(lines) = self { lines } else { &[] }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoRecord(_) => "only images that `phial build` made can be rebuilt".into(),
            Self::Format { found, .. } if *found > FORMAT => "use the newer Phial that made it".into(),
            Self::Format { .. } => "use the older Phial that made it".into(),
            Self::Unrecorded { flag, .. } => format!("name it with `{flag}`"),
            Self::Unavailable { flag, source, .. } => match source.hint() {
                Some(hint) => format!("{hint}; or name another place with `{flag}`"),
                None => format!("name another place with `{flag}`"),
            },
            Self::Settings { .. } => "name the settings file that it was built with: `--config FILE`".into(),
            Self::Differs { cause: Some(Cause::Time), .. } => {
                "the bytes that differ look like a time: the step reads the machine's clock, as a statically linked program does; \
                 the time to store is in `SOURCE_DATE_EPOCH`"
                    .into()
            }
            Self::Differs { first_difference: Some(difference), .. } if is_download(difference) => {
                "Hex and rebar3 that the base image lacks are downloaded, each day the newest: name a base image that has them, or a \
                 version of Hex in `prepare.hex`"
                    .into()
            }
            Self::Differs { cause: Some(Cause::Pattern), .. } => {
                "the bytes that differ are a compiled regular expression, in which Erlang/OTP up to 27 leaves memory as it found it: \
                 an Erlang that is linked statically gets no memory that is cleared; link it with the base's C library, or use OTP 28"
                    .into()
            }
            Self::Differs { first_difference: Some(difference), .. } if may_be_map_order(difference) => {
                "if the app creates atoms while it compiles, set `strict = true` under `[prepare]`".into()
            }
            _ => return None,
        })
    }
}

/// Whether Hex or rebar3 differs, where Mix puts what it downloads.
fn is_download(difference: &FirstDifference) -> bool {
    let path = difference.path.as_deref().unwrap_or_default().trim_matches('"');
    path.contains("/archives/hex-") || path.ends_with("/rebar3")
}

/// Whether a part of a compiled module differs, as it does when a compiler goes through a map in another order.
fn may_be_map_order(difference: &FirstDifference) -> bool {
    difference.path.as_ref().is_some_and(|path| path.contains(".beam")) && difference.reason.contains("chunk")
}

/// Which of two images a comparison shows on the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftSide {
    /// The image that was built here.
    Built,
    /// The image that it is compared with.
    Other,
}

/// The image that a built one is compared with.
pub(crate) struct OtherImage<'a> {
    pub(crate) image: &'a Image,
    /// Its layers' blobs.
    pub(crate) blobs: Blobs<'a>,
}

/// How a built image differs from another one.
pub(crate) fn difference(
    built: &UnpublishedImage<'_>,
    other: &OtherImage<'_>,
    left_side: LeftSide,
    context: &Context<'_>,
) -> Result<ReproducibilityError, Error> {
    let built_blobs = |digest: &Digest| match stored_blob(context, &built.image, digest)? {
        Some(blob) => Ok(Some(blob)),
        None => built.base.blob(context, digest),
    };
    let (left, right) = (Side::image(&built.image, &built_blobs), Side::image(other.image, other.blobs));
    let (left_digest, right_digest) = (built.image.manifest_digest.clone(), other.image.manifest_digest.clone());
    let (left, right, first, second) = match left_side {
        LeftSide::Built => (left, right, left_digest, right_digest),
        LeftSide::Other => (right, left, right_digest, left_digest),
    };
    let comparison = compare(&left, &right)?;
    let first_difference = comparison.first();
    // An image that is verified may come from another machine.
    let uptimes = if left_side == LeftSide::Built { context.host.uptimes() } else { None };
    let cause = first_difference.as_ref().and_then(|difference| cause(&left, &right, difference, uptimes.as_ref()));
    Ok(ReproducibilityError::Differs { first, second, first_difference, cause, comparison: Box::new(comparison) })
}

/// Checks that a plan has the settings that an image records. `settings_file` names their origin for the error.
pub(super) fn check_settings(plan: &BuildPlan, record: &Provenance, settings_file: &'static str) -> Result<(), Error> {
    let (recorded, found) = (record.settings.clone(), plan.digest());
    if found == recorded {
        return Ok(());
    }
    Err(ReproducibilityError::Settings { recorded, settings_file, found }.into())
}
