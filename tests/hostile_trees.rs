//! Whatever a step, an image or a commit puts in the place of a file that Phial knows: no file of the host is opened, nothing is
//! waited for, and memory stays small. A canary directory is watched by inotify.

mod images;

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use phial::host::Host;
use rustix::fs::inotify;

use crate::harness::busybox::{busybox_base, busybox_base_with};
use crate::harness::{Repo, TestEnv, run, through_program};

/// The longest that a command may take: ten times what it does on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// The most memory that a command may have, in KiB.
const MEMORY: u64 = 256 << 10;

/// Paths that Phial looks at in what a step left, and directories above them.
const PATHS: [&str; 24] = [
    "app",
    "app/config",
    "app/mix.exs",
    "app/mix.lock",
    "app/phial.toml",
    "app/deps",
    "app/deps/x",
    "app/deps/x/.hex",
    "app/deps/x/.git",
    "app/deps/x/.git/HEAD",
    "app/deps/x/.git/config",
    "app/deps/x/.git/refs/heads/main",
    "app/deps/x/.hex.phial-normal",
    "app/_build",
    "app/_build/prod/lib/x/.mix",
    "app/_build/prod/lib/x/.mix/compile.elixir",
    "app/_build/prod/lib/x/.mix/compile.elixir.phial-normal",
    "app/.git",
    "etc",
    "etc/passwd",
    "etc/group",
    "opt",
    "run",
    "var",
];

/// What is put there, as commands of a shell; `$P` is the path, `$C` the canary's own entry of that path.
const REPLACEMENTS: [(&str, &str); 10] = [
    ("absolute link", "ln -s $C $P"),
    ("relative link", "ln -s ../../../../../../../../../../../../../../../..$C $P"),
    ("link to a link", "ln -s $C /srv/first; ln -s /srv/first $P"),
    ("link to itself", "ln -s ${P##*/} $P"),
    ("link to /dev/zero", "ln -s /dev/zero $P"),
    ("FIFO", "busybox mkfifo $P"),
    // The one program of busybox that makes a socket makes it where this link leads.
    (
        "socket",
        "ln -sf $P /dev/log; busybox syslogd -O /dev/null; n=0; until [ -S $P ] || [ $n -gt 500 ]; do n=$((n+1)); sleep 0.01; done",
    ),
    ("directory", "mkdir $P; mkdir $P/sub"),
    ("holes", "dd of=$P bs=1048576 seek=300 count=0 2>/dev/null"),
    ("changing", "(while :; do rm -rf $P; ln -s $C $P; rm -f $P; mkdir $P; done) >/dev/null 2>&1 & sleep 0.02"),
];

/// All that Phial looks at, so that it has something to do.
const FURNISH: &str = r#"
mkdir -p /srv /app/config /app/deps/x/.git/refs/heads /app/_build/prod/lib/x/.mix /etc /opt /var
printf '\203h\002d\000\003hexm\000\000\000\016\nssh-rsa EVIL\n' >/app/deps/x/.hex
printf '\203h\002a\032b\177\377\377\377' >/app/_build/prod/lib/x/.mix/compile.elixir
echo 'ref: refs/heads/main' >/app/deps/x/.git/HEAD
echo 0123456789012345678901234567890123456789 >/app/deps/x/.git/refs/heads/main
printf '[remote "origin"]\n\turl = https://localhost/x.git\n' >/app/deps/x/.git/config
echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
"#;

/// A directory of the host that has every file of [`PATHS`], and all that happens to it.
struct Canary {
    dir: PathBuf,
    events: OwnedFd,
    watched: usize,
}

