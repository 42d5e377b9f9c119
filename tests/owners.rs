//! Owners that a step gives to files, in every isolation, with one user id and with a range: what the kernel allows is in the
//! layer, and what it refuses has a hint.

use std::fs;
use std::process::Command;

use crate::diff::handmade_images::{Entry, image, layer, plain, tar};
use crate::harness::busybox::busybox_base;
use crate::harness::prebuilt::elixir_base;
use crate::harness::skip::skip;
use crate::harness::{Repo, SUBIDS_USER, TestEnv, User, isolations, run, user_with_subids};
use crate::odd_layers::busybox;

/// What a step does, and owner and group of `app/made` after it.
const GIVEN: [(&str, &str); 9] = [
    ("echo x >made; busybox chown 33:34 made", "33/34"),
    ("echo x >made; busybox chown 33 made", "33/0"),
    ("echo x >made; busybox chgrp 34 made", "0/34"),
    ("mkdir made; busybox chgrp 34 made", "0/34"),
    ("mkdir made; busybox chown 65534:65534 made", "65534/65534"),
    ("busybox ln -s x made; busybox chown -h 33:34 made", "33/34"),
    ("busybox mkfifo made; busybox chown 33:34 made", "33/34"),
    ("mkdir dir; busybox chgrp 34 dir; chmod 2775 dir; echo x >dir/made; busybox mv dir/made made", "0/34"),
    ("busybox tar -xf owned.tar; [ \"$(busybox stat -c %u:%g made)\" = 33:34 ]", "33/34"),
];

fn app(env: &TestEnv, step: &str) -> Repo {
    let repo = env.shell_app();
    repo.script("script/prepare_code", &format!("#!/bin/sh\nset -eu\ncase \"$1\" in build) {step} ;; esac\n"));
    repo.write("made", "x");
    let mut pack = Command::new("tar");
    pack.args(["--owner=33", "--group=34", "--numeric-owner", "-cf", "owned.tar", "made", "--remove-files"]);
    pack.current_dir(repo.dir());
    run(pack).ok();
    repo.commit("Other owners");
    repo
}

fn with_ranges(repo: &Repo) {
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
    repo.write("phial.toml", format!("{settings}ranges = true\n"));
    repo.commit("A range of ids");
}

/// Owner and group of an entry in the topmost layer of an image that has it.
fn owner(layout: &str, path: &str) -> String {
    listed(layout, path).1
}

/// Type and mode of an entry in the topmost layer of an image that has it, as `ls` shows them, and owner and group.
fn listed(layout: &str, path: &str) -> (String, String) {
    let mut inspect = Command::new("skopeo");
    inspect.args(["inspect", "--format", "{{range .Layers}}{{.}} {{end}}", &format!("oci:{layout}")]);
    let layers = run(inspect).ok();
    let owners = layers.split_whitespace().rev().filter_map(|digest| {
        let blob = format!("{layout}/blobs/sha256/{}", digest.trim_start_matches("sha256:"));
        let mut list = Command::new("tar");
        list.args(["-tvzf", &blob, "--numeric-owner"]);
        let listed = run(list).ok();
        let name = |line: &str| line.split(" -> ").next().unwrap_or(line).trim_end_matches('/').to_owned();
        let line = listed.lines().find(|line| name(line).ends_with(&format!(" {path}")))?.to_owned();
        let mut fields = line.split_whitespace().map(str::to_owned);
        fields.next().zip(fields.next())
    });
    owners.into_iter().next().unwrap_or_else(|| panic!("no `{path}` in {layers}"))
}

