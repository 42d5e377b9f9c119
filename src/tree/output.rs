//! Files and directories that a command writes where its caller says.
//!
//! In a CI job the working directory is in a checkout of somebody else's commit, which has links wherever he wants them: `reports`
//! may lead to `~/.ssh`. So no link is followed in the working tree that the directory is in, or below the directory if it
//! is in none. An absolute path that leads elsewhere is the caller's own, and its links are followed as in every program.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{DIR, FileKind, TreeDir};
use crate::error::{ExitKind, IoError, UserError};

/// Why an output was not written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The operating system refused an action on a path.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A link is in the way.
    #[error("cannot write `{}`: `{}` is a symbolic link, and none is followed in the working directory and the checkout around it", path.display(), link.display())]
    Link {
        /// What is to be written.
        path: PathBuf,
        /// It, or a directory above it.
        link: PathBuf,
    },
}

impl UserError for OutputError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Io(error) => error.exit_kind(),
            Self::Link { .. } => ExitKind::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io(error) => error.hint(),
            Self::Link { .. } => Some(
                "remove the link, or name the place that is meant by an absolute path outside of the checkout".into(),
            ),
        }
    }
}

/// The place of a file or directory that a command writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputPath {
    /// In the working tree, or named relative to the working directory: no link is followed.
    Inner {
        /// The directory above it and above the working directory, or the working directory.
        start: PathBuf,
        /// The same in messages.
        shown: PathBuf,
        /// The path from there on: names only.
        path: PathBuf,
    },
    /// The caller's own.
    Own(PathBuf),
}

impl OutputPath {
    /// The place that `path` names for a process in the directory `cwd`, an absolute path without links.
    pub fn new(path: &Path, cwd: &Path) -> Self {
        let full =
            if path.is_relative() { Some(cwd.join(path)) } else { in_working_tree(working_tree(cwd), cwd, path) };
        let Some(full) = full.map(|full| without_dots(&full)) else { return Self::Own(path.to_owned()) };
        let both = cwd.components().zip(full.components()).take_while(|(one, other)| one == other);
        let start: PathBuf = both.map(|(component, _)| component).collect();
        let inner = full.strip_prefix(&start).unwrap_or(&full).to_owned();
        let shown = if path.is_relative() && start == cwd { PathBuf::new() } else { start.clone() };
        Self::Inner { start, shown, path: inner }
    }

    /// An error if a link is on the way to it, or at it.
    pub fn check_links(&self) -> Result<(), OutputError> {
        match self {
            Self::Inner { start, shown, path } => refuse_links(&open(start, shown)?, path),
            Self::Own(_) => Ok(()),
        }
    }

    /// As [`OutputPath::check_links`], of the directory above it.
    pub fn check_links_above(&self) -> Result<(), OutputError> {
        self.parent().check_links()
    }

    /// Makes the directories above a file that is written at the end, and checks that it can be. Nothing is left of the check.
    pub fn check_file(&self) -> Result<(), OutputError> {
        let Self::Inner { start, shown, path } = self else {
            let Self::Own(path) = self else { return Ok(()) };
            return match fs::metadata(path) {
                Ok(data) if data.is_dir() => Err(is_a_directory(path).into()),
                Ok(data) if data.is_file() => {
                    let open = OpenOptions::new().append(true).open(path);
                    Ok(open.map(drop).map_err(IoError::at("write", path))?)
                }
                Ok(_) => Ok(()), // a pipe or a device: to open it may wait for who reads it
                Err(_) => self.parent().check_directory(),
            };
        };
        let top = open(start, shown)?;
        refuse_links(&top, path)?;
        match top.stat(path)?.map(|stat| stat.kind()) {
            Some(FileKind::Dir) => Err(is_a_directory(&top.shown(path)).into()),
            Some(FileKind::Fifo | FileKind::Special | FileKind::Whiteout) => Ok(()),
            _ => self.parent().check_directory(),
        }
    }