impl Canary {
    fn new(env: &TestEnv) -> Self {
        let dir = env.dir().join("canary");
        let file = |path: &str, text: &str| {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        for path in ["app/mix.exs", "app/mix.lock", "app/config/config.exs", "app/deps/x/.hex", "app/deps/x/.git/HEAD"]
        {
            file(path, "CANARY");
        }
        file("app/phial.toml", "[test]\ncommand = \"echo CANARY\"\n");
        file("app/deps/x/.git/config", "[remote \"origin\"]\n\turl = CANARY\n");
        file("app/deps/x/.git/refs/heads/main", "CANARY");
        file("app/_build/prod/lib/x/.mix/compile.elixir", "CANARY");
        file("etc/passwd", "canary:x:4242:4242::/CANARY:/bin/sh\n");
        for path in
            ["etc/group", "opt/phial-used", "opt/phial-toolchain/start.boot", "run/phial/x", "var/x", "app/r.xml"]
        {
            file(path, "CANARY");
        }
        let events = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).expect("inotify");
        let mut canary = Self { dir, events, watched: 0 };
        for entry in walkdir::WalkDir::new(&canary.dir).into_iter().filter_map(Result::ok) {
            if entry.file_type().is_dir() {
                // All but closing: a process that another test starts meanwhile holds the directory of this walk until it executes.
                let closing = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::CLOSE_NOWRITE;
                let all = inotify::WatchFlags::ALL_EVENTS.difference(closing);
                inotify::add_watch(&canary.events, entry.path(), all).expect("a watch");
                canary.watched += 1;
            }
        }
        assert!(canary.watched > 10);
        canary.events(); // those of the walk
        canary
    }

    /// What happened to it since the last call.
    fn events(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(&self.events, &mut buffer);
        let mut events = Vec::new();
        while let Ok(event) = reader.next() {
            events.push(format!("{:?} {:?}", event.events(), event.file_name()));
        }
        events
    }

    /// `PATH` in it, as a script says it.
    fn path(&self) -> String {
        self.dir.display().to_string()
    }
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    stderr: String,
}

/// Runs a command to its end, which must come soon and need little memory.
#[track_caller]
fn bounded(mut command: Command, case: &str) -> Ended {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let start = Instant::now();
    let (mut memory, mut stderr) = (0, child.stderr.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
        text
    });
    let status = loop {
        memory = memory.max(peak_memory(&child));
        if let Some(status) = child.try_wait().expect("a status") {
            break status;
        }
        if start.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("{case}: it does not end");
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    assert!(memory < MEMORY, "{case}: {memory} KiB of memory");
    Ended { code: status.code(), stderr: reader.join().expect("its stderr") }
}

/// The most memory that a process has had since it is `phial` and no copy of this one, in KiB.
fn peak_memory(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    if !status.starts_with("Name:\tphial\n") {
        return 0;
    }
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The isolations of this user. `plain` is a chroot as a container gives it that forbids namespaces and mounts.
fn isolations() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() { &["overlay", "copy", "chroot", "plain"] } else { &["overlay", "copy"] }
}

/// `phial` with an isolation.
fn phial_in(env: &TestEnv, isolation: &str, args: &[&str]) -> Command {
    if isolation != "plain" {
        return env.phial([args, &["--isolation", isolation]].concat());
    }
    let lost = "-sys_admin,-mknod,-sys_ptrace,-net_admin,-net_raw,-sys_resource";
    through_program(&["setpriv", "--bounding-set", lost], &env.phial([args, &["--isolation", "chroot"]].concat()))
}

/// Whether a case is tried with an isolation: all with all if `PHIAL_HOSTILE` is set, else 4 of 17, each isolation with others.
fn is_tried(nth: usize, isolation: usize) -> bool {
    Host::read().var("PHIAL_HOSTILE").is_some() || nth % 17 == isolation
}

/// The shell app with a step `verb` that ends with these commands.
fn hostile_app(env: &TestEnv, verb: &str, commands: &str) -> Repo {
    let repo = env.shell_app();
    repo.script(
        "script/prepare_code",
        &format!("#!/bin/sh\ncase $1 in {verb}) {FURNISH}\n{commands}\n;; esac\nexit 0\n"),
    );
    repo.commit("Hostile");
    repo
}

