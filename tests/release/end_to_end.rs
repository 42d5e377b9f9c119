//! The three verbs in a row: build, test, release, in a registry and in layouts.

use std::fs;

use phial_layers::Digest;

use super::{oras, skopeo};
use crate::harness::busybox::busybox_base;
use crate::harness::prebuilt::{elixir_base, service_images};
use crate::harness::{Registry, TestEnv, User, hex_registry, run};

/// A small app with these test settings, built to `image`; its digest.
#[track_caller]
pub(super) fn built(env: &TestEnv, test: &str, image: &str) -> Digest {
    let repo = env.shell_app();
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).unwrap();
    repo.write("phial.toml", format!("{settings}\n[test]\n{test}\n"));
    repo.commit("How it is tested");
    let base = format!("oci:{}", busybox_base().display());
    let line = run(env.phial(["build", repo.source(), "--base", &base, "--to", image])).ok();
    line.rsplit_once('@').unwrap().1.parse().unwrap()
}

#[test]
fn what_was_built_is_tested_and_released_byte_for_byte() {
    let (env, registry) = (TestEnv::with_empty_cache(), Registry::start());
    let image = registry.reference("team/app:build-7");
    let commands = "commands = [{ name = 'lint', command = 'exit 0' }, { name = 'test', command = 'exit ${CODE:-0}' }]";
    let digest = built(&env, commands, &image);
    let release = |args: &[&str]| run(env.phial([&["release", &image, "--tag", "v1"], args].concat()));
    let test = |args: &[&str]| run(env.phial([&["test", &image], args].concat()));
    let refused = |expected: &str| {
        let err = release(&[]).failed(7);
        assert!(err.contains(expected), "`{expected}` is not in: {err}");
    };
    refused("it has no test record");
    test(&["--only", "test"]).ok();
    refused("`lint` was never run, only `test`");
    test(&["--", "lint"]).failed(3);
    test(&["--", "true"]).ok();
    refused("`lint` was never run");
    test(&["--env", "CODE=3"]).failed(1);
    refused("`test` failed at");
    test(&["--partition", "1/2"]).ok();
    refused("`test` failed at");
    assert_eq!(test(&[]).ok(), format!("{image}@{digest}"));
    let v1 = registry.reference("team/app:v1");
    assert_eq!(release(&[]).ok(), format!("{v1}@{digest}"));
    let inspect = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    assert_eq!(skopeo(&[&inspect[..], &[&format!("docker://{v1}")]].concat()), digest.as_str());
    let seen = oras(&["discover", "--plain-http", "--format", "json", &v1]);
    assert_eq!(seen.matches("\"dev.phial.result\": \"PASSED\"").count(), 4, "{seen}");
    assert_eq!(seen.matches("\"dev.phial.result\": \"FAILED\"").count(), 1, "{seen}");

    release(&["--to", "oci:out.oci"]).ok();
    let out = format!("oci:{}:v1", env.path("out.oci"));
    assert_eq!(skopeo(&[&inspect[..1], &inspect[2..], &[&out]].concat()), digest.as_str());
}

#[test]
fn a_layout_is_built_tested_and_released_without_a_registry() {
    let env = TestEnv::with_empty_cache();
    let digest = built(&env, "command = 'test -e out/prod/app'", "oci:app.oci");
    run(env.phial(["release", "oci:app.oci", "--tag", "v1"])).failed(7);
    run(env.phial(["test", "oci:app.oci"])).ok();
    let out = run(env.phial(["release", "oci:app.oci", "--tag", "v1", "--tag", "latest"])).ok();
    assert_eq!(out, format!("oci:app.oci:v1@{digest}\noci:app.oci:latest@{digest}"));
    for tag in ["v1", "latest"] {
        let name = format!("oci:{}:{tag}", env.path("app.oci"));
        assert_eq!(skopeo(&["inspect", "--format", "{{.Digest}}", &name]), digest.as_str());
    }
    let seen = oras(&["discover", "--oci-layout", "--format", "json", &format!("{}:v1", env.path("app.oci"))]);
    assert!(seen.contains("https://in-toto.io/attestation/test-result/v0.1"), "{seen}");
}

