//! What a command may use, and what it reaches of the machine's processes.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use phial::error::UserError as _;
use phial::sandbox::{Exit, Network, Root, SandboxError, UsageLimits};

use super::{SandboxTest, alive, is_root, number, result};

#[test]
fn a_command_that_takes_too_long_is_ended_with_all_that_it_started() {
    let test = SandboxTest::new();
    let mark = number(11);
    let mut spec = test.spec(&format!("(setsid sleep {mark} &); echo up; sleep {mark}"));
    spec.limits = UsageLimits { time: Some(Duration::from_secs(1)), ..UsageLimits::default() };
    let (exit, output) = result(&spec);
    let error = exit.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit_kind().code()), ("it did not end within 1 s", 1));
    assert_eq!((output.as_str(), alive(&mark)), ("up\n", 0));
}

#[test]
fn a_command_that_writes_without_end_is_ended() {
    let test = SandboxTest::new();
    let mut spec = test.spec("while :; do echo 0123456789012345678901234567890123456789; done");
    spec.limits = UsageLimits { output: Some(1_000_000), ..UsageLimits::default() };
    let (exit, output) = result(&spec);
    assert!(matches!(exit, Err(SandboxError::OutputLimit(1_000_000))), "{exit:?}");
    assert!(output.len() < 2_000_000, "{}", output.len());
    spec.argv[2] = "echo little".to_owned();
    assert_eq!(result(&spec).0.unwrap(), Exit::Code(0));
}

#[test]
fn a_command_has_no_more_processes_than_it_may() {
    let test = SandboxTest::new();
    let script = "i=0; while [ $i -lt 600 ]; do sleep 60 & i=$((i+1)); done; echo all";
    let mut spec = test.spec(script);
    spec.limits = UsageLimits { processes: Some(400), ..UsageLimits::default() };
    let (exit, output) = result(&spec);
    assert!(!output.contains("all"), "{output}");
    assert_ne!(exit.unwrap(), Exit::Code(0), "{output}");
    assert!(output.contains("fork"), "{output}");
    spec.argv[2] = script.replace("600", "100");
    assert_eq!(result(&spec).1, "all\n");
}

#[test]
fn a_command_that_takes_too_much_memory_is_ended_with_all_that_it_started() {
    let test = SandboxTest::new();
    let mark = number(13);
    let hog = "x=$(busybox head -c 80000000 /dev/zero | busybox tr '\\0' x); echo up";
    let roots = [Some(test.overlay()), is_root().then(|| Root::Chroot { dir: test.path("root") })];
    for root in roots.into_iter().flatten() {
        // Each of the two is within the limit. A shell whose last command is `sleep` becomes it, and its memory is free again.
        let mut spec = test.spec(&format!("({hog}; sleep {mark}; :) & {hog}; sleep {mark}; :"));
        spec.root = root;
        spec.limits = UsageLimits { memory: Some(120_000_000), ..UsageLimits::default() };
        let (exit, output) = result(&spec);
        let error = exit.unwrap_err();
        assert_eq!(error.to_string(), "it took more than 120000000 bytes of memory", "{output}");
        assert_eq!((error.exit_kind().code(), alive(&mark)), (1, 0));
        spec.argv[2] = format!("{hog}; busybox sleep 1; echo done");
        spec.limits.memory = Some(250_000_000);
        assert_eq!(result(&spec).1, "up\ndone\n");
    }
}

#[test]
fn a_file_system_in_memory_is_no_larger_than_the_limit_of_memory() {
    let test = SandboxTest::new();
    let mut spec = test.spec(
        "busybox head -c 96000000 /dev/zero >/tmp/x; echo $?; busybox head -c 32000000 /dev/zero >/run/x; echo $?",
    );
    spec.root = test.overlay();
    // Much more than the processes take, which count, too.
    spec.limits = UsageLimits { memory: Some(64_000_000), ..UsageLimits::default() };
    let (_, output) = result(&spec);
    assert!(output.ends_with("\n1\n0\n"), "{output}");
}

/// The machine's abstract sockets are reached by whoever shares its network: containerd's had root behind it
/// (CVE-2020-15257).
#[test]
fn the_machines_abstract_sockets_and_processes_are_out_of_reach() {
    let test = SandboxTest::new();
    let name = format!("phial-test-{}", number(12));
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let source = test.path("connect.c");
    std::fs::write(&source, include_str!("../../testdata/abstract-socket.c")).unwrap();
    let program = test.path("root/bin/connect");
    let cc = std::process::Command::new("cc").args(["-static", "-o"]).arg(&program).arg(&source).output().unwrap();
    assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
    let roots = [Some(test.overlay()), is_root().then(|| Root::Chroot { dir: test.path("root") })];
    for root in roots.into_iter().flatten() {
        let is_chroot = matches!(root, Root::Chroot { .. });
        let mut spec = test.spec(&format!("connect {name} theirs; connect own-{name} own"));
        (spec.root, spec.network) = (root, Network::Host);
        assert_eq!(result(&spec).1, "theirs EPERM\nown 0\n");
        if is_chroot {
            spec.argv[2] = format!("kill -0 {} 2>&1; sleep 60 & kill $! && echo own", std::process::id());
            let (_, output) = result(&spec);
            let is_out_of_reach = output.contains("not permitted") || output.contains("No such process");
            assert!(is_out_of_reach && output.ends_with("own\n"), "{output}");
        }
    }
}
