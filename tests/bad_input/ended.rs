//! Killed in the middle of a step: gone at once with all it started, no target, and the next run is as good as any.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Scene;
use crate::world::small::small_base;

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

/// How a build ends that gets `signal` while a step of it sleeps: its exit code or signal, and its stderr.
#[track_caller]
fn killed(scene: &Scene, mark: &str, signal: Signal, isolation: &str) -> (Option<i32>, String) {
    let (base, to) = (format!("oci:{}", small_base().display()), format!("oci:{}", scene.out().display()));
    let mut build = scene.world.phial(["build", scene.repo.source(), "--base", &base, "--to", &to]);
    build.args(["--isolation", isolation]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = build.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.ends_with("| asleep\n") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the step did not begin");
    }
    let begun = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let code = child.wait().unwrap().code();
    while alive(mark) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "{} processes are left after {signal:?}", alive(mark));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{signal:?} took {:?}", begun.elapsed());
    let mut said = String::new();
    lines.read_to_string(&mut said).unwrap();
    assert!(!scene.out().exists(), "a target after {signal:?}");
    (code, said)
}

/// A step that ignores what can be ignored, with a child that has left its session.
#[track_caller]
fn check(isolation: &str) {
    let mark = mark();
    let scene =
        Scene::with_script(&format!("#!/bin/sh\ntrap '' TERM INT HUP\nsleep {mark} &\necho asleep\nsleep {mark}\n"));
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        assert_eq!(killed(&scene, &mark, signal, isolation), (Some(code), "error: interrupted\n".to_owned()));
        scene.tidy();
    }
    assert_eq!(killed(&scene, &mark, Signal::KILL, isolation), (None, String::new()));
    scene.sound();
}

#[test]
fn a_build_that_waits_for_a_silent_registry_ends_when_it_is_told_to() {
    let scene = Scene::new();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let base = format!("127.0.0.1:{}/elixir:1.18", silent.local_addr().unwrap().port());
    let mut build = scene.build_on(&base, &format!("oci:{}", scene.out().display()), []);
    let child = build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let asked = silent.accept().unwrap();
    let begun = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ended = child.wait_with_output().unwrap();
    drop(asked);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(143), b"error: interrupted\n".as_slice()));
    assert!(!scene.out().exists());
    scene.sound();
}

#[test]
fn a_build_that_is_killed_on_an_overlay_leaves_nothing() {
    check("overlay");
}

#[test]
fn a_build_that_is_killed_on_a_copy_leaves_nothing() {
    check("copy");
}

#[test]
fn a_build_that_is_killed_in_a_chroot_leaves_nothing() {
    if rustix::process::geteuid().is_root() {
        check("chroot");
    } else {
        let scene = Scene::new();
        let said = scene.refused(6, scene.build(["--isolation", "chroot"]));
        assert!(said.contains("a chroot needs root"), "{said}");
    }
}
