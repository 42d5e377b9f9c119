//! The sandbox, seen from inside: a root filesystem of busybox and a probe in C, run by the real program.
//!
//! All of it runs once more as an ordinary user when the tests run as root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Standard};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use phial::sandbox::{
    Bind, Exit, Ids, Loopback, Network, Order, Probe, Ready, Root, Said, SandboxError, Stdio, inside_ids, run, serve,
};
use tempfile::TempDir;

const APPLETS: [&str; 25] = [
    "sh", "cat", "chown", "chroot", "echo", "env", "find", "grep", "hostname", "id", "ifconfig", "kill", "ln", "ls",
    "mkdir", "mount", "nc", "ps", "readlink", "rm", "setsid", "sleep", "stat", "true", "umount",
];

/// The program under test: beside this one if it was copied there, for a user who cannot see the build's directory.
fn exe() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("phial");
    if beside.exists() { beside } else { PathBuf::from(env!("CARGO_BIN_EXE_phial")) }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

struct World {
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["root/bin", "root/etc", "root/srv", "upper", "work"] {
            fs::create_dir_all(world.path(name)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox-static is installed"), world.path("root/bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", world.path(&format!("root/bin/{applet}"))).unwrap();
        }
        fs::write(world.path("root/etc/hosts"), "192.0.2.1 of-the-image\n").unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn overlay(&self) -> Root {
        Root::Overlay { lowers: vec![self.path("root")], upper: self.path("upper"), work: self.path("work") }
    }

    fn order(&self, script: &str) -> Order {
        Order {
            root: self.overlay(),
            argv: ["sh", "-c", script].map(str::to_owned).into(),
            env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
            cwd: "/".to_owned(),
            user: (0, 0),
            network: Network::Host,
            ids: Ids::Single,
            binds: Vec::new(),
            tmpfs: Vec::new(),
            ready: None,
            hosts: "127.0.0.1 localhost\n".to_owned(),
            resolv: Some("nameserver 192.0.2.53\n".to_owned()),
            stdio: Stdio::Stream,
            read_only: false,
        }
    }

    /// What a script writes; it must succeed.
    fn sh(&self, script: &str) -> String {
        says(&self.order(script))
    }

    /// The lines `name errno` of the probe in C.
    fn probe(&self) -> BTreeMap<String, String> {
        let source = self.path("probe.c");
        fs::write(&source, include_str!("../testdata/sandbox-probe.c")).unwrap();
        let program = self.path("root/bin/probe");
        let cc = Command::new("cc").args(["-static", "-w", "-o"]).arg(&program).arg(&source).output().unwrap();
        assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
        let said = self.sh("exec probe");
        said.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }
}

fn result(order: &Order) -> (Result<Exit, SandboxError>, String) {
    let mut output = Vec::new();
    let exit = run(&exe(), order, &AtomicBool::new(false), &mut |bytes| output.extend_from_slice(bytes));
    (exit, String::from_utf8(output).unwrap())
}

fn says(order: &Order) -> String {
    match result(order) {
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

/// A test of this file in a process of its own, in a directory: `prefix` is put before it.
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
        return; // the whole file runs as one already
    }
    let dir = for_everyone();
    let output = Command::new("runuser")
        .args(["-u", "nobody", "--"])
        .arg(dir.path().join("tests"))
        .args(["sandbox::", "--test-threads=2"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("test result: ok"), "{said}");
}

#[test]
fn exit_codes_and_signals_are_reported_exactly() {
    let world = World::new();
    for code in [0, 1, 2, 126, 127, 255] {
        assert_eq!(result(&world.order(&format!("exit {code}"))).0.unwrap(), Exit::Code(code));
    }
    for signal in [9, 11, 15] {
        assert_eq!(result(&world.order(&format!("kill -{signal} $$"))).0.unwrap(), Exit::Signal(signal));
    }
}

#[test]
fn output_of_both_kinds_comes_and_stdin_is_at_its_end() {
    let world = World::new();
    assert_eq!(world.sh("cat; echo out; echo err >&2"), "out\nerr\n");
}

#[test]
fn only_three_descriptors_are_open() {
    let world = World::new();
    let leaked = fs::File::open("/proc/self/status").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let script = "fd=0; while [ $fd -lt 100 ]; do [ -L /proc/$$/fd/$fd ] && echo $fd; fd=$((fd+1)); done; true";
    assert_eq!(world.sh(script), "0\n1\n2\n");
    assert_eq!(world.sh("readlink /proc/$$/fd/0"), "/dev/null\n");
}

#[test]
fn the_environment_is_exactly_the_ordered_one() {
    let world = World::new();
    let mut order = world.order("");
    order.argv = vec!["env".to_owned()];
    order.env.insert("GREETING".to_owned(), "a b\nc=d".to_owned());
    assert_eq!(says(&order), "GREETING=a b\nc=d\nPATH=/bin\n");
}

#[test]
fn the_first_process_keeps_its_secrets() {
    let world = World::new();
    for file in ["environ", "mem", "maps", "cwd/etc", "root/etc", "fd/1", "exe"] {
        let (exit, said) = result(&world.order(&format!("cat /proc/1/{file}")));
        assert!(said.contains("denied") && exit.unwrap() == Exit::Code(1), "{file}: {said}");
    }
    assert!(world.sh("echo x > /proc/1/exe || true").contains("denied"));
}

#[test]
fn host_name_umask_ids_and_session_are_fixed() {
    let world = World::new();
    assert_eq!(world.sh("hostname; umask; id -u; id -g; cat /proc/self/setgroups"), "phial\n0022\n0\n0\ndeny\n");
    assert_eq!(world.sh("cut() { echo $7; }; cut $(cat /proc/self/stat)"), "0\n", "a controlling terminal");
    assert_eq!(world.sh("ls /dev"), "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero\n");
}

#[test]
fn killing_everything_kills_nothing_outside() {
    let world = World::new();
    let mark = number(1);
    let mut bystander = Command::new("sleep").arg(&mark).spawn().unwrap();
    assert_eq!(result(&world.order("kill -9 1; kill -9 -1; exit 3")).0.unwrap(), Exit::Code(3));
    assert_eq!(result(&world.order("kill -9 0; exit 3")).0.unwrap(), Exit::Signal(9));
    assert_eq!(alive(&mark), 1);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn only_own_processes_are_seen() {
    let world = World::new();
    assert_eq!(world.sh("cd /proc; for p in [0-9]*; do echo $p; done"), "1\n2\n");
}

#[test]
fn dangerous_calls_are_denied() {
    let probed = World::new().probe();
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
    let world = World::new();
    let status = world.sh("cat /proc/self/status; ulimit -c; ulimit -n");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t00000000800405fb", "CapAmb:\t0000000000000000"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert!(status.ends_with("\n0\n1024\n"), "{status}");
}

#[test]
fn the_kernel_is_not_to_be_written() {
    let world = World::new();
    for file in ["sys/kernel/core_pattern", "sys/kernel/hostname", "sys/vm/swappiness", "bus/x", "irq/x"] {
        let (_, said) = result(&world.order(&format!("echo x > /proc/{file}")));
        assert!(!said.is_empty(), "{file} was written");
    }
    assert_eq!(world.sh("cat /proc/keys /proc/timer_list 2>/dev/null; ls /sys 2>/dev/null; true"), "");
}

#[test]
fn without_a_network_there_is_loopback_and_refusal_is_quick() {
    let world = World::new();
    let mut order = world.order("ifconfig lo; ifconfig -a | grep -c Link; nc -w 5 192.0.2.1 80; true");
    order.network = Network::None;
    let begun = Instant::now();
    let said = says(&order);
    assert!(said.contains("inet addr:127.0.0.1") && said.contains("UP LOOPBACK RUNNING"), "{said}");
    assert!(said.contains("\n1\n") && said.contains("unreachable"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn daemons_are_gone_when_the_command_has_ended() {
    let world = World::new();
    let mark = number(2);
    let script =
        format!("(setsid sh -c 'trap \"\" TERM HUP; sleep {mark}; sleep {mark}' >/dev/null 2>&1 &) ; sleep 0.2");
    world.sh(&script);
    assert_eq!(alive(&mark), 0);
}

#[test]
fn an_orphan_that_ends_first_is_not_taken_for_the_command() {
    let world = World::new();
    let order = world.order("(sh -c 'sleep 0.1; exit 9' &); sleep 0.5; exit 5");
    let mut orders = vec![order.clone()];
    if is_root() {
        orders.push(Order { root: Root::Chroot { dir: world.path("root") }, ..order });
    }
    for order in orders {
        assert_eq!(result(&order).0.unwrap(), Exit::Code(5));
    }
}

#[test]
fn cancelling_kills_everything_at_once() {
    let world = World::new();
    let mark = number(3);
    let cancel = AtomicBool::new(false);
    let order = world.order(&format!("(setsid sleep {mark} &); trap '' TERM; echo up; sleep {mark}"));
    let begun = Instant::now();
    let ended = run(&exe(), &order, &cancel, &mut |_| cancel.store(true, Ordering::Relaxed));
    let error = ended.unwrap_err();
    assert!(matches!(error, SandboxError::Interrupted), "{error}");
    assert_eq!(error.exit_code(), 130);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(alive(&mark), 0);
}

#[test]
#[ignore = "a part of the next test"]
fn a_caller_that_will_be_killed() {
    let here = fs::canonicalize(".").unwrap();
    let mark = fs::read_to_string("word").unwrap();
    let world = World::new();
    let script =
        format!("(setsid sh -c 'trap \"\" TERM; sleep {mark}; sleep {mark}' >/dev/null 2>&1 &); echo; sleep {mark}");
    let mut order = world.order(&script);
    if here.join("chroot").exists() {
        order.root = Root::Chroot { dir: world.path("root") };
    }
    drop(run(&exe(), &order, &AtomicBool::new(false), &mut |_| fs::write(here.join("ready"), "").unwrap()));
}

#[test]
fn nothing_survives_a_caller_that_is_killed() {
    let rungs: &[&str] = if is_root() { &["overlay", "chroot"] } else { &["overlay"] };
    for (index, rung) in rungs.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mark = number(40 + u32::try_from(index).unwrap());
        fs::write(dir.path().join("word"), &mark).unwrap();
        fs::write(dir.path().join(rung), "").unwrap();
        let mut caller = helper(&[], "a_caller_that_will_be_killed", dir.path());
        let mut caller = caller.stdout(Standard::null()).stderr(Standard::null()).spawn().unwrap();
        let begun = Instant::now();
        while !dir.path().join("ready").exists() || alive(&mark) < 2 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{rung}: the sandbox does not start");
            thread::sleep(Duration::from_millis(20));
        }
        caller.kill().unwrap();
        caller.wait().unwrap();
        assert!(gone_within(&mark, Duration::from_secs(2)), "{rung}");
    }
}

#[test]
fn a_slow_reader_slows_the_command_and_loses_nothing() {
    let world = World::new();
    let mut order = world
        .order("i=0; while [ $i -lt 3000 ]; do echo $i-0123456789012345678901234567890123456789; i=$((i+1)); done");
    order.env.clear();
    order.argv[0] = "/bin/sh".to_owned();
    let mut output = Vec::new();
    let mut first = true;
    let slow = &mut |bytes: &[u8]| {
        if std::mem::take(&mut first) {
            thread::sleep(Duration::from_millis(500));
        }
        output.extend_from_slice(bytes);
    };
    assert_eq!(run(&exe(), &order, &AtomicBool::new(false), slow).unwrap(), Exit::Code(0));
    assert_eq!(String::from_utf8(output).unwrap().lines().count(), 3000);
}

#[test]
fn what_is_written_lands_in_the_upper_directory_and_nothing_else() {
    let world = World::new();
    let said =
        world.sh("echo new > /srv/new; rm /bin/id; echo t > /tmp/t; echo r > /run/r; cat /etc/hosts /etc/resolv.conf");
    assert_eq!(said, "127.0.0.1 localhost\nnameserver 192.0.2.53\n");
    let mut found: Vec<String> = walkdir::WalkDir::new(world.path("upper"))
        .min_depth(1)
        .into_iter()
        .map(|entry| entry.unwrap().path().strip_prefix(world.path("upper")).unwrap().display().to_string())
        .collect();
    found.sort();
    assert_eq!(found, ["bin", "bin/id", "etc", "srv", "srv/new"], "etc is copied up, for a mount point");
    assert_eq!(fs::symlink_metadata(world.path("upper/bin/id")).unwrap().rdev(), 0, "a whiteout");
    assert!(world.path("root/bin/id").symlink_metadata().is_ok() && !world.path("root/srv/new").exists());
}

#[test]
fn a_work_directory_can_be_used_again_even_after_a_crash() {
    let world = World::new();
    fs::create_dir_all(world.path("work/work/incompat/volatile")).unwrap();
    fs::set_permissions(world.path("work/work"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(world.sh("echo 1 > /srv/n; cat /srv/n"), "1\n");
    assert_eq!(fs::read_dir(world.path("work")).unwrap().count(), 0);
    assert_eq!(world.sh("cat /srv/n"), "1\n");
}

#[test]
fn a_plain_directory_receives_what_is_written() {
    let world = World::new();
    let mut order = world.order("echo new > /srv/new; cat /etc/hosts");
    order.root = Root::Plain { dir: world.path("root") };
    assert_eq!(says(&order), "127.0.0.1 localhost\n");
    assert_eq!(fs::read_to_string(world.path("root/srv/new")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(world.path("root/etc/hosts")).unwrap(), "192.0.2.1 of-the-image\n");
    for made in ["proc", "dev", "tmp", "run", "etc/resolv.conf"] {
        assert!(!world.path("root").join(made).exists(), "{made} is left");
    }
}

#[test]
fn sixty_lower_directories_with_long_names_stack_in_order() {
    let world = World::new();
    let mut lowers: Vec<PathBuf> = (0..60).map(|number| world.path(&format!("{number:064x}"))).collect();
    for (number, lower) in lowers.iter().enumerate() {
        fs::create_dir_all(lower.join("srv")).unwrap();
        fs::write(lower.join("srv/top"), number.to_string()).unwrap();
        fs::write(lower.join(format!("srv/{number}")), "").unwrap();
    }
    lowers.push(world.path("root"));
    let mut order = world.order("cat /srv/top; echo; ls /srv | grep -c .");
    order.root = Root::Overlay { lowers, upper: world.path("upper"), work: world.path("work") };
    assert_eq!(says(&order), "0\n61\n");
}

#[test]
fn a_missing_command_is_named() {
    let world = World::new();
    let bin = |name: &str, text: &str| {
        fs::write(world.path(&format!("root/bin/{name}")), text).unwrap();
        fs::set_permissions(world.path(&format!("root/bin/{name}")), fs::Permissions::from_mode(0o755)).unwrap();
    };
    bin("bad", "#!/usr/bin/no-elixir -x\n");
    bin("junk", "\u{1}\u{2}");
    for (command, expected) in [
        ("mix", "there is no command `mix` in the root filesystem"),
        ("/opt/mix", "there is no command `/opt/mix` in the root filesystem"),
        ("bad", "`bad` needs `/usr/bin/no-elixir`, which is not in the root filesystem"),
        ("junk", "cannot start `junk`"),
        ("/etc/hosts", "cannot start `/etc/hosts`"),
    ] {
        let mut order = world.order("");
        order.argv = vec![command.to_owned()];
        let error = result(&order).0.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (expected, 3));
    }
}

#[test]
fn a_missing_working_directory_is_named() {
    let world = World::new();
    let mut order = world.order("true");
    order.cwd = "/no/such".to_owned();
    let error = result(&order).0.unwrap_err();
    assert_eq!(error.to_string(), "cannot enter the working directory `/no/such`");
}

#[test]
fn an_image_with_symbolic_links_for_mount_points_reaches_nothing_outside() {
    let canary = tempfile::tempdir().unwrap();
    fs::write(canary.path().join("canary"), "alive").unwrap();
    for name in ["proc", "dev"] {
        let world = World::new();
        symlink(canary.path(), world.path(&format!("root/{name}"))).unwrap();
        let error = result(&world.order("true")).0.unwrap_err();
        assert_eq!(error.to_string(), format!("`/{name}` of the root filesystem is not a directory"));
        assert_eq!(error.exit_code(), 3);
    }
    let world = World::new();
    symlink("../../../../../srv/deep/down", world.path("root/tmp")).unwrap();
    symlink(canary.path(), world.path("root/run")).unwrap();
    symlink("../../../../run/systemd/resolve/stub", world.path("root/etc/resolv.conf")).unwrap();
    assert_eq!(world.sh("echo x > /tmp/mine; cat /etc/resolv.conf"), "nameserver 192.0.2.53\n");
    let left: Vec<_> = fs::read_dir(canary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["canary"]);
}

#[test]
fn another_user_is_that_user_in_and_the_caller_outside() {
    let world = World::new();
    let mut order =
        world.order("id -u; id -g; echo x > /srv/mine; stat -c %u /srv/mine; cat /proc/1/environ 2>&1 || true");
    order.user = (65532, 65532);
    let said = says(&order);
    assert!(said.starts_with("65532\n65532\n65532\n") && said.contains("denied"), "{said}");
    assert_eq!(fs::metadata(world.path("upper/srv/mine")).unwrap().uid(), rustix::process::getuid().as_raw());
    order.argv[2] = "cat /proc/self/status".to_owned();
    assert!(says(&order).contains("CapEff:\t0000000000000000"));
}

#[test]
fn binds_are_in_sight_and_read_only_ones_stay_as_they_are() {
    let world = World::new();
    fs::create_dir(world.path("input")).unwrap();
    fs::write(world.path("input/file"), "text\n").unwrap();
    let bind = |source: &str, target: &str, read_only| Bind {
        source: world.path(source),
        target: target.to_owned(),
        read_only,
    };
    let mut order = world.order("cat /in/file /one; echo x > /in/file || echo > /one || echo more >> /rw/file; ls /in");
    order.binds = vec![bind("input", "/in", true), bind("input/file", "/one", true), bind("input", "/rw", false)];
    let said = says(&order);
    assert!(said.starts_with("text\ntext\n") && said.matches("Read-only").count() == 2, "{said}");
    assert_eq!(fs::read_to_string(world.path("input/file")).unwrap(), "text\nmore\n");
    assert!(!world.path("upper/in").exists(), "the mount point is left");
}

#[test]
fn a_read_only_root_is_that() {
    let world = World::new();
    let mut order = world.order("echo x > /srv/x; echo y > /tmp/y; cat /tmp/y");
    order.read_only = true;
    let said = says(&order);
    assert!(said.contains("Read-only") && said.ends_with("y\n"), "{said}");
}

#[test]
fn orders_that_nobody_can_follow_are_refused() {
    let world = World::new();
    let spoil: [fn(&mut Order); 5] = [
        |order| order.argv.clear(),
        |order| order.argv[0] = "a\0b".to_owned(),
        |order| drop(order.env.insert("A=B".to_owned(), String::new())),
        |order| order.cwd = "srv".to_owned(),
        |order| order.root = Root::Overlay { lowers: vec![], upper: "/u".into(), work: "/w".into() },
    ];
    for spoil in spoil {
        let mut order = world.order("true");
        spoil(&mut order);
        assert!(matches!(result(&order).0, Err(SandboxError::Order(_))));
    }
}

#[test]
fn a_missing_layer_is_named() {
    let world = World::new();
    let mut order = world.order("true");
    let absent = world.path("absent");
    order.root = Root::Overlay { lowers: vec![absent.clone()], upper: world.path("upper"), work: world.path("work") };
    assert_eq!(result(&order).0.unwrap_err().to_string(), format!("cannot use as the root `{}`", absent.display()));
}

#[test]
fn a_chroot_works_for_root_and_refuses_others() {
    let world = World::new();
    let mark = number(5);
    let script = format!(
        "(setsid sleep {mark} >/dev/null 2>&1 &); echo x > /dev/null; echo new > /srv/new; cat /etc/hosts; umask; pwd; env; exit 4"
    );
    let mut order = world.order(&script);
    order.root = Root::Chroot { dir: world.path("root") };
    order.cwd = "/srv".to_owned();
    let (exit, said) = result(&order);
    if !is_root() {
        let error = exit.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), ("a chroot needs root", 6));
        assert!(error.hint().is_some());
        return;
    }
    assert_eq!(exit.unwrap(), Exit::Code(4), "{said}");
    assert!(said.starts_with("127.0.0.1 localhost\n0022\n/srv\n"), "{said}");
    assert_eq!(alive(&mark), 0);
    assert_eq!(fs::read_to_string(world.path("root/srv/new")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(world.path("root/etc/hosts")).unwrap(), "192.0.2.1 of-the-image\n");
    let mut left: Vec<_> = fs::read_dir(world.path("root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["bin", "etc", "srv"]);
    assert_eq!(fs::read_dir(world.path("root/etc")).unwrap().count(), 1);

    order.argv[2] = "kill -9 0".to_owned();
    assert_eq!(result(&order).0.unwrap(), Exit::Signal(9), "killing its process group kills no stage");

    order.argv[2] = "mkdir -p /srv/x; chroot /srv/x true; mount -t tmpfs none /srv; true".to_owned();
    let said = says(&order);
    assert_eq!(said.matches("not permitted").count() + said.matches("denied").count(), 2, "{said}");
    let bind = Bind { source: world.path("upper"), target: "/in".to_owned(), read_only: true };
    let error = result(&Order { binds: vec![bind], ..order.clone() }).0.unwrap_err();
    assert!(error.to_string().starts_with("cannot bind `") && error.hint().unwrap().contains("copy"), "{error}");

    order.argv[2] = "ifconfig lo; id -u; exit 0".to_owned();
    order.network = Network::None;
    order.user = (65532, 65532);
    fs::create_dir_all(world.path("root/proc")).unwrap();
    let said = says(&order);
    assert!(said.ends_with("65532\n"), "{said}");
}

#[test]
#[ignore = "a part of the next test"]
fn a_caller_on_a_poor_machine() {
    let world = World::new();
    let mut order = world.order("echo fine $(grep SigIgn /proc/self/status 2>/dev/null)");
    if Path::new("chroot").exists() {
        order.root = Root::Chroot { dir: world.path("root") };
    }
    if Path::new("offline").exists() {
        order.network = Network::None;
    }
    match result(&order) {
        (Err(error), _) => println!("said: {error}; {}; {}", error.exit_code(), error.hint().unwrap_or_default()),
        (Ok(_), said) => println!("said: {said}"),
    }
    let probe = Probe { exe: &exe(), scratch: world.dir.path() };
    println!("rungs: {} {} {}", probe.overlay().is_ok(), probe.namespaces().is_ok(), probe.chroot().is_ok());
}

/// What the caller says on a machine that `prefix` makes poor, with these files beside it.
fn poor(prefix: &[&str], files: &[&str]) -> String {
    let dir = for_everyone();
    for file in files {
        fs::write(dir.path().join(file), "").unwrap();
    }
    let output = helper(prefix, "a_caller_on_a_poor_machine", dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().filter(|line| line.contains("said: ") || line.starts_with("rungs: ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_machine_that_forbids_something_is_told_what_to_do() {
    let strace = |injected| ["strace", "-f", "-qq", "-o", "/dev/null", "-e", injected];
    let inside = |script| ["unshare", "-Urmpf", "--mount-proc", "sh", "-c", script, "sh"];
    let off = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let masked = "mount -t tmpfs none /proc/tty && exec \"$@\"";
    let stacked = "d=$(mktemp -d) && mount -t tmpfs none $d && mkdir $d/l $d/u $d/w $d/m && \
        mount -t overlay -o userxattr,lowerdir=$d/l,upperdir=$d/u,workdir=$d/w none $d/m && TMPDIR=$d/m \"$@\"";
    for (prefix, what, remedy) in [
        (&inside(off)[..], "make a user namespace by `unshare`; 6", "sysctl user.max_user_namespaces="),
        (&strace("inject=unshare:error=EPERM"), "make a user namespace by `unshare`; 6", "--isolation chroot"),
        (&inside(masked), "mount proc at `/proc`; 6", "systempaths=unconfined"),
        (&strace("inject=openat2:error=ENOSYS"), "make the mount point `/tmp`; 6", "Linux 5.6"),
        (&inside(stacked), "mount an overlay at `", "use `--isolation copy`"),
    ] {
        let said = poor(prefix, &[]);
        assert!(said.contains(&format!("said: cannot {what}")) && said.contains(remedy), "{prefix:?}: {said}");
        let plain = if prefix == inside(stacked) { "rungs: false true" } else { "rungs: false false" };
        assert!(said.contains(plain), "{prefix:?}: {said}");
    }
}

#[test]
fn signals_that_the_caller_ignores_are_not_ignored_inside() {
    let said = poor(&["sh", "-c", "trap '' CHLD INT HUP PIPE TERM USR1; exec \"$@\"", "sh"], &[]);
    let ignored = said.lines().find_map(|line| line.split_once("SigIgn:")).expect(&said).1.trim();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0x7fff_ffff, 0, "{said}");
    assert!(said.contains("rungs: true true"), "{said}");
}

#[test]
#[ignore = "a part of the next test"]
fn a_caller_that_gives_its_own_streams() {
    let world = World::new();
    let mut order = world.order("read line; echo out $line; echo err >&2; [ -t 0 ] || exit 7");
    order.stdio = Stdio::Inherit;
    let exit = run(&exe(), &order, &AtomicBool::new(false), &mut |_| panic!("nothing is streamed")).unwrap();
    assert_eq!(exit, Exit::Code(7));
}

#[test]
fn the_streams_of_the_caller_can_be_given_to_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut caller = helper(&[], "a_caller_that_gives_its_own_streams", dir.path());
    caller.stdin(Standard::piped()).stdout(Standard::piped()).stderr(Standard::piped());
    let mut caller = caller.spawn().unwrap();
    caller.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = caller.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("out hello\n") && err.contains("err\n"), "{out}{err}");
}

#[test]
fn a_chroot_needs_only_what_a_plain_container_gives_to_root() {
    if !is_root() {
        return; // a chroot refuses, which another test sees
    }
    let lost = "-sys_admin,-mknod,-sys_ptrace,-net_admin,-net_raw,-sys_resource";
    let forbid = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=unshare:error=EPERM"];
    let container = [&["setpriv", "--bounding-set", lost], &forbid[..]].concat();
    let said = poor(&container, &["chroot"]);
    assert!(said.contains("said: fine") && said.contains("rungs: false false true"), "{said}");
    let said = poor(&container, &["chroot", "offline"]);
    assert!(said.contains("said: cannot make a network namespace by `unshare`; 6; "), "{said}");
    assert!(said.contains("`--network host`"), "{said}");
}

#[test]
fn probing_says_which_rungs_work() {
    let scratch = tempfile::tempdir().unwrap();
    let probe = Probe { exe: &exe(), scratch: scratch.path() };
    probe.overlay().unwrap();
    probe.namespaces().unwrap();
    assert_eq!(probe.chroot().is_ok(), is_root());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

/// Serves `order` while `during` runs, which begins when it is ready, and gives how it ended.
fn served(order: &Order, during: impl FnOnce()) -> Result<Exit, SandboxError> {
    let cancel = AtomicBool::new(false);
    let (ready, heard) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            serve(&exe(), order, &cancel, &mut move |said| {
                if said == Said::Ready {
                    ready.send(()).unwrap();
                }
            })
        });
        if heard.recv_timeout(Duration::from_secs(10)).is_ok() {
            during();
        }
        cancel.store(true, Ordering::Relaxed);
        server.join().unwrap()
    })
}

#[test]
fn sandboxes_share_a_loopback_that_nobody_else_reaches() {
    let loopback = Loopback::open(&exe(), Ids::Single).unwrap();
    let (one, two, other) = (World::new(), World::new(), World::new());
    let mut server = one.order("while true; do echo hello | nc -l -p 5432; done");
    (server.network, server.user, server.ready) = (loopback.network(), (70, 70), Some(Ready::Port(5432)));
    let mut client = two.order("until nc 127.0.0.1 5432 2>/dev/null; do sleep 0.1; done");
    client.network = loopback.network();
    let ended = served(&server, || {
        assert_eq!(says(&client), "hello\n");
        let apart = Loopback::open(&exe(), Ids::Single).unwrap();
        for network in [apart.network(), Network::None, Network::Host] {
            let mut stranger = other.order("nc 127.0.0.1 5432 2>&1 || echo none");
            stranger.network = network;
            assert!(says(&stranger).ends_with("none\n"), "{network:?}");
        }
    });
    assert!(matches!(ended, Err(SandboxError::Interrupted)), "{ended:?}");
}

#[test]
fn a_command_is_ready_when_its_probe_says_so() {
    let world = World::new();
    let mut order = world.order("sleep 0.3; echo now >/tmp/there; sleep 60");
    order.ready = Some(Ready::Command(["sh", "-c", "test -e /tmp/there"].map(str::to_owned).into()));
    let begun = Instant::now();
    let ended = served(&order, || assert!(begun.elapsed() >= Duration::from_millis(300)));
    assert!(matches!(ended, Err(SandboxError::Interrupted)) && begun.elapsed() < Duration::from_secs(5), "{ended:?}");

    order.argv[2] = "exit 3".to_owned();
    assert_eq!(served(&order, || panic!("it was never ready")).unwrap(), Exit::Code(3));
    order.ready = Some(Ready::Command(vec!["no-such-probe".to_owned()]));
    order.argv[2] = "sleep 60".to_owned();
    let missing = served(&order, || panic!("it was never ready")).unwrap_err();
    assert!(missing.to_string().contains("`no-such-probe`"), "{missing}");
}

#[test]
fn a_directory_in_memory_belongs_to_the_user_and_leaves_nothing() {
    let world = World::new();
    let mut order = world.order("echo x >/srv/data/file; stat -c '%u %a' /srv/data");
    (order.tmpfs, order.user) = (vec!["/srv/data".to_owned()], (70, 70));
    assert_eq!(says(&order), "70 755\n");
    assert!(!world.path("upper/srv/data").exists());
}

#[test]
fn with_one_id_other_owners_are_refused() {
    let world = World::new();
    let (exit, said) = result(&world.order("chown 5:5 /srv"));
    assert!(exit.unwrap() == Exit::Code(1) && said.contains("Invalid argument"), "{said}");
}

#[test]
#[ignore = "a part of the next test"]
fn a_caller_with_ranges() {
    let world = World::new();
    let mut order = world.order("echo x > /srv/owned; chown 1000:1000 /srv/owned; stat -c %u:%g /srv/owned; id -u");
    order.ids = Ids::Ranges;
    assert_eq!(says(&order), "1000:1000\n0\n");
    let owner = fs::metadata(world.path("upper/srv/owned")).unwrap().uid();
    assert!(owner > 1000, "{owner}");

    order.user = (1000, 1000);
    order.argv[2] = "id -u; cat /srv/owned; cat /proc/1/environ 2>&1; grep CapEff /proc/self/status".to_owned();
    let said = says(&order);
    assert!(
        said.starts_with("1000\nx\n") && said.contains("denied") && said.contains("CapEff:\t0000000000000000"),
        "{said}"
    );

    let map = inside_ids(&exe(), Ids::Ranges, &["__sandbox-nonsense"], b"").unwrap_err();
    assert!(matches!(map, SandboxError::Helper { code: 2, .. }), "{map}");
    let cancel = AtomicBool::new(false);
    order.argv[2] = "echo; sleep 60".to_owned();
    let begun = Instant::now();
    let ended = run(&exe(), &order, &cancel, &mut |_| cancel.store(true, Ordering::Relaxed));
    assert!(matches!(ended, Err(SandboxError::Interrupted)) && begun.elapsed() < Duration::from_secs(2));
    println!("all is well");
}

#[test]
fn with_ranges_other_owners_work() {
    if is_root() {
        crate::world::ranger();
        let dir = for_everyone();
        let mut command = Command::new("runuser");
        command.args(["-u", "ranger", "--"]).arg(dir.path().join("tests"));
        command.args(["--exact", "--ignored", "--nocapture", "sandbox::a_caller_with_ranges"]).current_dir(dir.path());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("all is well"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    } else {
        let world = World::new();
        let mut order = world.order("true");
        order.ids = Ids::Ranges;
        if let Err(error) = result(&order).0 {
            assert_eq!(
                (error.to_string().as_str(), error.exit_code()),
                ("no range of ids for this user in `/etc/subuid`", 6)
            );
            assert!(error.hint().unwrap().contains("usermod --add-subuids"));
        }
    }
}
