//! What every integration test starts from: a home and a cache of its own, apps as git repositories, real servers on
//! loopback. Nothing is written outside of `target/`, but what must have a short name.

#![allow(dead_code, reason = "a helper stays when the last test that used it goes")]

pub(crate) mod git_http;
pub(crate) mod nginx;
pub(crate) mod prebuilt;
mod servers;
pub(crate) mod skip;
pub(crate) mod busybox;
pub(crate) mod edit_image;
pub(crate) mod user;

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use phial::host::Host;
use tempfile::TempDir;

pub(crate) use prebuilt::{HexRegistry, hex_registry, in_rootfs};
pub(crate) use servers::{Registry, Static, free_port};
pub(crate) use skip::isolations;
pub(crate) use user::User;

/// Where things that tests share are kept from run to run.
pub(crate) fn fixtures_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fixtures");
    fs::create_dir_all(&dir).expect("target/fixtures");
    dir
}

/// A file of `testdata/`.
pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// One test's directory, home and cache.
pub(crate) struct TestEnv {
    dir: TempDir,
    cache: PathBuf,
}

impl TestEnv {
    /// With the cache that all tests share: bases are unpacked there once.
    pub(crate) fn new() -> Self {
        Self::over(|_| fixtures_dir().join("cache"))
    }

    /// With an empty cache of its own, gone with the test.
    pub(crate) fn with_empty_cache() -> Self {
        Self::over(|dir| dir.join("cache"))
    }

    /// With a cache of its own that has the files of the Elixir base and nothing else: hundreds of megabytes are not unpacked
    /// again.
    #[track_caller]
    pub(crate) fn with_elixir_base_in_cache() -> Self {
        let env = Self::with_empty_cache();
        prebuilt::copy_base_cache(&env.cache);
        env
    }

    fn over(cache: impl Fn(&Path) -> PathBuf) -> Self {
        let scratch = fixtures_dir().join("tmp");
        fs::create_dir_all(&scratch).expect("a scratch directory");
        let dir = tempfile::Builder::new().prefix("test-").tempdir_in(scratch).expect("a test's directory");
        fs::create_dir(dir.path().join("home")).expect("a home");
        Self { cache: cache(dir.path()), dir }
    }

    /// This test's own directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in it, as text.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir().join(name).into_os_string().into_string().expect("UTF-8")
    }

    /// A directory whose name is short wherever this runs, gone when it is dropped: podman and buildah want the state of
    /// their containers below 50 characters.
    pub(crate) fn short_dir() -> TempDir {
        tempfile::Builder::new().prefix("phial-").tempdir_in("/tmp").expect("a directory in /tmp")
    }

    /// The cache that this environment's commands use.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The command, in this environment: no variable of the user's but `PATH` reaches it.
    pub(crate) fn phial<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phial"));
        command.args(args).env_clear().env("PATH", search_path()).env("HOME", self.dir().join("home"));
        command.env("PHIAL_CACHE_DIR", &self.cache).current_dir(self.dir()).stdin(Stdio::null());
        command
    }

    /// `testdata/apps/NAME` as a git repository with one commit, always the same one.
    pub(crate) fn app(&self, name: &str) -> Repo {
        let repo = Repo::copied(&testdata("apps").join(name), &self.dir().join(name));
        repo.commit("The first commit");
        repo
    }

    /// `testdata/apps/deps` with its git dependency and a mix.lock made by Mix itself, as a repository of one commit: the same in
    /// all tests of a run, so that what one of them has built is cached for the others.
    pub(crate) fn deps_app(&self, hex: &HexRegistry) -> Repo {
        static FILES: OnceLock<([String; 2], Static)> = OnceLock::new();
        let ([mix, lock], _) = FILES.get_or_init(|| {
            let (env, server) = (Self::new(), stamp_server());
            let repo = env.locked_deps_app(hex, &server);
            (["mix.exs", "mix.lock"].map(|name| fs::read_to_string(repo.dir().join(name)).expect("a file")), server)
        });
        let repo = Repo::copied(&testdata("apps/deps"), &self.dir().join("deps"));
        repo.write("mix.exs", mix);
        repo.write("mix.lock", lock);
        repo.commit("The first commit");
        repo
    }

    /// The same with a git server of its own, which answers as long as it is held, and with its dependencies fetched.
    pub(crate) fn deps_app_and_git(&self, hex: &HexRegistry) -> (Repo, Static) {
        let server = stamp_server();
        let repo = self.locked_deps_app(hex, &server);
        repo.commit("The first commit");
        (repo, server)
    }

    fn locked_deps_app(&self, hex: &HexRegistry, server: &Static) -> Repo {
        let repo = Repo::copied(&testdata("apps/deps"), &self.dir().join("deps"));
        let mix = fs::read_to_string(repo.dir().join("mix.exs")).expect("mix.exs");
        repo.write("mix.exs", mix.replace("@GIT_URL@", &format!("{}/stamp.git", server.url())));
        run(in_rootfs(repo.dir(), ["mix", "deps.get"], &hex.env())).ok();
        repo
    }

    /// `testdata/apps/ledger`, an app with a database, with a mix.lock made by Mix itself.
    pub(crate) fn ledger(&self, hex: &HexRegistry) -> Repo {
        let repo = Repo::copied(&testdata("apps/ledger"), &self.dir().join("ledger"));
        run(in_rootfs(repo.dir(), ["mix", "deps.get"], &hex.env())).ok();
        repo.commit("The first commit");
        repo
    }
}

