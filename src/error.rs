//! What every error of Phial has: a message (what was tried, on what, why), an exit code and, where there is one, a hint.
//!
//! Each module has a small enum of its own that implements [`UserError`]; the text of an error stands there and nowhere
//! else. Verbs pass errors of any module on as [`Error`]. The command line prints it and exits with its [`ExitKind`].

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use phial_layers::{PackError, UnpackError};

/// Why a command ends without success. The number is the exit code of the process (see `docs/exit-codes.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitKind {
    /// A script, a test or a command failed, or a comparison found a difference.
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
    /// A fault of Phial.
    Internal = 70,
    /// SIGINT.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl ExitKind {
    /// The exit code of the process.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind of an error of the crate `phial-layers`, which knows exit codes as numbers.
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

/// An error that a user sees. `Display` is one sentence without its causes, in lower case and without a period; the causes
/// follow from [`StdError::source`].
pub trait UserError: StdError + Send + Sync + 'static {
    /// How the command ends.
    fn exit_kind(&self) -> ExitKind;

    /// What the user can do about it: one sentence for a line of its own.
    fn hint(&self) -> Option<String> {
        None
    }

    /// The last lines of output of the program whose failure this is, for the lines below the message.
    fn output(&self) -> &[String] {
        &[]
    }
}

/// An error of any module, as the verbs pass it on.
#[derive(Debug)]
pub struct Error(Box<dyn UserError>);

impl Error {
    /// How the command ends.
    pub fn exit_kind(&self) -> ExitKind {
        self.0.exit_kind()
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        self.0
            .hint()
            .or_else(|| is_disk_full(self).then(|| "free some space, or set `PHIAL_CACHE_DIR` to a larger disk".into()))
    }

    /// The last lines of output of the program whose failure this is.
    pub fn output(&self) -> &[String] {
        self.0.output()
    }

    /// The error as the type that a module made it, if it is one.
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
    /// What was tried: a verb, such as `read`.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl IoError {
    /// For `map_err`: the error of `action` on `path`.
    pub fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

impl UserError for IoError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Machine
    }
}

impl UserError for PackError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::of_layers(self.exit_code())
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::ReservedName { .. } => Some("give the file another name in the repository".into()),
            _ => None,
        }
    }
}

/// The exit kind of a layer that cannot be unpacked: what it was read from tells whether the bytes or the machine are at fault.
pub fn unpack_exit_kind(error: &UnpackError) -> ExitKind {
    match error {
        UnpackError::Read(source) if source.kind() == io::ErrorKind::InvalidData => ExitKind::Refused,
        UnpackError::Read(source) if is_full(source) => ExitKind::Machine,
        other => ExitKind::of_layers(other.exit_code()),
    }
}

/// Whether a full disk or a used up quota is among the causes of an error.
pub fn is_disk_full(error: &dyn StdError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(is_full) {
            return true;
        }
        cause = error.source();
    }
    false
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
