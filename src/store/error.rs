//! Errors of the store.

use std::io;
use std::path::{Path, PathBuf};

use phial_layers::{Digest, DigestError};

use crate::error::{ExitKind, IoError, UserError};

/// The store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused an action on a path.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The cache directory cannot be trusted or has another format.
    #[error("the cache directory `{}` {reason}", path.display())]
    Folder {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it: a predicate, such as `belongs to another user`.
        reason: String,
    },
    /// A layer disappeared from the store while it was in use, or was found damaged.
    #[error("the cached layer `{0}` is gone or damaged")]
    LayerLost(Digest),
    /// The content written does not have the expected digest.
    #[error("the blob has the digest `{found}`, not `{expected}`")]
    Mismatch {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the content.
        found: Digest,
    },
    /// A file in the store holds an invalid digest.
    #[error("a file in the cache holds an invalid digest")]
    Damaged(#[from] DigestError),
}

impl UserError for StoreError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Mismatch { .. } => ExitKind::Refused,
            _ => ExitKind::Machine,
        }
    }

    fn hint(&self) -> Option<String> {
        use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem};
        match self {
            Self::Io(IoError { source, .. }) => match source.kind() {
                QuotaExceeded => Some("the quota is used up; set `PHIAL_CACHE_DIR` to another disk".into()),
                PermissionDenied | ReadOnlyFilesystem | NotADirectory | NotFound => {
                    Some("set `PHIAL_CACHE_DIR` to a writable directory".into())
                }
                _ => None, // `Error::hint` has that of a full disk
            },
            Self::Folder { .. } => Some("set `PHIAL_CACHE_DIR` to a directory of your own".into()),
            Self::LayerLost(_) => Some("run the command again to rebuild it".into()),
            Self::Mismatch { .. } => {
                Some("run the command again; if it fails again, the image is damaged where it comes from".into())
            }
            Self::Damaged(_) => Some("remove the cache directory: the next command fills a new one".into()),
        }
    }
}

/// For `map_err`: the error of `action` on `path`.
pub(super) fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| IoError::at(action, path)(source).into()
}
