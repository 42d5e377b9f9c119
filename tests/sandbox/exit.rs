//! How a command ends, and that nothing is left of it.

use std::fs;
use std::process::{Command, Stdio as Standard};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use phial::error::UserError as _;
use phial::sandbox::{Exit, Root, SandboxError, Spec, run};

use crate::harness::skip::skip_part;

use super::{SandboxTest, alive, exe, gone_within, helper, is_root, number, result};

#[test]
fn exit_codes_and_signals_are_reported_exactly() {
    let test = SandboxTest::new();
    for code in [0, 1, 2, 126, 127, 255] {
        assert_eq!(result(&test.spec(&format!("exit {code}"))).0.unwrap(), Exit::Code(code));
    }
    for signal in [9, 11, 15] {
        assert_eq!(result(&test.spec(&format!("kill -{signal} $$"))).0.unwrap(), Exit::Signal(signal));
    }
}

#[test]
fn killing_everything_kills_nothing_outside() {
    let test = SandboxTest::new();
    let mark = number(1);
    let mut bystander = Command::new("sleep").arg(&mark).spawn().unwrap();
    assert_eq!(result(&test.spec("kill -9 1; kill -9 -1; exit 3")).0.unwrap(), Exit::Code(3));
    assert_eq!(result(&test.spec("kill -9 0; exit 3")).0.unwrap(), Exit::Signal(9));
    assert_eq!(alive(&mark), 1);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn daemons_are_gone_when_the_command_has_ended() {
    let test = SandboxTest::new();
    let mark = number(2);
    let script =
        format!("(setsid sh -c 'trap \"\" TERM HUP; sleep {mark}; sleep {mark}' >/dev/null 2>&1 &) ; sleep 0.2");
    test.sh(&script);
    assert_eq!(alive(&mark), 0);
}

#[test]
fn an_orphan_that_ends_first_is_not_taken_for_the_command() {
    let test = SandboxTest::new();
    let spec = test.spec("(sh -c 'sleep 0.1; exit 9' &); sleep 0.5; exit 5");
    let mut specs = vec![spec.clone()];
    if is_root() {
        specs.push(Spec { root: Root::Chroot { dir: test.path("root") }, ..spec });
    } else {
        skip_part!("a chroot needs root");
    }
    for spec in specs {
        assert_eq!(result(&spec).0.unwrap(), Exit::Code(5));
    }
}

#[test]
fn cancelling_kills_everything_at_once() {
    let test = SandboxTest::new();
    let mark = number(3);
    let cancel = AtomicBool::new(false);
    let spec = test.spec(&format!("(setsid sleep {mark} &); trap '' TERM; echo up; sleep {mark}"));
    let begun = Instant::now();
    let ended = run(&exe(), &spec, &cancel, &mut |_| cancel.store(true, Ordering::Relaxed));
    let error = ended.unwrap_err();
    assert!(matches!(error, SandboxError::Interrupted), "{error}");
    assert_eq!(error.exit_kind().code(), 130);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(alive(&mark), 0);
}

#[test]
#[ignore = "a part of the next test"]
fn a_caller_that_will_be_killed() {
    let here = fs::canonicalize(".").unwrap();
    let mark = fs::read_to_string("word").unwrap();
    let test = SandboxTest::new();
    let script =
        format!("(setsid sh -c 'trap \"\" TERM; sleep {mark}; sleep {mark}' >/dev/null 2>&1 &); echo; sleep {mark}");
    let mut spec = test.spec(&script);
    if here.join("chroot").exists() {
        spec.root = Root::Chroot { dir: test.path("root") };
    }
    drop(run(&exe(), &spec, &AtomicBool::new(false), &mut |_| fs::write(here.join("ready"), "").unwrap()));
}

#[test]
fn nothing_survives_a_caller_that_is_killed() {
    let isolations: &[&str] = if is_root() {
        &["overlay", "chroot"]
    } else {
        skip_part!("a chroot needs root");
        &["overlay"]
    };
    for (index, isolation) in isolations.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mark = number(40 + u32::try_from(index).unwrap());
        fs::write(dir.path().join("word"), &mark).unwrap();
        fs::write(dir.path().join(isolation), "").unwrap();
        let mut caller = helper(&[], "exit::a_caller_that_will_be_killed", dir.path());
        let mut caller = caller.stdout(Standard::null()).stderr(Standard::null()).spawn().unwrap();
        let begun = Instant::now();
        while !dir.path().join("ready").exists() || alive(&mark) < 2 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{isolation}: the sandbox does not start");
            thread::sleep(Duration::from_millis(20));
        }
        caller.kill().unwrap();
        caller.wait().unwrap();
        assert!(gone_within(&mark, Duration::from_secs(2)), "{isolation}");
    }
}
