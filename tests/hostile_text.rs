//! Untrusted text on stdout and stderr: no control character, no forged line and no command of a CI engine, whatever a step, an
//! image, a commit, a file or a registry says, and whichever command prints it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::busybox::{busybox_base, busybox_base_with};
use crate::harness::edit_image::{edit_config, edit_record};
use crate::harness::{Repo, TestEnv, run};

/// Everything that a terminal or a CI engine would act upon.
const HOSTILE: &str = "x\u{1b}]0;pwn\u{7}\u{1b}[31m\r\n::error::forged\n ::set-env name=a::b\n##[error]forged\n##vso[task.complete]x\n\
     ##teamcity[forged]\n--- forged\n+++ forged\n~~~ forged\n^^^ +++\n\u{1b}_bk;t=1\u{7}\n\u{1b}[0Ksection_start:1:x\r\u{1b}[0K\n\
     error: forged\nhint: forged\n\u{202e}rtl\u{2066}\u{2028}ls\u{85}nel\u{9b}31mend";

/// The same as words that are put into a file name or a single line.
const HOSTILE_LINE: &str = "##[error]x \u{1b}[31m ##vso[task.x]y \u{202e}z\u{7}section_start:1:x";

/// Runs a command and checks every byte that it prints.
#[track_caller]
fn harmless(command: Command) -> String {
    let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let ran = run(command);
    for (name, text) in [("stdout", &ran.stdout), ("stderr", &ran.stderr)] {
        for c in text.chars() {
            let is_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let is_good = c == '\n' || c == '\t' || !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
            assert!(is_good && !is_direction, "{what}: {c:?} in {name}: {text:?}");
        }
        for line in text.lines().map(str::trim_start) {
            let starts = ["::", "--- ", "+++ ", "~~~ ", "^^^ +++", "error: forged", "hint: forged"];
            assert!(!starts.iter().any(|start| line.starts_with(start)), "{what}: {name}: {text}");
            let words = ["##[", "##vso[", "##teamcity[", "section_start:"];
            assert!(!words.iter().any(|word| line.contains(word)), "{what}: {name}: {text}");
        }
        assert!(text.is_empty() || text.ends_with('\n'), "{what}: {name}: {text}");
    }
    let all = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!all.is_empty(), "{what}: nothing is printed");
    all
}

fn base() -> String {
    format!("oci:{}", busybox_base().display())
}

/// The text as a string of TOML.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("JSON, whose strings are TOML's")
}

/// `phial build` of a repository; its settings are one of those that fail or not.
fn build(env: &TestEnv, repo: &Repo, more: &[&str]) -> Command {
    let base = base();
    let progress: &[&str] = if more.contains(&"--progress") { &[] } else { &["--progress", "plain"] };
    let to: &[&str] = if more.contains(&"--to") { &[] } else { &["--to", "oci:out"] };
    env.phial([&["build", repo.source(), "--base", &base], progress, to, more].concat())
}

