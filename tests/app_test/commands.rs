//! Which commands are run, what they see, what is reported of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use super::{Scene, image_of};
use crate::harness::{TestEnv, run};

#[test]
fn a_passing_test_prints_the_digest_and_leaves_the_image_as_it_is() {
    let scene = Scene::new("command = 'echo \"2 tests, 0 failures, 1 skipped\"; echo x >/app/new; rm -r /app/out'");
    let digest = image_of(&scene.env.dir().join("out"));
    let ran = run(scene.test(&["--config", scene.repo.dir().join("phial.toml").to_str().expect("UTF-8")]));
    assert!(ran.stderr.contains("test | 2 tests, 0 failures, 1 skipped"), "{}", ran.stderr);
    assert!(ran.stderr.contains("passed (exit code 0, 2 tests, 0 failures, 1 skipped)"), "{}", ran.stderr);
    assert_eq!(ran.ok(), format!("{}@{digest}", scene.image));
    run(scene.test(&["--", "sh", "-c", "test ! -e /app/new && test -e /app/out/prod/app"])).ok();
    let fsck = format!("oci:{}", scene.env.path("out"));
    let by_digest = run(scene.env.phial(["test", &format!("{fsck}@{digest}"), "--", "true"])).ok();
    assert_eq!(by_digest, format!("{fsck}@{digest}"));
}

#[test]
fn the_commands_see_the_test_environment_and_loopback_only() {
    let scene = Scene::new("command = 'env; cat /proc/net/dev; pwd'\nenv = { ONE = '1' }");
    let mut command = scene.test(&["--env", "TWO=2", "--env", "THREE", "--partition", "2/4"]);
    command.env("THREE", "3").env("SECRET", "4");
    let output = run(command).stderr;
    for line in ["MIX_ENV=test", "ONE=1", "TWO=2", "THREE=3", "HOME=/root", "MIX_TEST_PARTITION=2", "/app"] {
        assert!(output.contains(&format!("test | {line}\n")), "{line}: {output}");
    }
    assert!(!output.contains("SECRET"), "{output}");
    let interfaces: Vec<&str> = output.lines().filter(|line| line.contains(": ") && line.contains("    ")).collect();
    assert!(interfaces.iter().all(|line| line.contains("lo:")), "{interfaces:?}");

    let record = scene.records().pop().expect("a record");
    assert_eq!(record.partition.map(|part| part.to_string()), Some("2/4".to_owned()));
}

#[test]
fn without_settings_the_script_of_the_repository_is_run_and_without_that_nothing() {
    let scene = Scene::new("");
    let error = run(scene.test(&[])).failed(2);
    assert!(error.contains("neither `script/docker/ci.sh` nor `mix.exs`") && error.contains("hint:"), "{error}");
    scene.repo.script("script/docker/ci.sh", "#!/bin/sh\necho from the script; pwd\n");
    scene.build();
    let output = run(scene.test(&[])).stderr;
    assert!(output.contains("test | from the script\ntest | /app\n"), "{output}");
}

