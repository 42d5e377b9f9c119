//! Killed in the middle of a step: gone at once with all it started, no target, and the next run is as good as any.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Scene, through};
use crate::harness::busybox::busybox_base;
use crate::harness::prebuilt::elixir_base;
use crate::harness::run;

/// A number that no other process of this machine sleeps for.
fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}{:02}", 10_000_000 + std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst))
}

/// How many processes have this argument.
fn alive(mark: &str) -> usize {
    let lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes())).count()
}

/// The process with this id and all that it started, each with the time of its start: ids come again.
fn family(pid: u32) -> BTreeSet<(u32, u64)> {
    let mut all: Vec<(u32, u32, u64)> = vec![];
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let text = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // "pid (name) state ppid ..."; the 22nd is the start (proc(5)).
        let Some((_, rest)) = text.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let Ok(id) = entry.file_name().to_str().unwrap().parse() else { continue }; // `self`
        all.push((id, fields[1].parse().unwrap(), fields[19].parse().unwrap()));
    }
    let mut found = BTreeSet::new();
    let mut known = BTreeSet::from([pid]);
    loop {
        found.extend(all.iter().filter(|(id, ..)| known.contains(id)).map(|(id, _, start)| (*id, *start)));
        let next: BTreeSet<u32> = all
            .iter()
            .filter(|(id, parent, _)| known.contains(id) || known.contains(parent))
            .map(|(id, ..)| *id)
            .collect();
        if next.is_subset(&known) {
            return found;
        }
        known.extend(next);
    }
}

fn lives((pid, start): (u32, u64)) -> bool {
    family(pid).contains(&(pid, start))
}

/// Mounts of any process that have something of this directory.
fn mounts(dir: &Path) -> Vec<String> {
    let tables = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let table = fs::read_to_string(entry.path().join("mountinfo")).ok()?;
        Some(table.lines().filter(|line| line.contains(dir.to_str().unwrap())).map(str::to_owned).collect::<Vec<_>>())
    });
    tables.flatten().collect()
}

/// How a command ends that gets `signal` while what it runs sleeps: its exit code, and what it wrote after that.
#[track_caller]
fn killed(scene: &Scene, mark: &str, signal: Signal, command: &Command) -> (Option<i32>, String) {
    let mut child = through("exec \"$@\" 2>&1", command).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.ends_with("asleep\n") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the step did not begin");
    }
    let started = family(child.id());
    assert!(started.len() >= 4, "phial, a stage of its sandbox, a shell and its child: {started:?}");
    let begun = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let code = child.wait().unwrap().code();
    while alive(mark) > 0 || started.iter().any(|process| lives(*process)) {
        assert!(begun.elapsed() < Duration::from_secs(5), "{} processes are left after {signal:?}", alive(mark));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{signal:?} took {:?}", begun.elapsed());
    let mut output = String::new();
    lines.read_to_string(&mut output).unwrap();
    assert!(!scene.out().exists(), "a target after {signal:?}");
    assert_eq!(mounts(scene.env.dir()), Vec::<String>::new(), "mounts after {signal:?}");
    (code, output)
}

/// Every signal while `command` sleeps for `mark`; afterwards the good commit builds as ever.
#[track_caller]
fn check(scene: &Scene, mark: &str, command: &Command) {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        assert_eq!(killed(scene, mark, signal, command), (Some(code), "error: interrupted\n".to_owned()));
        scene.tidy();
    }
    assert_eq!(killed(scene, mark, Signal::KILL, command), (None, String::new()));
    scene.sound();
}

/// What ignores whatever can be ignored, with a child that may outlive it.
fn asleep(mark: &str) -> String {
    format!("trap '' TERM INT HUP\nsleep {mark} &\necho asleep\nsleep {mark}\n")
}

#[track_caller]
fn check_build(isolation: &str) {
    let mark = mark();
    let scene = Scene::with_script(&format!("#!/bin/sh\n{}", asleep(&mark)));
    let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", scene.out().display()));
    let mut build = scene.env.phial(["build", scene.repo.source(), "--base", &base, "--to", &to]);
    build.args(["--isolation", isolation]);
    check(&scene, &mark, &build);
}

#[track_caller]
fn check_run(isolation: &str) {
    let (mark, scene) = (mark(), Scene::new());
    let base = format!("oci:{}", busybox_base().display());
    let run = scene.env.phial(["run", &base, "--isolation", isolation, "--", "sh", "-c", &asleep(&mark)]);
    check(&scene, &mark, &run);
}

