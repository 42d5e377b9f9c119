//! The ways to build, each a change to the plain one.

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::apps::Subject;
use crate::harness::git_http::GitServer;
use crate::harness::prebuilt::{copy_base_cache, elixir_base};
use crate::harness::user::copy;
use crate::harness::{self, HexRegistry, Registry, TestEnv, User, run};

/// One way to build.
pub(super) struct Cell {
    pub(super) name: &'static str,
    /// Which apps `just test` builds so.
    quick: Quick,
    /// Who can build so.
    who: Who,
    /// What is different.
    pub(super) change: fn(&mut BuildSetup, &Subject),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quick {
    Every,
    /// These: a build of the others would take another minute of CI, and the cell does the same to them.
    Some(&'static [&'static str]),
    None,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Anyone,
    Root,
}

impl Cell {
    /// Whether `just test` builds this app so.
    pub(super) fn is_quick(&self, app: &str) -> bool {
        match self.quick {
            Quick::Every => true,
            Quick::Some(names) => names.contains(&app),
            Quick::None => false,
        }
    }

    /// Whether the tests' own user can build so.
    pub(super) fn is_possible(&self) -> bool {
        self.who == Who::Anyone || rustix::process::geteuid().is_root()
    }
}

const fn cell(name: &'static str, change: fn(&mut BuildSetup, &Subject)) -> Cell {
    Cell { name, quick: Quick::None, who: Who::Anyone, change }
}

const fn quick(quick: Quick, name: &'static str, change: fn(&mut BuildSetup, &Subject)) -> Cell {
    Cell { quick, ..cell(name, change) }
}

const fn root(quick: Quick, name: &'static str, change: fn(&mut BuildSetup, &Subject)) -> Cell {
    Cell { who: Who::Root, ..self::quick(quick, name, change) }
}

/// Other numbers of schedulers, dirty ones too.
const SCHEDULERS: [&str; 3] = ["+S 1:1 +SDio 1", "+S 4:4 +SDio 8", "+S 3:2 +SDcpu 3:1"];

/// All of them; the first one is the plain way.
pub(super) static CELLS: [Cell; 28] = [
    cell("plain", |_, _| {}),
    quick(Quick::Some(&["hello"]), "cached", |setup, subject| {
        setup.drop_argument("--no-cache");
        setup.build(subject, "HEAD");
    }),
    quick(Quick::Some(&["shell", "umbrella"]), "cached deps", |setup, subject| {
        setup.drop_argument("--no-cache");
        setup.base_in_cache();
        setup.build(subject, "before");
    }),
    // What is in the local cache is used before what is in a registry: one build fills both.
    quick(Quick::Some(&["deps"]), "deps cached and pulled from a registry", |setup, subject| {
        let registry = Registry::start();
        let cache = registry.reference("cache/app");
        setup.drop_argument("--no-cache");
        setup.base_in_cache();
        setup.arguments(&["--cache-repo", &cache, "--cache", "write"]);
        setup.build(subject, "before");
        setup.build(subject, "HEAD");
        setup.base_in_cache();
        setup.drop_argument("write");
        setup.arguments(&["read"]);
        setup.hold(registry);
    }),
    cell("an empty cache", |setup, _| setup.empty_cache()),
    cell("a cache in memory", |setup, _| setup.cache_in_memory()),
    cell("shuffled directories", |setup, _| {
        setup.empty_cache();
        setup.shuffled();
    }),
    cell("another place", BuildSetup::elsewhere),
    cell("a bare repository", |setup, subject| drop(setup.bare(subject))),
    cell("a URL", BuildSetup::url),
    cell("umask 0077", |setup, _| setup.shell("umask 0077")),
    cell("umask 0002", |setup, _| setup.shell("umask 0002")),
    cell("another home", |setup, _| setup.home()),
    cell("another host name", |setup, _| setup.host_name()),
    cell("another zone and locale", |setup, _| setup.locale()),
    cell("one core", |setup, _| setup.wrap(&["taskset", "-c", "0"])),
    cell("one scheduler", |setup, _| setup.schedulers(0)),
    cell("four schedulers", |setup, _| setup.schedulers(1)),
    cell("odd schedulers", |setup, _| setup.schedulers(2)),
    cell("two years later", |setup, _| setup.wrap(&["faketime", "-f", "+730d"])),
    cell("two years earlier", |setup, _| setup.wrap(&["faketime", "-f", "-730d"])),
    quick(Quick::Some(&["hello", "umbrella"]), "copy", |setup, _| {
        setup.arguments(&["--isolation", "copy"]);
        setup.copies_in_memory();
    }),
    quick(Quick::Some(&["stress"]), "one core, one scheduler", |setup, _| {
        setup.wrap(&["taskset", "-c", "0"]);
        setup.schedulers(0);
    }),
    root(Quick::Some(&["shell", "stress"]), "chroot, odd schedulers", |setup, _| {
        setup.arguments(&["--isolation", "chroot"]);
        setup.copies_in_memory();
        setup.schedulers(2);
    }),
    root(Quick::None, "an ordinary user", |setup, subject| setup.user(subject, 4321)),
    root(Quick::None, "a user with a range of ids", |setup, subject| setup.user(subject, harness::user_with_subids())),
    cell("a release build of Phial", |setup, _| setup.release()),
    quick(Quick::Every, "everything at once", |setup, subject| {
        setup.shuffled();
        setup.cache_in_memory();
        setup.elsewhere(subject);
        setup.home();
        setup.locale();
        setup.schedulers(1);
        setup.shell("umask 0077");
        setup.host_name();
        setup.wrap(&["faketime", "-f", "+730d"]);
    }),
];

