//! What leaves the writable layer before it is thrown away: a report in the form of `JUnit`, logs, named files. Nothing that a
//! test left there leads anywhere else: links are not followed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use walkdir::WalkDir;

use super::junit::{counted, suites};
use crate::attest::{Command, Counts};
use crate::error::{Error, IoError};
use crate::recipe::APP;
use crate::rootfs::DiffSource;
use crate::store::Tree;

/// Reports together are not larger, in bytes.
const MOST: u64 = 64 << 20;

/// The reports that the tests have written so far.
pub(super) struct Reports {
    app: PathBuf,
    /// Seconds and nanoseconds; what has not changed since came with the image.
    since: (i64, i64),
    seen: BTreeSet<(PathBuf, (i64, i64))>,
    texts: Vec<(PathBuf, String)>,
    /// Bytes that may still be read.
    room: u64,
}

/// The part of the root filesystem that was written to: the upper directory, or all of it.
pub(super) fn written(new: &DiffSource) -> PathBuf {
    match new {
        DiffSource::UpperDirs(trees) => trees.first().map(|tree| tree.root.clone()).unwrap_or_default(),
        DiffSource::FullCopy { dir, .. } => dir.clone(),
    }
}

impl Reports {
    pub(super) fn new(new: &DiffSource) -> Self {
        let app = written(new).join(APP);
        let since = if let DiffSource::FullCopy { copied_at, .. } = new { *copied_at } else { (0, 0) };
        Self { app, since, seen: BTreeSet::new(), texts: vec![], room: MOST }
    }

    /// Takes in those that are new, and says how many tests they count.
    pub(super) fn look(&mut self) -> Option<Counts> {
        let hidden = ["deps", "node_modules", ".git"];
        let walk = WalkDir::new(&self.app).sort_by_file_name().into_iter();
        let ours =
            walk.filter_entry(|entry| entry.depth() != 1 || hidden.iter().all(|name| entry.file_name() != *name));
        let mut sum = vec![];
        for entry in ours.filter_map(Result::ok) {
            let path = entry.path();
            let Ok(meta) = entry.metadata() else { continue };
            let is_xml = path.extension().is_some_and(|extension| extension == "xml");
            let changed = (meta.ctime(), meta.ctime_nsec());
            if !is_xml || !meta.is_file() || meta.len() > self.room || changed <= self.since {
                continue;
            }
            if !self.seen.insert((path.to_owned(), changed)) {
                continue;
            }
            self.room -= meta.len();
            let text = fs::read_to_string(path).unwrap_or_default();
            if !suites(&text).is_empty() {
                self.texts.retain(|(before, _)| before != path);
                self.texts.push((path.to_owned(), text.clone()));
                sum.push(text);
            }
        }
        counted(&sum.iter().flat_map(|text| suites(text)).collect::<Vec<_>>())
    }

    /// One report: the tests' own, several of them as one, or what is known of the commands.
    pub(super) fn junit(&self, commands: &[Command]) -> String {
        match self.texts.as_slice() {
            [] => of_commands(commands),
            [(_, text)] => text.clone(),
            several => {
                let all: Vec<&str> = several.iter().flat_map(|(_, text)| suites(text)).collect();
                format!("{HEAD}<testsuites>\n{}\n</testsuites>\n", all.join("\n"))
            }
        }
    }
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Each command as a test case.
fn of_commands(commands: &[Command]) -> String {
    let failures = commands.iter().filter(|command| !command.passed).count();
    let mut text = format!(
        "{HEAD}<testsuites>\n<testsuite name=\"phial test\" tests=\"{}\" failures=\"{failures}\" errors=\"0\">\n",
        commands.len()
    );
    for command in commands {
        let (name, ended) = (escaped(&command.name), escaped(&command.ended));
        let time = format!("{}.{:03}", command.millis / 1000, command.millis % 1000);
        let failure =
            if command.passed { String::new() } else { format!("<failure message=\"{ended}\">{ended}</failure>") };
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "<testcase classname=\"phial\" name=\"{name}\" time=\"{time}\">{failure}</testcase>");
    }
    text + "</testsuite>\n</testsuites>\n"
}

