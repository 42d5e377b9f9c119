//! What every error has: a message (what was tried, on what, why it failed), an exit code, and a hint if the user can do
//! something about it.
//!
//! Each module has one small enum that implements [`UserError`] and holds the texts. Commands pass errors of all modules on as
//! [`Error`]; the command line prints it and exits with its [`ExitKind`].

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use phial_layers::{PackError, UnpackError};

/// Why a command ends without success. The number is the exit code of the process (see `docs/exit-codes.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitKind {
    /// A script, a test or a command failed, or a comparison has found a difference.
    Failed = 1,
    /// The command line or the settings are wrong.
    Usage = 2,
    /// An image, a repository or a digest is refused.
    Refused = 3,
    /// A registry or the network failed; a later try may succeed.
    Unavailable = 4,
    /// A login is missing or lacks a right.
    Unauthorized = 5,
    /// This machine lacks something: namespaces, disk space, a program, a limit.
    Machine = 6,
    /// A release is refused by its rules.
    ReleaseRefused = 7,
    /// Two builds of the same inputs differ.
    NotReproducible = 8,
    /// A bug in Phial.
    Internal = 70,
    /// Interrupted by SIGINT.
    Interrupted = 130,
    /// Nobody reads stdout any more: as a program that SIGPIPE ends.
    BrokenPipe = 141,
    /// Interrupted by SIGTERM.
    Terminated = 143,
}

impl ExitKind {
    /// The exit code of the process.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind of an error of the crate `phial-layers`, which does not have this type.
    fn of_layers(code: u8) -> Self {
        match code {
            3 => Self::Refused,
            4 => Self::Unavailable,
            6 => Self::Machine,
            _ => Self::Internal,
        }
    }
}

impl From<ExitKind> for std::process::ExitCode {
    fn from(kind: ExitKind) -> Self {
        Self::from(kind.code())
    }
}

/// An error that a user sees. `Display` is one sentence in lower case, without a period and without its causes, which
/// [`StdError::source`] has.
pub trait UserError: StdError + Send + Sync + 'static {
    /// How the command ends.
    fn exit_kind(&self) -> ExitKind;

    /// What the user can do about it, in one sentence.
    fn hint(&self) -> Option<String> {
        None
    }

    /// The last lines of output of the program that failed.
    fn output(&self) -> &[String] {
        &[]
    }

    /// The lines of a file that the message is about.
    fn excerpt(&self) -> &[String] {
        &[]
    }
}

/// An error of any module.
#[derive(Debug)]
pub struct Error(Box<dyn UserError>);

impl Error {
    /// How the command ends.
    pub fn exit_kind(&self) -> ExitKind {
        self.0.exit_kind()
    }

    /// What the user can do about it. A full disk and a limit have one hint wherever they are found.
    pub fn hint(&self) -> Option<String> {
        if has_cause(self, is_too_large) {
            return Some("raise the limit of file sizes (`ulimit -f`)".into());
        }
        let full = || is_disk_full(self).then(|| "free some space, or set `PHIAL_CACHE_DIR` to a larger disk".into());
        self.0.hint().or_else(full)
    }

    /// The last lines of output of the program that failed.
    pub fn output(&self) -> &[String] {
        self.0.output()
    }

    /// The lines of a file that the message is about.
    pub fn excerpt(&self) -> &[String] {
        self.0.excerpt()
    }

    /// The error as the type of its module.
    pub fn downcast_ref<E: UserError>(&self) -> Option<&E> {
        let error: &(dyn StdError + 'static) = &*self.0;
        error.downcast_ref()
    }
}

impl<E: UserError> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// The operating system refused an action on a path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct IoError {
    /// What was tried, as a verb: `read`.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl IoError {
    /// Makes the error of `action` on `path`, for `map_err`.
    pub fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

impl UserError for IoError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Machine
    }

    fn hint(&self) -> Option<String> {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match self.source.kind() {
            PermissionDenied => Some("correct its permissions, or run this as a user who may do it".into()),
            ReadOnlyFilesystem => Some("name a place on a file system that can be written".into()),
            _ => None, // `Error::hint` has that of a full disk
        }
    }
}

impl UserError for PackError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::of_layers(self.exit_code())
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Write(source) if is_full(source) => None, // `Error::hint` has that of a full disk
            other => other.hint(),
        }
    }
}

impl UserError for UnpackError {
    /// For an error of the stream, its source decides whether the bytes, the disk or the network are the cause.
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Read(source) if source.kind() == io::ErrorKind::InvalidData => ExitKind::Refused,
            Self::Read(source) if is_full(source) => ExitKind::Machine,
            other => ExitKind::of_layers(other.exit_code()),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Write { .. } if is_disk_full(self) => None, // as above
            other => other.hint(),
        }
    }
}

/// Whether one of the causes of an error is a full disk or an exceeded quota.
pub fn is_disk_full(error: &dyn StdError) -> bool {
    has_cause(error, is_full)
}

fn has_cause(error: &dyn StdError, is_it: fn(&io::Error) -> bool) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(is_it) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether a file would be larger than `RLIMIT_FSIZE` allows.
fn is_too_large(source: &io::Error) -> bool {
    source.raw_os_error() == Some(rustix::io::Errno::FBIG.raw_os_error())
}

fn is_full(source: &io::Error) -> bool {
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An error and its causes in one line, each cause once.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
