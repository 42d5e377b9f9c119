//! Copies logs and files of the app out of a test's root filesystem before it is removed.
//!
//! What tests leave there is hostile input: only regular files and directories are copied, and links are not followed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoError};
use crate::recipe::AppDir;
use crate::store::Tree;
use crate::tree::{Enter, TreeDir, TreeRoot};

/// Writes a file of the user, and creates the directories above it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(IoError::at("create", parent))?;
    }
    Ok(fs::write(path, text).map_err(IoError::at("write", path))?)
}

/// Copies files or folders of the app to `dest`: as the tests wrote them to `written`, else as the image has them.
/// Returns the paths that are in neither.
pub(super) fn copy_artifacts(
    paths: &[String],
    app: &AppDir,
    written: &TreeRoot,
    trees: &[Tree],
    dest: &Path,
) -> Result<Vec<String>, Error> {
    let roots = || [written].into_iter().chain(trees.iter().map(|tree| &tree.root));
    let mut missing = vec![];
    for path in paths {
        let inside = Path::new(&app.in_tree()).join(path);
        let mut copied = false;
        for root in roots() {
            copied = copied || copy_out(&root.open()?, &inside, &dest.join(path))?;
        }
        if !copied {
            missing.push(path.clone());
        }
    }
    Ok(missing)
}

/// Copies logs, files of Phial's own, to the directory `dest`.
pub(super) fn copy_logs(files: &[PathBuf], dest: &Path) -> Result<(), Error> {
    fs::create_dir_all(dest).map_err(IoError::at("create", dest))?;
    for file in files {
        let from = File::open(file).map_err(IoError::at("read", file))?;
        copy_file(from, &dest.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Copies the file or directory at `path` of a tree, of it regular files and directories only; the copies have the modes of
/// new files. False if there is neither, or a link is in the way.
fn copy_out(tree: &TreeDir, path: &Path, to: &Path) -> Result<bool, Error> {
    if let Some(file) = tree.file(path)? {
        copy_file(file, to)?;
        return Ok(true);
    }
    let Some(dir) = tree.dir(path)? else { return Ok(false) };
    fs::create_dir_all(to).map_err(IoError::at("create", to))?;
    dir.walk(|entry| {
        let target = to.join(&entry.path);
        if entry.stat.is_directory() {
            fs::create_dir_all(&target).map_err(IoError::at("create", &target))?;
        } else if let Some(file) = dir.file(&entry.path)? {
            copy_file(file, &target)?;
        }
        Ok::<_, Error>(Enter::Yes)
    })?;
    Ok(true)
}

/// Copies a file to a path of the user, and creates the directories above it.
fn copy_file(mut from: File, to: &Path) -> Result<(), Error> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(IoError::at("create", parent))?;
    }
    let mut copy = || io::copy(&mut from, &mut File::create(to)?);
    copy().map_err(IoError::at("copy to", to))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_tests_leave_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, out) = (dir.path().join("root"), dir.path().join("out"));
        write(&root.join("app/cover/index.html"), "x").unwrap();
        write(&dir.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("app/cover/link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("app/away")).unwrap();
        let paths = ["cover", "away/secret", "none"].map(str::to_owned);
        assert_eq!(
            copy_artifacts(&paths, &AppDir::default(), &TreeRoot::new(&root), &[], &out).unwrap(),
            ["away/secret", "none"]
        );
        assert!(out.join("cover/index.html").is_file() && fs::symlink_metadata(out.join("cover/link")).is_err());
    }
}