/// A commit's link to a layout of the caller's: it is read through the link, and not written.
#[test]
fn a_layout_behind_a_link_gets_no_record_and_no_tag() {
    let env = TestEnv::with_empty_cache();
    let home = tempfile::tempdir().unwrap();
    let own = format!("oci:{}", home.path().join("own.oci").display());
    built(&env, "command = 'true'", &own);
    std::os::unix::fs::symlink(home.path().join("own.oci"), env.dir().join("app.oci")).unwrap();
    let index = || std::fs::read(home.path().join("own.oci/index.json")).unwrap();
    let before = index();
    for arguments in [&["test", "oci:app.oci"][..], &["release", "oci:app.oci", "--tag", "v1", "--untested", "a try"]] {
        let refused = run(env.phial(arguments)).failed(3);
        assert!(refused.contains("`app.oci` is a symbolic link, and none is followed"), "{refused}");
    }
    assert_eq!(index(), before);
    run(env.phial(["test", "oci:app.oci", "--no-record"])).ok();
    run(env.phial(["test", &own])).ok();
}

#[test]
fn the_parts_of_a_test_count_when_all_of_them_passed() {
    let env = TestEnv::with_empty_cache();
    built(&env, "command = 'true'", "oci:app.oci");
    let release = || run(env.phial(["release", "oci:app.oci", "--tag", "v1"]));
    run(env.phial(["test", "oci:app.oci", "--partition", "1/2"])).ok();
    let refused = release().failed(7);
    assert!(refused.contains("only the parts 1/2 of `test` were run"), "{refused}");
    run(env.phial(["test", "oci:app.oci", "--partition", "2/2"])).ok();
    release().ok();
}

/// An Elixir app with `PostgreSQL` and Redis, by someone who has one user id and nothing else.
#[test]
fn an_app_with_databases_is_built_tested_and_released_by_an_ordinary_user() {
    let (env, registry, hex) = (TestEnv::new(), Registry::start(), hex_registry());
    let (repo, base, services) = (env.ledger(&hex), elixir_base(), service_images());
    let user = User::unprivileged(&[(&base, "base"), (repo.dir(), "app"), (&services, "services")]);
    let image = registry.reference("team/ledger:build-7");
    let mut build = user.phial(&["build", "app", "--base", "oci:base", "--to", &image, "--to", "oci:out"]);
    build.envs(hex.env());
    let digest = run(build).ok().rsplit_once('@').unwrap().1.to_owned();
    let release = |image: &str| run(user.phial(&["release", image, "--tag", "v1"]));
    for (image, name) in [(image.as_str(), registry.reference("team/ledger:v1")), ("oci:out", "oci:out:v1".into())] {
        release(image).failed(7);
        run(user.phial(&["test", image, "--config", "app/phial.toml", "--only", "lint"])).ok();
        let refused = release(image).failed(7);
        assert!(refused.contains("`test` was never run, only `lint`"), "{refused}");
        let tested = run(user.phial(&["test", image, "--config", "app/phial.toml"]));
        assert!(tested.stderr.contains("4 tests, 0 failures"), "{}", tested.stderr);
        tested.ok();
        assert_eq!(release(image).ok(), format!("{name}@{digest}"));
    }
    let inspect = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    let v1 = registry.reference("team/ledger:v1");
    assert_eq!(skopeo(&[&inspect[..], &[&format!("docker://{v1}")]].concat()), digest);
    let layout = format!("oci:{}:v1", user.path("out"));
    assert_eq!(skopeo(&[&inspect[..1], &inspect[2..], &[&layout]].concat()), digest);
    let of_registry = oras(&["discover", "--plain-http", "--format", "json", &v1]);
    let of_layout = oras(&["discover", "--oci-layout", "--format", "json", &format!("{}:v1", user.path("out"))]);
    for seen in [of_registry, of_layout] {
        assert_eq!(seen.matches("\"dev.phial.result\": \"PASSED\"").count(), 2, "{seen}");
    }
}
