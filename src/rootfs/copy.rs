//! The trees as one plain copy, for machines without overlayfs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use crate::store::Tree;

use super::view::{self, Node, Parts};

/// Copies the view of `trees` (topmost first) to the empty directory `dest`, times and modes included. Every name becomes a
/// file of its own: a hardlink that is written through would change the others, which overlayfs does not do either.
pub(super) fn copy(trees: &[Tree], dest: &Path) -> io::Result<()> {
    directory(&view::root(trees), dest)
}

fn directory(parts: &Parts, dest: &Path) -> io::Result<()> {
    for (name, node) in view::list(parts)? {
        let to = dest.join(&name);
        match node {
            Node::Gone => {}
            Node::Leaf { path, .. } => leaf(&path, &to)?,
            Node::Dir { parts, .. } => {
                fs::create_dir(&to)?;
                directory(&parts, &to)?;
                let meta = fs::symlink_metadata(&parts[0].1)?;
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

/// A moment after which every change of a file's status is later than all that came before: the clock that stamps files has
/// gone on (it ticks a few hundred times a second).
pub(super) fn tick(dir: &Path) -> io::Result<(i64, i64)> {
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
