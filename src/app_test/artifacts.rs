//! Copies logs and files of the app out of a test's root filesystem before it is removed.
//!
//! What tests leave there is hostile input: only regular files and directories are copied, links are not followed, and there is
//! a largest size. Nor are links followed in the directory that they are copied to. What tests closed to its owner is copied too.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::error::TestError;
use crate::error::{Error, IoError};
use crate::recipe::AppDir;
use crate::store::Tree;
use crate::tree::{Enter, TreeDir, TreeRoot, WalkEntry, create_dirs_unlinked, put_file};

/// Bytes of all artifacts together.
const MAX_BYTES: u64 = 4 << 30;
/// What a file or directory counts at least: it takes a block and an inode on the disk.
const MIN_ENTRY_BYTES: u64 = 4 << 10;

/// A file or directory of the app that is to be copied.
struct FoundArtifact<'p> {
    /// Its path in `test.artifacts`.
    name: &'p str,
    content: ArtifactContent,
}

enum ArtifactContent {
    File(File),
    Dir(TreeDir),
}

/// Copies files or folders of the app to `dest`: as the tests wrote them to `written`, else as the image has them.
/// Returns the paths that are in neither. If they are too large together, nothing is copied.
pub(super) fn copy_artifacts(
    paths: &[String],
    app: &AppDir,
    written: &TreeRoot,
    trees: &[Tree],
    dest: &TreeDir,
) -> Result<Vec<String>, Error> {
    let (mut found, mut missing) = (vec![], vec![]);
    for name in paths {
        let inside = Path::new(&app.in_tree()).join(name);
        let mut content = None;
        for root in [written].into_iter().chain(trees.iter().map(|tree| &tree.root)) {
            content = if content.is_none() { find(&root.open()?, &inside)? } else { content };
        }
        match content {
            Some(content) => found.push(FoundArtifact { name, content }),
            None => missing.push(name.clone()),
        }
    }
    check_size(&found, MAX_BYTES)?;
    found.into_iter().try_for_each(|found| copy_out(found, dest))?;
    Ok(missing)
}

/// Copies logs, files of Phial's own, to the directory `dest`.
pub(super) fn copy_logs(files: &[PathBuf], dest: &TreeDir) -> Result<(), Error> {
    for file in files {
        let from = File::open(file).map_err(IoError::at("read", file))?;
        copy_file(from, dest, Path::new(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// The file or directory at `path` of a tree. None if there is neither, or a link is in the way.
fn find(tree: &TreeDir, path: &Path) -> Result<Option<ArtifactContent>, Error> {
    match tree.accessible_file(path)? {
        Some(file) => Ok(Some(ArtifactContent::File(file))),
        None => Ok(tree.accessible_dirs(path)?.map(ArtifactContent::Dir)),
    }
}

/// An error if what is to be copied counts more than `limit` bytes.
fn check_size(found: &[FoundArtifact<'_>], limit: u64) -> Result<(), Error> {
    let mut left = limit;
    let mut count = |name: &str, bytes: u64| match left.checked_sub(bytes.max(MIN_ENTRY_BYTES)) {
        Some(rest) => {
            left = rest;
            Ok(())
        }
        None => Err(TestError::ArtifactsTooLarge { path: name.to_owned(), limit_gib: limit >> 30 }),
    };
    for FoundArtifact { name, content } in found {
        match content {
            ArtifactContent::File(file) => {
                let bytes = file.metadata().map_err(IoError::at("read", Path::new(name)))?.len();
                count(name, bytes)?;
            }
            ArtifactContent::Dir(dir) => dir.walk_accessible(|entry| {
                count(name, size(entry))?;
                Ok::<_, Error>(Enter::Yes)
            })?,
        }
    }
    Ok(())
}

/// Bytes of an entry that are copied.
fn size(entry: &WalkEntry) -> u64 {
    if entry.stat.is_regular_file() { entry.stat.size() } else { 0 }
}

/// Copies a file or directory, of it regular files and directories only; the copies have the modes of new files.
fn copy_out(found: FoundArtifact<'_>, dest: &TreeDir) -> Result<(), Error> {
    let to = Path::new(found.name);
    let dir = match found.content {
        ArtifactContent::File(file) => return copy_file(file, dest, to),
        ArtifactContent::Dir(dir) => dir,
    };
    create_dirs_unlinked(dest, to)?;
    dir.walk_accessible(|entry| {
        let target = to.join(&entry.path);
        if entry.stat.is_directory() {
            create_dirs_unlinked(dest, &target)?;
        } else if let Some(file) = dir.accessible_file(&entry.path)? {
            copy_file(file, dest, &target)?;
        }
        Ok::<_, Error>(Enter::Yes)
    })
}

fn copy_file(mut from: File, dest: &TreeDir, to: &Path) -> Result<(), Error> {
    Ok(put_file(dest, to, |file| io::copy(&mut from, file).map(drop))?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Copies to the directory `dest`, which is there.
    fn copy(paths: &[&str], root: &Path, dest: &Path) -> Result<Vec<String>, Error> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        copy_artifacts(&paths, &AppDir::default(), &TreeRoot::new(root), &[], &TreeDir::open(dest).unwrap())
    }

    #[test]
    fn links_that_tests_leave_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, out) = (dir.path().join("root"), dir.path().join("out"));
        write(&root.join("app/cover/index.html"), "x");
        write(&dir.path().join("secret"), "s");
        symlink(dir.path().join("secret"), root.join("app/cover/link")).unwrap();
        symlink(dir.path(), root.join("app/away")).unwrap();
        fs::create_dir(&out).unwrap();
        assert_eq!(copy(&["cover", "away/secret", "none"], &root, &out).unwrap(), ["away/secret", "none"]);
        assert!(out.join("cover/index.html").is_file() && fs::symlink_metadata(out.join("cover/link")).is_err());
    }

    #[test]
    fn links_where_artifacts_go_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, out, home) = (dir.path().join("root"), dir.path().join("out"), dir.path().join("home"));
        write(&root.join("app/cover/html/index"), "x");
        write(&root.join("app/keys"), "x");
        write(&home.join("keys"), "mine");
        for link in ["cover", "keys"] {
            fs::create_dir_all(&out).unwrap();
            let to = if link == "keys" { home.join("keys") } else { home.clone() };
            symlink(to, out.join(link)).unwrap();
            let error = copy(&[link], &root, &out).unwrap_err();
            assert!(error.to_string().contains(&format!("/out/{link}` is a symbolic link")), "{error}");
            fs::remove_dir_all(&out).unwrap();
        }
        fs::create_dir_all(out.join("cover")).unwrap();
        symlink(&home, out.join("cover/html")).unwrap();
        copy(&["cover"], &root, &out).unwrap_err();
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(home.join("keys")).unwrap(), "mine");
    }

    #[test]
    fn artifacts_that_are_too_large_together_are_refused_before_one_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (root, out) = (dir.path().join("root"), dir.path().join("out"));
        write(&root.join("app/small"), "x");
        write(&root.join("app/dumps/a"), "");
        for half in ["app/dumps/a", "app/b"] {
            File::create(root.join(half)).unwrap().set_len(MAX_BYTES / 2).unwrap();
        }
        fs::create_dir(&out).unwrap();
        let error = copy(&["small", "b", "dumps"], &root, &out).unwrap_err();
        assert!(error.to_string().contains("4 GiB"), "{error}");
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
        let many =
            FoundArtifact { name: "dumps", content: ArtifactContent::Dir(TreeDir::open(&root.join("app")).unwrap()) };
        check_size(&[many], MIN_ENTRY_BYTES * 2).unwrap_err();
    }
}