/// Runs a build that waits for a server which never answers, and sends it a signal: it ends at once and says so.
fn check_ends_on_a_signal(silent: &TcpListener, mut build: Command) {
    let child = build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let asked = silent.accept().unwrap();
    let begun = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ended = child.wait_with_output().unwrap();
    drop(asked);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(143), b"error: interrupted\n".as_slice()));
}

#[test]
fn a_build_that_waits_for_a_silent_registry_ends_on_a_signal() {
    let scene = Scene::new();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let base = format!("127.0.0.1:{}/elixir:1.18", silent.local_addr().unwrap().port());
    check_ends_on_a_signal(&silent, scene.build_on(&base, &format!("oci:{}", scene.out().display()), []));
    assert!(!scene.out().exists());
    scene.sound();
}

#[test]
fn a_build_that_waits_for_a_silent_git_server_ends_on_a_signal() {
    let scene = Scene::new();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://127.0.0.1:{}/app.git", silent.local_addr().unwrap().port());
    let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", scene.out().display()));
    check_ends_on_a_signal(
        &silent,
        scene.env.phial(["build", &url, "--base", &base, "--to", &to, "--progress", "quiet"]),
    );
    scene.sound();
}

/// libgit2 does not look up while it reads a file or compares a working tree: a FIFO in the place of the index stands for a file system
/// that is gone. One in the place of an object is refused by then.
#[test]
fn a_build_whose_repository_does_not_answer_ends_on_a_signal() {
    for place in ["objects", "index", "config"] {
        let scene = Scene::new();
        let mut path = scene.repo.dir().join(".git").join(place);
        if place == "objects" {
            let tree = scene.repo.git(["rev-parse", "HEAD^{tree}"]);
            path = path.join(&tree[..2]).join(&tree[2..]);
        }
        std::fs::remove_file(&path).unwrap();
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", scene.out().display()));
        let args = ["build", scene.repo.source(), "--base", &base, "--to", &to, "--progress", "quiet"];
        let mut child = scene.env.phial(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700)); // it is reading by then, or has given that file up
        let begun = Instant::now();
        if child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        }
        let ended = child.wait_with_output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "{place}: {:?}", begun.elapsed());
        assert_ne!(ended.status.code(), None, "{place}");
    }
}

/// The bytes of the largest unfinished blob in the scratch directories of a cache.
fn unfinished_blob(cache: &Path) -> u64 {
    let entries = fs::read_dir(cache.join("scratch")).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file);
    files.map(|file| file.len()).max().unwrap_or(0)
}

/// Whether there is a file with this path, from whichever scratch directory of a cache.
fn scratch_has(cache: &Path, path: &str) -> bool {
    let entries = fs::read_dir(cache.join("scratch")).into_iter().flatten().flatten();
    let below = entries.flat_map(|entry| {
        let inner = fs::read_dir(entry.path()).into_iter().flatten().flatten().map(|inner| inner.path());
        inner.chain([entry.path()]).collect::<Vec<_>>()
    });
    below.into_iter().any(|dir| dir.join(path).exists())
}

/// Starts a command, waits until it is where `is_there` finds it, and sends it a signal: it ends soon with the signal's code, nothing
/// is at its target, and the next command finds and removes what is left in the cache.
#[track_caller]
fn ends_in_the_middle(scene: &Scene, mut command: Command, signal: Signal, is_there: impl Fn(u32) -> bool) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !is_there(child.id()) {
        assert!(begun.elapsed() < Duration::from_secs(300), "it does not get there");
        assert_eq!(child.try_wait().unwrap(), None, "it has ended already");
        std::thread::sleep(Duration::from_millis(1));
    }
    let begun = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let ended = child.wait_with_output().unwrap();
    let code = if signal == Signal::TERM { 143 } else { 130 };
    assert!(begun.elapsed() < Duration::from_secs(5), "{signal:?} took {:?}", begun.elapsed());
    let reported = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(code), "{reported}");
    assert!(ended.stdout.is_empty() && reported.ends_with("error: interrupted\n"), "{reported}");
    assert!(!scene.out().exists(), "a target after {signal:?}");
    run(scene.env.phial(["cache", "ls"])).ok();
    assert_eq!(fs::read_dir(scene.env.cache().join("scratch")).unwrap().count(), 0, "scratch directories are left");
}

