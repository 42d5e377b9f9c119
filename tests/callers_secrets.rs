//! Who may have what of the caller's: a commit or an image decides neither which secrets its steps see, nor where it is written
//! to, nor which server gets credentials.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;

use crate::harness::busybox::busybox_base;
use crate::harness::edit_image::edit_record;
use crate::harness::git_http::GitServer;
use crate::harness::{Output, Registry, Repo, TestEnv, run};

const CANARY: &str = "s3cr3t-canary-4f";

/// The shell app, whose settings have these lines under `[prepare]`, and whose steps print the variables `names`.
fn app(env: &TestEnv, prepare: &str, names: &[&str]) -> Repo {
    let repo = env.shell_app();
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
    repo.write("phial.toml", settings.replace("[prepare]\n", &format!("[prepare]\n{prepare}\n")));
    let shown: Vec<String> = names.iter().map(|name| format!("echo \"{name} is ${{{name}-unset}}\"")).collect();
    repo.script("script/prepare_code", &format!("#!/bin/sh\n{}\nmkdir -p out\necho x >>out/x\n", shown.join("\n")));
    repo.commit("It asks for variables");
    repo
}

fn base() -> String {
    format!("oci:{}", busybox_base().display())
}

/// `phial build` of a source with the variables that the app asks for.
fn build(env: &TestEnv, source: &str, vars: &[&str], more: &[&str]) -> Output {
    let base = base();
    let mut build = env.phial([&["build", source, "--base", &base, "--progress", "plain"], more].concat());
    build.envs(vars.iter().map(|name| (*name, CANARY)));
    run(build)
}

#[test]
fn a_secret_is_never_passed_because_settings_name_it() {
    for name in [
        "GIT_TOKEN",
        "GIT_PASSWORD",
        "SSH_AUTH_SOCK",
        "DOCKER_AUTH_CONFIG",
        "REGISTRY_AUTH_FILE",
        "PHIAL_REGISTRY_AUTH",
        "AWS_SECRET_ACCESS_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "AZURE_CLIENT_SECRET",
        "BUILDKITE_AGENT_ACCESS_TOKEN",
        "GITHUB_TOKEN",
        "ACTIONS_RUNTIME_TOKEN",
        "CI_JOB_TOKEN",
    ] {
        let env = TestEnv::with_empty_cache();
        let repo = app(&env, &format!("pass = [\"{name}\"]"), &[name]);
        let ran = build(&env, repo.source(), &[], &["--to", "oci:out"]);
        let stderr = ran.failed(2);
        assert!(stderr.contains(&format!("`prepare.pass` names `{name}`")), "{stderr}");
        assert!(stderr.contains(&format!("--pass {name}`")), "{stderr}");
    }
}

#[test]
fn a_caller_passes_a_secret_by_a_flag_and_it_is_not_recorded() {
    let env = TestEnv::with_empty_cache();
    let repo = app(&env, "", &["CI_JOB_TOKEN"]);
    let without = build(&env, repo.source(), &["CI_JOB_TOKEN"], &["--to", "oci:out"]);
    assert!(!format!("{}{}", without.stdout, without.stderr).contains(CANARY), "{}", without.stderr);
    let flags = ["--to", "oci:out", "--pass", "CI_JOB_TOKEN", "--no-cache"];
    let with = build(&env, repo.source(), &["CI_JOB_TOKEN"], &flags);
    assert!(with.stderr.contains(&format!("CI_JOB_TOKEN is {CANARY}")), "{}", with.stderr);
    assert_eq!(with.ok(), without.ok(), "the flag changes no byte");
}

