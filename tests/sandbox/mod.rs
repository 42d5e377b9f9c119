//! The sandbox, seen from inside: a root filesystem of busybox and a probe in C, run by the real program.
//!
//! All of it runs once more as an ordinary user when the tests run as root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod exit;
mod confinement;
mod isolation;
mod limits;
mod rootfs;
mod services;
mod users;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use phial::error::UserError as _;
use phial::sandbox::{Exit, Root, SandboxError, Spec, run};
use tempfile::TempDir;

use crate::harness::skip::skip;

const APPLETS: [&str; 25] = [
    "sh", "cat", "chown", "chroot", "echo", "env", "find", "grep", "hostname", "id", "ifconfig", "kill", "ln", "ls",
    "mkdir", "mount", "nc", "ps", "readlink", "rm", "setsid", "sleep", "stat", "true", "umount",
];

/// The program under test: next to this one if it was copied there, for a user who cannot see the build's directory.
fn exe() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("phial");
    if beside.exists() { beside } else { PathBuf::from(env!("CARGO_BIN_EXE_phial")) }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

struct SandboxTest {
    dir: TempDir,
}

impl SandboxTest {
    fn new() -> Self {
        let test = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["root/bin", "root/etc", "root/srv", "upper", "work"] {
            fs::create_dir_all(test.path(name)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox-static is installed"), test.path("root/bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", test.path(&format!("root/bin/{applet}"))).unwrap();
        }
        fs::write(test.path("root/etc/hosts"), "192.0.2.1 of-the-image\n").unwrap();
        test
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn overlay(&self) -> Root {
        Root::Overlay { lowers: vec![self.path("root")], upper: self.path("upper"), work: self.path("work") }
    }

    fn spec(&self, script: &str) -> Spec {
        Spec {
            env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
            hosts: "127.0.0.1 localhost\n".to_owned(),
            resolv: Some("nameserver 192.0.2.53\n".to_owned()),
            ..Spec::new(self.overlay(), ["sh", "-c", script].map(str::to_owned).into())
        }
    }

    /// What a script writes; it must succeed.
    fn sh(&self, script: &str) -> String {
        stdout_of(&self.spec(script))
    }

    /// The lines `name errno` of the probe in C.
    fn probe(&self) -> BTreeMap<String, String> {
        let source = self.path("probe.c");
        fs::write(&source, include_str!("../../testdata/sandbox-probe.c")).unwrap();
        let program = self.path("root/bin/probe");
        let cc = Command::new("cc").args(["-static", "-w", "-o"]).arg(&program).arg(&source).output().unwrap();
        assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
        let output = self.sh("exec probe");
        output.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }
}

fn result(spec: &Spec) -> (Result<Exit, SandboxError>, String) {
    let mut output = Vec::new();
    let exit = run(&exe(), spec, &AtomicBool::new(false), &mut |bytes| output.extend_from_slice(bytes));
    (exit, String::from_utf8(output).unwrap())
}

fn stdout_of(spec: &Spec) -> String {
    match result(spec) {
        (Ok(Exit::Code(0)), output) => output,
        (other, output) => panic!("{other:?}: {output} ({:?})", other.as_ref().err().and_then(SandboxError::hint)),
    }
}

/// How many processes of the machine have this mark in their arguments.
fn alive(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes())).count()
}

fn gone_within(mark: &str, limit: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if alive(mark) == 0 {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

fn number(seed: u32) -> String {
    format!("{}{seed:02}", 1_000_000 + std::process::id())
}

/// A test of this folder, as `module::name`, in a process of its own, in a directory: `prefix` is put before it.
fn helper(prefix: &[&str], test: &str, dir: &Path) -> Command {
    let me = std::env::current_exe().unwrap();
    let mut words: Vec<&str> = prefix.to_vec();
    words.push(me.to_str().unwrap());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["--exact", "--ignored", "--nocapture", &format!("sandbox::{test}")]);
    command.current_dir(dir);
    command
}

/// A directory that everyone may use with copies of this program and the one under test.
fn for_everyone() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for (from, name) in [(std::env::current_exe().unwrap(), "tests"), (exe(), "phial")] {
        fs::copy(from, dir.path().join(name)).unwrap();
    }
    dir
}

#[test]
fn everything_works_for_an_ordinary_user_without_subuids() {
    if !is_root() {
        skip!("needs root: for an ordinary user every other test of this module is this one");
    }
    let dir = for_everyone();
    let output = Command::new("runuser")
        .args(["-u", "nobody", "--"])
        .arg(dir.path().join("tests"))
        .args(["sandbox::", "--test-threads=2"])
        .env_remove("PHIAL_SKIPPED") // what it skips has run here
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("test result: ok"), "{text}");
}
