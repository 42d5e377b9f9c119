//! `phial cache`: what is kept, what it is, and how it stays below a limit.

use crate::harness::busybox::busybox_base;
use crate::harness::{Repo, TestEnv, run};

/// An environment with one build in its cache.
fn built() -> (TestEnv, String) {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let base = format!("oci:{}", busybox_base().display());
    let out = format!("oci:{}", env.path("out"));
    let digest = run(env.phial(["build", repo.source(), "--base", &base, "--to", &out])).ok();
    (env, digest)
}

fn again(env: &TestEnv) -> std::process::Command {
    let base = format!("oci:{}", busybox_base().display());
    let out = format!("oci:{}", env.path("out"));
    env.phial(["build", &env.path("app"), "--base", &base, "--to", &out, "--progress", "plain"])
}

#[test]
fn what_a_build_keeps_is_listed_and_explained() {
    let (env, _) = built();
    let list = run(env.phial(["cache", "ls"])).ok();
    for kind in ["blob ", "tree ", "result "] {
        assert!(list.lines().any(|line| line.starts_with(kind)), "{list}");
    }
    let json: serde_json::Value = serde_json::from_str(&run(env.phial(["cache", "ls", "--json"])).ok()).expect("JSON");
    let items = json.as_array().expect("a list");
    assert_eq!(items.len() + 1, list.lines().count(), "and a line that sums up");
    let results = items.iter().filter(|item| item["kind"] == "result");
    let texts: Vec<String> = results
        .map(|item| run(env.phial(["cache", "show", &item["name"].as_str().expect("a name")[..16]])).ok())
        .collect();
    assert!(texts.iter().any(|text| text.contains("  step deps\n") && text.contains("file VERSION = ")), "{texts:#?}");
    let error = run(env.phial(["cache", "show", "nothing"])).failed(3);
    assert!(error.contains("the cache has no entry `nothing`") && error.contains("cache ls"), "{error}");
}

#[test]
fn a_pruned_cache_is_filled_again_with_the_same() {
    let (env, digest) = built();
    let output = run(env.phial(["cache", "prune", "--limit", "0"]));
    assert!(output.stderr.contains("removed from the cache, 0 B left"), "{}", output.stderr);
    assert_eq!(run(env.phial(["cache", "ls"])).ok(), "0 B in 0 entries");
    let ran = run(again(&env));
    assert!(!ran.stderr.contains("cached"), "{}", ran.stderr);
    assert_eq!(ran.ok(), digest);
    run(env.phial(["cache", "prune", "--unused-for", "1d"])).ok();
    let ran = run(again(&env));
    assert!(ran.stderr.contains("cached"), "what was used a moment ago stays: {}", ran.stderr);
}

#[test]
fn a_build_keeps_the_cache_below_its_limit_and_says_what_it_removed() {
    let (env, digest) = built();
    let mut command = again(&env);
    command.env("PHIAL_CACHE_LIMIT", "100kB");
    let ran = run(command);
    assert!(ran.stderr.contains("removed from the cache"), "{}", ran.stderr);
    assert_eq!(ran.ok(), digest);
    let mut command = again(&env);
    command.env("PHIAL_CACHE_LIMIT", "much");
    let ran = run(command);
    assert!(ran.stderr.contains("invalid `PHIAL_CACHE_LIMIT`: `much` is not a size"), "{}", ran.stderr);
    assert_eq!(ran.ok(), digest, "that fails no build");
    run(env.phial(["cache", "prune", "--limit", "much"])).failed(2);
}

#[test]
fn nothing_is_removed_while_another_phial_uses_it() {
    let (env, _) = built();
    let store = phial::store::Store::open(env.cache()).expect("the store");
    let error = run(env.phial(["cache", "prune", "--limit", "0"])).failed(6);
    assert!(error.contains("in use by another"), "{error}");
    drop(store);
    run(env.phial(["cache", "prune", "--limit", "0"])).ok();
}

/// A script whose step `STEP` writes what it sees of settings, and gives a file another owner if it can.
const SEES: &str = r#"#!/bin/sh
set -eu
if [ "$1" = STEP ]; then
    echo "${PHIAL_LOCKFILE:-none} ${PHIAL_HEX:-none} ${SEEN:-none}" >seen
    busybox chown 5:6 seen 2>/dev/null || :
fi
"#;

/// The same for the environment `test` alone.
const SEES_IN_TESTS: &str = r#"#!/bin/sh
set -eu
case "$1 $PHIAL_ENVS" in
"deps test") echo "$PHIAL_HEX" >seen ;;
"deps prod") echo fetched >made ;;
esac
"#;

/// Builds a commit with settings that are not in it; the digest.
fn build_with(env: &TestEnv, repo: &Repo, settings: &str, more: &[&str]) -> String {
    let config = env.path("settings.toml");
    std::fs::write(&config, settings).expect("settings");
    let (base, out) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let mut build = env.phial(["build", repo.source(), "--base", &base, "--to", &out, "--config", &config]);
    build.args(more).env("SEEN", "by the step");
    run(build).ok()
}

/// Builds with one settings after the other; each must have the result that it has without a cache.
fn have_own_results(env: &TestEnv, repo: &Repo, settings: &[&str]) {
    let cached: Vec<String> = settings.iter().map(|settings| build_with(env, repo, settings, &[])).collect();
    for (settings, cached) in settings.iter().zip(cached) {
        assert_eq!(cached, build_with(env, repo, settings, &["--no-cache"]), "{settings}");
    }
}

#[test]
fn a_step_runs_again_with_another_setting_that_it_can_see() {
    for step in ["deps", "build"] {
        let env = TestEnv::with_empty_cache();
        let repo = env.shell_app();
        repo.script("script/prepare_code", &SEES.replace("STEP", step));
        repo.commit("What it sees");
        let settings = |more: &str| {
            format!("[image]\nenvs = [\"prod\"]\ncmd = [\"sh\"]\n[prepare]\nscript = \"script/prepare_code\"\n{more}\n")
        };
        let plain = settings("");
        for more in ["lockfile = \"VERSION\"", "hex = \"2.0.6\"", "pass = [\"SEEN\"]", "ranges = true"] {
            have_own_results(&env, &repo, &[&plain, &settings(more)]);
        }
    }
}

#[test]
fn a_name_with_a_space_is_not_two_names() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    repo.script("shop/prepare_code", "#!/bin/sh\n");
    for name in ["a", "b", "a b"] {
        repo.write(name, name);
    }
    repo.commit("An app in a directory");
    let settings = |include: &str| {
        let image = format!("[image]\nroot = \"shop\"\ninclude = {include}\nenvs = [\"prod\"]\ncmd = [\"sh\"]\n");
        format!("{image}[prepare]\nscript = \"prepare_code\"\n")
    };
    have_own_results(&env, &repo, &[&settings("[\"a b\"]"), &settings("[\"a\", \"b\"]")]);
}

#[test]
fn the_dependencies_of_the_tests_are_made_again_with_another_setting_that_they_see() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    repo.script("script/prepare_code", SEES_IN_TESTS);
    let (base, out) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    for version in ["2.0.6", "2.1.1"] {
        let image = "[image]\nenvs = [\"prod\"]\ncmd = [\"sh\"]\n[prepare]\nscript = \"script/prepare_code\"\n";
        let test = format!("[test]\ncommand = \"grep -Fx {version} seen\"\n");
        repo.write("phial.toml", format!("{image}hex = \"{version}\"\n{test}"));
        repo.commit(version);
        run(env.phial(["build", repo.source(), "--base", &base, "--to", &out])).ok();
        run(env.phial(["test", &out])).ok();
    }
}