/// As text or attribute of XML 1.0; characters that it has no way to write are left out.
fn escaped(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars() {
        match c {
            '&' => clean.push_str("&amp;"),
            '<' => clean.push_str("&lt;"),
            '>' => clean.push_str("&gt;"),
            '"' => clean.push_str("&quot;"),
            c if c.is_control() && c != '\t' && c != '\n' => {}
            c => clean.push(c),
        }
    }
    clean
}

/// Writes a file for the user, and the directories above it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(IoError::at("create", parent))?;
    }
    Ok(fs::write(path, text).map_err(IoError::at("write", path))?)
}

/// Copies files or folders of the app to `dest`: what the tests wrote there, else what the image has. Those that are in
/// neither are given back.
pub(super) fn artifacts(paths: &[String], written: &Path, trees: &[Tree], dest: &Path) -> Result<Vec<String>, Error> {
    let roots = || [written].into_iter().chain(trees.iter().map(|tree| tree.root.as_path()));
    let mut missing = vec![];
    for path in paths {
        let inside = Path::new(APP).join(path);
        match roots().find(|root| plainly_there(root, &inside)) {
            Some(root) => copy_out(&root.join(inside), &dest.join(path))?,
            None => missing.push(path.clone()),
        }
    }
    Ok(missing)
}

/// Copies whole files, to the directory `dest`.
pub(super) fn logs(files: &[PathBuf], dest: &Path) -> Result<(), Error> {
    fs::create_dir_all(dest).map_err(IoError::at("create", dest))?;
    files.iter().try_for_each(|file| copy_out(file, &dest.join(file.file_name().unwrap_or_default())))
}

/// Whether a file or directory is there, with no link on the way to it.
fn plainly_there(root: &Path, inside: &Path) -> bool {
    let mut path = root.to_owned();
    let parts: Vec<Component<'_>> = inside.components().collect();
    parts.iter().enumerate().all(|(nth, part)| {
        path.push(part);
        fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir() || (nth + 1 == parts.len() && meta.is_file()))
    })
}

/// Regular files and directories only; the copies have the usual modes.
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

    fn command(name: &str, passed: bool) -> Command {
        let ended = format!("exit code {}", i32::from(!passed));
        Command { name: name.into(), argv: vec![], passed, ended, counts: None, millis: 1234 }
    }

    #[test]
    fn without_a_report_each_command_is_a_test_case() {
        let text = of_commands(&[command("test", true), command("a<b>\u{1}", false)]);
        assert!(text.contains("name=\"a&lt;b&gt;\" time=\"1.234\"><failure message=\"exit code 1\">"), "{text}");
        assert_eq!(counted(&suites(&text)), Some(Counts { tests: 2, failures: 1, skipped: 0 }));
    }

    #[test]
    fn reports_of_several_apps_become_one() {
        let dir = tempfile::tempdir().unwrap();
        for (name, tests) in [("app/_build/a.xml", 2), ("app/_build/b.xml", 3), ("app/deps/x/c.xml", 9)] {
            write(&dir.path().join(name), &format!("<testsuite tests=\"{tests}\"></testsuite>")).unwrap();
        }
        let mut reports = Reports::new(&DiffSource::UpperDirs(vec![Tree::bare(dir.path())]));
        assert_eq!(reports.look().map(|counts| counts.tests), Some(5));
        assert_eq!(reports.look(), None, "seen already");
        assert_eq!(suites(&reports.junit(&[])).len(), 2);
        let whole = |copied_at| DiffSource::FullCopy { dir: dir.path().to_owned(), copied_at };
        assert_eq!(Reports::new(&whole((i64::MAX, 0))).look(), None, "they came with the image");
        assert_eq!(Reports::new(&whole((1, 0))).look().map(|counts| counts.tests), Some(5));
    }

    #[test]
    fn links_that_tests_leave_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (root, out) = (dir.path().join("root"), dir.path().join("out"));
        write(&root.join("app/cover/index.html"), "x").unwrap();
        write(&dir.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("app/cover/link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("app/away")).unwrap();
        let paths = ["cover", "away/secret", "none"].map(str::to_owned);
        assert_eq!(artifacts(&paths, &root, &[], &out).unwrap(), ["away/secret", "none"]);
        assert!(out.join("cover/index.html").is_file() && fs::symlink_metadata(out.join("cover/link")).is_err());
    }
}