#[test]
fn a_fetched_commit_gets_a_variable_only_by_a_flag_of_the_call() {
    let env = TestEnv::with_empty_cache();
    let repo = app(&env, "pass = [\"OWN\"]", &["OWN", "HEX_API_KEY"]);
    let server = GitServer::start(env.dir());
    let url = format!("{}/app/.git", server.url);
    let vars = ["OWN", "HEX_API_KEY"];

    let ran = build(&env, &url, &vars, &["--to", "oci:out"]);
    let stderr = ran.failed(2);
    assert!(stderr.contains("the fetched commit asks for your variable `OWN` (`prepare.pass`)"), "{stderr}");
    assert!(stderr.contains("hint: if its steps may see the value, add `--pass OWN`"), "{stderr}");
    assert!(!stderr.contains(CANARY), "{stderr}");

    let ran = build(&env, &url, &vars, &["--to", "oci:out", "--pass", "OWN", "--no-cache"]);
    assert!(ran.stderr.contains(&format!("OWN is {CANARY}")), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("HEX_API_KEY is unset") && ran.stderr.contains("`--pass HEX_API_KEY`"),
        "{}",
        ran.stderr
    );
    let by_url = ran.ok();

    // A repository of this machine is trusted for names, and the digest does not tell the two apart.
    let ran = build(&env, repo.source(), &vars, &["--to", "oci:out", "--no-cache"]);
    assert!(ran.stderr.contains(&format!("OWN is {CANARY}")), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("HEX_API_KEY is {CANARY}")), "{}", ran.stderr);
    assert_eq!(ran.ok(), by_url);
    // So are settings that the caller names.
    let own = repo.dir().join("phial.toml").display().to_string();
    build(&env, &url, &vars, &["--to", "oci:out", "--config", &own]).ok();
    // Who has no such variable is asked for none.
    build(&env, &url, &[], &["--to", "oci:out"]).ok();
}

#[test]
fn a_fetched_commit_does_not_say_where_its_image_goes() {
    let env = TestEnv::with_empty_cache();
    let repo = app(&env, "", &[]);
    fs::write(env.path("bashrc"), "precious").expect("a file");
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
    let target = format!("oci-archive:{}", env.path("bashrc"));
    repo.write("phial.toml", settings.replace("[image]\n", &format!("[image]\nname = \"{target}\"\n")));
    repo.commit("It names a target");
    let server = GitServer::start(env.dir());
    let url = format!("{}/app/.git", server.url);
    let stderr = build(&env, &url, &[], &[]).failed(2);
    assert!(stderr.contains(&format!("wants the image to be written to `{target}` (`image.name`)")), "{stderr}");
    assert!(stderr.contains(&format!("`--to {target}`")), "{stderr}");
    assert_eq!(fs::read_to_string(env.path("bashrc")).expect("still there"), "precious");
    build(&env, &url, &[], &["--to", "oci:mine"]).ok();
    // Where one stands it is the target; what is there is an archive, or nothing.
    let stderr = build(&env, repo.source(), &[], &[]).failed(3);
    assert!(stderr.contains("bashrc") && stderr.contains("is not an OCI archive"), "{stderr}");
    assert_eq!(fs::read_to_string(env.path("bashrc")).expect("still there"), "precious");
}

#[test]
fn an_image_gets_a_variable_only_by_a_flag_of_the_call() {
    let env = TestEnv::with_empty_cache();
    let repo = app(&env, "pass = [\"OWN\"]", &["OWN", "HEX_API_KEY"]);
    repo.write(
        "phial.toml",
        fs::read_to_string(repo.dir().join("phial.toml")).expect("settings") + "[test]\ncommand = \"true\"\n",
    );
    repo.commit("It has a test");
    build(&env, repo.source(), &[], &["--to", "oci:out"]).ok();
    let test = |more: &[&str]| {
        let mut test = env.phial([&["test", "oci:out", "--progress", "plain", "--no-cache"], more].concat());
        test.env("OWN", CANARY).env("HEX_API_KEY", CANARY);
        run(test)
    };
    let stderr = test(&[]).failed(2);
    assert!(stderr.contains("the image's `phial.toml` asks for your variable `OWN`"), "{stderr}");
    assert!(!stderr.contains(CANARY) && stderr.contains("`--pass OWN`"), "{stderr}");
    let ran = test(&["--pass", "OWN"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("OWN is {CANARY}")), "{}", ran.stderr);
    assert!(ran.stderr.contains("HEX_API_KEY is unset"), "{}", ran.stderr);
    // A name in an image that was made by others is no way around the rule either.
    repo.write("other.toml", "[prepare]\npass = [\"GIT_TOKEN\"]\n[test]\ncommand = \"true\"\n");
    let file = repo.dir().join("other.toml").display().to_string();
    let mut command = env.phial(["test", "oci:out", "--config", &file]);
    let stderr = run({
        command.env("GIT_TOKEN", CANARY);
        command
    })
    .failed(2);
    assert!(stderr.contains("`prepare.pass` names `GIT_TOKEN`") && !stderr.contains(CANARY), "{stderr}");
}

