//! What can go wrong in the command line itself.

use std::io;

use crate::error::{ExitKind, UserError};

/// An error of the command line itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// Signals cannot be listened for.
    #[error("cannot start the thread that listens for signals")]
    Signals(#[source] io::Error),
    /// `PHIAL_CACHE_LIMIT` is not a size.
    #[error("{0}")]
    CacheLimit(String),
    /// Nothing is removed from a store that others use.
    #[error("the cache is in use by another `phial`, so nothing is removed")]
    CacheInUse,
    /// No entry of the cache has this name.
    #[error("nothing in the cache is called `{name}`")]
    NotInCache {
        /// The name, escaped.
        name: String,
        /// The command that lists all names.
        list: &'static str,
    },
    /// Several entries of the cache have a name that begins so.
    #[error("`{name}` is the beginning of {names} names")]
    AmbiguousName {
        /// The name, escaped.
        name: String,
        /// How many names.
        names: usize,
    },
    /// All work is done, and the result cannot be printed.
    #[error("cannot write the result to stdout")]
    Stdout(#[source] io::Error),
}

impl UserError for CliError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Signals(_) | Self::CacheInUse | Self::Stdout(_) => ExitKind::Machine,
            Self::CacheLimit(_) | Self::AmbiguousName { .. } => ExitKind::Usage,
            Self::NotInCache { .. } => ExitKind::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Signals(_) | Self::CacheLimit(_) => None,
            Self::CacheInUse => Some("run it again when that one has ended".into()),
            Self::NotInCache { list, .. } => Some(format!("{list} lists all names")),
            Self::AmbiguousName { .. } => Some("give more of it".into()),
            Self::Stdout(_) => Some("all work is done: the same command again is quick".into()),
        }
    }
}
