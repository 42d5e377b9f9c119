//! Why a build stopped: what each room says, and the few things only the pipeline knows.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use phial_layers::{Digest, PackError, UnpackError};

use super::proof::ProofError;
use crate::compare::CompareError;
use crate::config::ConfigError;
use crate::image::ImageError;
use crate::layout::LayoutError;
use crate::normal::NormalError;
use crate::prepare::PrepareError;
use crate::registry::RegistryError;
use crate::rootfs::{RootfsError, Rung};
use crate::sandbox::{Exit, SandboxError};
use crate::source::SourceError;
use crate::store::StoreError;

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The repository.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The recipe.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// An image's manifest or config.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An OCI layout or archive.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Two images or layers that cannot be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// The cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root filesystem of a step.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The sandbox of a step.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The normal form of what a step left.
    #[error(transparent)]
    Normal(#[from] NormalError),
    /// Making a base.
    #[error(transparent)]
    Foundation(#[from] crate::base::Error),
    /// A digest is not proven.
    #[error(transparent)]
    Proof(Box<ProofError>),
    /// Writing a layer.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A layer of the base cannot be unpacked.
    #[error("the layer `{digest}` cannot be unpacked")]
    Unpack {
        /// The blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: UnpackError,
    },
    /// The script ended badly.
    #[error("the step `{step}` {}", ended(*.exit))]
    Script {
        /// The step.
        step: String,
        /// How it ended.
        exit: Exit,
        /// The last lines it wrote.
        tail: Vec<String>,
    },
    /// A layer's tar is not the one that its config names.
    #[error("the layer `{digest}` does not unpack to the diff id `{expected}` of the image's config")]
    DiffId {
        /// The blob.
        digest: Digest,
        /// What the config says.
        expected: Digest,
    },
    /// The digest that `phial.lock` pins cannot be had.
    #[error("`phial.lock` pins the base to `{pinned}`")]
    Pinned {
        /// What the lock says.
        pinned: Digest,
        /// Why it cannot be had.
        #[source]
        source: Box<BuildError>,
    },
    /// A target names a digest, and the image has another.
    #[error("the image is `{found}`, and for `{target}` only `{asked}` was asked for")]
    Other {
        /// The target.
        target: String,
        /// The digest it names.
        asked: Digest,
        /// The image's digest.
        found: Digest,
    },
    /// No rung of isolation that was asked for works here.
    #[error("this machine allows no isolation for the steps{}", rungs(.0))]
    NoRung(Vec<(Rung, SandboxError)>),
    /// A kept layer vanished between two looks, or was damaged and is set aside now.
    #[error("the kept layer `{0}` was gone or damaged")]
    Lost(Digest),
    /// A path that is no layer's file.
    #[error("`{}` is not a layer: {why}", path.display())]
    NotALayer {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No build is remembered that could be explained.
    #[error("no build of `{of}` is on record")]
    NoRecord {
        /// An image or a repository.
        of: String,
        /// Whether it is an image.
        image: bool,
    },
    /// The command of an image is not known.
    #[error("the image has no command, and none was given")]
    NoCommand,
    /// The image's `User` is a name that its `/etc/passwd` does not have.
    #[error("the image's user `{0}` is not in its `/etc/passwd`")]
    NoUser(String),
    /// Signals cannot be listened for.
    #[error("cannot start the thread that listens for signals")]
    Signals(#[source] io::Error),
    /// All is done, and the result cannot be told.
    #[error("cannot write the result to stdout")]
    Stdout(#[source] io::Error),
    /// The operating system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl From<ProofError> for BuildError {
    fn from(error: ProofError) -> Self {
        Self::Proof(error.into())
    }
}

fn ended(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("failed with exit code {code}"),
        Exit::Signal(signal) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(name) => format!("was ended by signal {signal} ({name})"),
            Err(_) => format!("was ended by signal {signal}"),
        },
    }
}

/// Each rung and why it does not work, the best one first.
fn rungs(tried: &[(Rung, SandboxError)]) -> String {
    let why = |error: &SandboxError| match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    tried.iter().fold(String::new(), |text, (rung, error)| format!("{text}; {rung}: {}", why(error)))
}

/// Whether the cause of an error is a full disk or a used up quota.
fn is_full(source: &io::Error) -> bool {
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What this room said itself when a layer was to be opened for a comparison.
fn opening(error: &CompareError) -> Option<&BuildError> {
    let CompareError::Open { source, .. } = error else { return None };
    source.get_ref()?.downcast_ref()
}

impl BuildError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// The exit code of `style.md`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(e) => e.exit_code(),
            Self::Source(e) => e.exit_code(),
            Self::Prepare(e) => e.exit_code(),
            Self::Image(e) => e.exit_code(),
            Self::Layout(e) => e.exit_code(),
            Self::Registry(e) => e.exit_code(),
            Self::Compare(e) => opening(e).map_or_else(|| e.exit_code(), Self::exit_code),
            Self::Store(e) => e.exit_code(),
            Self::Rootfs(e) => e.exit_code(),
            Self::Sandbox(e) => e.exit_code(),
            Self::Normal(e) => e.exit_code(),
            Self::Pack(e) => e.exit_code(),
            Self::Proof(e) => e.exit_code(),
            Self::Foundation(e) => e.exit_code(),
            Self::Unpack { source: UnpackError::Read(source), .. } if source.kind() == io::ErrorKind::InvalidData => 3,
            Self::Unpack { source: UnpackError::Read(source), .. } if is_full(source) => 6,
            Self::Unpack { source, .. } => source.exit_code(),
            Self::Pinned { source, .. } => source.exit_code(),
            Self::Script { .. } => 1,
            Self::NoCommand => 2,
            Self::DiffId { .. }
            | Self::NoUser(_)
            | Self::Other { .. }
            | Self::NotALayer { .. }
            | Self::NoRecord { .. } => 3,
            Self::NoRung(_) | Self::Signals(_) | Self::Stdout(_) | Self::Io { .. } | Self::Lost(_) => 6,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self.remedy() {
            None if self.is_for_want_of_space() => {
                Some("free some space, or set `PHIAL_CACHE_DIR` to a larger disk".into())
            }
            remedy => remedy,
        }
    }

    fn is_for_want_of_space(&self) -> bool {
        let mut cause = self.source();
        while let Some(error) = cause {
            if error.downcast_ref().is_some_and(is_full) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Config(e) => e.hint(),
            Self::Source(e) => e.hint(),
            Self::Prepare(e) => e.hint(),
            Self::Image(e) => e.hint(),
            Self::Layout(e) => e.hint(),
            Self::Registry(e) => e.hint(),
            Self::Compare(e) => opening(e).map_or_else(|| e.hint(), Self::hint),
            Self::Store(e) => e.hint(),
            Self::Rootfs(e) => e.hint(),
            Self::Sandbox(e) => e.hint(),
            Self::Normal(e) => e.hint(),
            Self::Foundation(e) => e.hint(),
            Self::Proof(e) => e.hint(),
            Self::Pinned { .. } => Some("if the base is to move on, run `phial lock` and commit `phial.lock`".into()),
            Self::Pack(PackError::ReservedName { .. }) => Some("give the file another name in the repository".into()),
            Self::Unpack { source: UnpackError::Write { source, .. }, .. } if is_full(source) => None,
            Self::Unpack { source, .. } => source.hint(),
            Self::Script { exit: Exit::Signal(9), .. } => Some("the machine may be out of memory".into()),
            Self::Lost(_) => Some("run the command again; it will be made anew".into()),
            Self::NoCommand => Some("give one after `--`".into()),
            Self::NoRecord { image: true, .. } => Some(
                "only the machine and cache that built an image know how, and only of the last ten builds of a repository; \
                 `phial diff` compares any two images"
                    .into(),
            ),
            Self::NoRecord { .. } => Some("run `phial build` first, with the same cache".into()),
            Self::NotALayer { path, .. } => Some(format!("for a layout directory write `oci:{}`", path.display())),
            Self::NoRung(tried) => tried.iter().find_map(|(_, error)| error.hint()),
            Self::Stdout(_) => Some("all else is done: the same command again is quick".into()),
            _ => None,
        }
    }
}