#[test]
fn what_a_step_may_give_is_in_the_layer() {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip!("needs root: an ordinary user may have no range of ids");
    }
    for (step, expected) in GIVEN {
        let env = TestEnv::with_empty_cache();
        let repo = app(&env, step);
        with_ranges(&repo);
        let ann = User::new(user_with_subids(), &repo, &busybox_base());
        let base = format!("oci:{}", busybox_base().display());
        let mut digests = vec![];
        for isolation in ["overlay", "copy", "chroot"] {
            let args = ["--no-cache", "--isolation", isolation];
            let (to, out) = (format!("oci:{}", env.path(isolation)), env.path(isolation));
            let build = [&["build", repo.source(), "--base", &base, "--to", &to], &args[..]].concat();
            digests.push(run(env.phial(build)).ok());
            assert_eq!(owner(&out, "app/made"), expected, "{isolation} as root: {step}");
            if isolation == "chroot" {
                continue;
            }
            let to = format!("oci:{isolation}");
            let ran = run(ann.phial(&[&["build", "app", "--base", "oci:base", "--to", &to], &args[..]].concat()));
            assert!(!ran.stderr.contains("one id is mapped"), "{SUBIDS_USER} has a range: {}", ran.stderr);
            digests.push(ran.ok());
            assert_eq!(owner(&ann.path(isolation), "app/made"), expected, "{isolation} as {SUBIDS_USER}: {step}");
        }
        let digest = |line: &String| line.trim().rsplit('@').next().map(str::to_owned);
        assert!(digests.iter().all(|line| digest(line) == digest(&digests[0])), "{step}: {digests:?}");
    }
}

#[test]
fn what_one_id_cannot_give_fails_with_a_hint() {
    for (step, _) in GIVEN {
        let env = TestEnv::with_empty_cache();
        let repo = app(&env, step);
        let base = format!("oci:{}", busybox_base().display());
        for isolation in ["overlay", "copy"] {
            let to = format!("oci:{}", env.path("out"));
            let args = ["build", repo.source(), "--base", &base, "--to", &to, "--isolation", isolation];
            let stderr = run(env.phial(args)).failed(1);
            let has_hint = stderr.contains("hint: ") && stderr.contains("`prepare.ranges = true`");
            // tar of busybox does not look at the error, so the step does.
            assert!(has_hint || step.contains("tar"), "{isolation}: {step}: {stderr}");
        }
    }
}

#[test]
fn what_the_tools_of_a_real_base_say_has_a_hint() {
    let env = TestEnv::with_elixir_base_in_cache();
    for step in [
        "echo x >made; install -o nobody made other",
        "echo x >made; install -g nogroup made other",
        "echo x >made; chgrp nogroup made",
        "echo x >made; chown www-data: made",
        "tar -xf owned.tar",
        "mkdir made; elixir -e 'File.chown!(\"made\", 33)'",
        "mkdir made; elixir -e 'File.chgrp!(\"made\", 33)'",
        "chroot --userspec=nobody / true",
        "setpriv --reuid 33 true",
        "perl -e 'chown(33, 34, \"owned.tar\") or die \"chown: $!\"'",
    ] {
        let repo = app(&env, step);
        let (base, to) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
        let stderr = run(env.phial(["build", repo.source(), "--base", &base, "--to", &to])).failed(1);
        assert!(stderr.contains("hint: ") && stderr.contains("`prepare.ranges = true`"), "{step}: {stderr}");
        if rustix::process::geteuid().is_root() {
            with_ranges(&repo);
            run(env.phial(["build", repo.source(), "--base", &base, "--to", &to])).ok();
        }
        fs::remove_dir_all(repo.dir()).expect("the app");
    }
}

#[test]
fn a_chroot_gives_owners_also_in_a_container_that_forbids_mounts_and_names_the_right_that_it_lacks() {
    if !rustix::process::geteuid().is_root() {
        skip!("needs root");
    }
    let (step, expected) = GIVEN[2];
    let env = TestEnv::with_empty_cache();
    let repo = app(&env, step);
    let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    for lost in ["-sys_admin,-mknod", "-sys_admin,-mknod,-chown"] {
        let mut build = Command::new("setpriv");
        build.args([
            "--bounding-set",
            lost,
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "inject=unshare:error=EPERM",
        ]);
        build.args([env!("CARGO_BIN_EXE_phial"), "build", repo.source(), "--base", &base, "--to", &to]);
        build.args(["--isolation", "chroot"]).env("PHIAL_CACHE_DIR", env.cache()).env("HOME", env.dir().join("home"));
        let ran = run(build);
        if lost.ends_with("-chown") {
            let stderr = ran.failed(1);
            assert!(stderr.contains("hint: ") && stderr.contains("`CAP_CHOWN`"), "{stderr}");
        } else {
            ran.ok();
            assert_eq!(owner(&env.path("out"), "app/made"), expected);
            fs::remove_dir_all(env.cache()).expect("the cache");
        }
    }
}

