//! A plain chroot has no mounts: what would be bound is copied, to places that are in no layer.

use std::fs;
use std::path::{Component, Path};

use super::BuildError;
use crate::sandbox::{Order, Root};

/// Copies the files of `order.binds` into its root, and takes them off the list.
pub(super) fn copy_binds(order: &mut Order) -> Result<(), BuildError> {
    let Root::Chroot { dir } = &order.root else { return Ok(()) };
    for bind in std::mem::take(&mut order.binds) {
        let relative: std::path::PathBuf =
            Path::new(&bind.target).components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let to = dir.join(&relative);
        let parent = to.parent().unwrap_or(dir);
        fs::create_dir_all(parent).map_err(BuildError::io("create", parent))?;
        // `/run` of an image could be a link that leads out of it.
        let real = fs::canonicalize(parent).map_err(BuildError::io("look at", parent))?;
        let root = fs::canonicalize(dir).map_err(BuildError::io("look at", dir))?;
        if !real.starts_with(&root) {
            let source = std::io::Error::other("it leads out of the root filesystem");
            return Err(BuildError::io("copy to", &to)(source));
        }
        fs::copy(&bind.source, &to).map_err(BuildError::io("copy", &bind.source))?;
    }
    Ok(())
}
