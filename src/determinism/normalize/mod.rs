//! Normalizes the files that Mix, rebar3 and git write: two runs of a step that did the same work then have the same
//! bytes.
//!
//! Applied to the changes of a step, in place, before they are packed. Mix finds the result up to date: it compiles
//! nothing and touches no file. Compiled code is not changed; the shims make compilers write it the same each time.
//! Links are not followed, and whiteouts stay as they are.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use phial_layers::EntryPath;

mod counters;
#[doc(hidden)]
pub mod fuzz;
mod git;
mod hex;
mod mix;
mod options;

pub use options::{NormalizeOptions, Part};

use crate::elixir::etf::{self, EtfError};
use crate::error::{ExitKind, IoError, UserError};
use crate::tree::{Enter, EntryStat, FileKind, TreeDir};

/// The largest Mix manifest or Hex marker that is read, in bytes.
const MAX_TERM: u64 = etf::MAX_BYTES as u64;

/// What [`normalize`] changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NormalizeReport {
    /// Number of Mix manifests rewritten.
    pub manifests: u64,
    /// Of these, the number from which the parent's configuration was removed.
    pub scrubbed: u64,
    /// Manifests of a version that is not known, with the version: only times were changed in them.
    pub unknown: Vec<(EntryPath, i64)>,
    /// Number of Hex markers rewritten.
    pub hex: u64,
    /// Number of repositories of git dependencies reduced to a minimum.
    pub git: u64,
    /// Caches that were removed, by path.
    pub removed: Vec<EntryPath>,
    /// Files that could not be read as what they should be, and why. They are unchanged.
    pub skipped: Vec<(EntryPath, String)>,
    /// Number of files and directories whose mode changed.
    pub modes: u64,
    /// Git dependencies whose URL has user information, because it has it in `mix.lock`.
    pub urls_with_user: Vec<EntryPath>,
}

/// A file could not be read or changed. The tree is then normalized in part and must not be used.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NormalizeError(#[from] IoError);

impl UserError for NormalizeError {
    fn exit_kind(&self) -> ExitKind {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let source = &self.0.source;
        let is_known = matches!(source.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull);
        if is_known || source.raw_os_error().is_some() { ExitKind::Machine } else { ExitKind::Internal }
    }

    fn hint(&self) -> Option<String> {
        match self.0.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("free space on the disk that holds the cache".to_owned())
            }
            io::ErrorKind::PermissionDenied => {
                Some("files of other user ids can only be changed in their user namespace".to_owned())
            }
            _ => None,
        }
    }
}

/// Normalizes the files of `tree`. Below its directory `app` manifests, markers and repositories are rewritten, caches are
/// removed, and modes become 0755 for directories and executable files, else 0644; everything in the tree gets the
/// modification time of the options. `app` need not exist. Idempotent.
pub fn normalize(tree: &TreeDir, app: &str, options: &NormalizeOptions) -> Result<NormalizeReport, NormalizeError> {
    let mut walk = NormalizeWalk { tree, options, report: NormalizeReport::default() };
    if let Some(stat) = tree.stat(app)?.filter(EntryStat::is_directory) {
        walk.set_mode(Path::new(app), &stat)?;
        walk.directory(Path::new(app), DirKind::App)?;
    }
    walk.report.removed.sort();
    walk.report.skipped.sort();
    walk.report.unknown.sort();
    set_times(tree, options.mtime)?;
    Ok(walk.report)
}

/// The kind of a directory in an app, which decides what its entries are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DirKind {
    App,
    Deps,
    Dep,
    Build,
    Manifests,
    Source,
}

impl DirKind {
    fn child(self, name: &str) -> Self {
        match (self, name) {
            (Self::App, "deps") => Self::Deps,
            (Self::Deps, _) => Self::Dep,
            (Self::Build, ".mix") => Self::Manifests,
            (Self::App | Self::Source, "_build") | (Self::Build, _) => Self::Build,
            _ => Self::Source,
        }
    }

    /// Whether an entry is removed: rebar3's build directory of a dependency, the app's repository, Mix's records of
    /// the last run, and the table of Elixir 1.14's tracer, which has a random reference in it and is made again by the next
    /// compilation.
    fn is_cache(self, name: &str, stat: &EntryStat) -> bool {
        match self {
            Self::App => name == ".git",
            Self::Dep => name == "_build" && stat.is_directory(),
            Self::Manifests => {
                stat.is_regular_file()
                    && (matches!(name, ".mix_test_failures" | "compile.app_tracer")
                        || Path::new(name).extension().is_some_and(|ext| ext == "checkpoint"))
            }
            Self::Deps | Self::Build | Self::Source => false,
        }
    }
}

struct NormalizeWalk<'a> {
    tree: &'a TreeDir,
    options: &'a NormalizeOptions<'a>,
    report: NormalizeReport,
}

