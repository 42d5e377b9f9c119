//! The isolation `chroot` cannot mount: files that would be bind-mounted are copied to paths that are in no layer.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use crate::error::IoError;
use crate::sandbox::{Root, Spec};
use crate::tree::TreeDir;

/// Copies the files of `spec.binds` into its root, and removes them from the list. A link of the image in the way of one is
/// an error.
pub(super) fn copy_binds(spec: &mut Spec) -> Result<(), IoError> {
    let Root::Chroot { dir } = &spec.root else { return Ok(()) };
    let root = TreeDir::open(dir)?;
    for bind in std::mem::take(&mut spec.binds) {
        let path: PathBuf =
            Path::new(&bind.target).components().filter(|part| matches!(part, Component::Normal(_))).collect();
        root.create_dirs(path.parent().unwrap_or(Path::new("")))?;
        root.remove_file(&path)?;
        let mut file = File::open(&bind.source).map_err(IoError::at("read", &bind.source))?;
        root.copy_file(&mut file, &path, 0o644)?;
    }
    Ok(())
}
