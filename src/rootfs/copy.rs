//! Copies the view of several trees to one directory, for machines without overlayfs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use crate::store::Tree;

use super::view::{self, MergedDir, Node};

/// Copies the view of `trees` (topmost first) to the empty directory `dest`, with times and modes. Hard links become
/// separate files: overlayfs, too, copies up only the name that is written to.
pub(super) fn copy(trees: &[Tree], dest: &Path) -> io::Result<()> {
    directory(&view::root(trees), dest)
}

fn directory(merged: &MergedDir, dest: &Path) -> io::Result<()> {
    for (name, node) in view::list(merged)? {
        let to = dest.join(&name);
        match node {
            Node::Whiteout => {}
            Node::Leaf(from) => leaf(&from.path, &to)?,
            Node::Dir { merged, .. } => {
                fs::create_dir(&to)?;
                directory(&merged, &to)?;
                let meta = fs::symlink_metadata(&merged[0].path)?;
                fs::set_permissions(&to, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
                set_times(&to, &meta)?;
            }
        }
    }
    Ok(())
}

fn leaf(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    let kind = meta.file_type();
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if kind.is_fifo() {
        mknodat(CWD, to, FileType::Fifo, Mode::from_raw_mode(meta.mode() & 0o7777), 0)?;
    } else {
        fs::copy(from, to)?;
    }
    set_times(to, &meta)
}

fn set_times(path: &Path, meta: &fs::Metadata) -> io::Result<()> {
    let time = Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
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
