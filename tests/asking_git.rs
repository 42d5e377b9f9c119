//! What a step knows of its commit, and what the caller hears of a step that asks git.

use crate::harness::busybox::busybox_base;
use crate::harness::prebuilt::elixir_base;
use crate::harness::{Repo, TestEnv, isolations, run};

/// Builds an app over the base with Elixir; the digest, and what the caller saw.
fn build(env: &TestEnv, repo: &Repo, more: &[&str]) -> (String, String) {
    let base = format!("oci:{}", elixir_base().display());
    let ran = run(env.phial([&["build", repo.source(), "--base", &base, "--to", "oci:out"], more].concat()));
    let output = ran.stderr.clone();
    (ran.ok(), output)
}

#[test]
fn a_step_that_compiles_the_app_knows_its_commit_and_one_that_asks_git_gets_a_hint() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let script = "#!/bin/sh\nset -eu\ncase $1 in\ndeps) env | grep PHIAL_COMMIT >/opt/deps || true ;;\n\
        build) echo \"$PHIAL_COMMIT $PHIAL_COMMIT_TIME\" >made; echo 'fatal: not a git repository: .git' >&2 ;;\nesac\n";
    repo.script("script/prepare_code", &script.replace(">/opt/deps", "&& exit 1"));
    let sha = repo.commit("The second commit");
    let time = repo.git(["show", "-s", "--format=%ct", "HEAD"]);
    let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let built = run(env.phial(["build", repo.source(), "--base", &base, "--to", &to]));
    assert!(built.stderr.contains("PHIAL_COMMIT"), "the notice: {}", built.stderr);
    built.ok();
    assert_eq!(run(env.phial(["run", &to, "--", "cat", "/app/made"])).ok(), format!("{sha} {time}"));
    repo.git(["commit", "-q", "--allow-empty", "-m", "Another commit of the same files"]);
    let sha = repo.git(["rev-parse", "HEAD"]);
    run(env.phial(["build", repo.source(), "--base", &base, "--to", &to])).ok();
    assert!(run(env.phial(["run", &to, "--", "cat", "/app/made"])).ok().starts_with(&sha));
}

#[test]
fn git_that_finds_no_repository_is_reported_even_if_its_output_is_a_value() {
    let env = TestEnv::with_elixir_base_in_cache();
    let repo = env.app("hello");
    let asks = |arguments: &str| {
        let ask = format!("elem(System.cmd(\"git\", {arguments}, stderr_to_stdout: true), 0)");
        repo.write("lib/hello/commit.ex", format!("defmodule Hello.Commit do\n  def text, do: unquote({ask})\nend\n"));
        repo.commit("It asks git");
    };
    let notice = "the step asked git, and there is no `.git`";
    asks("[\"rev-parse\", \"HEAD\"]");
    let digests: Vec<String> = isolations()
        .into_iter()
        .map(|isolation| {
            let more = ["--isolation", isolation, "--no-cache", "--env", "prod"];
            let (digest, output) = build(&env, &repo, &more);
            assert!(!output.contains("fatal:"), "git's output is taken: {output}");
            assert_eq!(output.matches(notice).count(), 1, "{isolation}: {output}");
            digest
        })
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    // What git can tell without a repository is no reason for a notice.
    asks("[\"--version\"]");
    let (_, output) = build(&env, &repo, &["--env", "prod"]);
    assert!(!output.contains(notice), "{output}");
}
