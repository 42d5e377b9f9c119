//! The isolation `chroot` cannot mount: files that would be bind-mounted are copied to paths that are in no layer.

use std::fs;
use std::path::{Component, Path};

use crate::error::IoError;
use crate::sandbox::{Root, Spec};

/// Copies the files of `spec.binds` into its root, and removes them from the list.
pub(super) fn copy_binds(spec: &mut Spec) -> Result<(), IoError> {
    let Root::Chroot { dir } = &spec.root else { return Ok(()) };
    for bind in std::mem::take(&mut spec.binds) {
        let relative: std::path::PathBuf =
            Path::new(&bind.target).components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let to = dir.join(&relative);
        let parent = to.parent().unwrap_or(dir);
        fs::create_dir_all(parent).map_err(IoError::at("create", parent))?;
        // `/run` of an image could be a link that leads out of it.
        let real = fs::canonicalize(parent).map_err(IoError::at("look at", parent))?;
        let root = fs::canonicalize(dir).map_err(IoError::at("look at", dir))?;
        if !real.starts_with(&root) {
            let source = std::io::Error::other("a symlink leads out of the root filesystem");
            return Err(IoError::at("copy to", &to)(source));
        }
        fs::copy(&bind.source, &to).map_err(IoError::at("copy", &bind.source))?;
    }
    Ok(())
}
