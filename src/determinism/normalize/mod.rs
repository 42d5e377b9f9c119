//! The normal form of what Mix, rebar3 and git leave behind: two runs of a step that did the same work leave the same bytes.
//!
//! Applied to the files that a step wrote, in place, before they are packed. Mix finds the result up to date: it compiles
//! nothing and touches no file. Nothing here repairs compiled code; what compilers write differently is cured where they
//! run. No link is followed, and whiteouts of an overlay stay as they are.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use phial_layers::EntryPath;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

mod git;
mod hex;
mod mix;

pub use hex::{Package, fetched, locked};

use crate::determinism::etf::{self, EtfError};
use crate::error::{ExitKind, UserError};

/// Which step wrote the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Dependencies. The parent's configuration and lock, which Mix copies into each of their manifests with every
    /// secret in them, are taken out.
    Deps,
    /// The app, its path dependencies and umbrella children. Mix compares their configuration, so it stays.
    Build,
}

/// What the bytes of the result depend on, beside the tree.
#[derive(Clone, Copy, Debug)]
pub struct NormalizeOptions<'a> {
    /// The one time of every file, in seconds since 1970.
    pub mtime: i64,
    /// What clocks said when the step began and ended, the machine's and the one that the step was given: a number in a
    /// manifest that lies within is a time.
    pub windows: [(i64, i64); 2],
    /// Which step wrote the tree.
    pub part: Part,
    /// The text of mix.lock, or nothing: a git URL that stands in it is kept as it is.
    pub lock: &'a str,
}

/// What was done, for whoever wants to know why bytes changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Manifests of Mix rewritten.
    pub manifests: u64,
    /// Of these, how many lost the parent's configuration.
    pub scrubbed: u64,
    /// Markers of Hex rewritten.
    pub hex: u64,
    /// Repositories of git dependencies cut down.
    pub git: u64,
    /// What was removed, relative to the root.
    pub removed: Vec<EntryPath>,
    /// Files that should have been rewritten but were not understood, and why; they are as they were.
    pub left: Vec<(EntryPath, String)>,
    /// Files and directories whose mode changed.
    pub modes: u64,
    /// Git dependencies whose URL holds user information because mix.lock does.
    pub urls_with_user: Vec<EntryPath>,
}

/// Why a tree could not be brought into its normal form. It is then in no defined state and must not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} `{path}`")]
pub struct NormalizeError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl UserError for NormalizeError {
    fn exit_kind(&self) -> ExitKind {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        if matches!(self.source.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull) {
            ExitKind::Machine
        } else {
            ExitKind::Internal
        }
    }

    fn hint(&self) -> Option<String> {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("free space on the disk that holds the cache".to_owned())
            }
            io::ErrorKind::PermissionDenied => {
                Some("files written under other user ids can only be changed inside their user namespace".to_owned())
            }
            _ => None,
        }
    }
}

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> NormalizeError + use<'a> {
    move |source| NormalizeError { verb, path: path.to_owned(), source }
}

/// Brings the files below `root` into their normal form: manifests, markers and repositories below `root`/`app` are
/// rewritten, caches removed, modes there are 0755 for directories and what the owner may execute, else 0644; everything
/// below `root` gets the time of the terms. `app` is relative to `root`; it need not exist. Running it again changes
/// nothing.
pub fn normalize(root: &Path, app: &str, terms: &NormalizeOptions) -> Result<Report, NormalizeError> {
    let mut walk = Walk { root, terms, report: Report::default() };
    if let Some(app) = real_directory(root, app)? {
        walk.directory(&app, Place::App)?;
    }
    walk.report.removed.sort();
    walk.report.left.sort();
    set_times(root, terms.mtime)?;
    Ok(walk.report)
}

/// The directory `path` below `root`, unless it does not exist or a link stands on the way.
fn real_directory(root: &Path, path: &str) -> Result<Option<PathBuf>, NormalizeError> {
    let mut at = root.to_owned();
    for part in Path::new(path).components() {
        let std::path::Component::Normal(part) = part else { continue };
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("look at", &at)(error)),
        }
    }
    Ok(Some(at))
}

/// Where in an app a directory stands; only that decides what its entries are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    App,
    Deps,
    Dep,
    Build,
    Manifests,
    Source,
}

impl Place {
    fn below(self, name: &str) -> Self {
        match (self, name) {
            (Self::App, "deps") => Self::Deps,
            (Self::Deps, _) => Self::Dep,
            (Self::Build, ".mix") => Self::Manifests,
            (Self::App | Self::Source, "_build") | (Self::Build, _) => Self::Build,
            _ => Self::Source,
        }
    }

