//! How git turns the bytes of a blob into those of a file, by the attributes of the commit. Phial runs no program of git's; it
//! writes encodings itself, and names the files of other filters.

use std::fmt;

use phial_layers::EntryPath;

use super::attributes::Values;
use super::encoding::{Encoding, Named, named};
use super::error::SourceError;

/// The filter of Git LFS.
pub(super) const LFS: &str = "lfs";

/// What git does with a blob when it writes the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// Nothing but changes of line ends.
    #[default]
    None,
    /// It writes the text of the blob in this encoding.
    Encoding(Encoding),
    /// It writes the object of Git LFS that the blob names.
    Lfs,
    /// Something that only git can do: here a file has the bytes of its blob.
    Unknown(Attribute),
}

/// An attribute and its value, as in `.gitattributes`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// `filter`: the name of a program in the configuration of git.
    Filter(String),
    /// `working-tree-encoding`.
    Encoding(String),
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(value) => write!(f, "filter={}", value.escape_debug()),
            Self::Encoding(value) => write!(f, "working-tree-encoding={}", value.escape_debug()),
        }
    }
}

impl Filter {
    /// What the attributes of a file ask for.
    pub(super) fn of(values: Values) -> Self {
        match (values.filter, values.encoding) {
            (Some(name), None) if name == LFS => Self::Lfs,
            (Some(name), _) => Self::Unknown(Attribute::Filter(name)),
            (None, Some(name)) => match named(&name) {
                Named::Utf8 => Self::None,
                Named::Other(encoding) => Self::Encoding(encoding),
                Named::Unknown => Self::Unknown(Attribute::Encoding(name)),
            },
            (None, None) => Self::None,
        }
    }

    /// The bytes of the file `name` that is stored as `blob`; `None` if they are the same.
    pub(super) fn file(&self, name: &EntryPath, blob: &[u8]) -> Result<Option<Vec<u8>>, SourceError> {
        let Self::Encoding(encoding) = self else { return Ok(None) };
        let failed = || SourceError::Encoding { path: format!("{name:?}"), encoding: *encoding };
        encoding.encode(blob).map(Some).ok_or_else(failed)
    }
}
