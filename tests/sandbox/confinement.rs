//! What a command sees and may do.

use std::fs;
use std::io::Write as _;
use std::process::Stdio as Standard;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use phial::sandbox::{Exit, Network, Root, Spec, Stdio, run};

use crate::harness::skip::skip_part;

use super::{SandboxTest, exe, helper, is_root, result, stdout_of};

#[test]
fn stdout_and_stderr_arrive_and_stdin_is_empty() {
    let test = SandboxTest::new();
    assert_eq!(test.sh("cat; echo out; echo err >&2"), "out\nerr\n");
}

#[test]
fn only_three_descriptors_are_open() {
    let test = SandboxTest::new();
    let leaked = fs::File::open("/proc/self/status").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let script = "fd=0; while [ $fd -lt 100 ]; do [ -L /proc/$$/fd/$fd ] && echo $fd; fd=$((fd+1)); done; true";
    assert_eq!(test.sh(script), "0\n1\n2\n");
    assert_eq!(test.sh("readlink /proc/$$/fd/0"), "/dev/null\n");
}

#[test]
fn the_environment_is_exactly_that_of_the_spec() {
    let test = SandboxTest::new();
    let mut spec = test.spec("");
    spec.argv = vec!["env".to_owned()];
    spec.env.insert("GREETING".to_owned(), "a b\nc=d".to_owned());
    assert_eq!(stdout_of(&spec), "GREETING=a b\nc=d\nPATH=/bin\n");
}

#[test]
fn the_first_process_keeps_its_secrets() {
    let test = SandboxTest::new();
    for file in ["environ", "mem", "maps", "cwd/etc", "root/etc", "fd/1", "exe"] {
        let (exit, output) = result(&test.spec(&format!("cat /proc/1/{file}")));
        assert!(output.contains("denied") && exit.unwrap() == Exit::Code(1), "{file}: {output}");
    }
    assert!(test.sh("echo x > /proc/1/exe || true").contains("denied"));
}

#[test]
fn host_name_umask_ids_and_session_are_fixed() {
    let test = SandboxTest::new();
    assert_eq!(test.sh("hostname; umask; id -u; id -g; cat /proc/self/setgroups"), "phial\n0022\n0\n0\ndeny\n");
    assert_eq!(test.sh("cut() { echo $7; }; cut $(cat /proc/self/stat)"), "0\n", "a controlling terminal");
    assert_eq!(test.sh("ls /dev"), "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero\n");
}

#[test]
fn only_own_processes_are_seen() {
    let test = SandboxTest::new();
    assert_eq!(test.sh("cd /proc; for p in [0-9]*; do echo $p; done"), "1\n2\n");
}

#[test]
fn dangerous_calls_are_denied() {
    let probed = SandboxTest::new().probe();
    for (name, expected) in [
        ("alg", "EPERM"),
        ("vsock", "EPERM"),
        ("packet", "EPERM"),
        ("netlink-generic", "EPERM"),
        ("netlink-route", "0"),
        ("inet", "0"),
        ("unshare", "EPERM"),
        ("clone-newuser", "EPERM"),
        ("clone3", "ENOSYS"),
        ("mount", "EPERM"),
        ("umount", "EPERM"),
        ("pivot_root", "EPERM"),
        ("open_tree", "ENOSYS"),
        ("open_tree_attr", "ENOSYS"),
        ("fsopen", "ENOSYS"),
        ("io_uring", "ENOSYS"),
        ("bpf", "EPERM"),
        ("perf", "EPERM"),
        ("userfaultfd", "EPERM"),
        ("keyctl", "EPERM"),
        ("ptrace-1", "EPERM"),
        ("ptrace-own", "0"),
        ("tiocsti", "EPERM"),
        ("tiocsti-high", "EPERM"),
        ("personality", "EPERM"),
        ("personality-read", "0"),
        ("mknod", "EPERM"),
        ("mkfifo", "0"),
        ("setns", "EPERM"),
        ("x32-unshare", "EPERM"),
    ] {
        assert_eq!(probed.get(name).map(String::as_str), Some(expected), "{name} of {probed:?}");
    }
}