/// Checks that a command ended in order, and that the canary is untouched.
#[track_caller]
fn check(canary: &Canary, ended: &Ended, case: &str) {
    assert_eq!(canary.events(), Vec::<String>::new(), "{case}\n{}", ended.stderr);
    assert!(matches!(ended.code, Some(0 | 1 | 2 | 3 | 6)), "{case}: {:?}\n{}", ended.code, ended.stderr);
    assert!(!ended.stderr.contains("CANARY"), "{case}\n{}", ended.stderr);
    if ended.code != Some(0) {
        assert!(ended.stderr.contains("error: "), "{case}\n{}", ended.stderr);
    }
}

/// A build whose step leaves each replacement at each path, and then each command on the image that came of it.
#[test]
fn nothing_that_a_step_leaves_leads_to_a_file_of_the_host() {
    let env = TestEnv::with_empty_cache();
    let canary = Canary::new(&env);
    let base = format!("oci:{}", busybox_base().display());
    let mut nth = 0;
    for path in PATHS {
        for (kind, commands) in REPLACEMENTS {
            let verb = if nth % 2 == 0 { "deps" } else { "build" };
            for (number, isolation) in isolations().iter().enumerate() {
                if !is_tried(nth, number) {
                    continue;
                }
                let case = format!("{isolation}: `{path}` of the step {verb} becomes {kind}");
                let scene = TestEnv::with_empty_cache();
                let commands = format!("P=/{path}; C={}/{path}; rm -rf $P; {commands}", canary.path());
                let repo = hostile_app(&scene, verb, &commands);
                let to = format!("oci:{}", scene.path("out"));
                let build = ["build", repo.source(), "--base", &base, "--to", &to];
                let built = bounded(phial_in(&scene, isolation, &build), &case);
                check(&canary, &built, &case);
                if built.code == Some(0) {
                    let artifacts = scene.path("artifacts");
                    let verify = ["verify", &to, "--source", repo.source(), "--base", &base];
                    let commands = [&used(&to, &artifacts)[..], &[verify.to_vec()]].concat();
                    use_image(&scene, &canary, &commands, isolation, &case);
                }
            }
            nth += 1;
        }
    }
}

/// The commands that open the trees of an image and need nothing else.
fn used<'a>(image: &'a str, artifacts: &'a str) -> [Vec<&'a str>; 4] {
    [
        vec!["run", image],
        vec!["test", image, "--artifacts", artifacts],
        vec!["diff", image, image],
        vec!["explain", image],
    ]
}

/// Calls the commands one after the other.
fn use_image(env: &TestEnv, canary: &Canary, commands: &[Vec<&str>], isolation: &str, case: &str) {
    for command in commands {
        let case = format!("{case}; then `phial {}`", command[0]);
        let has_isolation = !matches!(command[0], "diff" | "explain");
        let mut called = if has_isolation { phial_in(env, isolation, command) } else { env.phial(command) };
        if command[0] == "run" {
            called.args(["--", "true"]);
        }
        let ended = bounded(called, &case);
        // What changes while it is read differs from build to build.
        if command[0] != "verify" || ended.code != Some(8) {
            check(canary, &ended, &case);
        }
    }
    let artifacts = env.path("artifacts");
    let copied = fs::read_dir(&artifacts).map_or(0, Iterator::count);
    let found = walkdir::WalkDir::new(&artifacts).into_iter().filter_map(Result::ok);
    for entry in found.filter(|entry| entry.file_type().is_file()) {
        assert!(!fs::read_to_string(entry.path()).unwrap_or_default().contains("CANARY"), "{case}: {entry:?}");
    }
    assert!(copied < 100, "{case}");
}

