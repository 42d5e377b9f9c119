//! Where writers get the blobs of an image, and how that fails.
//!
//! A source of blobs has typed errors. The stream that it opens is a [`Read`], which can fail with an [`io::Error`] only:
//! [`stream_error`] puts a typed error into one, and [`read_exit_kind`] is the one function that looks for it there.

use std::io::{self, Read};

use phial_layers::Digest;

use crate::error::{Error, ExitKind};

/// The stored bytes of a blob, from the first one.
pub type BlobReader = Box<dyn Read + Send>;

/// A source of blobs by digest; `None` if it does not have the blob. It may be called from many threads. Whoever asks
/// checks the bytes against the digest.
pub type Blobs<'a> = &'a (dyn Fn(&Digest) -> Result<Option<BlobReader>, Error> + Sync);

/// Why the bytes of a blob cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BlobSourceError {
    /// The source does not have it.
    #[error("it is not in the cache and not where the image comes from")]
    Missing,
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] Error),
    /// Its stream failed, or has other bytes than the digest says.
    #[error(transparent)]
    Read(#[from] io::Error),
}

impl BlobSourceError {
    /// How a command ends that needed the blob.
    pub fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Missing => ExitKind::Machine,
            Self::Open(error) => error.exit_kind(),
            Self::Read(error) => read_exit_kind(error).unwrap_or(ExitKind::Machine),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Missing | Self::Read(_) => None,
        }
    }

    /// Whether the bytes were not those of the digest: another try may get the right ones.
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Read(error) if error.kind() == io::ErrorKind::InvalidData)
    }
}

/// An error of any module as the error of a stream.
pub fn stream_error(error: impl Into<Error>) -> io::Error {
    io::Error::other(error.into())
}

/// The exit kind of a stream's error: that of the error inside, or `Refused` for other bytes than the digest says
/// ([`super::BlobError`]). `None` if the operating system failed.
pub fn read_exit_kind(error: &io::Error) -> Option<ExitKind> {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => Some(error.exit_kind()),
        None => (error.kind() == io::ErrorKind::InvalidData).then_some(ExitKind::Refused),
    }
}