#[test]
fn of_settings() {
    let (text, line) = (quoted(HOSTILE), quoted(HOSTILE_LINE));
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let script = "[prepare]\nscript = \"script/prepare_code\"\n";
    for (settings, is_shown) in [
        (format!("{text} = 1\n"), true),
        (format!("[image]\n{text} = 1\n"), true),
        (format!("[{text}]\nx = 1\n"), true),
        (format!("[image]\nname = {text}\n"), true),
        (format!("[image]\nbase = {text}\n"), true),
        (format!("[image]\nenvs = [{text}]\n"), true),
        (format!("[image]\nenvs = {text}\n"), true),
        (format!("[image]\ncompression = {text}\n"), true),
        (format!("[image]\nuser = 7 # {HOSTILE_LINE}\n"), true),
        ("[image]\nuser = 7 # ##[error]x \u{202e}##vso[task]\n".to_owned(), true),
        (format!("[prepare]\nscript = {text}\n"), true),
        (format!("[prepare]\ninputs = [{text}]\n"), true),
        (format!("[prepare]\nnetwork = {text}\n"), true),
        (format!("[prepare]\npass = [{text}]\n"), true),
        (format!("[prepare]\nenv = {{ {text} = \"x\" }}\n"), true),
        (format!("{script}[image]\nlabels = {{ {text} = {text} }}\n"), false),
        (format!("{script}[image]\ncmd = [{text}]\nuser = {line}\n"), false),
        (format!("[test]\ncommand = {text}\ntimeout = {text}\n"), false),
    ] {
        repo.write("phial.toml", &settings);
        repo.commit("Settings");
        let base = base();
        let args = ["build", repo.source(), "--progress", "plain"];
        let mut command = env.phial(args);
        if !settings.contains("base =") {
            command.args(["--base", &base]);
        }
        let printed = harmless(command);
        assert!(!is_shown || printed.contains("error: "), "{settings}: {printed}");
        harmless(env.phial(["lock", repo.source()]));
    }
    repo.write("phial.lock", format!("[base]\nname = {text}\ndigest = {text}\n"));
    repo.write("phial.toml", "");
    repo.commit("A lock");
    harmless(build(&env, &repo, &[]));
}

#[test]
fn of_steps_and_of_file_names() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let name = format!("lib/{}", HOSTILE_LINE.replace('/', "-"));
    repo.write(&name, "x");
    repo.write("output", HOSTILE);
    for ends in ["exit 7", "true"] {
        let script =
            format!("#!/bin/sh\ncat output 2>/dev/null\ncat output >&2\nmkdir -p out\ncp lib/* out/ || true\n{ends}\n");
        repo.script("script/prepare_code", &script);
        let settings =
            "[image]\nenvs = [\"prod\"]\n[prepare]\nscript = \"script/prepare_code\"\ninputs = [\"output\", \"lib\"]\n";
        repo.write("phial.toml", settings);
        repo.commit("Output");
        for progress in ["plain", "tty"] {
            let printed = harmless(build(&env, &repo, &["--no-cache", "--progress", progress]));
            assert!(progress == "tty" || printed.contains("forged"), "its output is shown: {printed}");
        }
    }
    harmless(env.phial(["explain", "--source", repo.source()]));
    harmless(env.phial(["explain", "--source", repo.source(), "--json"]));
    let items = run(env.phial(["cache", "ls", "--json"])).ok();
    for item in serde_json::from_str::<Vec<Value>>(&items).expect("JSON") {
        harmless(env.phial(["cache", "show", item["name"].as_str().expect("a name")]));
    }
    repo.write(&format!("{name}-more"), "y");
    repo.commit("A file");
    run(build(&env, &repo, &["--to", "oci:second"])).ok();
    harmless(env.phial(["explain", "--source", repo.source()]));
    harmless(env.phial(["diff", "oci:out", "oci:second"]));
    harmless(env.phial(["diff", "oci:out", "oci:second", "--json"]));
    repo.script("script/prepare_code", &format!("#!/no/{HOSTILE_LINE}\n"));
    repo.commit("No interpreter");
    harmless(build(&env, &repo, &[]));
}

