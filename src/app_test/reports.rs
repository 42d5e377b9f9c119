//! Finds the `JUnit` reports that tests write below the app's directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::error::TestError;
use super::exunit::sum;
use super::junit::{self, Suites};
use crate::attest::{CommandResult, TestCounts};
use crate::recipe::APP;
use crate::rootfs::DiffSource;

/// Bytes that are read of all reports together.
const MAX_BYTES: u64 = 64 << 20;

/// Folders of the app whose reports are not the app's own.
const FOREIGN: [&str; 3] = ["deps", "node_modules", ".git"];

/// Seconds and nanoseconds since 1970, of an inode's `ctime`.
type ChangeTime = (i64, i64);

/// The reports that the tests have written so far.
pub(super) struct Reports {
    app: PathBuf,
    /// A file that has not changed since came with the image.
    since: ChangeTime,
    seen: BTreeSet<(PathBuf, ChangeTime)>,
    by_path: BTreeMap<PathBuf, FoundReport>,
    /// How much may still be read.
    bytes_left: u64,
}

struct FoundReport {
    text: String,
    suites: Suites,
}

/// The directory that holds what was written to a root filesystem: the upper directory, or the whole copy.
pub(super) fn written_dir(source: &DiffSource) -> &Path {
    match source {
        DiffSource::UpperDirs(trees) => trees.first().map_or(Path::new(""), |tree| &tree.root),
        DiffSource::FullCopy { dir, .. } => dir,
    }
}

impl Reports {
    /// Reports in a root filesystem; none yet.
    pub(super) fn new(source: &DiffSource) -> Self {
        let app = written_dir(source).join(APP);
        let since = if let DiffSource::FullCopy { copied_at, .. } = source { *copied_at } else { (0, 0) };
        Self { app, since, seen: BTreeSet::new(), by_path: BTreeMap::new(), bytes_left: MAX_BYTES }
    }

    /// Reads the reports that are new, and returns how many tests they count.
    pub(super) fn read_new(&mut self) -> Option<TestCounts> {
        let walk = WalkDir::new(&self.app).sort_by_file_name().into_iter();
        let own =
            walk.filter_entry(|entry| entry.depth() != 1 || FOREIGN.iter().all(|name| entry.file_name() != *name));
        let mut counts = None;
        for entry in own.filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            if !self.is_new(entry.path(), &metadata) {
                continue;
            }
            self.bytes_left -= metadata.len();
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let suites = junit::read(&text);
            if suites.elements.is_empty() {
                continue;
            }
            counts = counts.into_iter().chain(suites.counts).reduce(sum);
            self.by_path.insert(entry.into_path(), FoundReport { text, suites });
        }
        counts
    }

    /// Whether this is an XML file of these tests that has not been read and may be.
    fn is_new(&mut self, path: &Path, metadata: &Metadata) -> bool {
        let is_xml = path.extension().is_some_and(|extension| extension == "xml");
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        is_xml
            && metadata.is_file()
            && metadata.len() <= self.bytes_left
            && changed > self.since
            && self.seen.insert((path.to_owned(), changed))
    }

    /// One report: the only one as it is, several merged, or one of the commands if the tests wrote none.
    pub(super) fn junit(&self, commands: &[CommandResult]) -> Result<String, TestError> {
        let mut reports = self.by_path.values();
        match (reports.next(), reports.next()) {
            (None, _) => junit::of_commands(commands).map_err(TestError::Report),
            (Some(only), None) if only.suites.is_complete => Ok(only.text.clone()),
            _ => Ok(junit::merge(self.by_path.values().map(|report| &report.suites))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::artifacts::write;
    use super::*;
    use crate::store::Tree;

    #[test]
    fn reports_of_several_apps_become_one() {
        let dir = tempfile::tempdir().unwrap();
        for (name, tests) in [("app/_build/a.xml", 2), ("app/_build/b.xml", 3), ("app/deps/x/c.xml", 9)] {
            write(&dir.path().join(name), &format!("<testsuite tests=\"{tests}\"></testsuite>")).unwrap();
        }
        let mut reports = Reports::new(&DiffSource::UpperDirs(vec![Tree::bare(dir.path())]));
        assert_eq!(reports.read_new().map(|counts| counts.tests), Some(5));
        assert_eq!(reports.read_new(), None, "they have been read");
        assert_eq!(junit::read(&reports.junit(&[]).unwrap()).elements.len(), 2);
        let whole = |copied_at| DiffSource::FullCopy { dir: dir.path().to_owned(), copied_at };
        assert_eq!(Reports::new(&whole((i64::MAX, 0))).read_new(), None, "they came with the image");
        assert_eq!(Reports::new(&whole((1, 0))).read_new().map(|counts| counts.tests), Some(5));
    }
}
