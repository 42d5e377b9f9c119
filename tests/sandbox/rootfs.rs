//! The root filesystem: its trees, what is mounted over it, and what is wrong with it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use phial::error::UserError as _;
use phial::sandbox::{Bind, Exit, Root, SandboxError, Spec};

use super::{SandboxTest, result, stdout_of};

#[test]
fn what_is_written_lands_in_the_upper_directory_and_nothing_else() {
    let test = SandboxTest::new();
    let output =
        test.sh("echo new > /srv/new; rm /bin/id; echo t > /tmp/t; echo r > /run/r; cat /etc/hosts /etc/resolv.conf");
    assert_eq!(output, "127.0.0.1 localhost\nnameserver 192.0.2.53\n");
    let mut found: Vec<String> = walkdir::WalkDir::new(test.path("upper"))
        .min_depth(1)
        .into_iter()
        .map(|entry| entry.unwrap().path().strip_prefix(test.path("upper")).unwrap().display().to_string())
        .collect();
    found.sort();
    assert_eq!(found, ["bin", "bin/id", "etc", "srv", "srv/new"], "etc is copied up, for a mount point");
    assert_eq!(fs::symlink_metadata(test.path("upper/bin/id")).unwrap().rdev(), 0, "a whiteout");
    assert!(test.path("root/bin/id").symlink_metadata().is_ok() && !test.path("root/srv/new").exists());
}