/// How one build is done.
pub(super) struct BuildSetup {
    source: String,
    base: PathBuf,
    cache: PathBuf,
    program: PathBuf,
    wrappers: Vec<Vec<String>>,
    env: Vec<(String, String)>,
    arguments: Vec<String>,
    dir: PathBuf,
    /// What its builds of `HEAD` printed.
    lines: Vec<String>,
    held: Vec<Box<dyn Any>>,
}

impl BuildSetup {
    /// The plain way.
    pub(super) fn new(subject: &Subject) -> Self {
        Self {
            source: subject.repo.source().to_owned(),
            base: elixir_base(),
            cache: subject.env.cache().to_owned(),
            program: env!("CARGO_BIN_EXE_phial").into(),
            wrappers: vec![],
            env: vec![("PATH".into(), harness::search_path()), ("HOME".into(), subject.env.path("home"))],
            arguments: vec!["--no-cache".into(), "--progress".into(), "plain".into()],
            dir: subject.env.dir().to_owned(),
            lines: vec![],
            held: vec![],
        }
    }

    /// Builds; the line on stdout. Every build of `HEAD` gives the same.
    pub(super) fn build(&mut self, subject: &Subject, rev: &str) -> String {
        let mut words: Vec<String> = self.wrappers.concat();
        words.push(self.program.display().to_string());
        words.extend(["build".into(), self.source.clone(), "--rev".into(), rev.into()]);
        words.extend(["--base".into(), format!("oci:{}", self.base.display())]);
        words.extend(["--to".into(), format!("oci:{}", self.dir.join("out.oci").display())]);
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(self.env.iter().cloned()).current_dir(&self.dir);
        command.env("PHIAL_CACHE_DIR", &self.cache);
        command.envs(subject.hex.iter().flat_map(HexRegistry::env));
        let line = run(command).ok();
        if rev == "HEAD" {
            assert!(self.lines.iter().all(|before| *before == line), "{line} after {:?}", self.lines);
            self.lines.push(line.clone());
        }
        line
    }