#[test]
fn several_commands_run_in_turn_and_each_has_its_own_result() {
    let settings = "commands = [{ name = 'lint', command = 'exit 4' }, { name = 'test', command = ['true'] }]";
    let scene = Scene::new(settings);
    let error = run(scene.test(&[])).failed(1);
    assert!(error.contains("error: tests failed: `lint` (exit code 4)"), "{error}");
    assert!(error.contains("test               passed (exit code 0)"), "{error}");
    run(scene.test(&["--only", "test"])).ok();
    let error = run(scene.test(&["--only", "credo"])).failed(2);
    assert!(error.contains("`--only` names `credo`, but the commands are `lint`, `test`"), "{error}");

    let line = run(scene.test(&["--only", "lint", "--json", "--no-record"])).stdout;
    let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&json["passed"], &json["record"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!((&json["commands"][0]["name"], &json["commands"][0]["ended"]), (&"lint".into(), &"exit code 4".into()));

    let records = scene.records();
    let results: Vec<_> =
        records.iter().map(|record| (record.passed, record.commands.clone().into_iter().collect())).collect();
    let command = |name: &str, passed| (name.to_owned(), passed);
    let expected: Vec<(bool, Vec<(String, bool)>)> =
        vec![(false, vec![command("lint", false), command("test", true)]), (true, vec![command("test", true)])];
    assert_eq!(results, expected);
}

#[test]
fn the_entrypoint_is_called_with_test_if_the_settings_say_so() {
    let scene = Scene::new("entrypoint = true");
    let error = run(scene.test(&[])).failed(2);
    assert!(error.contains("the image has no entrypoint"), "{error}");
    let settings = fs::read_to_string(scene.repo.dir().join("phial.toml")).expect("settings");
    scene.repo.write("phial.toml", settings.replace("cmd =", "entrypoint = [\"sh\", \"script/entry\", \"-v\"]\ncmd ="));
    scene.repo.write("script/entry", "echo \"called with $*\"\n");
    scene.build();
    let output = run(scene.test(&[])).stderr;
    assert!(output.contains("test | called with -v test\n"), "{output}");
}

#[test]
fn reports_logs_and_named_files_are_copied_out() {
    let report = r#"<testsuite name=\"a\" tests=\"7\" failures=\"0\" errors=\"0\"></testsuite>"#;
    let scene = Scene::new(&format!(
        "artifacts = ['cover', 'VERSION', 'none']\ncommand = \"mkdir -p cover; echo page >cover/index.html; \
         ln -s /etc/passwd cover/link; mkdir _build; echo '{report}' >_build/report.xml; echo talk\""
    ));
    let ran = run(scene.test(&["--junit", "new/junit.xml", "--artifacts", "kept"]));
    assert!(ran.stderr.contains("7 tests, 0 failures"), "{}", ran.stderr);
    assert!(ran.stderr.contains("note: `test.artifacts` names `none`, which does not exist"), "{}", ran.stderr);
    ran.ok();
    let read = |name: &str| fs::read_to_string(scene.env.dir().join(name)).expect(name);
    assert!(read("new/junit.xml").contains("tests=\"7\""));
    assert_eq!(
        [read("kept/cover/index.html"), read("kept/VERSION"), read("kept/1-test.log")],
        ["page\n", "1.0\n", "talk\n"]
    );
    assert!(fs::symlink_metadata(scene.env.dir().join("kept/cover/link")).is_err());

    // One that came with the image is none of these tests', whatever the isolation.
    scene.repo.write("old.xml", report.replace('\\', ""));
    scene.build();
    for isolation in ["overlay", "copy"] {
        let ran = run(scene.test(&["--isolation", isolation, "--junit", "junit.xml", "--", "true"]));
        assert!(!ran.stderr.contains("7 tests"), "{isolation}: {}", ran.stderr);
    }

    run(scene.test(&["--junit", "junit.xml", "--", "sh", "-c", "exit 3"])).failed(1);
    assert!(read("junit.xml").contains("<failure message=\"exit code 3\">"), "{}", read("junit.xml"));
}

#[test]
fn a_link_of_the_checkout_leads_no_report_and_no_artifact_out_of_it() {
    let scene = Scene::new("artifacts = ['cover']\ncommand = 'mkdir -p cover; echo theirs >cover/keys'");
    let home = tempfile::tempdir().expect("a directory");
    fs::write(home.path().join("keys"), "mine").expect("a file");
    let link = |to: PathBuf, name: &str| symlink(to, scene.env.dir().join(name)).expect(name);
    link(home.path().to_owned(), "reports");
    link(home.path().join("keys"), "junit.xml");
    let full = scene.env.path("reports");
    for outputs in [
        ["--junit", "junit.xml"],
        ["--junit", "reports/new/junit.xml"],
        ["--artifacts", "reports"],
        ["--artifacts", "reports/new"],
        ["--artifacts", &full],
    ] {
        let stderr = run(scene.test(&outputs)).failed(3);
        assert!(stderr.contains("is a symbolic link, and none is followed"), "{outputs:?}: {stderr}");
        assert!(!stderr.contains("passed"), "nothing ran: {stderr}");
    }
    fs::create_dir(scene.env.dir().join("kept")).expect("a directory");
    link(home.path().to_owned(), "kept/cover");
    let stderr = run(scene.test(&["--artifacts", "kept"])).failed(3);
    assert!(stderr.contains("`kept/cover` is a symbolic link"), "{stderr}");
    assert_eq!(fs::read_to_string(home.path().join("keys")).expect("the file"), "mine");
    assert_eq!(fs::read_dir(home.path()).expect("a list").count(), 1);
}

#[test]
fn artifacts_have_a_largest_size() {
    let scene = Scene::new("artifacts = ['VERSION', 'dump']\ncommand = 'truncate -s 5G dump'");
    let stderr = run(scene.test(&["--artifacts", "kept"])).failed(3);
    assert!(stderr.contains("error: the files of `test.artifacts` have more than 4 GiB"), "{stderr}");
    let kept = fs::read_dir(scene.env.dir().join("kept")).expect("a list");
    let kept: Vec<_> = kept.map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(kept, ["1-test.log"]);
}

#[test]
fn what_cannot_be_written_at_the_end_takes_neither_the_digest_nor_the_record() {
    let scene = Scene::new("command = 'true'");
    let digest = image_of(&scene.env.dir().join("out"));
    // A directory in the place of a log: the directory of artifacts itself can be written to.
    fs::create_dir_all(scene.env.dir().join("kept/1-test.log")).expect("a directory");
    for (nth, outputs) in [["--junit", "/dev/full"], ["--artifacts", "kept"]].iter().enumerate() {
        let ran = run(scene.test(outputs));
        assert_eq!(ran.code, Some(6), "{}", ran.stderr);
        assert!(ran.stderr.contains("error: cannot "), "{}", ran.stderr);
        assert_eq!(ran.stdout.trim_end(), format!("{}@{digest}", scene.image));
        assert_eq!(scene.records().len(), nth + 1);
    }
    let ran = run(scene.test(&["--junit", "/dev/full", "--", "sh", "-c", "exit 3"]));
    assert_eq!(ran.stdout.trim_end(), format!("{}@{digest}", scene.image));
    let stderr = ran.failed(1);
    assert!(stderr.contains("cannot write `/dev/full`") && stderr.contains("error: tests failed: "), "{stderr}");
}

#[test]
fn the_record_can_be_left_out_and_an_archive_takes_none() {
    let scene = Scene::new("command = 'true'");
    let before = fs::read(scene.env.dir().join("out/index.json")).expect("an index");
    run(scene.test(&["--no-record"])).ok();
    assert_eq!(fs::read(scene.env.dir().join("out/index.json")).expect("an index"), before);

    let archive = format!("oci-archive:{}", scene.env.path("out.tar"));
    let base = format!("oci:{}", crate::harness::busybox::busybox_base().display());
    run(scene.env.phial(["build", scene.repo.source(), "--base", &base, "--to", &archive])).ok();
    let ran = run(scene.env.phial(["test", &archive]));
    assert!(ran.stderr.contains("note: no record:"), "{}", ran.stderr);
    ran.ok();
}

#[test]
fn impossible_requests_are_refused_before_anything_runs() {
    let scene = Scene::new("command = 'true'");
    for (arguments, code, text) in [
        (&["--partition", "5/4"][..], 2, "`--partition` is `5/4`"),
        (&["--timeout", "soon"], 2, "`timeout` is `soon`"),
        (&["--config", "none.toml"], 2, "cannot read `none.toml`"),
        (&["--", "no-such-command"], 3, "no command `no-such-command`"),
    ] {
        let error = run(scene.test(arguments)).failed(code);
        assert!(error.contains(text), "{error}");
    }
    let error = run(scene.env.phial(["test", "oci:nowhere"])).failed(3);
    assert!(error.contains("nowhere"), "{error}");
    assert!(scene.records().is_empty());
}

#[test]
fn each_isolation_runs_the_same_tests() {
    let scene = Scene::new("command = 'cat out/prod/app; echo x >out/new; exit 5'");
    for isolation in ["overlay", "copy", "chroot"] {
        let ran = run(scene.test(&["--isolation", isolation]));
        if isolation == "chroot" && !rustix::process::geteuid().is_root() {
            ran.failed(6);
            continue;
        }
        let output = ran.failed(1);
        assert!(
            output.contains("test | prod of 1.0") && output.contains("`test` (exit code 5)"),
            "{isolation}: {output}"
        );
    }
}

#[test]
fn an_ordinary_user_tests_too() {
    let scene = Scene::new("command = 'id -u >/dev/null 2>&1; echo x >/app/new && cat /app/new'");
    let user = crate::harness::User::unprivileged(&[(&scene.env.dir().join("out"), "out")]);
    let ran = run(user.phial(&["test", "oci:out"]));
    assert!(ran.stderr.contains("test | x"), "{}", ran.stderr);
    ran.ok();
}

#[test]
fn the_mode_of_what_is_written_for_the_user_is_the_users_own() {
    let scene = Scene::new("artifacts = ['tool']\ncommand = 'echo x >tool; chmod 4755 tool'");
    run(scene.test(&["--artifacts", "kept"])).ok();
    let mode = fs::metadata(scene.env.dir().join("kept/tool")).expect("a copy").permissions().mode();
    assert_eq!(mode & 0o7111, 0, "{mode:o}");
    let _: &TestEnv = &scene.env;
}

#[test]
fn what_tests_close_to_their_owner_takes_no_result_no_report_and_no_artifact() {
    let report = |tests: u32| format!(r#"<testsuite name=\"a\" tests=\"{tests}\" failures=\"0\"></testsuite>"#);
    let scene = Scene::new(&format!(
        "artifacts = ['kept', 'closed/file']\n[[test.commands]]\nname = 'first'\ncommand = \"mkdir -p kept/closed closed empty; \
         echo page >kept/closed/page; echo file >closed/file; echo '{}' >empty/report.xml; \
         chmod 0 kept/closed/page kept/closed closed/file closed empty/report.xml empty\"\n\
         [[test.commands]]\nname = 'second'\ncommand = \"echo '{}' >other.xml\"",
        report(7),
        report(5),
    ));
    let user = crate::harness::User::unprivileged(&[(&scene.env.dir().join("out"), "out")]);
    for isolation in ["overlay", "copy"] {
        let out = format!("artifacts-{isolation}");
        let ran = run(user.phial(&[
            "test",
            "oci:out",
            "--isolation",
            isolation,
            "--junit",
            "junit.xml",
            "--artifacts",
            &out,
        ]));
        assert!(ran.stderr.contains("passed (exit code 0, 7 tests, 0 failures, 0 skipped)"), "{}", ran.stderr);
        assert!(ran.stderr.contains("passed (exit code 0, 5 tests, 0 failures, 0 skipped)"), "{}", ran.stderr);
        ran.ok();
        let read = |name: &str| fs::read_to_string(user.path(name)).expect(name);
        assert_eq!(junit_tests(&read("junit.xml")), 12, "{}", read("junit.xml"));
        assert_eq!(read(&format!("{out}/kept/closed/page")) + &read(&format!("{out}/closed/file")), "page\nfile\n");
    }
}

/// The sum of the tests of a report's suites.
fn junit_tests(report: &str) -> u32 {
    let suites = report.split("<testsuite ").skip(1);
    let count = |suite: &str| suite.split_once("tests=\"").and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
    suites.map(|suite| count(suite).unwrap_or(0)).sum()
}

#[test]
fn reports_that_cannot_be_looked_for_take_no_result() {
    // Deeper than a path is long.
    let deep = "d=$(printf %0200d 0); n=0; while [ $n -lt 30 ]; do mkdir -p $d; cd $d 2>/dev/null || break; n=$((n + 1)); done; echo deep";
    let scene = Scene::new(&format!("command = '{deep}'"));
    let ran = run(scene.test(&[]));
    assert!(ran.stderr.contains("note: the reports of `test` are not read: cannot open"), "{}", ran.stderr);
    assert!(ran.stderr.contains("passed (exit code 0)"), "{}", ran.stderr);
    ran.ok();
    assert_eq!(scene.records().len(), 1);
}
