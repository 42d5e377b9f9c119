//! Finds the `JUnit` reports that tests write below the app's directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::error::TestError;
use super::exunit::sum;
use super::junit::{self, Suites};
use crate::attest::{CommandResult, TestCounts};
use crate::error::Error;
use crate::recipe::AppDir;
use crate::rootfs::DiffSource;
use crate::tree::{Enter, TreeDir, TreeRoot, WalkEntry};

/// Bytes that are read of all reports together.
const MAX_BYTES: u64 = 64 << 20;

/// Folders of the app whose reports are not the app's own.
const FOREIGN: [&str; 3] = ["deps", "node_modules", ".git"];

/// Seconds and nanoseconds since 1970, of an inode's `ctime`.
type ChangeTime = (i64, i64);

/// The reports that the tests have written so far.
pub(super) struct Reports {
    root: TreeRoot,
    /// The directory of the app there.
    app: String,
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
pub(super) fn written_dir(source: &DiffSource) -> TreeRoot {
    match source {
        DiffSource::UpperDirs(trees) => trees.first().map_or(TreeRoot::new(""), |tree| tree.root.clone()),
        DiffSource::FullCopy { dir, .. } => dir.clone(),
    }
}

impl Reports {
    /// Reports in a root filesystem; none yet.
    pub(super) fn new(source: &DiffSource, app: &AppDir) -> Self {
        let since = if let DiffSource::FullCopy { copied_at, .. } = source { *copied_at } else { (0, 0) };
        let root = written_dir(source);
        let app = app.in_tree();
        Self { root, app, since, seen: BTreeSet::new(), by_path: BTreeMap::new(), bytes_left: MAX_BYTES }
    }

    /// Reads the reports that are new, and returns how many tests they count. What tests closed to its owner is opened to him.
    pub(super) fn read_new(&mut self) -> Result<Option<TestCounts>, Error> {
        let Some(app) = self.root.open()?.accessible_dirs(&self.app)? else { return Ok(None) };
        let mut counts = None;
        app.walk_accessible(|entry| {
            if entry.path.parent() == Some(Path::new("")) && FOREIGN.iter().any(|name| entry.path == Path::new(name)) {
                return Ok(Enter::No);
            }
            counts = counts.into_iter().chain(self.read_report(&app, entry)?).reduce(sum);
            Ok::<_, Error>(Enter::Yes)
        })?;
        Ok(counts)
    }

    /// Reads one report, and returns how many tests it counts; `None` if this is none or was read before.
    fn read_report(&mut self, app: &TreeDir, entry: &WalkEntry) -> Result<Option<TestCounts>, Error> {
        if !self.is_new(entry) {
            return Ok(None);
        }
        if app.accessible_file(&entry.path)?.is_none() {
            return Ok(None);
        }
        // To open it to its owner changed it.
        let changed = app.stat(&entry.path)?.map(|stat| (entry.path.clone(), stat.ctime()));
        self.seen.extend(changed);
        let Some(text) = app.read_text(&entry.path, self.bytes_left)? else { return Ok(None) };
        self.bytes_left -= text.len() as u64;
        let suites = junit::read(&text);
        if suites.elements.is_empty() {
            return Ok(None);
        }
        let counts = suites.counts;
        self.by_path.insert(entry.path.clone(), FoundReport { text, suites });
        Ok(counts)
    }

    /// Whether this is an XML file of these tests that has not been read and may be.
    fn is_new(&mut self, entry: &WalkEntry) -> bool {
        let changed = entry.stat.ctime();
        entry.path.extension().is_some_and(|extension| extension == "xml")
            && entry.stat.is_regular_file()
            && entry.stat.size() <= self.bytes_left
            && changed > self.since
            && self.seen.insert((entry.path.clone(), changed))
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
    use super::*;
    use crate::store::Tree;
    use crate::tree::OutputPath;

    #[test]
    fn reports_of_several_apps_become_one() {
        let dir = tempfile::tempdir().unwrap();
        for (name, tests) in [("app/_build/a.xml", 2), ("app/_build/b.xml", 3), ("app/deps/x/c.xml", 9)] {
            let report = format!("<testsuite tests=\"{tests}\"></testsuite>");
            OutputPath::new(Path::new(name), dir.path()).write(report.as_bytes()).unwrap();
        }
        let mut reports = Reports::new(&DiffSource::UpperDirs(vec![Tree::bare(dir.path())]), &AppDir::default());
        assert_eq!(reports.read_new().unwrap().map(|counts| counts.tests), Some(5));
        assert_eq!(reports.read_new().unwrap(), None, "they have been read");
        assert_eq!(junit::read(&reports.junit(&[]).unwrap()).elements.len(), 2);
        let whole = |copied_at| DiffSource::FullCopy { dir: TreeRoot::new(dir.path()), copied_at };
        assert_eq!(
            Reports::new(&whole((i64::MAX, 0)), &AppDir::default()).read_new().unwrap(),
            None,
            "they came with the image"
        );
        assert_eq!(
            Reports::new(&whole((1, 0)), &AppDir::default()).read_new().unwrap().map(|counts| counts.tests),
            Some(5)
        );
    }
}
