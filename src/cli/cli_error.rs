//! What can go wrong in the command line itself.

use std::io;

use crate::error::{ExitKind, UserError};

/// An error of the command line itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The thread that waits for signals cannot be started.
    #[error("cannot start the thread that waits for signals")]
    Signals(#[source] io::Error),
    /// `PHIAL_CACHE_LIMIT` is not a size.
    #[error("{0}")]
    CacheLimit(String),
    /// Another process uses the local cache.
    #[error("the cache is in use by another `phial`, so nothing was removed")]
    CacheInUse,
    /// Nothing in the cache has a name that begins so.
    #[error("the cache has no entry `{name}`")]
    NotInCache {
        /// The beginning of a name, escaped.
        name: String,
        /// The command that lists all names, in backticks.
        list: &'static str,
    },
    /// Several entries of the cache have a name that begins so.
    #[error("`{name}` is ambiguous: {names} names in the cache begin with it")]
    AmbiguousName {
        /// The beginning of a name, escaped.
        name: String,
        /// How many names.
        names: usize,
    },
    /// The command has done its work, and its result cannot be printed.
    #[error("cannot write the result to stdout")]
    Stdout(#[source] io::Error),
}

impl UserError for CliError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Stdout(source) if source.kind() == io::ErrorKind::BrokenPipe => ExitKind::BrokenPipe,
            Self::Signals(_) | Self::CacheInUse | Self::Stdout(_) => ExitKind::Machine,
            Self::CacheLimit(_) | Self::AmbiguousName { .. } => ExitKind::Usage,
            Self::NotInCache { .. } => ExitKind::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Signals(_) | Self::CacheLimit(_) => None,
            Self::CacheInUse => Some("run the command again when that process has ended".into()),
            Self::NotInCache { list, .. } => Some(format!("{list} lists all names")),
            Self::AmbiguousName { .. } => Some("give more characters of the name".into()),
            Self::Stdout(_) => Some("the work is done and cached: running the same command again is quick".into()),
        }
    }
}
