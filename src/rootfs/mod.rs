//! An image as a directory that a command can run in, built from trees, and afterwards what the command changed.
//!
//! Three rungs: an overlay of the trees; a copy of them, in namespaces; a copy, by chroot. What comes out is the same tree.

mod copy;
mod diff;
mod view;
mod xattrs;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use phial_layers::EntryPath;

pub use diff::{EXCLUDED, Harvest, New, harvest};

use crate::error::{ExitKind, IoError, UserError};
use crate::sandbox::Root;
use crate::store::Tree;

/// How a root filesystem is made. The digest of what a step makes in it is the same on every rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// User namespace, overlay over the trees.
    Overlay,
    /// User namespace, a copy of the trees.
    Copy,
    /// No namespace at all: a copy, and chroot. For root in a plain container.
    Chroot,
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
            Self::Copy => "copy",
            Self::Chroot => "chroot",
        })
    }
}

/// What can go wrong between trees and a root filesystem.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The operating system refused an action on a path.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A step wrote a file with a name that means "deleted" in a layer (image-spec, layer.md).
    #[error("the step left a file named `{0:?}`, and names that begin with `.wh.` cannot stand in a layer")]
    Reserved(EntryPath),
}

impl RootfsError {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io(IoError { action, path: path.to_owned(), source })
    }
}

impl UserError for RootfsError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Io(_) => ExitKind::Machine,
            Self::Reserved(_) => ExitKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io(IoError { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, or set `PHIAL_CACHE_DIR` to a larger disk".into())
            }
            Self::Io(_) => None,
            Self::Reserved(_) => Some("let the script remove it".into()),
        }
    }
}

/// A root filesystem, ready for a command.
#[derive(Clone, Debug)]
pub struct Rootfs {
    /// For the sandbox.
    pub root: Root,
    /// For [`harvest`], when the command is done.
    pub new: New,
}

/// Puts a copy of the directory `from` into a root filesystem as `path`, relative to its root, as if the command to come had made it.
/// No link may stand on the way there.
pub fn put(rootfs: &Rootfs, from: &Path, path: &Path) -> Result<(), RootfsError> {
    let root = match &rootfs.root {
        Root::Overlay { upper, .. } => upper,
        Root::Plain { dir } | Root::Chroot { dir } => dir,
    };
    let to = root.join(path);
    fs::create_dir_all(&to).map_err(RootfsError::io("create", &to))?;
    copy::copy(&[Tree::bare(from)], &to).map_err(RootfsError::io("copy a directory to", &to))
}

/// Makes a root filesystem of `trees` (topmost first) in the empty directory `scratch`.
pub fn stand(rung: Isolation, trees: &[Tree], scratch: &Path) -> Result<Rootfs, RootfsError> {
    let dir = |name: &str| -> Result<PathBuf, RootfsError> {
        let path = scratch.join(name);
        fs::create_dir(&path).map_err(RootfsError::io("create", &path))?;
        Ok(path)
    };
    if rung == Isolation::Overlay {
        let lowers: Vec<PathBuf> = trees.iter().map(|tree| tree.root.clone()).collect();
        let (upper, work) = (dir("upper")?, dir("work")?);
        let new = New::Uppers(vec![Tree::bare(&upper)]);
        return Ok(Rootfs { root: Root::Overlay { lowers, upper, work }, new });
    }
    let copy = dir("root")?;
    copy::copy(trees, &copy).map_err(RootfsError::io("copy the base to", &copy))?;
    let since = copy::tick(scratch).map_err(RootfsError::io("write in", scratch))?;
    let root =
        if rung == Isolation::Copy { Root::Plain { dir: copy.clone() } } else { Root::Chroot { dir: copy.clone() } };
    Ok(Rootfs { root, new: New::Whole { dir: copy, since } })
}
