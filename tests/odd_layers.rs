//! Images whose layers are unusual run and can be built on, in every isolation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use phial::image::ImageOptions;

use crate::diff::handmade_images::{Entry, Layer, image, layer, plain, tar};
use crate::harness::busybox::busybox_base;
use crate::harness::{Repo, TestEnv, isolations, run};

/// A layer with busybox and its names.
pub(crate) fn busybox() -> Layer {
    busybox_base();
    let program = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok()).expect("busybox");
    let mut entries = vec![Entry::dir("bin/"), Entry::file("bin/busybox", program).mode(0o755)];
    entries
        .extend(["sh", "cat", "ls", "mkdir", "echo", "env"].map(|name| Entry::link(&format!("bin/{name}"), "busybox")));
    layer("busybox", &tar(&entries))
}

fn files(entries: &[(&str, &str)]) -> Layer {
    let entries: Vec<Entry> = entries.iter().map(|(name, text)| Entry::file(name, text)).collect();
    layer("files", &tar(&[vec![Entry::dir("data/")], entries].concat()))
}

/// Runs a command in an image, and in an app's image that is built on it: both in every isolation, with one result.
#[track_caller]
fn shows(env: &TestEnv, name: &str, layers: &[Layer], expected: &str) {
    let base = image(env, name, layers, &plain());
    let repo = Repo::at(&env.dir().join(format!("{name}-app")));
    fs::create_dir(repo.dir()).expect("a directory");
    repo.git(["init", "-q", "-b", "main"]);
    repo.write("phial.toml", "[image]\nenvs = [\"prod\"]\n[prepare]\nscript = \"code\"\n");
    repo.script("code", "#!/bin/sh\ncd /data && ls >/app/$1-list && cat * >/app/$1-text\n");
    repo.commit("The first commit");
    for isolation in isolations() {
        let with = ["--isolation", isolation, "--progress", "quiet"];
        let show = ["--", "sh", "-c", "cd /data; ls; cat *"];
        let output = run(with_args(env.phial(["run", &base]), &[&with[..], &show[..]].concat())).ok();
        assert_eq!(output, expected, "{name} {isolation}");
        let out = format!("oci:{}", env.path(&format!("{name}-{isolation}")));
        let build = ["build", repo.source(), "--base", &base, "--to", &out, "--no-cache", "--isolation", isolation];
        run(env.phial(build)).ok();
        let show = ["--", "sh", "-c", "cat build-list build-text; cd /data; ls; cat *"];
        let output = run(with_args(env.phial(["run", &out]), &[&with[..], &show[..]].concat())).ok();
        assert_eq!(output, format!("{expected}\n{expected}"), "{name} {isolation}");
    }
}

#[test]
fn a_layer_that_occurs_twice_counts_where_it_is_topmost() {
    let env = TestEnv::with_empty_cache();
    let (a, empty) = (files(&[("data/a", "1\n")]), layer("empty", &tar(&[])));
    let (without, other) = (files(&[("data/.wh.a", ""), ("data/b", "2\n")]), files(&[("data/a", "3\n")]));
    let all = |layers: &[&Layer]| layers.iter().map(|layer| (*layer).clone()).collect::<Vec<_>>();
    let busybox = busybox();
    shows(&env, "twice", &all(&[&busybox, &a, &empty, &a, &empty, &empty]), "a\n1");
    shows(&env, "back", &all(&[&busybox, &a, &without, &a]), "a\nb\n1\n2");
    shows(&env, "gone", &all(&[&busybox, &a, &without, &other, &without]), "b\n2");
    let replaced = layer("file", &tar(&[Entry::file("data", "no directory")]));
    shows(&env, "replaced", &all(&[&busybox, &other, &a, &replaced, &a, &busybox]), "a\n1");
}

#[test]
fn more_layers_than_an_overlay_has_are_one_image() {
    let env = TestEnv::with_empty_cache();
    let mut layers = vec![busybox(), files(&[("data/deleted", "x"), ("data/kept", "kept\n"), ("data/low", "low\n")])];
    layers.push(files(&[("data/.wh.deleted", "")]));
    layers.extend((0..600).map(|number| files(&[("data/number", &format!("{number}\n"))])));
    shows(&env, "many", &layers, "kept\nlow\nnumber\nkept\nlow\n599");
}

#[test]
fn an_image_without_layers_is_built_on() {
    let env = TestEnv::with_empty_cache();
    let base = image(&env, "none", &[], &plain());
    let repo = Repo::at(&env.dir().join("app"));
    fs::create_dir(repo.dir()).expect("a directory");
    repo.git(["init", "-q", "-b", "main"]);
    let program = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok()).expect("busybox");
    repo.write("phial.toml", "[image]\nenvs = [\"prod\"]\n[prepare]\nscript = \"code\"\ninputs = [\"busybox\"]\n");
    repo.write("busybox", program);
    repo.script("code", "#!/app/busybox sh\necho $1 >$1\n");
    fs::set_permissions(repo.dir().join("busybox"), fs::Permissions::from_mode(0o755)).expect("its mode");
    repo.commit("The first commit");
    for isolation in isolations() {
        let missing = run(env.phial(["run", &base, "--isolation", isolation, "--", "sh"])).failed(3);
        assert!(missing.contains("`sh`"), "{missing}");
        let out = format!("oci:{}", env.path(isolation));
        run(env.phial(["build", repo.source(), "--base", &base, "--to", &out, "--isolation", isolation, "--no-cache"]))
            .ok();
        let shown =
            run(env.phial(["run", &out, "--isolation", isolation, "--", "/app/busybox", "cat", "deps", "build"]));
        assert_eq!(shown.ok(), "deps\nbuild");
    }
}

