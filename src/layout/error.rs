//! Errors of layouts and archives.

use std::io;
use std::path::{Path, PathBuf};

use phial_layers::Digest;

use crate::error::{ExitKind, IoError, UserError};
use crate::image::{BlobError, BlobSourceError, ImageError};

/// Why a layout or archive was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The operating system refused an action on a path.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The path does not exist.
    #[error("there is no `{}`", path.display())]
    Absent {
        /// The directory or archive.
        path: PathBuf,
    },
    /// The path is not an OCI layout.
    #[error("`{}` is not an OCI layout: {why}", path.display())]
    NotALayout {
        /// The directory or archive.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
        /// What to do instead, if that is known.
        remedy: Option<String>,
    },
    /// An archive would replace a file that is not an archive.
    #[error("`{}` already exists and is not {kind}: {why}", path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
        /// What may be replaced: `an OCI archive`.
        kind: &'static str,
        /// What it is.
        why: String,
    },
    /// A document in it is refused.
    #[error("an image in `{}` is refused", path.display())]
    Image {
        /// The directory or archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// No such tag or digest, or no image at all.
    #[error("`{}` has no image{wanted}; it has {offered}", path.display())]
    NotFound {
        /// The directory or archive.
        path: PathBuf,
        /// The tag or digest asked for.
        wanted: String,
        /// The tags that are there.
        offered: String,
    },
    /// More than one image has the name.
    #[error("`{}` has more than one image{wanted}; it has {offered}", path.display())]
    Ambiguous {
        /// The directory or archive.
        path: PathBuf,
        /// The tag asked for.
        wanted: String,
        /// The tags that are there.
        offered: String,
    },
    /// A blob that a manifest or index names is not there.
    #[error("`{}` lacks the blob `{digest}`", path.display())]
    MissingBlob {
        /// The directory or archive.
        path: PathBuf,
        /// The blob.
        digest: Digest,
    },
    /// A link, pipe, device or directory where a file should be.
    #[error("`{name}` in `{}` is not a regular file", path.display())]
    NotRegular {
        /// The directory or archive.
        path: PathBuf,
        /// The entry.
        name: String,
    },
    /// A blob does not have its digest or size.
    #[error("a blob in `{}` does not match its digest", path.display())]
    Blob {
        /// The directory or archive.
        path: PathBuf,
        /// Expected and found.
        #[source]
        source: BlobError,
    },
    /// A tag was moved by another process.
    #[error("the tag `{tag}` in `{}` was moved by another process: it names {}", path.display(), found.as_ref().map_or("nothing now".into(), |found| format!("`{found}`")))]
    Moved {
        /// The directory.
        path: PathBuf,
        /// The tag.
        tag: String,
        /// What it names now.
        found: Option<Digest>,
    },
    /// A blob to be written is not available.
    #[error("cannot get the blob `{digest}` to write it to `{}`", path.display())]
    Source {
        /// The directory or archive.
        path: PathBuf,
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: BlobSourceError,
    },
}

impl LayoutError {
    /// The error of a blob that is not available and should be written to `path`.
    pub(super) fn source(path: &Path, digest: &Digest, source: impl Into<BlobSourceError>) -> Self {
        Self::Source { path: path.to_owned(), digest: digest.clone(), source: source.into() }
    }

    /// For `map_err`: the error of `action` on `path`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io(IoError { action, path, source })
    }

    /// For `map_err`: the headers of a tar cannot be read, or are none.
    pub(super) fn tar_headers(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other => Self::not_a_layout(&path, format!("its tar headers cannot be read: {source}")),
            _ => Self::Io(IoError { action: "read the tar headers of", path, source }),
        }
    }

    pub(super) fn image(path: &Path) -> impl FnOnce(ImageError) -> Self {
        let path = path.to_owned();
        move |source| Self::Image { path, source }
    }

    pub(super) fn not_a_layout(path: &Path, why: impl Into<String>) -> Self {
        Self::NotALayout { path: path.to_owned(), why: why.into(), remedy: None }
    }

    pub(super) fn not_a_directory(path: &Path) -> Self {
        let remedy = Some(format!("for an archive write `oci-archive:{}`", path.display()));
        Self::NotALayout { path: path.to_owned(), why: "it is not a directory".into(), remedy }
    }
}

impl UserError for LayoutError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Io(_) => ExitKind::Machine,
            Self::Source { source, .. } => source.exit_kind(),
            Self::Image { source, .. } => source.exit_kind(),
            _ => ExitKind::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Absent { .. } => Some("correct the path, or create a base image there with `phial base`".into()),
            Self::NotALayout { remedy, .. } => remedy.clone(),
            Self::Occupied { .. } => Some("name another file, or move this one away: it was not touched".into()),
            Self::Image { source, .. } => source.hint(),
            Self::Source { source, .. } => source.hint(),
            Self::Ambiguous { path, .. } => Some(format!("name one: `{}:TAG` or `{0}@sha256:...`", path.display())),
            Self::MissingBlob { .. } | Self::Blob { .. } | Self::NotRegular { .. } => {
                Some("copy or build the image again".into())
            }
            Self::Io(IoError { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space on this file system".into())
            }
            Self::Io(source) => source.hint(),
            Self::NotFound { .. } | Self::Moved { .. } => None, // their texts say what is there
        }
    }
}
