//! The machine: no namespaces, a full disk, an odd environment.

use std::collections::BTreeSet;
use std::fs;

use insta::assert_snapshot;

use super::{Scene, digest, good, in_namespace, run, through};
use crate::harness::skip::skip;
use crate::harness::through_program;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A machine whose user namespaces are switched off; `more` is run before the command.
fn without_namespaces(more: &str, command: &std::process::Command) -> std::process::Command {
    in_namespace(&format!("echo 0 >/proc/sys/user/max_user_namespaces && exec {more} \"$@\""), command)
}

#[test]
fn without_namespaces_a_user_gets_a_hint_how_to_enable_them() {
    let scene = Scene::new();
    let bare = "setpriv --bounding-set=-all";
    assert_snapshot!(scene.refused(6, without_namespaces(bare, &scene.build([]))), @r"
    error: this machine allows no isolation for the steps; overlay: cannot make a user namespace by `unshare`: No space left on device (os error 28); copy: cannot make a user namespace by `unshare`: No space left on device (os error 28); chroot: cannot change the root to `chroot`: Operation not permitted (os error 1)
    hint: user namespaces are switched off: `sudo sysctl user.max_user_namespaces=15000`
    ");
    assert_snapshot!(scene.refused(6, without_namespaces(bare, &scene.build(["--no-cache", "--isolation", "overlay"]))), @r"
    error: this machine allows no isolation for the steps; overlay: cannot make a user namespace by `unshare`: No space left on device (os error 28)
    hint: user namespaces are switched off: `sudo sysctl user.max_user_namespaces=15000`
    ");
    assert_snapshot!(scene.refused(6, without_namespaces(bare, &scene.build(["--no-cache", "--isolation", "copy"]))), @r"
    error: this machine allows no isolation for the steps; copy: cannot make a user namespace by `unshare`: No space left on device (os error 28)
    hint: user namespaces are switched off: `sudo sysctl user.max_user_namespaces=15000`
    ");
}

#[test]
fn without_namespaces_root_builds_in_a_chroot_and_gets_the_same_digest() {
    let scene = Scene::new();
    assert_eq!(digest(&run(without_namespaces("", &scene.build([]))).ok()), good());
}

#[test]
fn a_chroot_is_for_root() {
    let scene = Scene::new();
    if is_root() {
        assert_eq!(digest(&run(scene.build(["--isolation", "chroot"])).ok()), good());
    } else {
        let output = scene.refused(6, scene.build(["--isolation", "chroot"]));
        assert_eq!(output, CHROOT);
    }
}

const CHROOT: &str = "error: this machine allows no isolation for the steps; chroot: a chroot needs root\n\
                      hint: run as root, or use `--isolation auto` on a machine with user namespaces\n";

/// Builds again and again on a disk with ever more room, once the base is on it, until it is enough: the command's exit
/// codes, each with what it left in the scratch.
const NARROW: &str = r#"
    mkdir narrow && mount -t tmpfs -o mode=700,size=16m none narrow || exit 99
    PHIAL_CACHE_DIR=$PWD/narrow; export PHIAL_CACHE_DIR
    "$1" run "$BASE" --progress quiet -- true || exit 98
    cat /dev/zero >narrow/filler 2>/dev/null; room=0
    while [ $room -lt 400 ]; do
        "$@" >output-out 2>"output-$room" && { cat output-out; exit 0; }
        echo "$room: $? $(ls -A narrow/scratch)"
        room=$((room + 4)); truncate -s -4096 narrow/filler
    done
"#;

#[test]
fn a_full_disk_is_an_error_wherever_it_happens_and_the_next_build_on_a_larger_one_is_good() {
    let scene = Scene::new();
    let mut build = in_namespace(NARROW, &scene.build([]));
    build.env("BASE", format!("oci:{}", crate::harness::busybox::busybox_base().display()));
    let out = run(build).ok();
    let lines: Vec<&str> = out.lines().collect();
    let (last, failed) = lines.split_last().unwrap();
    assert_eq!(digest(last), good());
    assert!(failed.len() >= 3, "{out}");
    for line in failed {
        let (room, how) = line.split_once(": ").unwrap();
        let output = fs::read_to_string(scene.env.path(&format!("output-{room}"))).unwrap();
        assert_eq!(how, "6 ", "{line}\n{output}");
        assert!(output.contains("No space left on device"), "{line}\n{output}");
        assert!(output.contains("\nhint: free "), "{line}\n{output}");
        assert_eq!(output.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{output}");
    }
    scene.sound();
}

#[test]
fn a_disk_too_small_for_the_base_is_full_before_any_step_runs() {
    let scene = Scene::new();
    for size in ["100k", "1100k"] {
        let script = format!(
            "mkdir -p narrow && mount -t tmpfs -o mode=700,size={size} none narrow && PHIAL_CACHE_DIR=$PWD/narrow exec \"$@\""
        );
        let output = scene.refused(6, in_namespace(&script, &scene.build([])));
        assert!(output.contains("No space left on device") && output.contains("\nhint: free some space"), "{output}");
    }
}

#[test]
fn without_memory_a_build_ends_with_an_error_and_does_not_hang() {
    let scene = Scene::new();
    let mut ends = BTreeSet::new();
    for room in [1300, 1600, 2000, 2400, 2800, 3600, 4400, 4800, 5200, 5600, 6000, 7000, 10000] {
        // `timeout` has its memory before the limit comes.
        let script = format!("timeout -s KILL 60 sh -c 'ulimit -d {room}; exec \"$@\"' sh \"$@\"");
        let mut build = through(&script, &scene.build(["--no-cache"]));
        build.env("RUST_BACKTRACE", "1");
        let ran = run(build);
        ends.extend(ran.code);
        if ran.code == Some(0) {
            continue; // enough for a machine with few cores
        }
        // 127: the loader had no memory for the program; 134: Rust had none for a few bytes.
        assert!(matches!(ran.code, Some(6 | 70 | 127 | 134)), "{room}: {:?}\n{}", ran.code, ran.stderr);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{room}: {}{}", ran.stdout, ran.stderr);
    }
    assert!(ends.contains(&6), "limits in which the program starts and a thread does not: {ends:?}");
    scene.sound();
}

#[test]
fn an_odd_environment_changes_nothing() {
    let scripts = [
        "unset HOME; exec \"$@\"",
        "HOME=relative exec \"$@\"",
        "TMPDIR=/nonexistent exec \"$@\"",
        "exec \"$@\" <&-",
        "exec \"$@\" 2>&-",
        "exec \"$@\" 2>/dev/full",
        "umask 0777; exec \"$@\"",
        "umask 0077; exec \"$@\"",
        "umask 0000; exec \"$@\"",
    ];
    for script in scripts {
        let scene = Scene::new();
        let out = run(through(script, &scene.build([]))).ok();
        assert_eq!(digest(&out), good(), "{script}");
        scene.tidy();
        let image = format!("oci:{}", scene.out().display());
        let mut start = scene.env.phial(["run", &image, "--progress", "quiet"]);
        start.env_remove("HOME");
        assert_eq!(run(start).ok(), "prod of 1.0", "{script}");
        assert!(!scene.env.dir().join("relative").exists());
    }
}

#[test]
fn without_home_the_cache_is_in_the_users_own_folder() {
    let scene = Scene::new();
    fs::write(scene.env.path("passwd"), format!("root:x:0:0::{}:/bin/sh\n", scene.env.path("mine"))).unwrap();
    let script = "mount --bind passwd /etc/passwd && unset HOME PHIAL_CACHE_DIR && exec \"$@\"";
    let out = run(in_namespace(script, &scene.build([]))).ok();
    assert_eq!(digest(&out), good());
    assert!(scene.env.dir().join("mine/.cache/phial/version").exists());
}

#[test]
fn what_the_kernel_refuses_anywhere_is_the_machines_error_and_spoils_nothing() {
    let scene = Scene::new();
    let mut failed = 0;
    for (call, errno) in [
        ("pipe2", "EMFILE"),
        ("memfd_create", "ENOSPC"),
        ("utimensat", "EIO"),
        ("utimensat", "ENOSPC"),
        ("fsync", "EIO"),
    ] {
        for nth in 1..=3 {
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={errno}:when={nth}"));
            let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let ran = run(through_program(&strace, &scene.build(["--no-cache"])));
            assert!(matches!(ran.code, Some(0 | 1 | 6)), "{inject}: {:?}\n{}", ran.code, ran.stderr);
            assert!(ran.code != Some(1) || ran.stderr.contains("error: the step "), "{inject}: {}", ran.stderr);
            failed += usize::from(ran.code == Some(6));
        }
    }
    assert!(failed >= 3, "{failed} builds met an error");
    scene.sound();
}

#[test]
fn a_hint_names_no_isolation_that_the_error_says_fails() {
    let scene = Scene::new();
    // The cache is on an overlay and `/proc` is masked: neither `overlay` nor `copy` works.
    let script = "mkdir l u w m && mount -t overlay -o userxattr,lowerdir=l,upperdir=u,workdir=w none m && \
        mount -t tmpfs none /proc/tty && PHIAL_CACHE_DIR=$PWD/m/cache exec setpriv --bounding-set=-all \"$@\"";
    let prefix = ["unshare", "-Urmpf", "--mount-proc", "sh", "-c", script, "sh"];
    let output = scene.error(run(through_program(&prefix, &scene.build([]))), 6);
    assert!(output.contains("; overlay: ") && output.contains("; copy: "), "{output}");
    let hint = output.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
    assert!(!hint.contains("`--isolation copy`"), "{output}");
}

#[test]
fn a_chroot_without_a_network_of_its_own_has_a_hint_for_each_command() {
    if !is_root() {
        skip!("needs root: a chroot refuses everybody else");
    }
    let scene = Scene::new();
    run(scene.build([])).ok();
    let image = format!("oci:{}", scene.out().display());
    let lost = "-sys_admin,-mknod,-sys_ptrace,-net_admin,-net_raw,-sys_resource"; // as in a plain container
    let isolated = [&image, "--isolation", "chroot"];
    let commands = [
        [&["test"], &isolated[..], &["--", "true"]].concat(),
        [&["run"], &isolated[..], &["--network", "none", "--", "true"]].concat(),
    ];
    for args in commands {
        let ran = run(through_program(&["setpriv", "--bounding-set", lost], &scene.env.phial(&args)));
        let stderr = ran.failed(6);
        assert!(stderr.contains("`build` and `run` can use the machine's (`--network host`)"), "{args:?}: {stderr}");
        assert!(stderr.contains("tests need user namespaces"), "{args:?}: {stderr}");
    }
    run(through_program(
        &["setpriv", "--bounding-set", lost],
        &scene.env.phial([&["run"], &isolated[..], &["--", "true"]].concat()),
    ))
    .ok();
}