impl NormalizeWalk<'_> {
    fn directory(&mut self, at: &Path, kind: DirKind) -> Result<(), NormalizeError> {
        let Some(dir) = self.tree.dir(at)? else { return Ok(()) };
        for (name, stat) in dir.entries()? {
            let path = at.join(&name);
            let name = name.to_string_lossy();
            match stat.kind() {
                FileKind::Whiteout => {}
                _ if kind.is_cache(&name, &stat) => {
                    self.tree.remove_all(&path)?;
                    self.report.removed.push(entry_path(&path));
                }
                FileKind::Dir => {
                    self.set_mode(&path, &stat)?;
                    if kind == DirKind::Dep && name == ".git" {
                        self.repository(&path)?;
                    }
                    self.directory(&path, kind.child(&name))?;
                }
                FileKind::File => {
                    self.set_mode(&path, &stat)?;
                    match kind {
                        DirKind::Manifests => self.manifest(&path, &name)?,
                        DirKind::Dep if name == ".hex" => self.marker(&path)?,
                        _ => {}
                    }
                }
                FileKind::Symlink | FileKind::Fifo | FileKind::Special => {}
            }
        }
        Ok(())
    }

    fn manifest(&mut self, path: &Path, name: &str) -> Result<(), NormalizeError> {
        let options = self.options;
        let (mut scrubbed, mut unknown) = (false, None);
        let understood = self.rewrite(path, |bytes| {
            let manifest = mix::normalized(name, bytes, options)?;
            (scrubbed, unknown) = (manifest.scrubbed, manifest.unknown);
            Ok(manifest.bytes)
        })?;
        self.report.manifests += u64::from(understood);
        self.report.scrubbed += u64::from(scrubbed);
        self.report.unknown.extend(unknown.map(|version| (entry_path(path), version)));
        Ok(())
    }

    fn marker(&mut self, path: &Path) -> Result<(), NormalizeError> {
        self.report.hex += u64::from(self.rewrite(path, hex::normalized)?);
        Ok(())
    }

    /// Replaces a file that holds a term by its normal form. False if the file is not such a term and stays.
    fn rewrite<F>(&mut self, path: &Path, normal: F) -> Result<bool, NormalizeError>
    where
        F: FnOnce(&[u8]) -> Result<Vec<u8>, EtfError>,
    {
        let bytes = match self.tree.read(path, MAX_TERM) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(false),
            Err(error) if error.source.kind() == io::ErrorKind::FileTooLarge => {
                self.skip(path, EtfError::Limit.to_string());
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        if !etf::looks_like_term(&bytes) {
            return Ok(false);
        }
        match normal(&bytes) {
            Ok(normal) if normal == bytes => Ok(true),
            Ok(normal) => Ok(self.tree.replace(path, &normal, 0o644).map(|()| true)?),
            Err(reason) => {
                self.skip(path, reason.to_string());
                Ok(false)
            }
        }
    }

    fn repository(&mut self, path: &Path) -> Result<(), NormalizeError> {
        let Some(git_dir) = self.tree.dir(path)? else { return Ok(()) };
        let Some(mut head) = git::read(&git_dir)? else {
            self.skip(path, "not a repository with a commit and an origin".to_owned());
            return Ok(());
        };
        let public = git::public_url(&head.url, self.options.lock);
        if git::public_url(&public, "") != public {
            self.report.urls_with_user.push(entry_path(path.parent().unwrap_or(path)));
        }
        head.url = public;
        self.report.git += 1;
        Ok(git::write(self.tree, path, &head)?)
    }

    fn skip(&mut self, path: &Path, reason: String) {
        self.report.skipped.push((entry_path(path), reason));
    }

    fn set_mode(&mut self, path: &Path, stat: &EntryStat) -> Result<(), NormalizeError> {
        let mode = if stat.is_directory() || stat.mode() & 0o100 != 0 { 0o755 } else { 0o644 };
        if stat.mode() != mode {
            self.tree.set_mode(path, mode)?;
            self.report.modes += 1;
        }
        Ok(())
    }
}

fn entry_path(path: &Path) -> EntryPath {
    EntryPath::new(path.as_os_str().as_bytes())
}

/// Sets the modification time of everything in the tree, symbolic links and its root included; of a directory after its
/// entries.
pub fn set_times(tree: &TreeDir, mtime: i64) -> Result<(), NormalizeError> {
    let mut dirs = vec![PathBuf::new()];
    tree.walk(|entry| {
        match entry.stat.kind() {
            FileKind::Whiteout => {}
            FileKind::Dir => dirs.push(entry.path.clone()),
            _ => tree.set_times(&entry.path, (mtime, 0))?,
        }
        Ok::<_, IoError>(Enter::Yes)
    })?;
    dirs.iter().rev().try_for_each(|dir| Ok(tree.set_times(dir, (mtime, 0))?))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
