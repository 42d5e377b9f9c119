//! Files of a working tree that git does not store as they are: by a filter or an encoding of gitattributes(5). They are
//! compared with their blobs without running anything.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::{AttrCheckFlags, AttrValue, Config, Index, IndexEntry, Repository};

use super::encoding::{Encoding, Named, named};
use super::lfs::Pointer;
use crate::tree::{EntryStat, TreeDir};

/// How many bytes of files are read for one working tree, in all.
const MAX_READ: u64 = 1 << 30;
/// The largest blob that a file is compared with, in bytes.
const MAX_BLOB: usize = 64 << 20;

/// Whether a file is what the index has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexComparison {
    /// It is.
    Same,
    /// It is not.
    Different,
    /// Only the filter can tell.
    Unknown,
}

/// The files of one working tree.
pub(super) struct FilteredFiles<'a> {
    repo: &'a Repository,
    config: &'a Config,
    tree: &'a TreeDir,
    /// How many bytes may still be read.
    unread: u64,
}

/// How git makes the blob of a file.
enum Clean {
    /// From the file as it is, but for line ends and the like, which libgit2 knows.
    Plain,
    /// From text of this encoding.
    Encoded(Encoding),
    /// By Git LFS, as a pointer to it.
    Lfs,
    /// By a program, or from an encoding that is not known here.
    Program,
}

impl<'a> FilteredFiles<'a> {
    pub(super) fn new(repo: &'a Repository, config: &'a Config, tree: &'a TreeDir) -> Self {
        Self { repo, config, tree, unread: MAX_READ }
    }

    /// Whether the file at `path` is what the index has, which libgit2 denies: it does not know of filters.
    pub(super) fn compare(&mut self, index: &Index, path: &[u8]) -> IndexComparison {
        let path = Path::new(OsStr::from_bytes(path));
        let clean = self.clean(path);
        if matches!(clean, Clean::Plain) {
            return IndexComparison::Different;
        }
        let (Some(entry), Ok(Some(stat))) = (index.get_path(path, 0), self.tree.stat(path)) else {
            return IndexComparison::Different;
        };
        let is_mode_trusted = self.config.get_bool("core.fileMode").unwrap_or(true);
        let is_executable = |mode: u32| mode & 0o100 != 0;
        if !stat.is_regular_file() || (is_mode_trusted && is_executable(stat.mode()) != is_executable(entry.mode)) {
            return IndexComparison::Different;
        }
        // The index has the size of the file, not of the blob; 0 if it has been written too soon after the file to tell.
        let is_size_known = entry.file_size != 0;
        if is_size_known && u64::from(entry.file_size) != stat.size() & u64::from(u32::MAX) {
            return IndexComparison::Different;
        }
        if is_size_known && has_time(&stat, &entry) {
            return IndexComparison::Same;
        }
        match self.compare_content(path, &entry, &clean) {
            Some(true) => IndexComparison::Same,
            Some(false) => IndexComparison::Different,
            None => IndexComparison::Unknown,
        }
    }

    /// Whether the content of a file is that of its blob; `None` if only git can say.
    fn compare_content(&mut self, path: &Path, entry: &IndexEntry, clean: &Clean) -> Option<bool> {
        let file = self.tree.file(path).ok()??;
        let size = file.metadata().ok()?.len();
        self.unread = self.unread.checked_sub(size)?;
        let odb = self.repo.odb().ok()?;
        let blob = odb.read_header(entry.id).ok().filter(|(size, _)| *size <= MAX_BLOB);
        let blob = blob.and_then(|_| odb.read(entry.id).ok())?;
        match clean {
            Clean::Plain => Some(false),
            Clean::Lfs => Some(Some(Pointer::to(file.take(size)).ok()?) == Pointer::parse(blob.data())),
            Clean::Encoded(encoding) => {
                let mut bytes = Vec::new();
                file.take(size).read_to_end(&mut bytes).ok()?;
                // Line ends are no change: git may have written others.
                let text = encoding.decode(&bytes)?;
                Some(without_returns(&text) == without_returns(blob.data()))
            }
            Clean::Program => None,
        }
    }

    fn clean(&self, path: &Path) -> Clean {
        let filter = self.attribute(path, "filter");
        let encoding = self.attribute(path, "working-tree-encoding").map_or(Named::Utf8, |name| named(&name));
        let has_driver = |name: &String| {
            ["clean", "process"].iter().any(|command| {
                self.config.get_string(&format!("filter.{name}.{command}")).is_ok_and(|command| !command.is_empty())
            })
        };
        match (filter.filter(has_driver).as_deref(), encoding) {
            (None, Named::Utf8) => Clean::Plain,
            (None, Named::Other(encoding)) => Clean::Encoded(encoding),
            (Some("lfs"), Named::Utf8) => Clean::Lfs,
            _ => Clean::Program,
        }
    }

    /// The value of an attribute as git sees it in this working tree; `None` if it has none.
    fn attribute(&self, path: &Path, name: &str) -> Option<String> {
        let value = self.repo.get_attr_bytes(path, name, AttrCheckFlags::FILE_THEN_INDEX).ok()?;
        match AttrValue::from_bytes(value) {
            AttrValue::String(text) if !text.is_empty() => Some(text.to_owned()),
            _ => None,
        }
    }
}

/// Whether a file has been written when the index says.
fn has_time(stat: &EntryStat, entry: &IndexEntry) -> bool {
    let (seconds, nanoseconds) = (entry.mtime.seconds(), entry.mtime.nanoseconds());
    let (mtime, fraction) = stat.mtime();
    let is_same_fraction = nanoseconds == 0 || i64::from(nanoseconds) == fraction;
    i64::from(seconds) == mtime && is_same_fraction
}

fn without_returns(text: &[u8]) -> Vec<u8> {
    let mut kept = text.to_vec();
    let mut at = 0;
    kept.retain(|byte| {
        at += 1;
        !(*byte == b'\r' && text.get(at) == Some(&b'\n'))
    });
    kept
}