#[test]
fn of_images() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let edited = |change: &dyn Fn(&mut Value)| {
        let _ = fs::remove_dir_all(env.path("out"));
        run(build(&env, &repo, &[])).ok();
        edit_config(&env.dir().join("out"), |config| change(config));
    };
    let changes: [&dyn Fn(&mut Value); 12] = [
        &|config| config["config"]["Cmd"] = json!([format!("/no/{HOSTILE}")]),
        &|config| config["config"]["Entrypoint"] = json!([HOSTILE]),
        &|config| config["config"]["User"] = HOSTILE.into(),
        &|config| config["config"]["User"] = "0\n::error::x".into(),
        &|config| config["config"]["WorkingDir"] = format!("/{HOSTILE}").into(),
        &|config| config["config"]["Env"] = json!([HOSTILE]),
        &|config| config["config"]["Env"] = json!([format!("A={HOSTILE}"), format!("{HOSTILE_LINE}=x")]),
        &|config| config["config"]["Labels"][HOSTILE] = HOSTILE.into(),
        &|config| config["config"]["Labels"]["dev.phial.record"] = HOSTILE.into(),
        &|config| config["architecture"] = HOSTILE.into(),
        &|config| config["os"] = HOSTILE.into(),
        &|config| config["history"][0]["created_by"] = HOSTILE.into(),
    ];
    for change in changes {
        edited(change);
        harmless(env.phial(["run", "oci:out"]));
        harmless(env.phial(["test", "oci:out", "--progress", "plain"]));
        harmless(env.phial(["verify", "oci:out", "--source", repo.source(), "--base", &base()]));
        harmless(env.phial(["diff", "oci:out", &base()]));
        harmless(env.phial(["diff", "oci:out", &base(), "--json"]));
        harmless(env.phial(["release", "oci:out", "--tag", "v1"]));
        harmless(env.phial(["build", repo.source(), "--base", "oci:out", "--to", "oci:third", "--progress", "plain"]));
    }
    for field in ["source", "base", "commit", "script", "compression", "network", "base_digest", "settings"] {
        edited(&|_| ());
        edit_record(&env.dir().join("out"), |record| record[field] = HOSTILE.into());
        harmless(env.phial(["verify", "oci:out"]));
        harmless(env.phial(["verify", "oci:out", "--source", repo.source(), "--base", &base(), "--json"]));
    }
}

#[test]
fn of_tests() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let name = quoted("::error::x ##[error]y ##vso[task]");
    let shown = "cat output; cat output >&2; cat output >out.xml; exit 3";
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings")
        + &format!("[test]\nartifacts = [{name}]\ncommands = [{{ name = {name}, command = {} }}]\n", quoted(shown));
    repo.write("output", HOSTILE);
    repo.write("phial.toml", &settings);
    repo.commit("Tests");
    run(build(&env, &repo, &[])).ok();
    for more in
        [&["--progress", "plain"][..], &["--progress", "tty"], &["--json", "--artifacts", "logs"], &["--only", HOSTILE]]
    {
        harmless(env.phial([&["test", "oci:out"], more].concat()));
    }
    harmless(env.phial(["release", "oci:out", "--tag", "v1"]));
    // A service's output and settings.
    let service =
        |key: &str| format!("[test]\ncommand = \"true\"\n[test.services.db]\nimage = {}\n{key}\n", quoted(&base()));
    let script = env.path("output.txt");
    fs::write(&script, HOSTILE).expect("written");
    let service_base = busybox_base_with(&env, &[("etc/output", HOSTILE)]);
    let says =
        service("command = \"cat /etc/output; exit 3\"").replace(&base(), &format!("oci:{}", service_base.display()));
    for toml in [
        says,
        service(&format!("user = {}", quoted(HOSTILE))),
        service(&format!("command = [{}]", quoted(HOSTILE))),
        service(&format!("tmpfs = [{}]", quoted(HOSTILE))),
        service(&format!("timeout = {}", quoted(HOSTILE))),
        service("").replace("services.db", &format!("services.{}", quoted(HOSTILE))),
        format!("[test]\ncommands = [{}]\n", quoted(HOSTILE)),
        format!("[test]\nartifacts = [{}]\n", quoted(HOSTILE)),
    ] {
        fs::write(env.path("test.toml"), toml).expect("written");
        harmless(env.phial(["test", "oci:out", "--config", "test.toml", "--progress", "plain"]));
    }
}

/// A registry that answers everything with this status, headers and error.
fn hostile_registry(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let host = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let body = json!({ "errors": [{ "code": HOSTILE, "message": HOSTILE, "detail": HOSTILE }] }).to_string();
            let line = "##[error]x ##vso[task]y section_start:1:x \u{202e}z";
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nWarning: 299 - \"{line}\"\r\n\
                 WWW-Authenticate: Basic realm=\"{line}\"\r\nLocation: /{line}\r\nDocker-Content-Digest: {line}\r\n\
                 Connection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    host
}

