//! Users inside and ids outside.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use phial::error::UserError as _;
use phial::sandbox::{Exit, Ids, SandboxError, run, run_in_user_namespace};

use crate::harness::skip::skip;
use crate::harness::{SUBIDS_USER, user_with_subids};

use super::{SandboxTest, exe, for_everyone, helper, is_root, result, stdout_of};

#[test]
fn another_user_is_that_user_in_and_the_caller_outside() {
    let test = SandboxTest::new();
    let mut spec =
        test.spec("id -u; id -g; echo x > /srv/mine; stat -c %u /srv/mine; cat /proc/1/environ 2>&1 || true");
    spec.user = (65532, 65532);
    let output = stdout_of(&spec);
    assert!(output.starts_with("65532\n65532\n65532\n") && output.contains("denied"), "{output}");
    assert_eq!(fs::metadata(test.path("upper/srv/mine")).unwrap().uid(), rustix::process::getuid().as_raw());
    spec.argv[2] = "cat /proc/self/status".to_owned();
    assert!(stdout_of(&spec).contains("CapEff:\t0000000000000000"));
}

#[test]
fn with_one_id_other_owners_are_refused() {
    let test = SandboxTest::new();
    let (exit, output) = result(&test.spec("chown 5:5 /srv"));
    assert!(exit.unwrap() == Exit::Code(1) && output.contains("Invalid argument"), "{output}");
}

#[test]
#[ignore = "a part of the next test"]
fn a_caller_with_ranges() {
    let test = SandboxTest::new();
    let mut spec = test.spec("echo x > /srv/owned; chown 1000:1000 /srv/owned; stat -c %u:%g /srv/owned; id -u");
    spec.ids = Ids::Ranges;
    assert_eq!(stdout_of(&spec), "1000:1000\n0\n");
    let owner = fs::metadata(test.path("upper/srv/owned")).unwrap().uid();
    assert!(owner > 1000, "{owner}");

    spec.user = (1000, 1000);
    spec.argv[2] = "id -u; cat /srv/owned; cat /proc/1/environ 2>&1; grep CapEff /proc/self/status".to_owned();
    let output = stdout_of(&spec);
    assert!(
        output.starts_with("1000\nx\n") && output.contains("denied") && output.contains("CapEff:\t0000000000000000"),
        "{output}"
    );

    let map = run_in_user_namespace(&exe(), Ids::Ranges, &["__sandbox-nonsense"], b"").unwrap_err();
    assert!(matches!(map, SandboxError::Helper { code: 2, .. }), "{map}");
    let cancel = AtomicBool::new(false);
    spec.argv[2] = "echo; sleep 60".to_owned();
    let begun = Instant::now();
    let ended = run(&exe(), &spec, &cancel, &mut |_| cancel.store(true, Ordering::Relaxed));
    assert!(matches!(ended, Err(SandboxError::Interrupted)) && begun.elapsed() < Duration::from_secs(2));
    println!("all is well");
}

#[test]
fn root_needs_no_entry_in_the_files_of_ranges() {
    if !is_root() {
        skip!("needs root");
    }
    let test = SandboxTest::new();
    let mut spec = test.spec("echo x > /srv/owned; chown 33:65534 /srv/owned; stat -c %u:%g /srv/owned; id -u");
    spec.ids = Ids::Ranges;
    assert_eq!(stdout_of(&spec), "33:65534\n0\n");
    let owner = fs::metadata(test.path("upper/srv/owned")).unwrap().uid();
    assert!(owner > 65535, "{owner}");
}

#[test]
fn with_ranges_other_owners_work() {
    if is_root() {
        user_with_subids();
        let dir = for_everyone();
        let mut command = Command::new("runuser");
        command.args(["-u", SUBIDS_USER, "--"]).arg(dir.path().join("tests"));
        command
            .args(["--exact", "--ignored", "--nocapture", "sandbox::users::a_caller_with_ranges"])
            .current_dir(dir.path());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("all is well"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    } else {
        let test = SandboxTest::new();
        let mut spec = test.spec("true");
        spec.ids = Ids::Ranges;
        let Err(error) = result(&spec).0 else {
            let dir = for_everyone();
            let output = helper(&[], "users::a_caller_with_ranges", dir.path()).output().unwrap();
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(stdout.contains("all is well"), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
            return;
        };
        let text = error.to_string();
        assert_eq!((text.as_str(), error.exit_kind().code()), ("no range of ids for this user in `/etc/subuid`", 6));
        assert!(error.hint().unwrap().contains("usermod --add-subuids"));
    }
}