#[test]
fn a_work_directory_can_be_used_again_even_after_a_crash() {
    let test = SandboxTest::new();
    fs::create_dir_all(test.path("work").join("work/incompat/volatile")).unwrap();
    fs::set_permissions(test.path("work/work"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(test.sh("echo 1 > /srv/n; cat /srv/n"), "1\n");
    assert_eq!(fs::read_dir(test.path("work")).unwrap().count(), 0);
    assert_eq!(test.sh("cat /srv/n"), "1\n");
}

#[test]
fn a_plain_directory_receives_what_is_written() {
    let test = SandboxTest::new();
    let mut spec = test.spec("echo new > /srv/new; cat /etc/hosts");
    spec.root = Root::Plain { dir: test.path("root") };
    assert_eq!(stdout_of(&spec), "127.0.0.1 localhost\n");
    assert_eq!(fs::read_to_string(test.path("root/srv/new")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(test.path("root/etc/hosts")).unwrap(), "192.0.2.1 of-the-image\n");
    for made in ["proc", "dev", "tmp", "run", "etc/resolv.conf"] {
        assert!(!test.path("root").join(made).exists(), "{made} is left");
    }
}

#[test]
fn sixty_lower_directories_with_long_names_stack_in_order() {
    let test = SandboxTest::new();
    let mut lowers: Vec<PathBuf> = (0..60).map(|number| test.path(&format!("{number:064x}"))).collect();
    for (number, lower) in lowers.iter().enumerate() {
        fs::create_dir_all(lower.join("srv")).unwrap();
        fs::write(lower.join("srv/top"), number.to_string()).unwrap();
        fs::write(lower.join(format!("srv/{number}")), "").unwrap();
    }
    lowers.push(test.path("root"));
    let mut spec = test.spec("cat /srv/top; echo; ls /srv | grep -c .");
    spec.root = Root::Overlay { lowers, upper: test.path("upper"), work: test.path("work") };
    assert_eq!(stdout_of(&spec), "0\n61\n");
}

#[test]
fn a_missing_command_is_named() {
    let test = SandboxTest::new();
    let bin = |name: &str, text: &str| {
        fs::write(test.path(&format!("root/bin/{name}")), text).unwrap();
        fs::set_permissions(test.path(&format!("root/bin/{name}")), fs::Permissions::from_mode(0o755)).unwrap();
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
        let mut spec = test.spec("");
        spec.argv = vec![command.to_owned()];
        let error = result(&spec).0.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_kind().code()), (expected, 3));
    }
}

#[test]
fn a_script_that_cannot_be_started_for_another_reason_than_a_missing_program_says_which() {
    let test = SandboxTest::new();
    let bin = |name: &str, text: &str, mode: u32| {
        fs::write(test.path(&format!("root/bin/{name}")), text).unwrap();
        fs::set_permissions(test.path(&format!("root/bin/{name}")), fs::Permissions::from_mode(mode)).unwrap();
    };
    bin("windows", "#!/bin/sh\r\ntrue\r\n", 0o755);
    bin("plain", "#!/bin/sh\n", 0o644);
    bin("by-plain", "#!/bin/plain\n", 0o755);
    bin("by-dir", "#!/etc\n", 0o755);
    bin("no-loader", "#!/opt/gone\n", 0o755);
    bin("nested", "#!/bin/no-loader\n", 0o755);
    for (command, text, hint) in [
        ("/bin/windows", "cannot start `/bin/windows`", "as on Windows"),
        ("/bin/plain", "cannot start `/bin/plain`", "`/bin/plain` must be"),
        ("/bin/by-plain", "cannot start `/bin/by-plain`", "`/bin/plain` must be"),
        ("/bin/by-dir", "cannot start `/bin/by-dir`", "`/etc` must be"),
        ("/bin/nested", "`/bin/nested` needs `/opt/gone`", "install it"),
    ] {
        let mut spec = test.spec("");
        spec.argv = vec![command.to_owned()];
        let error = result(&spec).0.unwrap_err();
        assert_eq!(error.exit_kind().code(), 3);
        assert!(
            error.to_string().starts_with(text) && error.hint().unwrap().contains(hint),
            "{error} {:?}",
            error.hint()
        );
    }
}

#[test]
fn a_missing_working_directory_is_named() {
    let test = SandboxTest::new();
    let mut spec = test.spec("true");
    spec.cwd = "/no/such".to_owned();
    let error = result(&spec).0.unwrap_err();
    assert_eq!(error.to_string(), "cannot enter the working directory `/no/such`");
}

#[test]
fn an_image_with_symbolic_links_for_mount_points_reaches_nothing_outside() {
    let canary = tempfile::tempdir().unwrap();
    fs::write(canary.path().join("canary"), "alive").unwrap();
    for name in ["proc", "dev"] {
        let test = SandboxTest::new();
        symlink(canary.path(), test.path(&format!("root/{name}"))).unwrap();
        let error = result(&test.spec("true")).0.unwrap_err();
        assert_eq!(error.to_string(), format!("`/{name}` of the root filesystem is not a directory"));
        assert_eq!(error.exit_kind().code(), 3);
    }
    let test = SandboxTest::new();
    symlink("../../../../../srv/deep/down", test.path("root/tmp")).unwrap();
    symlink(canary.path(), test.path("root/run")).unwrap();
    symlink("../../../../run/systemd/resolve/stub", test.path("root/etc/resolv.conf")).unwrap();
    assert_eq!(test.sh("echo x > /tmp/mine; cat /etc/resolv.conf"), "nameserver 192.0.2.53\n");
    let left: Vec<_> = fs::read_dir(canary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["canary"]);
}

#[test]
fn binds_are_in_sight_and_read_only_ones_stay_as_they_are() {
    let test = SandboxTest::new();
    fs::create_dir(test.path("input")).unwrap();
    fs::write(test.path("input/file"), "text\n").unwrap();
    let bind = |source: &str, target: &str, read_only| Bind {
        source: test.path(source),
        target: target.to_owned(),
        read_only,
    };
    let mut spec = test.spec("cat /in/file /one; echo x > /in/file || echo > /one || echo more >> /rw/file; ls /in");
    spec.binds = vec![bind("input", "/in", true), bind("input/file", "/one", true), bind("input", "/rw", false)];
    let output = stdout_of(&spec);
    assert!(output.starts_with("text\ntext\n") && output.matches("Read-only").count() == 2, "{output}");
    assert_eq!(fs::read_to_string(test.path("input/file")).unwrap(), "text\nmore\n");
    assert!(!test.path("upper/in").exists(), "the mount point is left");
}

#[test]
fn a_read_only_root_is_that() {
    let test = SandboxTest::new();
    let mut spec = test.spec("echo x > /srv/x; echo y > /tmp/y; cat /tmp/y");
    spec.read_only = true;
    let output = stdout_of(&spec);
    assert!(output.contains("Read-only") && output.ends_with("y\n"), "{output}");
}

#[test]
fn impossible_specs_are_refused() {
    let test = SandboxTest::new();
    let spoil: [fn(&mut Spec); 5] = [
        |spec| spec.argv.clear(),
        |spec| spec.argv[0] = "a\0b".to_owned(),
        |spec| drop(spec.env.insert("A=B".to_owned(), String::new())),
        |spec| spec.cwd = "srv".to_owned(),
        |spec| spec.root = Root::Overlay { lowers: vec![], upper: "/u".into(), work: "/w".into() },
    ];
    for spoil in spoil {
        let mut spec = test.spec("true");
        spoil(&mut spec);
        assert!(matches!(result(&spec).0, Err(SandboxError::Spec(_))));
    }
}

#[test]
fn a_missing_layer_is_named() {
    let test = SandboxTest::new();
    let mut spec = test.spec("true");
    let absent = test.path("absent");
    spec.root = Root::Overlay { lowers: vec![absent.clone()], upper: test.path("upper"), work: test.path("work") };
    assert_eq!(result(&spec).0.unwrap_err().to_string(), format!("cannot use as the root `{}`", absent.display()));
}

#[test]
fn a_directory_in_memory_belongs_to_the_user_and_leaves_nothing() {
    let test = SandboxTest::new();
    let mut spec = test.spec("echo x >/srv/data/file; stat -c '%u %a' /srv/data");
    (spec.tmpfs, spec.user) = (vec!["/srv/data".to_owned()], (70, 70));
    assert_eq!(stdout_of(&spec), "70 755\n");
    assert!(!test.path("upper/srv/data").exists());
}

#[test]
fn a_root_that_the_command_closed_is_tidied_all_the_same() {
    let test = SandboxTest::new();
    assert_eq!(result(&test.spec("busybox chmod 0 /")).0.unwrap(), Exit::Code(0));
    fs::set_permissions(test.path("upper"), fs::Permissions::from_mode(0o755)).unwrap();
    let left: Vec<_> =
        ["proc", "dev", "tmp", "run"].into_iter().filter(|name| test.path("upper").join(name).exists()).collect();
    assert_eq!(left, Vec::<&str>::new());
}