/// Writes `source` as the repository into the record of the image in a layout.
fn record_source(layout: &Path, source: &str) {
    edit_record(layout, |record| record["source"] = source.into());
}

#[test]
fn a_server_that_only_an_image_names_gets_no_credentials() {
    let env = TestEnv::with_empty_cache();
    let repo = app(&env, "", &[]);
    build(&env, repo.source(), &[], &["--to", "oci:out"]).ok();
    let login = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{CANARY}"));
    let server = GitServer::start_private(env.dir(), &format!("Basic {login}"));
    let url = format!("{}/app/.git", server.url);
    record_source(&env.dir().join("out"), &url);
    fs::write(env.path("home/.gitconfig"), format!("[credential]\nhelper = \"!touch {}; false\"\n", env.path("asked")))
        .expect("written");
    let verify = |more: &[&str]| {
        let mut verify = env.phial([&["verify", "oci:out", "--base", &base()], more].concat());
        verify.env("GIT_TOKEN", CANARY);
        run(verify)
    };
    let stderr = verify(&[]).failed(5);
    let host = server.url.trim_start_matches("http://");
    assert!(stderr.contains("gets none of yours") && stderr.contains(&format!("`--git-host {host}`")), "{stderr}");
    assert!(stderr.contains("--source"), "{stderr}");
    assert!(verify(&["--git-host", "git.example"]).failed(5).contains("gets none of yours"));
    assert!(server.requests().iter().all(|request| request.authorization.is_none()), "{:?}", server.requests());
    assert!(!fs::exists(env.path("asked")).expect("known"), "a credential helper was asked");
    // The image was changed by hand, so that it is another one: but its commit was fetched.
    for flags in [["--git-host", host], ["--source", &url]] {
        let stderr = verify(&flags).failed(8);
        assert!(stderr.contains("not reproducible"), "{stderr}");
        assert!(!stderr.contains(CANARY), "{stderr}");
    }
}

#[test]
fn an_image_names_no_repository_of_this_machine() {
    for local in ["app", "file:///etc", "."] {
        let env = TestEnv::with_empty_cache();
        let repo = app(&env, "", &[]);
        build(&env, repo.source(), &[], &["--to", "oci:out"]).ok();
        record_source(&env.dir().join("out"), local);
        let stderr = run(env.phial(["verify", "oci:out", "--base", &base()])).failed(2);
        assert!(stderr.contains("does not record where its repository is"), "{stderr}");
        edit_record(&env.dir().join("out"), |record| record["base"] = base().into());
        let stderr = run(env.phial(["verify", "oci:out", "--source", repo.source()])).failed(2);
        assert!(stderr.contains("does not record where its base image is"), "{stderr}");
    }
}

#[test]
fn a_fetched_commit_names_no_base_image_of_this_machine() {
    let env = TestEnv::with_empty_cache();
    let repo = app(&env, "", &[]);
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
    repo.write("phial.toml", settings.replace("[image]\n", &format!("[image]\nbase = \"{}\"\n", base())));
    repo.commit("It names a base");
    let server = GitServer::start(env.dir());
    let url = format!("{}/app/.git", server.url);
    let stderr = run(env.phial(["build", &url, "--to", "oci:out"])).failed(2);
    assert!(stderr.contains(&format!("names an image on this machine as its base: `{}`", base())), "{stderr}");
    run(env.phial(["build", &url, "--to", "oci:out", "--base", &base()])).ok();
    run(env.phial(["build", repo.source(), "--to", "oci:out"])).ok();
}

