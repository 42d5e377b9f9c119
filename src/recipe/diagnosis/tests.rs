//! What the lines of a step say, and what the hint is.

use std::collections::BTreeMap;

use super::super::AppDir;
use super::*;

fn recipe(lockfile: Option<&str>) -> Recipe {
    let (envs, lockfile) = (vec!["prod".into()], lockfile.map(str::to_owned));
    Recipe {
        app: AppDir::default(),
        include: vec![],
        script: Script::BuiltIn,
        envs,
        inputs: vec![],
        lockfile,
        hex: None,
        env: BTreeMap::new(),
    }
}

fn hint(recipe: &Recipe, step: &str, output: &str) -> String {
    hint_with(StepIds::One, recipe, step, output)
}

fn hint_with(ids: StepIds, recipe: &Recipe, step: &str, output: &str) -> String {
    let step = Step { name: step.into(), argv: vec![], env: None };
    let mut diagnosis = Diagnosis::new(recipe, &step, Some(1_700_003_600), ids);
    output.as_bytes().chunks(3).for_each(|bytes| diagnosis.push(bytes));
    diagnosis.hint(|tool| tool == "gcc").unwrap_or_default()
}

#[test]
fn a_missing_tool_is_named() {
    let recipe = recipe(None);
    for (output, tool) in [
        ("make: cc: No such file or directory", "cc"),
        ("/bin/sh: 1: make: not found\n", "make"),
        ("sh: c++: command not found\nmore", "c++"),
        ("** (Mix) \"make\" not found in the path", "make"),
    ] {
        let expected = format!("add `{tool}` to the base image");
        assert!(hint(&recipe, "deps prod", output).starts_with(&expected), "{output}");
    }
    assert!(!hint(&recipe, "build prod", "gcc: command not found").contains("gcc"), "the base has it");
    for output in ["remake: not found", "sh: ./script/make: not found", "/app/deps/x/cc: No such file or directory"] {
        assert!(!hint(&recipe, "build prod", output).contains("base image"), "{output}");
    }
}

#[test]
fn a_program_that_elixir_does_not_find_is_named() {
    let recipe = recipe(None);
    let trace = |frame: &str| format!("** (ErlangError) Erlang error: :enoent\n    {frame}\n    mix.exs:4: run/1\n");
    let cmd = trace("(elixir 1.18.3) lib/system.ex:1114: System.cmd(\"make\", [\"-s\"], [cd: \"/app/c_src\"])");
    let made = "it has none, and a dependency needs it; one of `phial base debian --for elixir` has it";
    assert_eq!(hint(&recipe, "deps prod", &cmd), format!("add `make` to the base image: {made}"));
    let port = trace(":erlang.open_port({:spawn_executable, \"npm\"}, [])");
    let needed = "add `npm` to the base image: it has none, and the app needs it";
    assert_eq!(hint(&recipe, "build prod", &port), needed);
    for frame in [
        "(elixir 1.18.3) lib/system.ex:1114: System.cmd(\"gcc\", [], [])", // the base has it: its directory is missing
        "(elixir 1.18.3) lib/system.ex:1114: System.cmd(\"/app/x\", [], [])",
        "(elixir 1.18.3) lib/file.ex:1: File.cp(\"make\", \"x\")",
    ] {
        assert_eq!(hint(&recipe, "build prod", &trace(frame)), "", "{frame}");
    }
    assert_eq!(hint(&recipe, "build prod", "lib/system.ex: System.cmd(\"make\", [])"), "", "another error");
}

#[test]
fn files_that_the_deps_step_does_not_see_are_a_case_for_the_settings() {
    for output in [
        "** (File.Error) could not read file \"VERSION\": no such file or directory",
        "** (Mix) Could not find \"conf/config.exs\"",
    ] {
        assert!(hint(&recipe(None), "deps", output).contains("`prepare.inputs`"), "{output}");
        assert_eq!(hint(&recipe(None), "build prod", output), "", "the build sees every file");
    }
    let stale = "** (Mix) Your mix.lock is out of date and must be updated";
    let text = hint(&recipe(None), "deps", stale);
    assert!(text.contains("commit `mix.lock`") && text.contains("`prepare.lockfile`"), "{text}");
    let text = hint(&recipe(Some("locks/prod.lock")), "deps", stale);
    assert_eq!(text, "run `mix deps.get` and commit `locks/prod.lock`");
}

