//! From a repository to a tree: real git servers, real repositories, and trees that no honest git writes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use phial::error::UserError as _;
use phial::event::{Event, discard};
use phial::host::Host;
use phial::source::{Access, Fetched, Location, SourceError, checkout, fetch};

mod fetching;
mod lfs;
mod filters;
mod local;
mod checkout;
mod submodules;
mod trust;
mod working_tree;

/// A secret that must appear nowhere.
const CANARY: &str = "s3cr3t-canary-7f";
const T: i64 = 1_700_000_000;

/// Directories of one test: repositories, a cache, checkouts.
struct SourceTest {
    dir: tempfile::TempDir,
}

impl SourceTest {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("scratch") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A repository `name` with one commit of two files, and a tag `v1` on it.
    fn repo(&self, name: &str) -> PathBuf {
        let repo = self.path(name);
        git(self.dir.path(), &["init", "-q", "-b", "main", name]);
        write(&repo, "mix.exs", "defmodule A do\nend\n");
        write(&repo, "lib/a.ex", "1\n");
        commit(&repo, "first");
        git(&repo, &["tag", "-a", "-m", "one", "v1"]);
        repo
    }

    fn fetch(&self, location: &str, rev: &str) -> Result<Fetched, SourceError> {
        self.fetch_as(location, rev, &[])
    }

    fn fetch_as(&self, location: &str, rev: &str, env: &[(&str, &str)]) -> Result<Fetched, SourceError> {
        let parsed: Location = location.parse()?;
        fetch(&parsed, rev, &self.path("mirrors"), &access_to(location, env), &discard)
    }

    fn tree(&self, fetched: &Fetched, name: &str) -> BTreeMap<String, String> {
        let dest = self.path(name);
        checkout(fetched, &dest, T).expect("checked out");
        seen(&dest)
    }

    /// How many commits the mirrors hold together.
    fn commits_in_mirrors(&self) -> usize {
        let mirrors = fs::read_dir(self.path("mirrors")).expect("mirrors").flatten().map(|entry| entry.path());
        mirrors
            .filter(|path| path.is_dir())
            .map(|path| git(&path, &["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]))
            .map(|types| types.lines().filter(|kind| *kind == "commit").count())
            .sum()
    }
}

/// The variables `env`, and the server of the URL `location`.
fn access_to(location: &str, env: &[(&str, &str)]) -> Access {
    let named = location.parse::<Location>().ok().and_then(|parsed| parsed.git_host());
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Access::of(&Host { env, ..Host::read() }, named.as_slice())
}

/// The variables `env`, and no server that gets them.
fn access(env: &[(&str, &str)]) -> Access {
    access_to("", env)
}

/// Runs git as a fixed person, without anyone's configuration.
fn git(dir: &Path, args: &[&str]) -> String {
    git_with(dir, args, b"")
}

fn git_with(dir: &Path, args: &[&str], input: &[u8]) -> String {
    use std::io::Write as _;
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .args(["-c", "safe.directory=*", "-c", "protocol.file.allow=always", "-c", "core.safecrlf=false"])
        .args(args);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env_remove("GIT_DIR");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@example.org");
        command.env(format!("GIT_{who}_DATE"), "1600000000 +0200");
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("git");
    child.stdin.take().expect("piped").write_all(input).expect("git reads");
    let output = child.wait_with_output().expect("git ends");
    assert!(output.status.success(), "git {args:?}");
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

fn commit(repo: &Path, message: &str) -> String {
    git(repo, &["add", "-A"]);
    git(repo, &["commit", "-q", "--allow-empty", "-m", message]);
    git(repo, &["rev-parse", "HEAD"])
}

fn write(repo: &Path, name: &str, text: &str) {
    let path = repo.join(name);
    fs::create_dir_all(path.parent().expect("below")).expect("a directory");
    fs::write(path, text).expect("written");
}

/// Every entry below `dir` and `dir` itself: kind, mode, time and content.
fn seen(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry.expect("readable");
        let meta = entry.path().symlink_metadata().expect("there");
        let content = if meta.is_symlink() {
            fs::read_link(entry.path()).expect("a link").as_os_str().as_bytes().to_vec()
        } else if meta.is_file() {
            fs::read(entry.path()).expect("a file")
        } else {
            b"/".to_vec()
        };
        let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
        let name = entry.path().strip_prefix(dir).expect("below").as_os_str().as_bytes().escape_ascii().to_string();
        found.insert(name, format!("{mode:o} {} {}", meta.mtime(), content.escape_ascii()));
    }
    found
}

/// The notices while `work` ran.
fn notices_of(work: impl FnOnce(&(dyn Fn(Event) + Sync))) -> String {
    let output = Mutex::new(String::new());
    work(&|event| {
        if let Event::Notice { text } = event {
            let mut output = output.lock().expect("no panic");
            output.push_str(&text);
            output.push('\n');
        }
    });
    output.into_inner().expect("no panic")
}

/// The whole chain of an error as a user may see it.
fn full_message(error: &SourceError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!("{cause} {cause:?}"));
    format!("{error} {error:?} {:?} {}", error.hint(), cause.unwrap_or_default())
}
