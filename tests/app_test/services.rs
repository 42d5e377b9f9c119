//! Services of the tests: ready in time, gone with the tests, and shown when something is wrong.

use std::fs;
use std::process::Stdio;

use super::{Scene, alive, mark, nothing_is_left, soon};
use crate::harness::busybox::busybox_base;
use crate::harness::run;
use crate::harness::skip::{skip, skip_part};

/// A service from the tests' own base.
fn service(name: &str, more: &str) -> String {
    format!("[test.services.{name}]\nimage = 'oci:{}'\n{more}\n", busybox_base().display())
}

#[test]
fn tests_find_a_service_when_it_is_ready_and_it_gets_its_settings() {
    let db = service(
        "db",
        "command = 'sleep 1; id=$(busybox id -u); while :; do echo \"$WORD of $id in $(ls -a /data | wc -l)\" | busybox nc -l -p 5432; done'\n\
         env = { WORD = 'hello' }\nuser = '70:70'\ntmpfs = ['/data']\nport = 5432",
    );
    let scene =
        Scene::new(&format!("command = 'cat /etc/hosts; until busybox nc 127.0.0.1 5432; do sleep 0.1; done'\n{db}"));
    let ran = run(scene.test(&[]));
    assert!(ran.stderr.contains("test | 127.0.0.1 db\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("test | hello of 70 in 2\n"), "{}", ran.stderr);
    ran.ok();
}

#[test]
fn a_service_that_ends_fails_the_test_and_is_shown() {
    let mark = mark(40);
    let db = service("db", "command = 'echo going down; sleep 1; exit 3'");
    let scene = Scene::new(&format!("command = 'sleep {mark}'\n{db}"));
    let error = run(scene.test(&["--artifacts", "kept"])).failed(1);
    assert!(error.contains("db | going down\n"), "{error}");
    assert!(error.contains("error: the service `db` ended (exit code 3)\nhint: its last lines are above"), "{error}");
    assert_eq!(fs::read_to_string(scene.env.path("kept/service-db.log")).expect("a log"), "going down\n");
    nothing_is_left(&scene.env, &mark);
    let record = scene.records().pop().expect("a record");
    assert!(!record.passed && !record.commands["test"]);
}

#[test]
fn a_service_that_is_not_ready_in_time_fails_the_test_before_it_begins() {
    let mark = mark(41);
    for probe in ["port = 5432", "ready = 'exit 1'", "ready = ['sleep', '1000']"] {
        let db = service("db", &format!("command = 'echo waiting; sleep {mark}'\ntimeout = 1\n{probe}"));
        let scene = Scene::new(&format!("command = 'echo began'\n{db}"));
        let error = run(scene.test(&[])).failed(1);
        assert!(error.contains("error: the service `db` was not ready within 1 s"), "{error}");
        assert!(error.contains("db | waiting\n") && error.contains("test.services.db.timeout"), "{error}");
        assert!(!error.contains("began"), "{error}");
        nothing_is_left(&scene.env, &mark);
        assert!(!scene.records().pop().expect("a record").passed);
    }
}

#[test]
fn a_service_that_ends_before_it_is_ready_fails_the_test_at_once() {
    let (steady, weak) = (mark(43), "command = 'echo no data; exit 3'\nport = 5432");
    let beside = service("cache", &format!("command = ['sleep', '{steady}']"));
    let scene = Scene::new(&format!("command = 'echo began'\n{}{beside}", service("db", weak)));
    let error = run(scene.test(&[])).failed(1);
    assert!(error.contains("error: the service `db` ended (exit code 3)"), "{error}");
    assert!(error.contains("db | no data\n") && !error.contains("began"), "{error}");
    assert!(error.contains("note: the service `cache` wrote nothing"), "{error}");
    nothing_is_left(&scene.env, &steady);
}

#[test]
fn a_service_that_cannot_be_started_is_no_failure_of_the_tests() {
    for (more, text) in [
        ("command = ['no-such-server']", "no command `no-such-server`"),
        ("command = 'sleep 60'\nready = ['no-such-probe']", "no command `no-such-probe`"),
        ("command = 'true'\nuser = 'nobody-here'", "`nobody-here`"),
    ] {
        let scene = Scene::new(&format!("command = 'true'\n{}", service("db", more)));
        let error = run(scene.test(&[])).failed(3);
        assert!(error.contains(text), "{error}");
        assert!(scene.records().is_empty());
    }
}

#[test]
fn services_need_namespaces() {
    let scene = Scene::new(&format!("command = 'true'\n{}", service("db", "command = ['sleep', '60']")));
    run(scene.test(&["--isolation", "copy"])).ok();
    if rustix::process::geteuid().is_root() {
        let error = run(scene.test(&["--isolation", "chroot"])).failed(6);
        assert!(error.contains("services need namespaces, which the isolation `chroot` does without"), "{error}");
    } else {
        skip_part!("`--isolation chroot` needs root");
    }
}

#[test]
fn two_runs_at_once_use_the_same_port() {
    let mark = mark(42);
    let db = service("db", "command = 'while :; do cat /etc/word | busybox nc -l -p 5432; done'\nport = 5432");
    let db = db.replace("cat /etc/word", "echo $WORD").replace("port =", "env = { WORD = 'w' }\nport =");
    let scene = Scene::new(&format!(
        "command = 'until busybox nc 127.0.0.1 5432; do sleep 0.1; done; sleep {mark} & sleep 3'\n{db}"
    ));
    let start = || scene.test(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("phial");
    let (one, two) = (start(), start());
    soon("both are in the middle", || alive(&mark) == 2);
    for child in [one, two] {
        let output = child.wait_with_output().expect("an end");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("test | w\n"), "{text}");
    }
    nothing_is_left(&scene.env, &mark);
    assert_eq!(scene.records().len(), 2);
}

#[test]
fn services_without_namespaces_are_refused_before_anything_is_compiled() {
    if !rustix::process::geteuid().is_root() {
        skip!("`--isolation chroot` needs root");
    }
    let scene = Scene::new(&format!("command = 'true'\n{}", service("db", "command = ['sleep', '60']")));
    let script = "#!/bin/sh\necho \"compiled for $*\" >&2\nmkdir -p out/prod\necho x >out/prod/app\n";
    scene.repo.script("script/prepare_code", script);
    scene.build();
    let args = ["--isolation", "chroot", "--no-cache", "--progress", "plain"];
    let error = run(scene.test(&args)).failed(6);
    assert!(error.contains("services need namespaces"), "{error}");
    assert!(!error.contains("compiled for"), "{error}");
}