/// overlayfs's own attributes mean nothing in a layer: kept, they would be obeyed by `overlay` alone.
#[test]
fn attributes_of_overlayfs_in_a_layer_hide_nothing() {
    let env = TestEnv::with_empty_cache();
    let low = files(&[("data/a", "1\n"), ("data/b", "2\n")]);
    let opaque = [Entry::dir("data/").xattr("user.overlay.opaque", "y"), Entry::file("data/c", "3\n")];
    let whiteout = [Entry::dir("data/"), Entry::file("data/b", "4\n").xattr("user.overlay.whiteout", "y")];
    shows(&env, "opaque", &[busybox(), low.clone(), layer("opaque", &tar(&opaque))], "a\nb\nc\n1\n2\n3");
    shows(&env, "whiteout", &[busybox(), low, layer("whiteout", &tar(&whiteout))], "a\nb\n1\n4");
}

fn with_args(mut command: std::process::Command, args: &[&str]) -> std::process::Command {
    command.args(args);
    command
}

/// Runs a command in the busybox base with more entries on top; its stderr.
#[track_caller]
fn refused(env: &TestEnv, name: &str, entries: &[Entry], options: &ImageOptions) {
    let base = image(env, name, &[busybox(), layer("odd", &tar(entries))], options);
    for isolation in isolations() {
        let ran = run(env.phial(["run", &base, "--isolation", isolation, "--", "sh", "-c", "true"]));
        assert!(matches!(ran.code, Some(0 | 3)), "{name} {isolation}: {ran:?}");
        assert!(isolation == "chroot" || ran.code == Some(3), "{name} {isolation}: {ran:?}");
    }
}

#[test]
fn an_image_whose_paths_lead_nowhere_is_at_fault_itself() {
    let env = TestEnv::with_empty_cache();
    let etc = Entry::dir("etc/");
    refused(&env, "tmp", &[Entry::link("tmp", "tmp")], &plain());
    refused(&env, "run", &[Entry::link("run", "other"), Entry::link("other", "run")], &plain());
    refused(&env, "resolv", &[etc.clone(), Entry::link("etc/resolv.conf", "resolv.conf")], &plain());
    refused(&env, "hosts", &[etc, Entry::dir("etc/hosts/")], &plain());
    refused(&env, "etc", &[Entry::file("etc", "")], &plain());
    for dir in ["/file", "/file/below", "/gone", "/loop"] {
        let entries = [Entry::file("file", ""), Entry::link("loop", "loop")];
        let options = ImageOptions { working_dir: Some(dir.into()), ..plain() };
        refused(&env, &format!("cwd-{}", dir.replace('/', "-")), &entries, &options);
    }
}

#[test]
fn a_limit_of_file_sizes_is_reported() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let base = format!("oci:{}", busybox_base().display());
    let limited = |limit: u32| {
        let build = env.phial(["build", repo.source(), "--base", &base, "--to", "oci:out"]);
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &format!("ulimit -f {limit}; exec \"$@\""), "sh"])
            .arg(build.get_program())
            .args(build.get_args());
        shell
            .env_clear()
            .envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(env.dir());
        run(shell)
    };
    let stderr = limited(1).failed(6);
    assert!(stderr.contains("error: ") && stderr.contains("`ulimit -f`"), "{stderr}");
    repo.script("script/prepare_code", "#!/bin/sh\nexec dd if=/dev/zero of=/app/large bs=1M count=30\n");
    repo.commit("A large file");
    let stderr = limited(20_000).failed(1);
    assert!(stderr.contains("`ulimit -f`"), "{stderr}");
}

#[test]
fn what_a_step_writes_below_a_link_of_the_base_is_where_the_link_leads() {
    let env = TestEnv::with_empty_cache();
    let merged = [
        Entry::dir("usr/"),
        Entry::dir("usr/lib/"),
        Entry::file("usr/lib/old", "old\n"),
        Entry::link("lib", "usr/lib"),
    ];
    let base = image(&env, "merged", &[busybox(), layer("merged", &tar(&merged))], &plain());
    let repo = env.shell_app();
    let script = "#!/bin/sh\nset -eu\ncase $1 in\n\
        deps) mkdir -p /lib/new; echo deps >/lib/new/file; busybox rm /lib/old ;;\n\
        build) echo build >>/lib/new/file; echo late >/lib/late ;;\nesac\n";
    repo.script("script/prepare_code", script);
    repo.commit("Below a link");
    let mut digests = vec![];
    for isolation in isolations() {
        let out = format!("oci:{}", env.path(isolation));
        let build = ["build", repo.source(), "--base", &base, "--to", &out, "--isolation", isolation, "--no-cache"];
        let line = run(env.phial(build)).ok();
        digests.push(line.rsplit_once('@').expect("a digest").1.to_owned());
        let show = "busybox readlink /lib; ls /usr/lib; cat /usr/lib/new/file";
        let shown = run(env.phial(["run", &out, "--isolation", isolation, "--", "sh", "-c", show])).ok();
        assert_eq!(shown, "usr/lib\nlate\nnew\ndeps\nbuild", "{isolation}");
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}
