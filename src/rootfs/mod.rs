//! The root filesystem of a command: assembles it from unpacked layers, and finds what the command changed.
//!
//! Three kinds of isolation: an overlay over the trees, a copy of them in namespaces, a copy in a chroot. The changes
//! of a command come out as the same tree with each.

mod copy;
mod diff;
mod disagree;
mod error;
mod files;
mod overwritten;
mod view;
mod xattrs;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub use diff::{DiffSource, EXCLUDED, TreeDiff, diff};
pub use disagree::disagreements;
pub use error::RootfsError;
pub use files::{ImageFile, ImageFiles, ImagePath};
pub use overwritten::{are_same, overwritten};

use crate::sandbox::Root;
use crate::store::Tree;
use crate::tree::{TreeDir, TreeRoot};

/// How a root filesystem is made. The digest of a step's layer is the same with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// In namespaces, an overlay over the trees.
    Overlay,
    /// In namespaces, a copy of the trees.
    Copy,
    /// A copy of the trees in a plain chroot, without namespaces: for root in a container that forbids them.
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

/// A root filesystem, ready for a command.
#[derive(Clone, Debug)]
pub struct Rootfs {
    /// Where the sandbox finds it.
    pub root: Root,
    /// The input of [`diff`] once the command has ended.
    pub diff_source: DiffSource,
}

/// Copies the directory `from` into a root filesystem as `path`, relative to its root, so that it counts as a change of
/// the command. No component of `path` may be a symbolic link.
pub fn copy_into(rootfs: &Rootfs, from: TreeDir, path: &Path) -> Result<(), RootfsError> {
    let root = match &rootfs.root {
        Root::Overlay { upper, .. } => upper,
        Root::Plain { dir } | Root::Chroot { dir } => dir,
    };
    Ok(copy::copy_dir(from, &TreeRoot::new(root).open()?.create_dirs(path)?)?)
}

/// The most lower directories of an overlay (`OVL_MAX_STACK`).
const MAX_LOWERS: usize = 500;

/// The lower directories that show `trees` (topmost first). `dir` creates a directory in the scratch directory.
///
/// The kernel refuses a directory that occurs twice. Only the topmost occurrence counts: it has every name of the other, so
/// the other decides nothing, whatever is between the two.
fn lower_dirs(trees: &[Tree], dir: impl Fn(&str) -> Result<PathBuf, RootfsError>) -> Result<Vec<PathBuf>, RootfsError> {
    let mut seen = BTreeSet::new();
    let trees: Vec<&Tree> = trees.iter().filter(|tree| seen.insert(tree.root.as_path())).collect();
    if trees.is_empty() {
        return Ok(vec![dir("empty")?]);
    }
    let paths = |trees: &[&Tree]| trees.iter().map(|tree| tree.root.as_path().to_owned()).collect::<Vec<_>>();
    if trees.len() <= MAX_LOWERS {
        return Ok(paths(&trees));
    }
    let (upper, rest) = trees.split_at(MAX_LOWERS - 1);
    let merged = dir("merged")?;
    let rest: Vec<Tree> = rest.iter().map(|tree| (*tree).clone()).collect();
    copy::copy(&rest, &TreeDir::open(&merged)?)?;
    Ok([paths(upper), vec![merged]].concat())
}

/// Makes a root filesystem of `trees` (topmost first) in the empty directory `scratch`.
pub fn assemble(isolation: Isolation, trees: &[Tree], scratch: &Path) -> Result<Rootfs, RootfsError> {
    let dir = |name: &str| -> Result<PathBuf, RootfsError> {
        let path = scratch.join(name);
        fs::create_dir(&path).map_err(RootfsError::io("create", &path))?;
        Ok(path)
    };
    if isolation == Isolation::Overlay {
        let lowers = lower_dirs(trees, dir)?;
        let (upper, work) = (dir("upper")?, dir("work")?);
        let diff_source = DiffSource::UpperDirs(vec![Tree::bare(&upper)]);
        return Ok(Rootfs { root: Root::Overlay { lowers, upper, work }, diff_source });
    }
    let copy = dir("root")?;
    copy::copy(trees, &TreeDir::open(&copy)?)?;
    let copied_at = copy::wait_for_tick(scratch).map_err(RootfsError::io("write in", scratch))?;
    let dir = copy.clone();
    let root = if isolation == Isolation::Copy { Root::Plain { dir } } else { Root::Chroot { dir } };
    Ok(Rootfs { root, diff_source: DiffSource::FullCopy { dir: TreeRoot::new(copy), copied_at } })
}
