//! What a machine allows, and the lowest isolation: a chroot.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use phial::error::UserError as _;
use phial::sandbox::{Bind, Exit, Network, Probe, Root, Spec};

use crate::harness::skip::{skip, skip_part};

use super::{SandboxTest, alive, exe, for_everyone, helper, is_root, number, result, stdout_of};

#[test]
fn a_chroot_works_for_root_and_refuses_others() {
    let test = SandboxTest::new();
    let mark = number(5);
    let script = format!(
        "(setsid sleep {mark} >/dev/null 2>&1 &); echo x > /dev/null; echo new > /srv/new; cat /etc/hosts; umask; pwd; env; exit 4"
    );
    let mut spec = test.spec(&script);
    spec.root = Root::Chroot { dir: test.path("root") };
    spec.cwd = "/srv".to_owned();
    let (exit, output) = result(&spec);
    if !is_root() {
        let error = exit.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_kind().code()), ("a chroot needs root", 6));
        assert!(error.hint().is_some());
        skip_part!("a chroot needs root");
        return;
    }
    assert_eq!(exit.unwrap(), Exit::Code(4), "{output}");
    assert!(output.starts_with("127.0.0.1 localhost\n0022\n/srv\n"), "{output}");
    assert_eq!(alive(&mark), 0);
    assert_eq!(fs::read_to_string(test.path("root/srv/new")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(test.path("root/etc/hosts")).unwrap(), "192.0.2.1 of-the-image\n");
    let mut left: Vec<_> = fs::read_dir(test.path("root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["bin", "etc", "srv"]);
    assert_eq!(fs::read_dir(test.path("root/etc")).unwrap().count(), 1);

    spec.argv[2] = "kill -9 0".to_owned();
    assert_eq!(result(&spec).0.unwrap(), Exit::Signal(9), "killing its process group kills no stage");

    spec.argv[2] = "mkdir -p /srv/x; chroot /srv/x true; mount -t tmpfs none /srv; true".to_owned();
    let output = stdout_of(&spec);
    assert_eq!(output.matches("not permitted").count() + output.matches("denied").count(), 2, "{output}");
    let bind = Bind { source: test.path("upper"), target: "/in".to_owned(), read_only: true };
    let error = result(&Spec { binds: vec![bind], ..spec.clone() }).0.unwrap_err();
    assert!(error.to_string().starts_with("cannot bind `") && error.hint().unwrap().contains("copy"), "{error}");

    spec.argv[2] = "ifconfig lo; id -u; exit 0".to_owned();
    spec.network = Network::None;
    spec.user = (65532, 65532);
    fs::create_dir_all(test.path("root/proc")).unwrap();
    let output = stdout_of(&spec);
    assert!(output.ends_with("65532\n"), "{output}");
}

#[test]
fn a_chroot_has_devices_and_processes_of_its_own_where_root_may_mount() {
    if !is_root() {
        skip!("needs root: a chroot refuses everybody else, which another test sees");
    }
    let test = SandboxTest::new();
    let script = "echo fine >/dev/stdout; echo error >/dev/stderr; cat /dev/fd/0 </etc/hosts; echo x >/dev/shm/x; \
        cat /dev/shm/x; test $(ls -d /proc/[0-9]* | grep -c .) -lt 8 && echo few; kill -9 1; echo > /proc/sys/kernel/hostname; ls /proc/1/root; id -u";
    let mut spec = test.spec(script);
    spec.root = Root::Chroot { dir: test.path("root") };
    let output = stdout_of(&spec);
    assert!(output.starts_with("fine\nerror\n127.0.0.1 localhost\nx\nfew\n"), "{output}");
    assert!(output.contains("Read-only file system") && output.contains("Permission denied"), "{output}");
    assert!(output.ends_with("0\n"), "{output}");
    let left = fs::read_dir(test.path("root")).unwrap().count();
    assert_eq!(left, 3, "mount points are removed");
    spec.user = (33, 34);
    spec.argv[2] = "id -u; id -g; id -G; echo x > /srv/x; grep CapEff /proc/self/status".to_owned();
    fs::set_permissions(test.path("root/srv"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(test.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(stdout_of(&spec), "33\n34\n34\nCapEff:\t0000000000000000\n");
    assert_eq!(fs::metadata(test.path("root/srv/x")).unwrap().uid(), 33);
}

#[test]
#[ignore = "a part of the next test"]
fn a_caller_on_a_poor_machine() {
    let test = SandboxTest::new();
    let mut spec = test.spec("echo fine $(grep SigIgn /proc/self/status 2>/dev/null)");
    if Path::new("devices").exists() {
        // Both streams, something in memory, and a process that still writes when the command ends.
        spec.argv[2] = "echo fine >/dev/stdout; echo error >/dev/stderr; echo x >/dev/shm/x; cat /dev/shm/x; \
            test -d /proc/1 || echo no proc; (sleep 1000 >/dev/stdout &)"
            .to_owned();
    }
    if Path::new("chroot").exists() {
        spec.root = Root::Chroot { dir: test.path("root") };
    }
    if Path::new("offline").exists() {
        spec.network = Network::None;
    }
    match result(&spec) {
        (Err(error), _) => {
            println!("output: {error}; {}; {}", error.exit_kind().code(), error.hint().unwrap_or_default());
        }
        (Ok(_), output) => println!("output: {}", output.replace('\n', " ")),
    }
    let probe = Probe { exe: &exe(), scratch: test.dir.path() };
    println!("isolations: {} {} {}", probe.overlay().is_ok(), probe.namespaces().is_ok(), probe.chroot().is_ok());
}

/// What the caller prints on a machine that `prefix` restricts, with these files in its directory.
fn poor(prefix: &[&str], files: &[&str]) -> String {
    let dir = for_everyone();
    for file in files {
        fs::write(dir.path().join(file), "").unwrap();
    }
    let output = helper(prefix, "isolation::a_caller_on_a_poor_machine", dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines()
        .filter(|line| line.contains("output: ") || line.starts_with("isolations: "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_restricted_machine_gets_a_hint_what_to_do() {
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
        let output = poor(prefix, &[]);
        assert!(output.contains(&format!("output: cannot {what}")) && output.contains(remedy), "{prefix:?}: {output}");
        let plain = if prefix == inside(stacked) { "isolations: false true" } else { "isolations: false false" };
        assert!(output.contains(plain), "{prefix:?}: {output}");
    }
}

#[test]
fn signals_that_the_caller_ignores_are_not_ignored_inside() {
    let output = poor(&["sh", "-c", "trap '' CHLD INT HUP PIPE TERM USR1; exec \"$@\"", "sh"], &[]);
    let ignored = output.lines().find_map(|line| line.split_once("SigIgn:")).expect(&output).1.trim();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0x7fff_ffff, 0, "{output}");
    assert!(output.contains("isolations: true true"), "{output}");
}

#[test]
fn a_chroot_needs_only_what_a_plain_container_gives_to_root() {
    if !is_root() {
        skip!("needs root: a chroot refuses everybody else, which another test sees");
    }
    let lost = "-sys_admin,-mknod,-sys_ptrace,-net_admin,-net_raw,-sys_resource";
    let forbid = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=unshare:error=EPERM"];
    let container = [&["setpriv", "--bounding-set", lost], &forbid[..]].concat();
    let output = poor(&container, &["chroot"]);
    assert!(output.contains("output: fine") && output.contains("isolations: false false true"), "{output}");
    let output = poor(&container, &["chroot", "devices"]);
    for part in ["fine ", "error ", " x ", "no proc "] {
        assert!(output.contains(part), "{part}: {output}");
    }
    let output = poor(&container, &["chroot", "offline"]);
    assert!(output.contains("output: cannot make a network namespace by `unshare`; 6; "), "{output}");
    assert!(output.contains("`--network host`"), "{output}");
}

#[test]
fn probing_reports_which_isolations_work() {
    let scratch = tempfile::tempdir().unwrap();
    let probe = Probe { exe: &exe(), scratch: scratch.path() };
    probe.overlay().unwrap();
    probe.namespaces().unwrap();
    assert_eq!(probe.chroot().is_ok(), is_root());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}