    fn hold<T: 'static>(&mut self, thing: T) {
        self.held.push(Box::new(thing));
    }

    fn folder(&mut self, below: &Path) -> PathBuf {
        let dir: TempDir = tempfile::Builder::new().prefix("cell-").tempdir_in(below).expect("a folder");
        let path = dir.path().to_owned();
        self.hold(dir);
        path
    }

    fn drop_argument(&mut self, name: &str) {
        self.arguments.retain(|argument| argument != name);
    }

    fn arguments(&mut self, more: &[&str]) {
        self.arguments.extend(more.iter().map(|word| (*word).to_owned()));
    }

    /// Runs the program by another one; the last wrapper is the outermost.
    fn wrap(&mut self, words: &[&str]) {
        self.wrappers.insert(0, words.iter().map(|word| (*word).to_owned()).collect());
    }

    fn shell(&mut self, first: &str) {
        self.wrap(&["sh", "-c", &format!("{first}; exec \"$@\""), "sh"]);
    }

    fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.into()));
    }

    fn empty_cache(&mut self) {
        self.cache = self.folder(&harness::fixtures_dir().join("tmp"));
    }

    /// A cache that has the base and nothing else.
    fn base_in_cache(&mut self) {
        let env = TestEnv::with_elixir_base_in_cache();
        env.cache().clone_into(&mut self.cache);
        self.hold(env);
    }

    fn cache_in_memory(&mut self) {
        self.cache = self.folder(Path::new("/dev/shm"));
    }

    /// For a build that copies the whole base for each step: in memory, if there is plenty, since that takes a third of the time.
    fn copies_in_memory(&mut self) {
        let memory = fs::read_to_string("/proc/meminfo").expect("the machine's memory");
        let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
        if available.and_then(|kibibytes| kibibytes.parse::<u64>().ok()).is_some_and(|kibibytes| kibibytes >= 10 << 20)
        {
            self.cache_in_memory();
            copy_base_cache(&self.cache);
        }
    }

    /// Whatever the program lists, in another order.
    fn shuffled(&mut self) {
        let library = self.folder(&harness::fixtures_dir().join("tmp")).join("shuffle.so");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(harness::testdata("shuffle.c"));
        run(cc).ok();
        self.set("LD_PRELOAD", &library.display().to_string());
    }

    fn elsewhere(&mut self, subject: &Subject) {
        let dir = self.folder(&harness::fixtures_dir().join("tmp"));
        let to = dir.join("a longer setup/to it");
        copy(&subject.dir(), &to);
        self.source = to.display().to_string();
    }

    fn bare(&mut self, subject: &Subject) -> PathBuf {
        let dir = self.folder(&harness::fixtures_dir().join("tmp"));
        let bare = dir.join("app.git");
        subject.repo.git(["clone".as_ref(), "-q".as_ref(), "--bare".as_ref(), ".".as_ref(), bare.as_os_str()]);
        self.source = bare.display().to_string();
        dir
    }

    fn url(&mut self, subject: &Subject) {
        let dir = self.bare(subject);
        let server = GitServer::start(&dir);
        self.source = format!("{}/app.git", server.url);
        self.hold(server);
    }

    fn home(&mut self) {
        let home = self.folder(&harness::fixtures_dir().join("tmp"));
        self.set("HOME", &home.display().to_string());
    }

    fn host_name(&mut self) {
        self.wrap(&["unshare", "--uts", "--map-root-user", "sh", "-c", "hostname elsewhere; exec \"$@\"", "sh"]);
    }

    fn locale(&mut self) {
        self.set("TZ", "Pacific/Chatham");
        self.set("LC_ALL", "C");
    }

    fn schedulers(&mut self, nth: usize) {
        self.set("ERL_FLAGS", SCHEDULERS[nth]);
    }

    fn release(&mut self) {
        let release = self.program.parent().and_then(Path::parent).map(|target| target.join("release/phial"));
        self.program = release.filter(|path| path.exists()).expect("cargo build --release, as `just matrix` does");
    }

    /// As another user, who owns all that the build needs.
    fn user(&mut self, subject: &Subject, uid: u32) {
        let user = User::new(uid, &subject.repo, &self.base);
        let path = |name: &str| PathBuf::from(user.path(name));
        (self.program, self.base, self.cache) = (path("phial"), path("base"), path("cache"));
        (self.source, self.dir) = (user.path("app"), path("."));
        self.set("HOME", &user.path("."));
        self.wrappers.insert(0, user.prefix());
        self.hold(user);
    }
}
