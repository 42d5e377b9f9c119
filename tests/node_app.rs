//! An app without Elixir: TypeScript, bundled by a `prepare_code` of its own over a base with Node.

use std::process::Command;

use crate::harness::prebuilt::node_base;
use crate::harness::{Repo, TestEnv, run};

/// Builds without a network; `TARGET@digest` and stderr.
fn build(env: &TestEnv, repo: &Repo, name: &str, more: &[&str]) -> (String, String) {
    let (base, to) = (format!("oci:{}", node_base().display()), format!("oci:{}", env.path(name)));
    let args = ["build", repo.source(), "--base", &base, "--to", &to, "--network", "none", "--progress", "plain"];
    let ran = run(env.phial([&args[..], more].concat()));
    let output = ran.stderr.clone();
    (ran.ok().rsplit_once('@').expect("TARGET@digest").1.to_owned(), output)
}

/// A layout's layers by digest, the lowest first.
fn layers(layout: &str) -> Vec<String> {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--format", "{{range .Layers}}{{.}} {{end}}", &format!("oci:{layout}")]);
    run(skopeo).ok().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_node_app_has_one_digest_and_runs_what_was_compiled() {
    let env = TestEnv::new();
    let repo = env.app("node");
    let (digest, _) = build(&env, &repo, "first", &[]);
    assert_eq!(build(&env, &repo, "fresh", &["--no-cache"]).0, digest);
    assert_eq!(build(&env, &repo, "copy", &["--no-cache", "--isolation", "copy"]).0, digest);
    let empty = TestEnv::with_empty_cache();
    assert_eq!(build(&empty, &empty.app("node"), "elsewhere", &[]).0, digest);

    let image = format!("oci:{}", env.path("first"));
    assert_eq!(run(env.phial(["run", &image])).ok(), "prod I II III IV V VI VII VIII IX X XI XII");
    let staging = run(env.phial(["run", &image, "--", "node", "dist/staging/main.js"])).ok();
    assert!(staging.starts_with("staging I II "), "{staging}");
}

#[test]
fn a_source_change_keeps_the_cached_dependencies_of_a_node_app_and_a_dependency_change_does_not() {
    let env = TestEnv::new();
    let repo = env.app("node");
    build(&env, &repo, "before", &[]);
    let source = std::fs::read_to_string(repo.dir().join("src/main.ts")).expect("a source");
    repo.write("src/main.ts", source.replace("length: 12", "length: 3"));
    repo.commit("A shorter face");
    let (_, output) = build(&env, &repo, "after", &[]);
    assert!(output.lines().any(|line| line.starts_with("deps ") && line.contains("cached")), "{output}");
    let (before, after) = (layers(&env.path("before")), layers(&env.path("after")));
    assert_eq!(before[..2], after[..2], "base and deps are the same layers");
    assert_eq!(run(env.phial(["run", &format!("oci:{}", env.path("after"))])).ok(), "prod I II III");

    let vendored = std::fs::read_to_string(repo.dir().join("vendor/roman/index.js")).expect("a dependency");
    repo.write("vendor/roman/index.js", vendored.replace("\"IV\", 4", "\"IIII\", 4"));
    repo.commit("As on a clock");
    build(&env, &repo, "clock", &[]);
    assert_ne!(layers(&env.path("clock"))[1], after[1], "other deps");
}
