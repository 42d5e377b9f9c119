//! Tests that do not end as they should: whatever they do, nothing of them is left.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Scene, alive, mark, nothing_is_left, soon};
use crate::harness::{Output, run};

/// Starts it, does `during` when the mark is alive, and gives how it ended.
#[track_caller]
fn while_alive(mut command: Command, mark: &str, during: impl FnOnce(Pid)) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("phial");
    soon("the test runs", || alive(mark) > 0);
    during(Pid::from_child(&child));
    let output = child.wait_with_output().expect("an end");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn a_test_that_hangs_is_ended_when_its_time_is_up() {
    let mark = mark(20);
    let scene = Scene::new(&format!("timeout = '1s'\ncommands = ['trap \"\" TERM INT; sleep {mark}', 'echo next']"));
    let begun = Instant::now();
    let error = run(scene.test(&[])).failed(1);
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(error.contains("(timed out after 1 s)") && error.contains("echo next | next"), "{error}");
    nothing_is_left(&scene.env, &mark);
    let record = scene.records().pop().expect("a record");
    assert!(!record.passed && record.commands["echo next"]);
}

#[test]
fn daemons_that_a_test_leaves_are_gone_with_it() {
    let mark = mark(21);
    let scene = Scene::new(&format!("command = '(trap \"\" TERM HUP; busybox setsid sleep {mark} &) ; echo done'"));
    let ran = run(scene.test(&[]));
    assert!(ran.stderr.contains("test | done"), "{}", ran.stderr);
    ran.ok();
    nothing_is_left(&scene.env, &mark);
}

#[test]
fn an_interrupt_ends_tests_and_services_and_leaves_no_record() {
    for (nth, signal, code) in [(22, Signal::INT, 130), (23, Signal::TERM, 143)] {
        let (mark, beside) = (mark(nth), mark(nth + 10));
        let base = crate::harness::busybox::busybox_base();
        let scene = Scene::new(&format!(
            "command = 'trap \"\" TERM INT; sleep {mark}'\n[test.services.db]\nimage = 'oci:{}'\n\
             command = 'trap \"\" TERM INT; sleep {beside}'",
            base.display()
        ));
        let begun = Instant::now();
        let mut asked = begun;
        let error = while_alive(scene.test(&[]), &mark, |pid| {
            soon("the service runs", || alive(&beside) > 0);
            asked = Instant::now();
            kill_process(pid, signal).expect("sent");
        })
        .failed(code);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(error.contains("error: interrupted"), "{error}");
        nothing_is_left(&scene.env, &mark);
        assert_eq!(alive(&beside), 0);
        assert!(scene.records().is_empty());
    }
}

#[test]
fn an_interrupt_while_a_service_is_not_ready_ends_it() {
    let mark = mark(25);
    let base = crate::harness::busybox::busybox_base();
    let scene = Scene::new(&format!(
        "command = 'true'\n[test.services.db]\nimage = 'oci:{}'\ncommand = ['sleep', '{mark}']\nport = 1",
        base.display()
    ));
    let ran = while_alive(scene.test(&[]), &mark, |pid| kill_process(pid, Signal::INT).expect("sent"));
    ran.failed(130);
    nothing_is_left(&scene.env, &mark);
}

#[test]
fn nothing_outlives_a_phial_that_is_killed() {
    let (mark, beside) = (mark(24), mark(34));
    let base = crate::harness::busybox::busybox_base();
    let scene = Scene::new(&format!(
        "command = 'sleep {mark}'\n[test.services.db]\nimage = 'oci:{}'\ncommand = ['sleep', '{beside}']",
        base.display()
    ));
    let ran = while_alive(scene.test(&[]), &mark, |pid| kill_process(pid, Signal::KILL).expect("sent"));
    assert_eq!(ran.code, None);
    soon("all are gone", || alive(&mark) + alive(&beside) == 0);
    run(scene.test(&["--", "true"])).ok(); // and the next one sweeps the scratch
    nothing_is_left(&scene.env, &mark);
}
