//! Several trees merged into one view, as overlayfs shows them: directories of the same name are merged, anything else
//! comes from the topmost tree that has it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::error::IoError;
use crate::store::Tree;
use crate::tree::{EntryStat, FileKind, TreeDir};

/// An entry of one of the trees of a view.
#[derive(Clone, Debug)]
pub(super) struct TreePath {
    /// Index of the tree, 0 for the topmost.
    pub(super) tree: usize,
    /// Its path in that tree.
    pub(super) path: PathBuf,
    /// What it was when its directory was listed.
    pub(super) stat: EntryStat,
}

/// The directories that overlayfs merges into one, topmost first.
pub(super) type MergedDir = Vec<TreePath>;

/// What a name in a view stands for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A directory; if `opaque`, it hides a directory of the same name in the trees below this view.
    Dir { merged: MergedDir, opaque: bool },
    /// Any other file.
    Leaf(TreePath),
    /// A whiteout: the name is deleted from the trees below this view.
    Whiteout,
}

/// Trees, topmost first, that are open.
pub(super) struct View {
    dirs: Vec<TreeDir>,
}

impl View {
    pub(super) fn open(trees: &[Tree]) -> Result<Self, IoError> {
        Ok(Self::of(trees.iter().map(|tree| tree.root.open()).collect::<Result<_, _>>()?))
    }

    pub(super) fn of(dirs: Vec<TreeDir>) -> Self {
        Self { dirs }
    }

    /// The tree that an entry is in.
    pub(super) fn tree(&self, of: &TreePath) -> &TreeDir {
        &self.dirs[of.tree]
    }

    /// The root directory.
    pub(super) fn root(&self) -> Result<MergedDir, IoError> {
        let mut merged = MergedDir::new();
        for (tree, dir) in self.dirs.iter().enumerate() {
            if let Some(stat) = dir.stat("")? {
                merged.push(TreePath { tree, path: PathBuf::new(), stat });
            }
        }
        Ok(merged)
    }

    /// Every name in a merged directory. A directory that a script closed even to its owner is opened to him.
    pub(super) fn list(&self, merged: &MergedDir) -> Result<BTreeMap<OsString, Node>, IoError> {
        let mut nodes: BTreeMap<OsString, Node> = BTreeMap::new();
        // Directories that trees further down may still add to.
        let mut open: BTreeMap<OsString, MergedDir> = BTreeMap::new();
        for parent in merged {
            let Some(dir) = self.tree(parent).accessible_dir(&parent.path)? else { continue };
            for (name, stat) in dir.entries()? {
                if nodes.contains_key(&name) {
                    continue;
                }
                let at = TreePath { tree: parent.tree, path: parent.path.join(&name), stat };
                if stat.is_directory() {
                    let opaque = is_opaque(&dir, &name)?;
                    let mut merged = open.remove(&name).unwrap_or_default();
                    merged.push(at);
                    if opaque {
                        nodes.insert(name, Node::Dir { merged, opaque });
                    } else {
                        open.insert(name, merged);
                    }
                } else if let Some(merged) = open.remove(&name) {
                    nodes.insert(name, Node::Dir { merged, opaque: true });
                } else if stat.kind() == FileKind::Whiteout {
                    nodes.insert(name, Node::Whiteout);
                } else {
                    nodes.insert(name, Node::Leaf(at));
                }
            }
        }
        nodes.extend(open.into_iter().map(|(name, merged)| (name, Node::Dir { merged, opaque: false })));
        Ok(nodes)
    }

    /// What [`View::list`] gives for one name; `None` if no tree has it.
    pub(super) fn child(&self, parents: &MergedDir, name: &OsStr) -> Result<Option<Node>, IoError> {
        let mut merged = MergedDir::new();
        for parent in parents {
            let (dir, path) = (self.tree(parent), parent.path.join(name));
            let Some(stat) = dir.stat(&path)? else { continue };
            let at = TreePath { tree: parent.tree, path, stat };
            if stat.is_directory() {
                let opaque = is_opaque(dir, &at.path)?;
                merged.push(at);
                if opaque {
                    return Ok(Some(Node::Dir { merged, opaque }));
                }
            } else if !merged.is_empty() {
                return Ok(Some(Node::Dir { merged, opaque: true }));
            } else if stat.kind() == FileKind::Whiteout {
                return Ok(Some(Node::Whiteout));
            } else {
                return Ok(Some(Node::Leaf(at)));
            }
        }
        Ok((!merged.is_empty()).then_some(Node::Dir { merged, opaque: false }))
    }
}

/// Whether a directory is opaque (`user.overlay.opaque` is `y`): it hides the directories below it.
fn is_opaque(parent: &TreeDir, path: impl AsRef<Path>) -> Result<bool, IoError> {
    Ok(parent.xattr(path, "user.overlay.opaque")?.is_some_and(|value| value == b"y"))
}
