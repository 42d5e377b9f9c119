//! Copies the view of several trees to one directory, for machines without overlayfs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::view::{MergedDir, Node, TreePath, View};
use crate::error::IoError;
use crate::store::Tree;
use crate::tree::{FileKind, TreeDir};

/// Copies the view of `trees` (topmost first) to the empty directory `dest`, with times and modes. Hard links become
/// separate files: overlayfs, too, copies up only the name that is written to.
pub(super) fn copy(trees: &[Tree], dest: &TreeDir) -> Result<(), IoError> {
    let view = View::open(trees)?;
    directory(&view, &view.root()?, dest)
}

/// As [`copy`], of the directory `from` alone.
pub(super) fn copy_dir(from: TreeDir, dest: &TreeDir) -> Result<(), IoError> {
    let view = View::of(vec![from]);
    directory(&view, &view.root()?, dest)
}

fn directory(view: &View, merged: &MergedDir, dest: &TreeDir) -> Result<(), IoError> {
    for (name, node) in view.list(merged)? {
        match node {
            Node::Whiteout => {}
            Node::Leaf(from) => leaf(view, &from, dest, Path::new(&name))?,
            Node::Dir { merged, .. } => {
                dest.create_dir(&name)?;
                if let Some(to) = dest.dir(&name)? {
                    directory(view, &merged, &to)?;
                }
                dest.set_mode(&name, merged[0].stat.mode())?;
                dest.set_times(&name, merged[0].stat.mtime())?;
            }
        }
    }
    Ok(())
}

fn leaf(view: &View, from: &TreePath, dest: &TreeDir, name: &Path) -> Result<(), IoError> {
    let tree = view.tree(from);
    match from.stat.kind() {
        FileKind::Symlink => dest.create_symlink(name, &tree.read_link(&from.path)?.unwrap_or_default())?,
        FileKind::Fifo => dest.create_fifo(name, from.stat.mode())?,
        _ => {
            let Some(mut file) = tree.file(&from.path)? else { return Ok(()) };
            dest.copy_file(&mut file, name, from.stat.mode())?;
        }
    }
    dest.set_times(name, from.stat.mtime())
}

/// Waits until the file system's clock (a few hundred ticks per second) moves on, and returns the ctime of the tick
/// that is over, in seconds and nanoseconds: every later change of a file has a later ctime.
pub(super) fn wait_for_tick(dir: &Path) -> io::Result<(i64, i64)> {
    let stamp = || -> io::Result<(i64, i64)> {
        let path = dir.join(".tick");
        let meta = File::create(&path)?.metadata()?;
        fs::remove_file(&path)?;
        Ok((meta.ctime(), meta.ctime_nsec()))
    };
    let first = stamp()?;
    while stamp()? <= first {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(first)
}