#[test]
fn an_owner_that_one_id_cannot_give_is_a_case_for_ranges() {
    for output in [
        "chown: changing ownership of 'x': Invalid argument",
        "chown: x: Invalid argument",
        "chgrp: changing group of 'x': Invalid argument",
        "chgrp: x: Invalid argument",
        "install: cannot change ownership of 'x': Invalid argument",
        "tar: x: Cannot change ownership to uid 33, gid 33: Invalid argument",
        "cp: failed to preserve ownership for 'x': Invalid argument",
        "dpkg: error setting ownership of './x': Invalid argument",
        "** (File.Error) could not change owner \"x\": invalid argument",
        "** (File.Error) could not change group \"x\": invalid argument",
        "Error: EINVAL: invalid argument, chown 'x'",
        "su: cannot set groups: Operation not permitted",
        "chroot: failed to set supplemental groups: Operation not permitted",
        "setpriv: setresuid failed: Invalid argument",
        "E: setgroups 65534 failed - setgroups (1: Operation not permitted)",
    ] {
        let text = hint(&recipe(None), "build prod", output);
        assert!(text.contains("`prepare.ranges = true`"), "{output}: {text}");
        for (ids, expected) in [
            (StepIds::NoRange, "this machine maps no range of ids"),
            (StepIds::Range, "a larger one in `/etc/subuid`"),
            (StepIds::All, "`CAP_CHOWN`"),
        ] {
            let text = hint_with(ids, &recipe(None), "build prod", output);
            assert!(text.contains(expected), "{ids:?}: {output}: {text}");
        }
    }
    for output in ["chown: x: No such file or directory", "kill: Operation not permitted", "bad: invalid argument"] {
        assert_eq!(hint(&recipe(None), "build prod", output), "", "{output}");
    }
}

#[test]
fn a_certificate_of_another_time_is_a_case_for_the_clock() {
    for output in [
        // Erlang's ssl, as httpc and packages that use it print it
        "{:tls_alert, {:certificate_expired, ~c\"TLS client: In state wait_cert generated CLIENT ALERT: Fatal - Certificate Expired\"}}",
        "{:bad_cert, :cert_expired}",
        // OpenSSL, and with it curl, git, Python and Node
        "verify error:num=9:certificate is not yet valid",
        "curl: (60) SSL certificate problem: certificate is not yet valid",
        "fatal: unable to access 'https://x/': SSL certificate problem: certificate has expired",
        "Error: certificate is not yet valid code: 'CERT_NOT_YET_VALID'",
        // GnuTLS and wget
        "- Status: The certificate is NOT trusted. The certificate chain uses not yet activated certificate.",
        "  Issued certificate not yet valid.",
        "ERROR: The certificate of 'x' is not yet activated.",
        // rustls
        "invalid peer certificate: NotValidYet",
        "invalid peer certificate: certificate not valid yet: verification time 1700003600 (UNIX)",
        "invalid peer certificate: Expired",
        "invalid peer certificate: certificate expired: verification time 1700003600 (UNIX)",
    ] {
        let text = hint(&recipe(None), "deps prod", &format!("{output}\n** (File.Error) enoent"));
        assert!(
            text.contains("`prepare.clock = \"real\"`") && text.contains("2023-11-14T23:13:20Z"),
            "{output}: {text}"
        );
    }
    let (recipe, step) = (recipe(None), Step { name: "deps".into(), argv: vec![], env: None });
    let mut diagnosis = Diagnosis::new(&recipe, &step, None, StepIds::One);
    diagnosis.push(b"curl: (60) SSL certificate problem: certificate has expired\n");
    assert_eq!(diagnosis.hint(|_| true), None, "by the machine's clock it is so");
    for output in ["unknown ca", "self-signed certificate", "hostname mismatch, certificate is not valid for 'x'"] {
        assert_eq!(hint(&recipe, "deps prod", output), "", "{output}");
    }
}

#[test]
fn a_script_of_windows_is_not_taken_for_a_program_that_the_base_lacks() {
    for output in [
        "/usr/bin/env: ‘bash\\r’: No such file or directory",
        "/usr/bin/env: 'sh\r': No such file or directory",
        "./configure: line 2: $'\\r': command not found",
        "-bash: ./configure: /bin/sh^M: bad interpreter: No such file or directory",
        "./configure: 3: make\r: not found",
    ] {
        assert!(hint(&recipe(None), "deps prod", output).contains("end as on Windows"), "{output}");
    }
}

#[test]
fn an_output_without_lines_is_bounded() {
    let (recipe, step) = (recipe(None), Step { name: "deps".into(), argv: vec![], env: None });
    let mut diagnosis = Diagnosis::new(&recipe, &step, None, StepIds::One);
    (0..100).for_each(|_| diagnosis.push(&vec![b'x'; 1 << 16]));
    assert_eq!(diagnosis.unfinished.len(), MAX_LINE);
}

#[test]
fn a_path_dependency_that_is_not_there_is_a_case_for_include_in_a_directory() {
    let in_directory = Recipe { app: AppDir::new("services/cart"), ..recipe(None) };
    let unchecked = "Unchecked dependencies for environment prod:\n* shared (../../libs/shared)\n  the dependency ";
    let missing = "warning: missing dependency shared (../../libs/shared)\n";
    for output in [missing, &format!("{unchecked}is not available\n** (Mix) Can't continue")] {
        assert!(hint(&recipe(None), "build prod", output).contains("commit the dependency"), "{output}");
        assert!(hint(&in_directory, "build prod", output).contains("`image.include`"), "{output}");
    }
    for output in [&format!("{unchecked}build is outdated"), "* jason (Hex package)\n  the dependency is not available"]
    {
        assert_eq!(hint(&in_directory, "build prod", output), "", "{output}");
    }
    let step = Step { name: "deps prod".into(), argv: vec![], env: None };
    let mut diagnosis = Diagnosis::new(&in_directory, &step, None, StepIds::One);
    diagnosis.push(missing.as_bytes());
    assert!(diagnosis.warning(false).unwrap().contains("`image.include`"));
}