#[test]
fn an_image_names_no_service_of_this_machine() {
    let env = TestEnv::with_empty_cache();
    let repo = app(&env, "", &[]);
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
    let test = format!("[test]\ncommand = \"true\"\n[test.services.box]\nimage = \"{}\"\n", base());
    repo.write("phial.toml", format!("{settings}{test}command = \"sleep 99\"\n"));
    repo.commit("It names a service");
    build(&env, repo.source(), &[], &["--to", "oci:out"]).ok();
    let stderr = run(env.phial(["test", "oci:out"])).failed(2);
    let named = format!("names an image on this machine as a service: `{}` (`test.services.box.image`)", base());
    assert!(stderr.contains(&named) && stderr.contains("`--config FILE`"), "{stderr}");
    assert!(!stderr.contains("box |"), "nothing was started: {stderr}");
    let own = repo.dir().join("phial.toml").display().to_string();
    run(env.phial(["test", "oci:out", "--config", &own])).ok();
}

#[test]
fn a_registry_that_only_a_commit_or_an_image_names_gets_no_login() {
    let (env, registry) = (TestEnv::with_empty_cache(), Registry::with_htpasswd());
    let (login, private) = (env.path("login.json"), registry.reference("team/base:1"));
    let creds = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", &creds, &base()]);
    run({
        copy.arg(format!("docker://{private}"));
        copy
    })
    .ok();
    let mut enter = Command::new("skopeo");
    enter.args(["login", "--tls-verify=false", "--username", Registry::USER, "--password", Registry::PASSWORD]);
    run({
        enter.args(["--authfile", &login, &registry.host()]);
        enter
    })
    .ok();
    let repo = app(&env, "", &[]);
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
    let named = settings.replace("[image]\n", &format!("[image]\nbase = \"{private}\"\n"));
    let service =
        format!("[test]\ncommand = \"true\"\n[test.services.box]\nimage = \"{private}\"\ncommand = \"sleep 99\"\n");
    repo.write("phial.toml", named + &service);
    repo.commit("A private base, and a private service");
    let server = GitServer::start(env.dir());
    let url = format!("{}/app/.git", server.url);
    let phial = |args: &[&str]| run(env.phial([args, &["--authfile", &login]].concat()));
    let refuses = |output: Output| {
        let stderr = output.failed(5);
        assert!(stderr.contains(&format!("hint: `{}` gets no login of yours", registry.host())), "{stderr}");
        assert!(stderr.contains("`--base`") && stderr.contains("`--config`"), "{stderr}");
    };

    refuses(phial(&["build", &url, "--to", "oci:out"]));
    phial(&["build", &url, "--to", "oci:out", "--base", &private]).ok();
    phial(&["build", &url, "--to", &registry.reference("team/app:1")]).ok();
    phial(&["build", repo.source(), "--to", "oci:out"]).ok();
    let own = repo.dir().join("phial.toml").display().to_string();
    phial(&["build", &url, "--to", "oci:out", "--config", &own]).ok();

    refuses(phial(&["verify", "oci:out", "--source", repo.source()]));
    phial(&["verify", "oci:out", "--source", repo.source(), "--base", &private]).ok();
    phial(&["verify", &registry.reference("team/app:1"), "--source", repo.source()]).ok();

    refuses(phial(&["test", "oci:out"]));
    phial(&["test", "oci:out", "--config", &own]).ok();
    phial(&["test", &registry.reference("team/app:1")]).ok();
}

#[test]
fn the_documents_list_every_secret() {
    let text = include_str!("../docs/isolation.md");
    for kind in phial::config::CALLER_SECRETS {
        let names: Vec<String> = kind.names.iter().map(|name| format!("`{name}`")).collect();
        let row = format!("| {} | {} |", kind.of, names.join(", "));
        assert!(text.contains(&row), "{row}");
    }
}
