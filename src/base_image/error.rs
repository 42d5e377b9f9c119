//! Why no base image could be made.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::error::{ExitKind, IoError, UserError};

/// What a tar looks like that only `xz` can read.
pub(super) const XZ: &str = "compressed by xz";
/// What a tar looks like that only `bzip2` can read.
pub(super) const BZIP2: &str = "compressed by bzip2";

/// Why there is no base.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// Not a name that Debian would give.
    #[error("`{0}` is not a Debian suite")]
    Suite(String),
    /// Not a name that Debian would give.
    #[error("`{0}` is not a Debian package name")]
    Package(String),
    /// A program that makes bases is not installed.
    #[error("`{program}` is not installed")]
    Missing {
        /// The program; Debian's package has the same name.
        program: &'static str,
    },
    /// An ordinary user without the ids that a root filesystem's owners are mapped to.
    #[error("a Debian base needs a range of user ids, and `{user}` has none in `{file}`")]
    NoRange {
        /// The login name.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
    },
    /// The machine's apt sources hold no Debian one.
    #[error("this machine's apt sources name no Debian mirror")]
    NoMirror,
    /// The program ran and failed; with its last lines.
    #[error("`{program}` ended with {status}")]
    Failed {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        output: Vec<String>,
    },
    /// A root filesystem that is not a tar, or compressed in a way that is not read.
    #[error("`{}` is {what}, not a tar, plain or compressed by gzip or zstd", path.display())]
    NotATar {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        what: &'static str,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl UserError for BaseError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Suite(_) | Self::Package(_) => ExitKind::Usage,
            Self::NotATar { .. } => ExitKind::Refused,
            Self::Failed { .. } => ExitKind::Unavailable,
            Self::Missing { .. } | Self::NoRange { .. } | Self::NoMirror => ExitKind::Machine,
            Self::Io(source) => source.exit_kind(),
        }
    }

    fn output(&self) -> &[String] {
        if let Self::Failed { output, .. } = self { output } else { &[] }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { program: "newuidmap" } => Some("`apt-get install uidmap`".into()),
            Self::Missing { program } => Some(format!("`apt-get install {program}`")),
            Self::NoRange { user, .. } => Some(format!(
                "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}` as root, or run this as root"
            )),
            Self::NoMirror => Some("name one with `--mirror 'deb URI SUITE main'`".into()),
            Self::NotATar { what: XZ, .. } => Some("unpack it with `xz -d` first".into()),
            Self::NotATar { what: BZIP2, .. } => Some("unpack it with `bzip2 -d` first".into()),
            Self::NotATar { .. } => {
                Some("make one with `tar --create`; compressed ones are read by gzip and zstd".into())
            }
            Self::Suite(_) => Some("a suite is a code name such as `trixie`, or a version such as `13`".into()),
            Self::Package(_) => Some("the name of a package is in lower case, such as `libssl-dev`".into()),
            Self::Io(source) => source.hint(),
            Self::Failed { .. } => None, // the lines of the program say it
        }
    }
}

/// Opens a file for reading, with its name in the error.
pub(super) fn open(path: &Path) -> Result<File, BaseError> {
    Ok(File::open(path).map_err(IoError::at("read", path))?)
}