/// Reports and artifacts that tests leave, in the image's app.
#[test]
fn nothing_that_tests_leave_leads_to_a_file_of_the_host() {
    let env = TestEnv::with_empty_cache();
    let canary = Canary::new(&env);
    let base = format!("oci:{}", busybox_base().display());
    let repo = env.shell_app();
    let to = format!("oci:{}", env.path("out"));
    run(env.phial(["build", repo.source(), "--base", &base, "--to", &to])).ok();
    let paths = ["app", "app/r.xml", "app/_build", "app/cover", "app/cover/index.html"];
    for (nth, path) in paths.into_iter().enumerate() {
        for (kind_nth, (kind, commands)) in REPLACEMENTS.into_iter().enumerate() {
            let script = format!(
                "P=/{path}; C={}/{path}; mkdir -p /srv /app/cover; echo x >/app/cover/index.html; cd /; rm -rf $P; {commands}",
                canary.path()
            );
            let settings = "[image]\nenvs = [\"prod\"]\n[prepare]\nscript = \"script/prepare_code\"\ninputs = [\"VERSION\"]\n[test]\n";
            let settings = format!("{settings}artifacts = [\"cover\", \"r.xml\"]\ncommand = '''{script}'''\n");
            let file = env.dir().join("test.toml");
            fs::write(&file, &settings).expect("the settings");
            for (number, isolation) in isolations().iter().enumerate() {
                if !is_tried(nth * REPLACEMENTS.len() + kind_nth, number) {
                    continue;
                }
                let case = format!("{isolation}: `{path}` of the tests becomes {kind}");
                let (artifacts, junit) = (env.path("artifacts"), env.path("junit.xml"));
                let file = file.to_str().expect("UTF-8");
                let test = ["test", &to, "--config", file, "--artifacts", &artifacts, "--junit", &junit];
                let ended = bounded(phial_in(&env, isolation, &test), &case);
                check(&canary, &ended, &case);
                for entry in walkdir::WalkDir::new(&artifacts).into_iter().filter_map(Result::ok) {
                    let text =
                        if entry.file_type().is_file() { fs::read(entry.path()).unwrap_or_default() } else { vec![] };
                    assert!(text.len() < 1000 || !text.starts_with(b"CANARY"), "{case}: {entry:?}");
                    assert!(!entry.file_type().is_symlink(), "{case}: {entry:?}");
                }
                let _ = fs::remove_dir_all(&artifacts);
            }
        }
    }
}

/// A base image that has Erlang: its own `erl` writes what is put before the VMs of later steps.
#[test]
fn nothing_that_a_base_images_tools_leave_leads_to_a_file_of_the_host() {
    let env = TestEnv::with_empty_cache();
    let canary = Canary::new(&env);
    for path in
        ["opt", "opt/phial-toolchain", "opt/phial-toolchain/start.boot", "opt/phial-toolchain/elixir_module.beam"]
    {
        for (kind, commands) in REPLACEMENTS.iter().filter(|(kind, _)| *kind != "directory") {
            let scene = TestEnv::with_empty_cache();
            let erl = format!(
                "#!/bin/sh\nmkdir -p /srv /opt/phial-toolchain\nP=/{path}; C={}/{path}; cd /; rm -rf $P; {commands}\nexit 0\n",
                canary.path()
            );
            let base = busybox_base_with(&scene, &[("bin/erl", &erl), ("etc/start.boot", "")]);
            let repo = scene.shell_app();
            let to = format!("oci:{}", scene.path("out"));
            let base = format!("oci:{}", base.display());
            let case = format!("`{path}` of the base's tools becomes {kind}");
            let ended = bounded(scene.phial(["build", repo.source(), "--base", &base, "--to", &to]), &case);
            check(&canary, &ended, &case);
        }
    }
}

/// The file of the host that the review of an earlier version wrote to.
#[test]
fn a_step_cannot_choose_the_name_that_a_normalized_file_is_written_under() {
    for isolation in isolations() {
        let env = TestEnv::with_empty_cache();
        let keys = env.dir().join("authorized_keys");
        fs::write(&keys, "mine\n").expect("a file of the host");
        let script = format!("ln -s {} /app/deps/x/.hex.phial-normal", keys.display());
        let repo = hostile_app(&env, "deps", &script);
        let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
        run(phial_in(&env, isolation, &["build", repo.source(), "--base", &base, "--to", &to])).ok();
        assert_eq!(fs::read_to_string(&keys).expect("it is there"), "mine\n");
        assert!(Path::new(&env.path("out/index.json")).exists());
    }
}
