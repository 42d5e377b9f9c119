//! Why a build stopped: what each room says, and the few things only the pipeline knows.

use std::io;
use std::path::{Path, PathBuf};

use phial_layers::{Digest, PackError, UnpackError};

use crate::config::ConfigError;
use crate::image::ImageError;
use crate::layout::LayoutError;
use crate::normal::NormalError;
use crate::prepare::PrepareError;
use crate::registry::RegistryError;
use crate::rootfs::RootfsError;
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
    /// `phial.lock` pins a digest, and the base has another.
    #[error("the base `{name}` is `{found}`, and `phial.lock` pins `{pinned}`")]
    Moved {
        /// The base.
        name: String,
        /// What it is now.
        found: Digest,
        /// What the lock says.
        pinned: Digest,
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
    /// No rung of isolation works here.
    #[error("this machine allows no isolation for the steps: {0}")]
    NoRung(String),
    /// A kept layer vanished between two looks.
    #[error("the kept layer `{0}` is gone or damaged")]
    Lost(Digest),
    /// The command of an image is not known.
    #[error("the image has no command, and none was given")]
    NoCommand,
    /// The image's `User` is a name that its `/etc/passwd` does not have.
    #[error("the image's user `{0}` is not in its `/etc/passwd`")]
    NoUser(String),
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

fn ended(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("failed with exit code {code}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
    }
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
            Self::Store(e) => e.exit_code(),
            Self::Rootfs(e) => e.exit_code(),
            Self::Sandbox(e) => e.exit_code(),
            Self::Normal(e) => e.exit_code(),
            Self::Pack(e) => e.exit_code(),
            Self::Foundation(e) => e.exit_code(),
            Self::Unpack { source, .. } => source.exit_code(),
            Self::Script { .. } => 1,
            Self::NoCommand => 2,
            Self::DiffId { .. } | Self::Moved { .. } | Self::NoUser(_) | Self::Other { .. } => 3,
            Self::NoRung(_) | Self::Io { .. } | Self::Lost(_) => 6,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(e) => e.hint(),
            Self::Source(e) => e.hint(),
            Self::Prepare(e) => e.hint(),
            Self::Image(e) => e.hint(),
            Self::Layout(e) => e.hint(),
            Self::Registry(e) => e.hint(),
            Self::Store(e) => e.hint(),
            Self::Rootfs(e) => e.hint(),
            Self::Sandbox(e) => e.hint(),
            Self::Normal(e) => e.hint(),
            Self::Foundation(e) => e.hint(),
            Self::Moved { .. } => Some("run `phial lock` and commit `phial.lock`".into()),
            Self::Lost(_) => Some("run the command again; it will be made anew".into()),
            Self::NoCommand => Some("give one after `--`".into()),
            Self::NoRung(_) => Some("name a rung with `--isolation` to see its own remedy".into()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, or set `PHIAL_CACHE_DIR` to a larger disk".into())
            }
            _ => None,
        }
    }
}