#[test]
fn privileges_and_limits_are_reduced() {
    let test = SandboxTest::new();
    let status = test.sh("cat /proc/self/status; ulimit -c; ulimit -n");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t00000000800405fb", "CapAmb:\t0000000000000000"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert!(status.ends_with("\n0\n1024\n"), "{status}");
}

#[test]
fn the_kernels_settings_are_read_only() {
    let test = SandboxTest::new();
    for file in ["sys/kernel/core_pattern", "sys/kernel/hostname", "sys/vm/swappiness", "bus/x", "irq/x"] {
        let (_, output) = result(&test.spec(&format!("echo x > /proc/{file}")));
        assert!(!output.is_empty(), "{file} was written");
    }
    assert_eq!(test.sh("cat /proc/keys /proc/timer_list 2>/dev/null; ls /sys 2>/dev/null; true"), "");
}

#[test]
fn without_a_network_there_is_loopback_and_refusal_is_quick() {
    let test = SandboxTest::new();
    let mut spec = test.spec("ifconfig lo; ifconfig -a | grep -c Link; nc -w 5 192.0.2.1 80; true");
    spec.network = Network::None;
    let begun = Instant::now();
    let output = stdout_of(&spec);
    assert!(output.contains("inet addr:127.0.0.1") && output.contains("UP LOOPBACK RUNNING"), "{output}");
    assert!(output.contains("\n1\n") && output.contains("unreachable"), "{output}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_slow_reader_slows_the_command_and_loses_nothing() {
    let test = SandboxTest::new();
    let mut spec =
        test.spec("i=0; while [ $i -lt 3000 ]; do echo $i-0123456789012345678901234567890123456789; i=$((i+1)); done");
    spec.env.clear();
    spec.argv[0] = "/bin/sh".to_owned();
    let mut output = Vec::new();
    let mut first = true;
    let slow = &mut |bytes: &[u8]| {
        if std::mem::take(&mut first) {
            thread::sleep(Duration::from_millis(500));
        }
        output.extend_from_slice(bytes);
    };
    assert_eq!(run(&exe(), &spec, &AtomicBool::new(false), slow).unwrap(), Exit::Code(0));
    assert_eq!(String::from_utf8(output).unwrap().lines().count(), 3000);
}

#[test]
#[ignore = "a part of the next test"]
fn a_caller_that_gives_its_own_streams() {
    let test = SandboxTest::new();
    let mut spec = test.spec("read line; echo out $line; echo err >&2; [ -t 0 ] || exit 7");
    spec.stdio = Stdio::Inherit;
    let exit = run(&exe(), &spec, &AtomicBool::new(false), &mut |_| panic!("nothing is streamed")).unwrap();
    assert_eq!(exit, Exit::Code(7));
}

#[test]
fn the_streams_of_the_caller_can_be_given_to_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut caller = helper(&[], "confinement::a_caller_that_gives_its_own_streams", dir.path());
    caller.stdin(Standard::piped()).stdout(Standard::piped()).stderr(Standard::piped());
    let mut caller = caller.spawn().unwrap();
    caller.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = caller.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("out hello\n") && err.contains("err\n"), "{out}{err}");
}

#[test]
fn what_is_denied_in_an_overlay_is_denied_in_a_copy_and_in_a_chroot() {
    let test = SandboxTest::new();
    let in_overlay = test.probe();
    let mut roots = vec![Root::Plain { dir: test.path("root") }];
    if is_root() {
        roots.push(Root::Chroot { dir: test.path("root") });
    } else {
        skip_part!("needs root: a chroot");
    }
    for root in roots {
        let what = format!("{root:?}");
        let output = stdout_of(&Spec { root, ..test.spec("exec probe") });
        for (call, error) in in_overlay.iter().filter(|(_, error)| *error != "0") {
            let expected = format!("{call} {error}");
            assert!(output.lines().any(|line| line == expected), "{expected} in {what}: {output}");
        }
    }
}
