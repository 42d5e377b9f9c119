//! `phial lock`: a base pinned by digest, found without being asked for.

use std::process::Command;

use crate::harness::busybox::busybox_base;
use crate::harness::{Registry, TestEnv, run};

fn copy(from: &str, to: &str) {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--quiet", "--dest-tls-verify=false", from, &format!("docker://{to}")]);
    run(skopeo).ok();
}

#[test]
fn a_committed_lock_holds_the_base_when_its_tag_moves() {
    let env = TestEnv::new();
    let registry = Registry::start();
    let repo = env.shell_app();
    let base = registry.reference("team/base:1");
    copy(&format!("oci:{}", busybox_base().display()), &base);
    let settings = std::fs::read_to_string(repo.dir().join("phial.toml")).expect("phial.toml");
    repo.write("phial.toml", settings.replace("[image]\n", &format!("[image]\nbase = \"{base}\"\n")));
    let unlocked = repo.commit("The base");
    let to = format!("oci:{}", env.path("out"));
    let error = run(env.phial(["build", repo.source(), "--locked", "--to", &to])).failed(2);
    assert!(error.contains("phial lock"), "{error}");

    let line = run(env.phial(["lock", repo.source()])).ok();
    assert!(line.starts_with(&format!("{base}@sha256:")), "{line}");
    repo.commit("The lock");
    let first = run(env.phial(["build", repo.source(), "--locked", "--to", &to])).ok();

    // Another image takes the tag; the old one is still there by its digest.
    let other = crate::harness::busybox::busybox_base_with(&env, &[("bin/other", "#!/bin/sh\n")]);
    copy(&format!("oci:{}", other.display()), &base);
    assert_eq!(run(env.phial(["build", repo.source(), "--to", &to])).ok(), first);
    let moved = run(env.phial(["build", repo.source(), "--rev", &unlocked, "--to", &to])).ok();
    assert_ne!(moved, first, "without a lock the tag is followed");
}

#[test]
fn settings_that_are_no_regular_file_are_an_error_and_are_not_read() {
    let env = TestEnv::new();
    let repo = env.shell_app();
    repo.write("apps/web/mix.exs", "defmodule Web.MixProject do\nend\n");
    repo.commit("An app in a directory");
    let web = repo.dir().join("apps/web");
    let texts = [("phial.toml", repo.dir()), ("mix.exs", &web)];
    for (name, from) in texts {
        for make in ["ln -s /dev/zero", "ln -s /etc/passwd", "ln -s nowhere", "mkfifo", "mkdir"] {
            let mut replace = Command::new("sh");
            replace.args(["-c", &format!("rm -rf {name}; {make} {name}")]).current_dir(repo.dir());
            run(replace).ok();
            let source = from.to_str().expect("UTF-8");
            let error = run(env.phial(["lock", source, "--base", "registry.invalid/base:1"])).failed(3);
            let expected = format!("cannot read `{name}` of the app: it is not a regular file");
            assert!(error.contains(&expected), "{make}: {error}");
        }
        repo.git(["checkout", "--force", "HEAD", "--", "."]);
    }
}

#[test]
fn what_stands_in_the_place_of_the_lock_is_replaced_and_not_followed() {
    let env = TestEnv::new();
    let repo = env.shell_app();
    let base = format!("oci:{}", busybox_base().display());
    std::fs::write(env.path("mine"), "mine").expect("a file");
    for make in ["ln -s ../mine", "ln -s ../nowhere", "ln -s /dev/zero", "mkfifo"] {
        let mut replace = Command::new("sh");
        replace.args(["-c", &format!("rm -f phial.lock; {make} phial.lock")]).current_dir(repo.dir());
        run(replace).ok();
        run(env.phial(["lock", repo.source(), "--base", &base])).ok();
        let path = repo.dir().join("phial.lock");
        assert!(path.symlink_metadata().expect("a lock").is_file(), "{make}");
        assert!(std::fs::read_to_string(path).expect("text").contains("\n[base]\n"), "{make}");
        assert_eq!(std::fs::read_to_string(env.path("mine")).expect("text"), "mine", "{make}");
        assert!(!env.dir().join("nowhere").exists());
    }
}