/// A bare repository with the app of the scene, and so many files of `size` bytes in each of so many directories.
fn huge_repository(scene: &Scene, dirs: usize, files: usize, size: usize) -> String {
    let path = scene.env.path("huge.git");
    let mut clone = Command::new("git");
    clone.args(["clone", "-q", "--bare", scene.repo.source(), &path]);
    run(clone).ok();
    // Bytes that do not get smaller, by a generator of Knuth's (MMIX).
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    let stream = scene.env.path("stream");
    let mut import = std::io::BufWriter::new(fs::File::create(&stream).unwrap());
    write!(import, "blob\nmark :1\ndata {size}\n").unwrap();
    import.write_all(&noise.take(size).collect::<Vec<u8>>()).unwrap();
    write!(import, "\ncommit refs/heads/main\ncommitter A <a@localhost> 1700000000 +0000\ndata 4\nHuge\n").unwrap();
    writeln!(import, "from refs/heads/main^0").unwrap();
    for (dir, file) in (0..dirs).flat_map(|dir| (0..files).map(move |file| (dir, file))) {
        writeln!(import, "M 100644 :1 d{dir}/f{file}-{dir}").unwrap(); // each tree is another one
    }
    import.into_inner().unwrap();
    let mut git = Command::new("git");
    git.args(["-C", &path, "-c", "core.compression=0", "-c", "fastimport.unpackLimit=1", "fast-import", "--quiet"]);
    git.stdin(fs::File::open(&stream).unwrap());
    run(git).ok();
    path
}

fn build_of(scene: &Scene, repository: &str, base: &Path) -> Command {
    let (base, to) = (format!("oci:{}", base.display()), format!("oci:{}", scene.out().display()));
    scene.env.phial(["build", repository, "--base", &base, "--to", &to, "--progress", "quiet"])
}

#[test]
fn a_build_ends_on_a_signal_while_it_reads_or_writes_a_tree_of_400_000_entries() {
    let scene = Scene::new();
    let repository = huge_repository(&scene, 2000, 200, 10);
    let build = || build_of(&scene, &repository, &busybox_base());
    let reads_pack = |pid: u32| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        maps.contains("/objects/pack/") && !scratch_has(scene.env.cache(), "app")
    };
    ends_in_the_middle(&scene, build(), Signal::TERM, reads_pack);
    ends_in_the_middle(&scene, build(), Signal::INT, reads_pack);
    for signal in [Signal::TERM, Signal::INT] {
        ends_in_the_middle(&scene, build(), signal, |_| scratch_has(scene.env.cache(), "app/d0/f0-0"));
    }
}

#[test]
fn a_build_ends_on_a_signal_while_it_packs_a_layer() {
    let scene = Scene::new();
    let repository = huge_repository(&scene, 1, 30, 10 << 20);
    for signal in [Signal::TERM, Signal::INT] {
        let build = build_of(&scene, &repository, &busybox_base());
        ends_in_the_middle(&scene, build, signal, |_| unfinished_blob(scene.env.cache()) > 1 << 20);
    }
}

#[test]
fn a_build_ends_on_a_signal_while_it_unpacks_the_base() {
    let scene = Scene::new();
    for signal in [Signal::TERM, Signal::INT] {
        let build = build_of(&scene, scene.repo.source(), &elixir_base());
        ends_in_the_middle(&scene, build, signal, |_| scratch_has(scene.env.cache(), "tree/root/usr/bin"));
    }
}

#[test]
fn a_build_that_is_killed_on_an_overlay_leaves_nothing() {
    check_build("overlay");
}

#[test]
fn a_run_that_is_killed_on_an_overlay_leaves_nothing() {
    check_run("overlay");
}

#[test]
fn a_build_that_is_killed_on_a_copy_leaves_nothing() {
    check_build("copy");
}

#[test]
fn a_run_that_is_killed_on_a_copy_leaves_nothing() {
    check_run("copy");
}

#[test]
fn a_build_or_a_run_that_is_killed_in_a_chroot_leaves_nothing() {
    if rustix::process::geteuid().is_root() {
        check_build("chroot");
        check_run("chroot");
    } else {
        let scene = Scene::new();
        let output = scene.refused(6, scene.build(["--isolation", "chroot"]));
        assert!(output.contains("a chroot needs root"), "{output}");
    }
}
