//! Several trees merged into one view, as overlayfs shows them: directories of the same name are merged, anything else
//! comes from the topmost tree that has it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::lgetxattr;

use crate::store::Tree;

/// A path on the host inside one of the trees of a view.
#[derive(Clone, Debug)]
pub(super) struct TreePath {
    /// Index of the tree, 0 for the topmost.
    pub(super) tree: usize,
    pub(super) path: PathBuf,
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

/// Whether an entry is a whiteout of overlayfs: a character device 0:0.
pub(super) fn is_whiteout(meta: &fs::Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

/// Whether a directory is opaque (`user.overlay.opaque` is `y`): it hides the directories below it.
fn is_opaque(dir: &Path) -> bool {
    let mut value = [0_u8; 8];
    lgetxattr(dir, "user.overlay.opaque", &mut value).is_ok_and(|n| &value[..n] == b"y")
}

/// The root directory of the view of `trees`, topmost first.
pub(super) fn root(trees: &[Tree]) -> MergedDir {
    trees.iter().enumerate().map(|(tree, Tree { root, .. })| TreePath { tree, path: root.clone() }).collect()
}

/// Every name in a merged directory.
pub(super) fn list(merged: &MergedDir) -> io::Result<BTreeMap<OsString, Node>> {
    let mut nodes: BTreeMap<OsString, Node> = BTreeMap::new();
    // Directories that trees further down may still add to.
    let mut open: BTreeMap<OsString, MergedDir> = BTreeMap::new();
    for TreePath { tree, path: dir } in merged {
        make_readable(dir)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if nodes.contains_key(&name) {
                continue;
            }
            let at = TreePath { tree: *tree, path: entry.path() };
            let meta = fs::symlink_metadata(&at.path)?;
            if meta.is_dir() {
                let opaque = is_opaque(&at.path);
                let mut merged = open.remove(&name).unwrap_or_default();
                merged.push(at);
                if opaque {
                    nodes.insert(name, Node::Dir { merged, opaque });
                } else {
                    open.insert(name, merged);
                }
            } else if let Some(merged) = open.remove(&name) {
                nodes.insert(name, Node::Dir { merged, opaque: true });
            } else if is_whiteout(&meta) {
                nodes.insert(name, Node::Whiteout);
            } else {
                nodes.insert(name, Node::Leaf(at));
            }
        }
    }
    nodes.extend(open.into_iter().map(|(name, merged)| (name, Node::Dir { merged, opaque: false })));
    Ok(nodes)
}

/// Gives the owner back access to a directory that a script closed even to its owner.
fn make_readable(dir: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(dir)?;
    if meta.mode() & 0o700 != 0o700 && meta.uid() == rustix::process::geteuid().as_raw() {
        fs::set_permissions(dir, fs::Permissions::from_mode((meta.mode() & 0o7777) | 0o700))?;
    }
    Ok(())
}
