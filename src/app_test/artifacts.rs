//! Copies logs and files of the app out of a test's root filesystem before it is removed.
//!
//! What tests leave there is hostile input: only regular files and directories are copied, and links are not followed.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use walkdir::WalkDir;

use crate::error::{Error, IoError};
use crate::recipe::APP;
use crate::store::Tree;

/// Writes a file of the user, and creates the directories above it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(IoError::at("create", parent))?;
    }
    Ok(fs::write(path, text).map_err(IoError::at("write", path))?)
}

/// Copies files or folders of the app to `dest`: as the tests wrote them to `written_dir`, else as the image has them.
/// Returns the paths that are in neither.
pub(super) fn copy_artifacts(
    paths: &[String],
    written_dir: &Path,
    trees: &[Tree],
    dest: &Path,
) -> Result<Vec<String>, Error> {
    let roots = || [written_dir].into_iter().chain(trees.iter().map(|tree| tree.root.as_path()));
    let mut missing = vec![];
    for path in paths {
        let inside = Path::new(APP).join(path);
        match roots().find(|root| exists_without_links(root, &inside)) {
            Some(root) => copy_out(&root.join(inside), &dest.join(path))?,
            None => missing.push(path.clone()),
        }
    }
    Ok(missing)
}

/// Copies files to the directory `dest`.
pub(super) fn copy_logs(files: &[PathBuf], dest: &Path) -> Result<(), Error> {
    fs::create_dir_all(dest).map_err(IoError::at("create", dest))?;
    files.iter().try_for_each(|file| copy_out(file, &dest.join(file.file_name().unwrap_or_default())))
}

/// Whether `root` has a regular file or directory at `inside`, with no symbolic link on the way.
fn exists_without_links(root: &Path, inside: &Path) -> bool {
    let mut path = root.to_owned();
    let parts: Vec<Component<'_>> = inside.components().collect();
    parts.iter().enumerate().all(|(nth, part)| {
        path.push(part);
        fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir() || (nth + 1 == parts.len() && meta.is_file()))
    })
}

/// Copies a file or a directory, of it regular files and directories only; the copies have the modes of new files.
fn copy_out(from: &Path, to: &Path) -> Result<(), Error> {
    for entry in WalkDir::new(from) {
        let entry = entry.map_err(|error| IoError::at("read", from)(error.into()))?;
        let target = match entry.path().strip_prefix(from) {
            Ok(below) if !below.as_os_str().is_empty() => to.join(below),
            _ => to.to_owned(),
        };
        let dir = if entry.file_type().is_dir() { Some(target.as_path()) } else { target.parent() };
        if let Some(dir) = dir.filter(|_| entry.file_type().is_dir() || entry.file_type().is_file()) {
            fs::create_dir_all(dir).map_err(IoError::at("create", dir))?;
        }
        if entry.file_type().is_file() {
            let copy = || io::copy(&mut File::open(entry.path())?, &mut File::create(&target)?);
            copy().map_err(IoError::at("copy to", &target))?;
        }
    }
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
        assert_eq!(copy_artifacts(&paths, &root, &[], &out).unwrap(), ["away/secret", "none"]);
        assert!(out.join("cover/index.html").is_file() && fs::symlink_metadata(out.join("cover/link")).is_err());
    }
}
