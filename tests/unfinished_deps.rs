//! Dependencies that failed for one environment: what was compiled for the others is not compiled again. Mix is a script here.

use std::path::{Path, PathBuf};

use crate::harness::busybox::busybox_base_with;
use crate::harness::{Output, Repo, TestEnv, run};

/// `HEX_BUILDS_URL`, which is in no key, is the environment whose dependencies cannot be compiled.
const MIX: &str = r#"#!/bin/sh
set -eu
case "$1" in
deps.compile)
    echo "compiling for $MIX_ENV"
    mkdir -p "_build/$MIX_ENV/lib/a" deps/a/priv
    echo "compiled for $MIX_ENV" >"_build/$MIX_ENV/lib/a/made"
    chmod 700 "_build/$MIX_ENV/lib/a/made"
    echo "of $MIX_ENV" >"deps/a/priv/$MIX_ENV"
    rm deps/a/removed
    if [ "$MIX_ENV" = "${HEX_BUILDS_URL:-}" ]; then echo "no network"; exit 1; fi ;;
deps.get) echo "fetching"; mkdir -p deps/a; echo source >deps/a/source; echo x >deps/a/removed ;;
compile) mkdir -p "_build/$MIX_ENV"; echo app >"_build/$MIX_ENV/app" ;;
esac
"#;

fn base(env: &TestEnv) -> PathBuf {
    busybox_base_with(env, &[("bin/erl", "#!/bin/sh\n"), ("bin/mix", MIX)])
}

fn app(env: &TestEnv, prepare: &str) -> Repo {
    let repo = env.shell_app();
    repo.write("mix.exs", "");
    let image = "[image]\nenvs = [\"staging\", \"prod\"]\ncmd = [\"cat\", \"mix.exs\"]\n";
    repo.write("phial.toml", format!("{image}\n[prepare]\n{prepare}\n"));
    repo.commit("A project of Mix");
    repo
}

fn build(env: &TestEnv, repo: &Repo, base: &Path, failing: &str, more: &[&str]) -> Output {
    let (from, to) = (format!("oci:{}", base.display()), format!("oci:{}", env.path("out")));
    let args = ["build", repo.source(), "--base", &from, "--to", &to, "--progress", "plain"];
    let mut build = env.phial([&args, more].concat());
    build.env("HEX_BUILDS_URL", failing);
    run(build)
}

#[test]
fn what_was_compiled_for_one_environment_is_kept_when_another_one_fails() {
    let cold = TestEnv::with_empty_cache();
    let expected = build(&cold, &app(&cold, ""), &base(&cold), "none", &[]).ok();
    let digest = expected.split_once('@').expect("a digest").1;
    for isolation in ["auto", "copy"] {
        let env = TestEnv::with_empty_cache();
        let (base, repo) = (base(&env), app(&env, ""));
        let more = ["--isolation", isolation];
        let stderr = build(&env, &repo, &base, "prod", &more).failed(1);
        assert!(stderr.contains("compiling for staging") && stderr.contains("compiling for prod"), "{stderr}");
        let second = build(&env, &repo, &base, "none", &more);
        assert!(!second.stderr.contains("compiling for staging"), "{isolation}: {}", second.stderr);
        assert!(
            second.stderr.contains("fetching") && second.stderr.contains("compiling for prod"),
            "{}",
            second.stderr
        );
        assert!(second.ok().ends_with(digest), "{isolation}: the digest is that of a build without a failure");
        let third = build(&env, &repo, &base, "none", &[&more[..], &["--no-cache"]].concat());
        assert!(third.stderr.contains("compiling for staging"), "{}", third.stderr);
        assert!(third.ok().ends_with(digest), "{isolation}");
    }
}

#[test]
fn with_other_inputs_everything_is_compiled_again() {
    let env = TestEnv::with_empty_cache();
    let (base, repo) = (base(&env), app(&env, ""));
    build(&env, &repo, &base, "prod", &[]).failed(1);
    repo.write("mix.exs", "# changed\n");
    repo.commit("Another project");
    let second = build(&env, &repo, &base, "none", &[]);
    assert!(second.stderr.contains("compiling for staging"), "{}", second.stderr);
    second.ok();
}

#[test]
fn a_strict_build_compiles_everything_again() {
    let env = TestEnv::with_empty_cache();
    let (base, repo) = (base(&env), app(&env, "strict = true"));
    build(&env, &repo, &base, "prod", &[]).failed(1);
    let second = build(&env, &repo, &base, "none", &[]);
    assert!(second.stderr.contains("compiling for staging"), "{}", second.stderr);
    second.ok();
}