    /// Caches and run-time traces: rebar3's own build directory, the app's repository, Mix's notes about the last run.
    fn drops(self, name: &str, meta: &Metadata) -> bool {
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
    terms: &'a NormalizeOptions<'a>,
    report: Report,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Path, place: Place) -> Result<(), NormalizeError> {
        self.set_mode(dir, &fs::symlink_metadata(dir).map_err(failed("look at", dir))?)?;
        let entries =
            fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed("list", dir))?;
        for entry in entries {
            let path = entry.path();
            let meta = fs::symlink_metadata(&path).map_err(failed("look at", &path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_whiteout(&meta) {
                continue;
            }
            if place.drops(&name, &meta) {
                let removed = if meta.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(failed("remove", &path))?;
                self.report.removed.push(self.name(&path));
            } else if meta.is_dir() {
                if place == Place::Dep && name == ".git" {
                    self.repository(&path)?;
                }
                self.directory(&path, place.below(&name))?;
            } else if meta.is_file() {
                self.set_mode(&path, &meta)?;
                match place {
                    Place::Manifests => self.manifest(&path, &name)?,
                    Place::Dep if name == ".hex" => self.marker(&path)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn manifest(&mut self, path: &Path, name: &str) -> Result<(), NormalizeError> {
        let terms = self.terms;
        let mut scrubbed = false;
        let understood = self.rewrite(path, |bytes| {
            let (normal, emptied) = mix::normal(name, bytes, terms, terms.part == Part::Deps)?;
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

    /// Replaces a file that holds a term by its normal form, if it can be understood; says whether it could.
    fn rewrite<F>(&mut self, path: &Path, normal: F) -> Result<bool, NormalizeError>
    where
        F: FnOnce(&[u8]) -> Result<Vec<u8>, EtfError>,
    {
        if fs::symlink_metadata(path).map_err(failed("look at", path))?.len() > etf::MAX_BYTES as u64 {
            self.leave(path, EtfError::Limit.to_string());
            return Ok(false);
        }
        let bytes = fs::read(path).map_err(failed("read", path))?;
        if !etf::looks_like_term(&bytes) {
            return Ok(false);
        }
        match normal(&bytes) {
            Ok(normal) => replace(path, &bytes, &normal).map(|()| true),
            Err(reason) => {
                self.leave(path, reason.to_string());
                Ok(false)
            }
        }
    }

    fn repository(&mut self, path: &Path) -> Result<(), NormalizeError> {
        let Some(mut head) = git::read(path).map_err(failed("read", path))? else {
            self.leave(path, "not a repository with a commit and an origin".to_owned());
            return Ok(());
        };
        let public = git::public_url(&head.url, self.terms.lock);
        if git::public_url(&public, "") != public {
            self.report.urls_with_user.push(self.name(path.parent().unwrap_or(path)));
        }
        head.url = public;
        self.report.git += 1;
        git::write(path, &head).map_err(failed("rewrite", path))
    }

    fn leave(&mut self, path: &Path, reason: String) {
        self.report.left.push((self.name(path), reason));
    }

    fn set_mode(&mut self, path: &Path, meta: &Metadata) -> Result<(), NormalizeError> {
        let mode = if meta.is_dir() || meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
        if meta.permissions().mode() & 0o7777 != mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", path))?;
            self.report.modes += 1;
        }
        Ok(())
    }

    fn name(&self, path: &Path) -> EntryPath {
        use std::os::unix::ffi::OsStrExt as _;
        EntryPath::new(path.strip_prefix(self.root).unwrap_or(path).as_os_str().as_bytes())
    }
}

/// A character device 0:0, as overlayfs marks a removed file.
fn is_whiteout(meta: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    meta.file_type().is_char_device() && meta.rdev() == 0
}

/// Writes `normal` beside the file and renames, so that a hard link to it elsewhere keeps the old bytes.
fn replace(path: &Path, old: &[u8], normal: &[u8]) -> Result<(), NormalizeError> {
    if old == normal {
        return Ok(());
    }
    let beside = path.with_extension("phial-normal");
    fs::write(&beside, normal).map_err(failed("write", &beside))?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o644)).map_err(failed("set the mode of", &beside))?;
    fs::rename(&beside, path).map_err(failed("replace", path))
}

/// Gives everything below `root`, links themselves included, one time; a directory after what is in it.
pub fn set_times(root: &Path, mtime: i64) -> Result<(), NormalizeError> {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(root).to_owned();
            NormalizeError { verb: "list", path, source: error.into() }
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