#[test]
fn of_registries() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    run(build(&env, &repo, &[])).ok();
    for status in
        ["403 Forbidden", "400 Bad Request", "404 Not Found", "401 Unauthorized", "200 OK", "307 Temporary Redirect"]
    {
        let name = format!("{}/team/app:v1", hostile_registry(status));
        let repository = name.trim_end_matches(":v1");
        for args in [
            &["build", repo.source(), "--base", &base(), "--to", &name, "--progress", "plain"][..],
            &["build", repo.source(), "--base", &name, "--to", "oci:x", "--progress", "plain"],
            &["test", &name],
            &["run", &name],
            &["verify", &name],
            &["diff", &name, "oci:out"],
            &["release", &name, "--tag", "v2"],
            &["doctor", "--registry", &name],
            &["doctor", "--registry", &name, "--json"],
            &["cache", "ls", "--in", repository],
            &["lock", repo.source(), "--base", &name],
        ] {
            harmless(env.phial(args));
        }
    }
}

#[test]
fn of_arguments_and_files() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    fs::write(env.path("hostile.tar"), HOSTILE).expect("written");
    fs::create_dir(env.path("layout")).expect("made");
    fs::write(env.path("layout/oci-layout"), json!({ "imageLayoutVersion": HOSTILE }).to_string()).expect("written");
    fs::create_dir(env.path("other")).expect("made");
    fs::write(env.dir().join("other").join(HOSTILE_LINE), "x").expect("written");
    fs::write(env.path("auth.json"), HOSTILE).expect("written");
    let base = base();
    for args in [
        &["build", HOSTILE][..],
        &["build", repo.source(), "--rev", HOSTILE, "--base", &base],
        &["build", repo.source(), "--rev", "##[error]x", "--base", &base],
        &["build", repo.source(), "--base", HOSTILE],
        &["build", repo.source(), "--base", &base, "--to", HOSTILE],
        &["build", repo.source(), "--base", &base, "--to", "oci:other"],
        &["build", repo.source(), "--base", &base, "--env", HOSTILE],
        &["build", repo.source(), "--base", &base, "--network", HOSTILE],
        &["build", repo.source(), "--base", &base, "--config", HOSTILE],
        &["build", repo.source(), "--base", "registry.example/x", "--authfile", "auth.json"],
        &["build", repo.source(), "--base", &format!("oci:{HOSTILE}")],
        &["verify", HOSTILE],
        &["verify", "oci:layout"],
        &["verify", "oci:layout", "--git-host", HOSTILE],
        &["run", HOSTILE, "--", HOSTILE],
        &["run", &base, "--user", HOSTILE],
        &["run", &base, "--", HOSTILE],
        &["run", &base, "--workdir", HOSTILE],
        &["test", HOSTILE],
        &["test", &base, "--partition", HOSTILE],
        &["test", &base, "--timeout", HOSTILE],
        &["base", "import", HOSTILE, "--to", "oci:x"],
        &["base", "import", "hostile.tar", "--to", "oci:x"],
        &["base", "debian", "--suite", HOSTILE, "--to", "oci:x"],
        &["base", "debian", "--packages", HOSTILE, "--to", "oci:x"],
        &["lock", HOSTILE],
        &["release", HOSTILE, "--tag", "x"],
        &["release", &base, "--tag", HOSTILE],
        &["release", &base, "--tag", "x", "--expect", HOSTILE],
        &["cache", "show", HOSTILE],
        &["cache", "prune", "--limit", HOSTILE],
        &["doctor", "--registry", HOSTILE],
        &["diff", HOSTILE, "oci:layout"],
        &["diff", &format!("./{HOSTILE}"), "oci:layout"],
        &["diff", "./hostile.tar", "./hostile.tar"],
        &["explain", HOSTILE],
        &["explain", "--source", HOSTILE],
        &[HOSTILE],
        &["build", &format!("--{HOSTILE}")],
    ] {
        harmless(env.phial(args));
    }
    assert!(Path::new(&env.path("other")).is_dir());
}