    /// Makes a directory that is written into at the end, and checks that it can be. Nothing is left of the check.
    pub fn check_directory(&self) -> Result<(), OutputError> {
        Ok(self.create_dir()?.check_writable()?)
    }

    /// Makes the directory and those above it, and opens it.
    pub fn create_dir(&self) -> Result<TreeDir, OutputError> {
        match self {
            Self::Inner { start, shown, path } => create_dirs_unlinked(&open(start, shown)?, path),
            Self::Own(path) => {
                fs::create_dir_all(path).map_err(IoError::at("create", path))?;
                open(path, path)
            }
        }
    }

    /// Writes a file, and makes the directories above it. A regular file is replaced as a whole.
    pub fn write(&self, bytes: &[u8]) -> Result<(), OutputError> {
        match self {
            Self::Inner { start, shown, path } => put_file(&open(start, shown)?, path, |to| to.write_all(bytes)),
            Self::Own(path) => {
                self.parent().create_dir()?;
                Ok(fs::write(path, bytes).map_err(IoError::at("write", path))?)
            }
        }
    }

    /// The directory above it.
    fn parent(&self) -> Self {
        let above = |path: &Path| path.parent().unwrap_or(path).to_owned();
        match self {
            Self::Inner { start, shown, path } => {
                Self::Inner { start: start.clone(), shown: shown.clone(), path: above(path) }
            }
            Self::Own(path) => Self::Own(above(path)),
        }
    }
}

/// Makes the directories of `path` in a directory of outputs. Links are refused.
pub fn create_dirs_unlinked(dir: &TreeDir, path: &Path) -> Result<TreeDir, OutputError> {
    refuse_links(dir, path)?;
    Ok(dir.create_dirs(path)?)
}

/// Writes the file at `path` of a directory of outputs, and makes the directories above it. Links are refused; a regular file is
/// replaced as a whole; a FIFO is written to.
pub fn put_file(
    dir: &TreeDir,
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), OutputError> {
    refuse_links(dir, path)?;
    if let Some(parent) = path.parent() {
        dir.create_dirs(parent)?;
    }
    match dir.stat(path)?.map(|stat| stat.kind()) {
        None | Some(FileKind::File) => Ok(dir.replace_with(path, 0o666, write)?),
        Some(FileKind::Dir) => Err(is_a_directory(&dir.shown(path)).into()),
        Some(_) => Ok(dir.write_in_place(path, write)?),
    }
}

/// An error if `path` or a directory above it is a link.
fn refuse_links(dir: &TreeDir, path: &Path) -> Result<(), OutputError> {
    let mut ancestors: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    ancestors.reverse();
    for ancestor in ancestors {
        match dir.stat(ancestor)?.map(|stat| stat.kind()) {
            Some(FileKind::Symlink) => {
                return Err(OutputError::Link { path: dir.shown(path), link: dir.shown(ancestor) });
            }
            Some(FileKind::Dir) => {}
            _ => break,
        }
    }
    Ok(())
}

/// Opens a directory of the caller's own.
fn open(path: &Path, shown: &Path) -> Result<TreeDir, OutputError> {
    let fd = rustix::fs::open(path, DIR.difference(OFlags::NOFOLLOW), Mode::empty());
    let fd = fd.map_err(|errno| IoError::at("open", path)(errno.into()))?;
    Ok(TreeDir { fd, shown: shown.to_owned() })
}

/// The top of the outermost working tree that a directory is in; the directory if it is in none.
fn working_tree(cwd: &Path) -> &Path {
    let is_top = |dir: &&Path| dir.join(".git").symlink_metadata().is_ok();
    cwd.ancestors().filter(is_top).last().unwrap_or(cwd)
}

/// An absolute path in the working tree `top`, as a path from the directory in which it is: from `cwd` or one between the two, by
/// whatever name the path has that directory.
fn in_working_tree(top: &Path, cwd: &Path, path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let id = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    let dirs: Vec<_> = cwd.ancestors().take_while(|dir| dir.starts_with(top)).map(|dir| (id(dir), dir)).collect();
    path.ancestors().find_map(|ancestor| {
        let found = id(ancestor)?;
        let (_, dir) = dirs.iter().find(|(id, _)| *id == Some(found))?;
        Some(dir.join(path.strip_prefix(ancestor).ok()?))
    })
}

