//! Whatever is wrong, a user sees one clear error, the exit code of its kind, and nothing half-done.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cache;
mod killed;
mod base_images;
mod images;
mod machine;
mod script;
mod settings;
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::busybox::busybox_base;
use crate::harness::{Output, Repo, TestEnv, run, through_program};

/// An environment with an empty cache, and the shell app in it. Its first commit is good.
struct Scene {
    env: TestEnv,
    repo: Repo,
    good: String,
}

impl Scene {
    #[track_caller]
    fn new() -> Self {
        let env = TestEnv::with_empty_cache();
        let repo = env.shell_app();
        let good = repo.git(["rev-parse", "HEAD"]);
        Self { env, repo, good }
    }

    /// One whose second commit has this script.
    #[track_caller]
    fn with_script(text: &str) -> Self {
        Self::with(|repo| repo.script("script/prepare_code", text))
    }

    /// One with a second commit.
    #[track_caller]
    fn with(change: impl FnOnce(&Repo)) -> Self {
        let scene = Self::new();
        change(&scene.repo);
        scene.repo.commit("The second commit");
        scene
    }

    /// `phial build` of the app's HEAD on the small base to the layout `out`.
    fn build<'a>(&self, more: impl IntoIterator<Item = &'a str>) -> Command {
        let base = format!("oci:{}", busybox_base().display());
        self.build_on(&base, &format!("oci:{}", self.out().display()), more)
    }

    fn build_on<'a>(&self, base: &str, to: &str, more: impl IntoIterator<Item = &'a str>) -> Command {
        let mut build = self.env.phial(["build", self.repo.source(), "--base", base, "--to", to]);
        build.args(["--progress", "quiet"]).args(more);
        build
    }

    fn out(&self) -> PathBuf {
        self.env.dir().join("out")
    }

    /// Runs a command that must be refused with this code: its error, if nothing else is left of it.
    #[track_caller]
    fn refused(&self, code: i32, command: Command) -> String {
        let before = listing(&self.out());
        let ran = run(command);
        assert_eq!(ran.stdout, "", "stdout of a command that failed");
        let output = self.error(ran, code);
        assert_eq!(listing(&self.out()), before, "the target");
        self.tidy();
        self.sound();
        output
    }

    /// The one error on stderr, without the names of this test's directories.
    #[track_caller]
    fn error(&self, ran: Output, code: i32) -> String {
        let output = ran.failed(code);
        assert!(output.starts_with("error: "), "{output}");
        assert_eq!(output.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{output}");
        let base = busybox_base().display().to_string();
        output.replace(&base, "[BASE]").replace(&self.env.dir().display().to_string(), "[DIR]")
    }

    /// Nothing but what is kept is in the cache.
    #[track_caller]
    fn tidy(&self) {
        assert_eq!(listing(&self.env.cache().join("scratch")), BTreeSet::new(), "scratch");
    }

    /// The good commit builds with what is in the cache now, and gives the digest that it gives in any other.
    #[track_caller]
    fn sound(&self) {
        let to = format!("oci:{}", self.env.path("sound"));
        let built = run(self.build_on(&format!("oci:{}", busybox_base().display()), &to, ["--rev", &self.good])).ok();
        assert_eq!(digest(&built), good(), "the good commit");
        self.tidy();
    }
}

/// The digest of the good commit's image.
#[track_caller]
fn good() -> &'static str {
    static GOOD: OnceLock<String> = OnceLock::new();
    GOOD.get_or_init(|| digest(&run(Scene::new().build([])).ok()).to_owned())
}

/// The digest in a line of `phial build`.
#[track_caller]
fn digest(line: &str) -> &str {
    line.rsplit_once('@').expect("TARGET@DIGEST").1
}

/// Everything below a directory; nothing if it is not there.
fn listing(dir: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(listing(&path));
        }
        all.insert((path.clone(), fs::read(&path).unwrap_or_default()));
    }
    all
}

/// A command of the same environment and directory, started by `sh -c SCRIPT` as `"$@"`.
fn through(script: &str, command: &Command) -> Command {
    through_program(&["sh", "-c", script, "sh"], command)
}

/// In a user and mount namespace of its own, as root there.
fn in_namespace(script: &str, command: &Command) -> Command {
    through_program(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"], command)
}
