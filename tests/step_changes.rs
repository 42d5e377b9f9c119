//! What a step changed, in every isolation: one digest, and what cannot be read is an error.

use crate::harness::busybox::busybox_base;
use crate::harness::{Repo, TestEnv, isolations, run};

/// The digest of the app with this step `build`, built in this isolation; or the error.
fn built(env: &TestEnv, repo: &Repo, isolation: &str) -> crate::harness::Output {
    let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path(isolation)));
    let args = ["build", repo.source(), "--base", &base, "--to", &to, "--no-cache", "--isolation", isolation];
    run(env.phial(args))
}

fn app(env: &TestEnv, deps: &str, build: &str) -> Repo {
    let repo = env.shell_app();
    let script = format!("#!/bin/sh\nset -eu\ncase $1 in\ndeps) {deps} ;;\nbuild) mkdir -p out; {build} ;;\nesac\n");
    repo.script("script/prepare_code", &script);
    repo.commit("Its steps");
    repo
}

/// A rename changes no ctime of what is in the directory, so the files look as they did when the copy was made.
#[test]
fn files_of_a_directory_that_took_the_place_of_another_are_in_the_layer() {
    let make = "mkdir -p /opt/a/x /opt/b/x; echo 1.0 >/opt/a/x/VERSION; echo 2.0 >/opt/b/x/VERSION";
    for (nth, swap) in [
        "rm -r /opt/a; busybox mv /opt/b /opt/a",
        "busybox mv /opt/a /opt/old; busybox mv /opt/b /opt/a; rm -r /opt/old",
        "rm -r /opt/a/x; busybox mv /opt/b/x /opt/a/x; rm -r /opt/b",
        "mkdir /opt/new; busybox mv /opt/b/x /opt/new; rm -r /opt/a; busybox mv /opt/new /opt/a; rm -r /opt/b",
    ]
    .into_iter()
    .enumerate()
    {
        let env = TestEnv::new();
        let repo = app(&env, make, swap);
        let digests: Vec<String> = isolations()
            .into_iter()
            .map(|isolation| {
                let line = built(&env, &repo, isolation).ok();
                let image = format!("oci:{}", env.path(isolation));
                let version = run(env.phial(["run", &image, "--", "cat", "/opt/a/x/VERSION"])).ok();
                assert_eq!(version.trim(), "2.0", "{isolation}: {swap}");
                line.rsplit_once('@').expect("TARGET@digest").1.to_owned()
            })
            .collect();
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "case {nth}: {digests:?}");
    }
}

#[test]
fn a_tree_of_hundreds_of_directories_in_one_another_is_refused() {
    let env = TestEnv::new();
    let build = "cd out; n=0; while [ $n -lt 1000 ]; do mkdir d; cd d; n=$((n + 1)); done";
    let repo = app(&env, "mkdir vendor", build);
    for isolation in isolations() {
        let stderr = built(&env, &repo, isolation).failed(1);
        assert!(stderr.contains("too many entries, or directories too deep in one another"), "{isolation}: {stderr}");
    }
}
