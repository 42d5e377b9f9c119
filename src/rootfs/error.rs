//! Errors of assembling a root filesystem and of collecting its changes.

use std::io;
use std::path::Path;

use phial_layers::EntryPath;

use crate::error::{ExitKind, IoError, UserError};

/// A root filesystem cannot be assembled, or its changes cannot be collected.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The operating system refused an action on a path.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A step wrote a file with a name that means "deleted" in a layer (image-spec, layer.md).
    #[error("the step left a file named `{0:?}`: names that begin with `.wh.` are reserved for whiteouts in layers")]
    Reserved(EntryPath),
    /// A step wrote more entries, or directories deeper in one another, than are read.
    #[error("the step left too many entries, or directories too deep in one another, at `{0:?}`")]
    TooMany(EntryPath),
    /// A step gave a file an extended attribute whose name is not UTF-8, which the records of a layer are (POSIX, pax).
    #[error("`{path}` has an extended attribute whose name is not UTF-8: `{}`", .name.escape_ascii())]
    XattrName {
        /// The file.
        path: EntryPath,
        /// The name of the attribute.
        name: Vec<u8>,
    },
}

impl RootfsError {
    pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| IoError::at(action, path)(source).into()
    }
}

impl UserError for RootfsError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Io(_) => ExitKind::Machine,
            Self::Reserved(_) | Self::TooMany(_) | Self::XattrName { .. } => ExitKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io(_) => None,
            Self::Reserved(_) => Some("remove the file at the end of the script".into()),
            Self::TooMany(_) => Some("remove the directory at the end of the script, or write it to /tmp".into()),
            Self::XattrName { .. } => Some("remove the attribute at the end of the script".into()),
        }
    }
}