/// The git dependency of the deps app, on a server of its own.
fn stamp_server() -> Static {
    let env = TestEnv::new();
    let stamp = Repo::copied(&testdata("apps/stamp"), &env.dir().join("stamp"));
    let commit = stamp.commit("The dependency");
    let (made, served) = (env.dir().join("served"), fixtures_dir().join(format!("stamp-{commit}")));
    let _lock = prebuilt::lock("stamp");
    if !served.exists() {
        stamp.git(["tag", "v1.0.0"]);
        let bare = made.join("stamp.git");
        stamp.git([OsStr::new("clone"), "-q".as_ref(), "--bare".as_ref(), ".".as_ref(), bare.as_os_str()]);
        Repo::at(&bare).git(["update-server-info"]);
        fs::rename(made, &served).expect("a repository to serve");
    }
    Static::start(&served)
}

/// The `PATH` that programs are looked for in.
pub(crate) fn search_path() -> String {
    Host::read().var("PATH").unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").to_owned()
}

/// The user of this machine that [`user_with_subids`] makes.
pub(crate) const SUBIDS_USER: &str = "phial-subids";

/// The id of a user of this machine who has a range of ids; made if there is none yet. For root.
#[track_caller]
pub(crate) fn user_with_subids() -> u32 {
    let id = || {
        let mut id = Command::new("id");
        id.args(["-u", SUBIDS_USER]);
        run(id)
    };
    if id().code != Some(0) {
        let mut add = Command::new("useradd");
        add.args(["--create-home", SUBIDS_USER]);
        run(add).ok();
    }
    if !fs::read_to_string("/etc/subuid").unwrap_or_default().contains(&format!("{SUBIDS_USER}:")) {
        let mut add = Command::new("usermod");
        add.args(["--add-subuids", "300000-365535", "--add-subgids", "300000-365535", SUBIDS_USER]);
        run(add).ok();
    }
    id().ok().parse().expect("a number")
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to stdout.
    pub(crate) stdout: String,
    /// What it wrote to stderr.
    pub(crate) stderr: String,
}

impl Output {
    /// Its stdout without the last line's end, if it succeeded; else a panic with both streams.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// Its stderr, if it failed with this code.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// A command started by another program, which takes it as its last arguments.
pub(crate) fn through_program(program: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(program[0]);
    outer.args(&program[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.current_dir(command.get_current_dir().unwrap_or(Path::new("/"))).stdin(std::process::Stdio::null());
    outer
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn run(mut command: Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A git repository whose commits have fixed authors and times, so that the same files make the same SHA.
pub(crate) struct Repo {
    dir: PathBuf,
    commits: Cell<u32>,
}

impl Repo {
    /// One that is there already.
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.into(), commits: Cell::new(0) }
    }

    /// A copy of a directory, with nothing committed yet.
    pub(crate) fn copied(from: &Path, to: &Path) -> Self {
        let mut copy = Command::new("cp");
        copy.arg("-R").arg(from).arg(to);
        run(copy).ok();
        let repo = Self::at(to);
        repo.git(["init", "-q", "-b", "main"]);
        repo
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its directory as text, as `phial build` takes it.
    pub(crate) fn source(&self) -> &str {
        self.dir.to_str().expect("UTF-8")
    }

    /// Writes one file of the working tree, and the directories above it.
    pub(crate) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
        fs::write(path, bytes).expect("a file of the repository");
    }

    /// Runs git in it, with none of the user's settings; its stdout.
    #[track_caller]
    pub(crate) fn git<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let mut git = Command::new("git");
        git.args(args).current_dir(&self.dir).env_clear().env("PATH", search_path());
        git.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), ("HOME", "/nonexistent")]);
        let date = format!("{} +0000", 1_767_225_600 + 60 * self.commits.get());
        git.envs([("GIT_AUTHOR_NAME", "Ann"), ("GIT_AUTHOR_EMAIL", "ann@localhost"), ("GIT_AUTHOR_DATE", &date)]);
        git.envs([
            ("GIT_COMMITTER_NAME", "Ann"),
            ("GIT_COMMITTER_EMAIL", "ann@localhost"),
            ("GIT_COMMITTER_DATE", &date),
        ]);
        run(git).ok()
    }

    /// Commits all that is in the working tree and git does not ignore; its SHA.
    #[track_caller]
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(["add", "--all"]);
        self.git(["commit", "-q", "-m", message]);
        self.commits.set(self.commits.get() + 1);
        self.git(["rev-parse", "HEAD"])
    }
}
