//! Normalizes the files that Mix, rebar3 and git write: two runs of a step that did the same work then have the same
//! bytes.
//!
//! Applied to the changes of a step, in place, before they are packed. Mix finds the result up to date: it compiles
//! nothing and touches no file. Compiled code is not changed; the shims make compilers write it the same each time.
//! Links are not followed, and whiteouts stay as they are.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use phial_layers::EntryPath;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

mod git;
mod hex;
mod mix;
mod options;

pub use options::{NormalizeOptions, Part};

use crate::elixir::etf::{self, EtfError};
use crate::error::{ExitKind, IoError, UserError};

/// What [`normalize`] changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NormalizeReport {
    /// Number of Mix manifests rewritten.
    pub manifests: u64,
    /// Of these, the number from which the parent's configuration was removed.
    pub scrubbed: u64,
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
        if matches!(self.0.source.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull) {
            ExitKind::Machine
        } else {
            ExitKind::Internal
        }
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

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> NormalizeError + use<'a> {
    move |source| IoError::at(action, path)(source).into()
}

/// Normalizes the files below `root`. Below `root`/`app` manifests, markers and repositories are rewritten, caches are
/// removed, and modes become 0755 for directories and executable files, else 0644; everything below `root` gets the
/// modification time of the options. `app` is relative to `root` and need not exist. Idempotent.
pub fn normalize(root: &Path, app: &str, options: &NormalizeOptions) -> Result<NormalizeReport, NormalizeError> {
    let mut walk = Walk { root, options, report: NormalizeReport::default() };
    if let Some(app) = real_directory(root, app)? {
        walk.directory(&app, DirKind::App)?;
    }
    walk.report.removed.sort();
    walk.report.skipped.sort();
    set_times(root, options.mtime)?;
    Ok(walk.report)
}

/// The directory `path` below `root`; `None` if it does not exist or a component of the path is a link.
fn real_directory(root: &Path, path: &str) -> Result<Option<PathBuf>, NormalizeError> {
    let mut at = root.to_owned();
    for part in Path::new(path).components() {
        let std::path::Component::Normal(part) = part else { continue };
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read the metadata of", &at)(error)),
        }
    }
    Ok(Some(at))
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
    /// the last run.
    fn is_cache(self, name: &str, meta: &Metadata) -> bool {
        match self {
            Self::App => name == ".git",
            Self::Dep => name == "_build" && meta.is_dir(),
            Self::Manifests => {
                meta.is_file()
                    && (name == ".mix_test_failures"
                        || Path::new(name).extension().is_some_and(|ext| ext == "checkpoint"))
            }
            Self::Deps | Self::Build | Self::Source => false,
        }
    }
}

struct Walk<'a> {
    root: &'a Path,
    options: &'a NormalizeOptions<'a>,
    report: NormalizeReport,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Path, kind: DirKind) -> Result<(), NormalizeError> {
        self.set_mode(dir, &fs::symlink_metadata(dir).map_err(failed("read the metadata of", dir))?)?;
        let entries =
            fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed("list", dir))?;
        for entry in entries {
            let path = entry.path();
            let meta = fs::symlink_metadata(&path).map_err(failed("read the metadata of", &path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_whiteout(&meta) {
                continue;
            }
            if kind.is_cache(&name, &meta) {
                let removed = if meta.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(failed("remove", &path))?;
                self.report.removed.push(self.relative(&path));
            } else if meta.is_dir() {
                if kind == DirKind::Dep && name == ".git" {
                    self.repository(&path)?;
                }
                self.directory(&path, kind.child(&name))?;
            } else if meta.is_file() {
                self.set_mode(&path, &meta)?;
                match kind {
                    DirKind::Manifests => self.manifest(&path, &name)?,
                    DirKind::Dep if name == ".hex" => self.marker(&path)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn manifest(&mut self, path: &Path, name: &str) -> Result<(), NormalizeError> {
        let options = self.options;
        let mut scrubbed = false;
        let understood = self.rewrite(path, |bytes| {
            let (normal, emptied) = mix::normal(name, bytes, options)?;
            scrubbed = emptied;
            Ok(normal)
        })?;
        self.report.manifests += u64::from(understood);
        self.report.scrubbed += u64::from(scrubbed);
        Ok(())
    }

    fn marker(&mut self, path: &Path) -> Result<(), NormalizeError> {
        self.report.hex += u64::from(self.rewrite(path, hex::normal)?);
        Ok(())
    }

    /// Replaces a file that holds a term by its normal form. False if the file is not such a term and stays.
    fn rewrite<F>(&mut self, path: &Path, normal: F) -> Result<bool, NormalizeError>
    where
        F: FnOnce(&[u8]) -> Result<Vec<u8>, EtfError>,
    {
        if fs::symlink_metadata(path).map_err(failed("read the metadata of", path))?.len() > etf::MAX_BYTES as u64 {
            self.skip(path, EtfError::Limit.to_string());
            return Ok(false);
        }
        let bytes = fs::read(path).map_err(failed("read", path))?;
        if !etf::looks_like_term(&bytes) {
            return Ok(false);
        }
        match normal(&bytes) {
            Ok(normal) => replace(path, &bytes, &normal).map(|()| true),
            Err(reason) => {
                self.skip(path, reason.to_string());
                Ok(false)
            }
        }
    }

    fn repository(&mut self, path: &Path) -> Result<(), NormalizeError> {
        let Some(mut head) = git::read(path).map_err(failed("read", path))? else {
            self.skip(path, "not a repository with a commit and an origin".to_owned());
            return Ok(());
        };
        let public = git::public_url(&head.url, self.options.lock);
        if git::public_url(&public, "") != public {
            self.report.urls_with_user.push(self.relative(path.parent().unwrap_or(path)));
        }
        head.url = public;
        self.report.git += 1;
        git::write(path, &head).map_err(failed("rewrite", path))
    }

    fn skip(&mut self, path: &Path, reason: String) {
        self.report.skipped.push((self.relative(path), reason));
    }

    fn set_mode(&mut self, path: &Path, meta: &Metadata) -> Result<(), NormalizeError> {
        let mode = if meta.is_dir() || meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
        if meta.permissions().mode() & 0o7777 != mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", path))?;
            self.report.modes += 1;
        }
        Ok(())
    }

    fn relative(&self, path: &Path) -> EntryPath {
        use std::os::unix::ffi::OsStrExt as _;
        EntryPath::new(path.strip_prefix(self.root).unwrap_or(path).as_os_str().as_bytes())
    }
}

/// Whether an entry is a whiteout of overlayfs: a character device 0:0.
fn is_whiteout(meta: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    meta.file_type().is_char_device() && meta.rdev() == 0
}

/// Writes a new file and renames it, so that other hard links of the file keep the old bytes.
fn replace(path: &Path, old: &[u8], normal: &[u8]) -> Result<(), NormalizeError> {
    if old == normal {
        return Ok(());
    }
    let new = path.with_extension("phial-normal");
    fs::write(&new, normal).map_err(failed("write", &new))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).map_err(failed("set the mode of", &new))?;
    fs::rename(&new, path).map_err(failed("replace", path))
}

/// Sets the modification time of everything below `root`, symbolic links included; of a directory after its entries.
pub fn set_times(root: &Path, mtime: i64) -> Result<(), NormalizeError> {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(root).to_owned();
            failed("list", &path)(error.into())
        })?;
        if entry.metadata().is_ok_and(|meta| is_whiteout(&meta)) {
            continue;
        }
        utimensat(CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| failed("set the time of", entry.path())(errno.into()))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