/// An absolute path without `.` and `..`, as if there were no links.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn is_a_directory(path: &Path) -> IoError {
    IoError::at("write", path)(io::ErrorKind::IsADirectory.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_below_the_working_directory_is_followed() {
        let outer = tempfile::tempdir().unwrap();
        let top = outer.path().canonicalize().unwrap();
        let (home, cwd) = (top.join("home"), top.join("repo/apps/web"));
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(&cwd).unwrap();
        fs::write(home.join("bashrc"), "mine").unwrap();
        symlink(&cwd, top.join("alias")).unwrap();
        symlink(&home, cwd.join("reports")).unwrap();
        symlink(home.join("bashrc"), cwd.join("digest")).unwrap();
        symlink(home.join("new"), cwd.join("dangling")).unwrap();
        symlink(&home, top.join("repo/reports")).unwrap();
        fs::create_dir(top.join("repo/.git")).unwrap();
        let alias = |path: &str| top.join("alias").join(path).display().to_string();
        let full = |path: &str| cwd.join(path).display().to_string();
        let places = ["reports/a/b", "digest", "dangling", "./x/../digest", "../../reports/a", "reports/../digest"]
            .map(str::to_owned)
            .into_iter()
            .chain([full("digest"), full("reports/a"), full("../../reports/a"), alias("digest"), alias("reports/a")])
            .chain([top.join("repo/reports/a").display().to_string()]);
        for place in places {
            let output = OutputPath::new(Path::new(&place), &cwd);
            let is_link = |error: &OutputError| matches!(error, OutputError::Link { .. });
            assert!(output.check_links().is_err_and(|error| is_link(&error)), "{place}");
            assert!(output.check_file().is_err_and(|error| is_link(&error)), "{place}");
            assert!(output.check_directory().is_err_and(|error| is_link(&error)), "{place}");
            assert!(output.write(b"theirs").is_err_and(|error| is_link(&error)), "{place}");
        }
        assert_eq!(fs::read_to_string(home.join("bashrc")).unwrap(), "mine");
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    }

    #[test]
    fn outputs_are_written_where_no_link_is_and_where_the_links_are_the_callers() {
        let outer = tempfile::tempdir().unwrap();
        let top = outer.path().canonicalize().unwrap();
        let (cwd, away) = (top.join("repo"), top.join("away"));
        fs::create_dir_all(&cwd).unwrap();
        fs::create_dir_all(&away).unwrap();
        symlink(&away, top.join("link")).unwrap();
        fs::write(cwd.join("old"), "a longer text").unwrap();
        let own = top.join("link/d/file").display().to_string();
        for (place, expected) in [
            ("new", cwd.join("new")),
            ("old", cwd.join("old")),
            ("a/b/c", cwd.join("a/b/c")),
            ("../beside", top.join("beside")),
            (&own, away.join("d/file")),
        ] {
            let output = OutputPath::new(Path::new(place), &cwd);
            output.check_links().unwrap();
            output.check_file().unwrap();
            output.write(b"bytes").unwrap();
            assert_eq!(fs::read_to_string(expected).unwrap(), "bytes", "{place}");
        }
        assert_eq!(fs::read_dir(&cwd).unwrap().count(), 3, "nothing is left of the checks");
        OutputPath::new(Path::new("."), &cwd).check_directory().unwrap();
        OutputPath::new(Path::new("/dev/null"), &cwd).write(b"bytes").unwrap();
    }

    #[test]
    fn a_directory_is_no_place_for_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let cwd = dir.path().canonicalize().unwrap();
        fs::create_dir(cwd.join("d")).unwrap();
        let output = OutputPath::new(Path::new("d"), &cwd);
        assert_eq!(output.check_file().unwrap_err().to_string(), "cannot write `d`");
        assert_eq!(output.write(b"").unwrap_err().to_string(), "cannot write `d`");
    }
}