#[test]
fn the_group_of_the_caches_directory_is_in_no_layer() {
    if !rustix::process::geteuid().is_root() {
        skip!("needs root, to have a directory of another group");
    }
    let env = TestEnv::with_empty_cache();
    let repo = app(&env, "echo x >made; busybox chgrp 4321 made || :; mkdir dir; echo x >dir/file");
    let mut make = Command::new("sh");
    make.args(["-c", "mkdir \"$0\" && chgrp 4321 \"$0\" && chmod 2755 \"$0\""]).arg(env.cache());
    run(make).ok();
    let base = format!("oci:{}", busybox_base().display());
    for (isolation, given) in [("overlay", "0/0"), ("copy", "0/0"), ("chroot", "0/4321")] {
        let to = format!("oci:{}", env.path(isolation));
        let args = ["build", repo.source(), "--base", &base, "--to", &to, "--no-cache", "--isolation", isolation];
        run(env.phial(args)).ok();
        assert_eq!(owner(&env.path(isolation), "app/made"), given, "{isolation}");
        assert_eq!(owner(&env.path(isolation), "app/dir/file"), "0/0", "{isolation}");
    }
}

/// What a step does to `data` of a base, which is 5:6 there, and owner and group after it. A step sees root as the owner of all.
const CHANGED: [(&str, &str); 5] = [
    ("echo more >>/data", "5/6"),
    ("rm /data; echo new >/data", "5/6"),
    ("busybox chown 33 /data", "33/6"),
    ("busybox chgrp 34 /data", "5/34"),
    ("busybox chown 33:34 /data", "33/34"),
];

#[test]
fn what_a_step_leaves_to_root_keeps_the_owner_that_it_has_in_the_base() {
    if !rustix::process::geteuid().is_root() {
        skip!("needs root: an ordinary user may have no range of ids");
    }
    let env = TestEnv::with_empty_cache();
    let data = Entry::file("data", "old\n").owner(5, 6);
    let base = image(&env, "base", &[busybox(), layer("data", &tar(&[data]))], &plain());
    for (step, expected) in CHANGED {
        let repo = app(&env, step);
        with_ranges(&repo);
        for isolation in ["overlay", "copy", "chroot"] {
            let to = format!("oci:{}", env.path("out"));
            let args = ["build", repo.source(), "--base", &base, "--to", &to, "--no-cache", "--isolation", isolation];
            run(env.phial(args)).ok();
            assert_eq!(owner(&env.path("out"), "data"), expected, "{isolation}: {step}");
            fs::remove_dir_all(env.path("out")).expect("the image");
        }
        fs::remove_dir_all(repo.dir()).expect("the app");
    }
}

/// Gives a file an ACL by which user 0 may write it and its group may not even read it.
const SET_ACL: &str = r#"
#include <stdio.h>
#include <sys/xattr.h>
int main(int count, char **names) {
    const unsigned char acl[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 0, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255,
                                 16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255};
    if (setxattr(names[1], "system.posix_acl_access", acl, sizeof acl, 0) == 0) return 0;
    perror(names[1]);
    return 1;
}
"#;

#[test]
fn an_acl_is_not_in_the_image_and_what_its_mask_says_is_not_the_groups() {
    let env = TestEnv::with_empty_cache();
    fs::write(env.path("acl.c"), SET_ACL).expect("a program's source");
    let repo = app(
        &env,
        "umask 077; mkdir /srv; echo k >/srv/key; echo k >/srv/other; ./acl /srv/key; ./acl /srv/other; [ \"$(busybox stat -c %a /srv/key)\" = 660 ]",
    );
    let mut compile = Command::new("cc");
    compile.args(["-static", "-o"]).arg(repo.dir().join("acl")).arg(env.path("acl.c"));
    run(compile).ok();
    repo.commit("A program that sets an ACL");
    let base = format!("oci:{}", busybox_base().display());
    for way in isolations() {
        let to = format!("oci:{}", env.path(way));
        let build =
            run(env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--no-cache", "--isolation", way]));
        let notice = "note: the access control list of `srv/key` and of 1 more is not in the image";
        assert!(build.stderr.contains(notice), "{way}: {}", build.stderr);
        build.ok();
        assert_eq!(listed(&env.path(way), "srv/key").0, "-rw-------", "{way}");
    }
}
