//! Several trees seen as one, the way overlayfs shows them: a directory is the sum of its parts, anything else belongs to
//! the topmost tree that has it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::lgetxattr;

use crate::store::Tree;

/// One directory of a view: the directories that add up to it, topmost first, each with the number of its tree.
pub(super) type Parts = Vec<(usize, PathBuf)>;

/// What stands under a name.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A directory; `opaque` if what lies below these trees does not shine through.
    Dir { parts: Parts, opaque: bool },
    /// Anything else, in the tree of that number.
    Leaf { tree: usize, path: PathBuf },
    /// A name that these trees take away from what lies below them.
    Gone,
}

/// Whether an entry is overlayfs's mark for a deleted name: a character device 0:0.
pub(super) fn is_whiteout(meta: &fs::Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

/// Whether a directory hides what lies below it.
fn is_opaque(dir: &Path) -> bool {
    let mut value = [0_u8; 8];
    lgetxattr(dir, "user.overlay.opaque", &mut value).is_ok_and(|n| &value[..n] == b"y")
}

/// The view's root directory.
pub(super) fn root(trees: &[Tree]) -> Parts {
    trees.iter().map(|tree| tree.root.clone()).enumerate().collect()
}

/// Every name of a directory of the view, with what it is.
pub(super) fn list(parts: &Parts) -> io::Result<BTreeMap<OsString, Node>> {
    let mut found: BTreeMap<OsString, Node> = BTreeMap::new();
    let mut open: BTreeMap<OsString, Parts> = BTreeMap::new();
    for (tree, dir) in parts {
        readable(dir)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if found.contains_key(&name) {
                continue;
            }
            let path = entry.path();
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                let opaque = is_opaque(&path);
                let mut sum = open.remove(&name).unwrap_or_default();
                sum.push((*tree, path));
                if opaque {
                    found.insert(name, Node::Dir { parts: sum, opaque });
                } else {
                    open.insert(name, sum);
                }
            } else if let Some(sum) = open.remove(&name) {
                found.insert(name, Node::Dir { parts: sum, opaque: true });
            } else if is_whiteout(&meta) {
                found.insert(name, Node::Gone);
            } else {
                found.insert(name, Node::Leaf { tree: *tree, path });
            }
        }
    }
    found.extend(open.into_iter().map(|(name, parts)| (name, Node::Dir { parts, opaque: false })));
    Ok(found)
}

/// A script may leave a directory that not even its owner can read; the owner may change that.
fn readable(dir: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(dir)?;
    if meta.mode() & 0o700 != 0o700 && meta.uid() == rustix::process::geteuid().as_raw() {
        fs::set_permissions(dir, fs::Permissions::from_mode((meta.mode() & 0o7777) | 0o700))?;
    }
    Ok(())
}
