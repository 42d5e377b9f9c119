//! What a user of an image may write to. In a sandbox of one id all files belong to this user; the owners of an image are in
//! the metadata of its layers only.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use phial_layers::{EntryPath, Metadata};

use crate::error::IoError;
use crate::rootfs::ImageFiles;
use crate::store::Tree;
use crate::tree::{EntryStat, FileKind, TreeDir};

/// The files and directories of an image that the user and group `ids` may write to, as absolute paths; without those below a
/// directory that is listed itself. `None` for root, who may write to all. `trees` are the image's, topmost first. Names that
/// are not UTF-8 are left out.
pub(crate) fn writable_paths(trees: &[Tree], ids: (u32, u32)) -> Result<Option<Vec<String>>, IoError> {
    if ids.0 == 0 {
        return Ok(None);
    }
    let files = ImageFiles::open(trees)?;
    let mut found = BTreeSet::new();
    for (nth, tree) in trees.iter().enumerate() {
        let dir = tree.root.open()?;
        let for_all = tree.info.world_writable.iter();
        let own = tree.metadata.0.keys().filter(|path| is_writable(&dir, &tree.metadata, path, ids));
        for path in for_all.chain(own).filter_map(|path| std::str::from_utf8(path.as_bytes()).ok()) {
            let absolute = format!("/{path}");
            if !is_below(&found, &absolute) && files.entry(path)?.is_some_and(|file| file.tree() == nth) {
                found.insert(absolute);
            }
        }
    }
    Ok(Some(found.iter().filter(|path| !is_below(&found, path)).cloned().collect()))
}

/// Whether `path` is below one of the `paths`.
fn is_below(paths: &BTreeSet<String>, path: &str) -> bool {
    Path::new(path).ancestors().skip(1).filter_map(Path::to_str).any(|dir| paths.contains(dir))
}

fn stat(dir: &TreeDir, path: &EntryPath) -> Option<EntryStat> {
    dir.stat(Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))).ok().flatten()
}

/// Whether an entry with metadata of its own belongs to the user or the group, which may write to it.
fn is_writable(dir: &TreeDir, metadata: &Metadata, path: &EntryPath, (uid, gid): (u32, u32)) -> bool {
    let metadata = metadata.of(path);
    if metadata.uid != uid && metadata.gid != gid {
        return false;
    }
    let Some(stat) = stat(dir, path).filter(|stat| matches!(stat.kind(), FileKind::Dir | FileKind::File)) else {
        return false;
    };
    let mode = metadata.mode.unwrap_or_else(|| stat.mode());
    mode & if metadata.uid == uid { 0o200 } else { 0o020 } != 0
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use phial_layers::EntryMetadata;

    use super::*;

    /// A tree of directories (`name/`) and files with owners and modes.
    fn tree(root: &Path, entries: &[(&str, (u32, u32), u32)], world_writable: &[&str]) -> Tree {
        let mut tree = Tree::bare(root);
        for (name, (uid, gid), mode) in entries {
            let path = root.join(name);
            if name.ends_with('/') {
                fs::create_dir_all(&path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "").unwrap();
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            let metadata = EntryMetadata { uid: *uid, gid: *gid, ..EntryMetadata::default() };
            tree.metadata.0.insert(EntryPath::new(name.as_bytes()), metadata);
        }
        tree.info.world_writable = world_writable.iter().map(|path| EntryPath::new(path.as_bytes())).collect();
        tree
    }

    fn writable(trees: &[Tree], ids: (u32, u32)) -> Vec<String> {
        writable_paths(trees, ids).unwrap().expect("not root")
    }

    #[test]
    fn what_belongs_to_the_user_the_group_or_all_is_writable() {
        let dir = tempfile::tempdir().unwrap();
        let entries = [
            ("app/", (0, 0), 0o755),
            ("data/", (5, 0), 0o755),
            ("data/inner", (5, 5), 0o644),
            ("closed", (5, 0), 0o444),
            ("shared/", (0, 7), 0o775),
            ("group-reads", (0, 7), 0o644),
            ("others", (6, 6), 0o666),
            ("tmp/", (0, 0), 0o777),
        ];
        let tree = tree(dir.path(), &entries, &["tmp"]);
        assert_eq!(writable(std::slice::from_ref(&tree), (5, 7)), ["/data", "/shared", "/tmp"]);
        assert_eq!(writable(std::slice::from_ref(&tree), (9, 9)), ["/tmp"]);
        assert_eq!(writable_paths(&[tree], (0, 0)).unwrap(), None);
    }

    #[test]
    fn the_topmost_layer_decides() {
        let (below, above) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let lower =
            tree(below.path(), &[("data/", (5, 5), 0o755), ("log/", (5, 5), 0o755), ("tmp/", (0, 0), 0o777)], &["tmp"]);
        let upper = tree(above.path(), &[("data/", (0, 0), 0o755), ("tmp/", (0, 0), 0o755)], &[]);
        assert_eq!(writable(&[upper, lower], (5, 5)), ["/log"]);
    }
}
