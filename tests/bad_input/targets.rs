//! The targets of a build: refused, not writable, or unreachable. A tag names what it named before.

use std::fs;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use super::base_images::closed_port;
use super::settings::without_digest;
use super::{Scene, digest, good, in_namespace, listing, run, through};
use crate::harness::busybox::busybox_base;
use crate::harness::{Registry, through_program};
use crate::scripted::{self, Fault, Kind, PASSWORD, Quirks, When};

fn base() -> String {
    format!("oci:{}", busybox_base().display())
}

#[test]
fn a_target_that_cannot_be_written_is_refused_and_stays_as_it_is() {
    let scene = Scene::new();
    let output = |target: &str, code| scene.refused(code, scene.build_on(&base(), target, []));
    fs::write(scene.env.path("out"), "a file").unwrap();
    let out = scene.env.path("out");
    assert_snapshot!(output(&format!("oci:{out}"), 3), @r"
    error: `[DIR]/out` is not an OCI layout: it is not a directory
    hint: for an archive write `oci-archive:[DIR]/out`
    ");
    fs::remove_file(&out).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(scene.env.path("out/letter"), "not yours").unwrap();
    assert_snapshot!(output(&format!("oci:{out}"), 3), @r"
    error: `[DIR]/out` is not an OCI layout: it has no `oci-layout` file, but `letter`
    hint: name an empty or a new directory
    ");
    // The kernel's reason is not the same for root and for other users.
    for target in ["oci:/proc/phial/out", "oci-archive:/proc/phial.tar"] {
        let output = output(target, 6);
        assert!(output.starts_with("error: cannot create a file in `/proc`: "), "{output}");
    }
    assert_snapshot!(output("oci:", 2), @"error: cannot use `to`: `oci:` is not an image reference: the path is empty or holds a NUL");
}

#[test]
fn a_target_with_another_digest_is_refused_before_anything_is_sent() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let target = registry.reference(&format!("team/app@sha256:{}", "1".repeat(64)));
    let output = scene.refused(3, scene.build_on(&base(), &target, []));
    assert_snapshot!(without_digest(&output.replace(&registry.host(), "[HOST]")), @"error: `[HOST]/team/app` requires `sha256:1...`, built `sha256:[HEX]`");
    assert!(!registry.requests().iter().any(|request| !request.starts_with("GET")), "{:?}", registry.requests());
}

#[test]
fn a_full_target_has_no_image_and_nothing_of_one() {
    let scene = Scene::new();
    let script = r#"mkdir small && mount -t tmpfs -o mode=700,size=$SIZE none small && shift 0 && "$@"
        code=$?; ls -A small; exit $code"#;
    for size in ["300k", "1020k"] {
        let build = scene.build_on(&base(), &format!("oci:{}", scene.env.path("small/out")), []);
        let ran = run(in_namespace(&script.replace("$SIZE", size), &build));
        assert_eq!(ran.stdout, "", "what is left of it");
        let output = scene.error(ran, 6);
        assert!(
            output.contains("No space left on device")
                && output.ends_with("hint: free some space on this file system\n"),
            "{output}"
        );
        fs::remove_dir(scene.env.path("small")).unwrap();
    }
    scene.sound();
}

#[test]
fn a_target_that_is_read_only_is_refused() {
    let scene = Scene::new();
    let build = scene.build_on(&base(), &format!("oci:{}", scene.env.path("fixed/out")), []);
    let script = "mkdir fixed && mount -t tmpfs -o ro none fixed && exec \"$@\"";
    assert_snapshot!(scene.refused(6, in_namespace(script, &build)), @r"
    error: cannot create a file in `[DIR]/fixed`: Read-only file system (os error 30)
    hint: name a place on a file system that can be written
    ");
}

#[test]
fn a_layout_that_is_full_keeps_the_image_it_has() {
    let scene = Scene::with(|repo| repo.write("ballast", vec![b'x'; 100_000]));
    let to = format!("oci:{}", scene.env.path("small/out"));
    let script = r#"mkdir small && mount -t tmpfs -o mode=700,size=16m none small || exit 99
        sums() { find small/out -type f -exec sha256sum {} + | sort; }
        "$@" --rev "$GOOD" >output-good || exit 98
        sums >sums-before; cat /dev/zero >small/filler 2>/dev/null
        "$@"; code=$?; sums >sums-after; exit $code"#;
    let mut build = in_namespace(script, &scene.build_on(&base(), &to, []));
    build.env("GOOD", &scene.good);
    let output = scene.refused(6, build);
    assert!(output.contains("No space left on device"), "{output}");
    let sums = |name: &str| fs::read_to_string(scene.env.path(name)).unwrap();
    assert_eq!(sums("sums-after"), sums("sums-before"));
    assert_eq!(digest(sums("output-good").trim_end()), good());
}

#[test]
fn a_stdout_that_cannot_be_written_is_an_error_after_the_work() {
    let scene = Scene::new();
    let ran = run(through("exec \"$@\" >/dev/full", &scene.build([])));
    assert_snapshot!(scene.error(ran, 6), @r"
    error: cannot write the result to stdout: No space left on device (os error 28)
    hint: the work is done and cached: running the same command again is quick
    ");
    scene.sound();
}

#[test]
fn a_digest_file_that_cannot_be_written_is_an_error() {
    let scene = Scene::new();
    let ran = run(scene.build(["--digest-file", "/proc/phial/digest"]));
    assert_eq!(ran.stdout, "");
    assert_snapshot!(scene.error(ran, 6), @"error: cannot create `/proc/phial`: No such file or directory (os error 2)");
}

/// What a tag of the registry names, by the registry's own files.
fn tagged(registry: &Registry, repository: &str, tag: &str) -> Option<String> {
    let link = format!("docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link");
    fs::read_to_string(registry.store().join(link)).ok()
}

#[test]
fn a_push_without_a_login_is_refused_and_nothing_is_sent() {
    let (scene, registry) = (Scene::new(), Registry::with_htpasswd());
    let target = registry.reference("team/app:prod");
    let push = || scene.build_on(&base(), &target, []);
    let output = scene.refused(5, push()).replace(&registry.host(), "[HOST]");
    assert_snapshot!(output, @r"
    error: `[HOST]/team/app` refuses access
    hint: no credentials for `[HOST]` were found: log in with `docker login [HOST]`, or set `DOCKER_AUTH_CONFIG`; `phial doctor --registry [HOST]/team/app` shows where Phial looked
    ");

    log_in(&scene, &registry, "wrong horse");
    let output = scene.refused(5, push()).replace(&registry.host(), "[HOST]");
    assert_snapshot!(output, @r"
    error: `[HOST]/team/app` refuses access
    hint: the credentials for `[HOST]` may be wrong or expired, or lack rights on this repository; `phial doctor --registry [HOST]/team/app` shows which ones are used
    ");
    assert!(!output.contains("wrong horse"));
    assert_eq!(tagged(&registry, "team/app", "prod"), None);
    assert!(listing(&registry.store()).is_empty(), "the registry took something");

    log_in(&scene, &registry, Registry::PASSWORD);
    assert_eq!(digest(&run(push()).ok()), good());
    assert_eq!(tagged(&registry, "team/app", "prod").as_deref(), Some(good()));
}

#[test]
fn a_login_without_the_right_to_push_is_an_error_and_the_other_targets_are_complete() {
    let (scene, registry) = (Scene::new(), scripted::Registry::with_password(Quirks::none()));
    let config = scene.env.dir().join("home/.docker/config.json");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, registry.config().to_string()).unwrap();
    let secret = registry.config()["auths"][&registry.host]["auth"].as_str().unwrap().to_owned();
    let target = format!("{}/team/app:prod", registry.host);
    let layouts = [scene.out().display().to_string(), scene.env.path("after")].map(|path| format!("oci:{path}:prod"));
    let push = || scene.build_on(&base(), &layouts[0], ["--to", &target, "--to", &layouts[1]]);

    // As of one who may read: what is written is denied, at the first blob or at the tag alone.
    for kind in [Kind::PostUpload, Kind::PutTag] {
        registry.fail(kind, When::Always, Fault::Status(403));
        let ran = run(push());
        assert_eq!(ran.stdout, "");
        let output = scene.error(ran, 5).replace(&registry.host, "[HOST]");
        assert!(output.starts_with("error: `[HOST]/team/app` refuses access: "), "{kind:?}: {output}");
        assert!(output.contains("`phial doctor --registry [HOST]/team/app` shows which ones are used"), "{output}");
        assert!(!output.contains(&secret) && !output.contains(PASSWORD), "{output}");
        assert_eq!(registry.tag("team/app", "prod"), None, "{kind:?}");
        registry.heal();
        scene.tidy();
        let left = run(scene.env.phial(["run", &layouts[0], "--progress", "quiet"])).ok();
        assert_eq!(left, "prod of 1.0", "the target before it is whole");
        assert!(!Path::new(&scene.env.path("after")).exists(), "the one after it is not begun");
    }
    let mut doctor = scene.env.phial(["doctor", "--registry", &target]);
    doctor.env_remove("DOCKER_CONFIG");
    let ran = run(doctor);
    assert!(ran.stdout.contains(&config.display().to_string()), "{}{}", ran.stdout, ran.stderr);
    assert!(!ran.stdout.contains(&secret) && !ran.stdout.contains(PASSWORD), "{}", ran.stdout);

    assert_eq!(digest(&run(push()).ok()), good());
    assert_eq!(registry.tag("team/app", "prod").unwrap().to_string(), good());
}

fn log_in(scene: &Scene, registry: &Registry, password: &str) {
    let dir = PathBuf::from(scene.env.path("home/.docker"));
    fs::create_dir_all(&dir).unwrap();
    let auth = serde_json::json!({"auths": {registry.host(): {"username": Registry::USER, "password": password}}});
    fs::write(dir.join("config.json"), auth.to_string()).unwrap();
}

#[test]
fn a_registry_that_is_not_there_takes_nothing() {
    let (scene, host) = (Scene::new(), closed_port());
    let output = scene.refused(4, scene.build_on(&base(), &format!("{host}/team/app:prod"), []));
    assert_snapshot!(output.replace(&host, "[HOST]"), @r"
    error: cannot reach the registry for `HEAD http://[HOST]/v2/team/app/manifests/prod`: error sending request: client error (Connect): tcp connect error: Connection refused (os error 111)
    hint: check host and port; plain http is used for loopback and for hosts named with `--plain-http` only
    ");
}

#[test]
fn a_build_that_fails_moves_no_tag() {
    let (scene, registry) = (Scene::with_script("#!/bin/sh\nexit 1\n"), Registry::start());
    let target = registry.reference("team/app:prod");
    run(scene.build_on(&base(), &target, ["--rev", &scene.good])).ok();
    let layout = format!("oci:{}:prod", scene.out().display());
    run(scene.build_on(&base(), &layout, ["--rev", &scene.good])).ok();

    let output = scene.refused(1, scene.build_on(&base(), &target, ["--to", &layout]));
    assert_eq!(output, "error: the step `deps` failed with exit code 1\n");
    assert_eq!(tagged(&registry, "team/app", "prod").as_deref(), Some(good()));
    assert_eq!(digest(&run(scene.build_on(&base(), &layout, ["--rev", &scene.good])).ok()), good());
}

#[test]
fn an_archive_replaces_an_archive_of_its_kind_or_nothing() {
    let scene = Scene::new();
    let path = |name: &str| scene.env.path(name);
    let mut listed = tar::Builder::new(vec![]);
    listed.append_dir("home", "/proc").unwrap();
    let other_tar = listed.into_inner().unwrap();
    for (kind, word) in [("oci-archive", "an OCI archive"), ("docker-archive", "a Docker archive")] {
        let build = |target: &str| scene.build_on(&base(), &format!("{kind}:{target}"), []);
        for (nth, content) in [&b"export PATH\n"[..], b"\x7fELF", b"{}", &[0; 4096], &other_tar].iter().enumerate() {
            let target = path(&format!("{kind}-{nth}"));
            fs::write(&target, content).unwrap();
            let stderr = scene.refused(3, build(&target));
            assert!(stderr.contains(&format!("already exists and is not {word}: ")), "{stderr}");
            assert!(stderr.contains("hint: name another file, or move this one away: it was not touched"), "{stderr}");
            assert_eq!(fs::read(&target).unwrap(), *content);
            // Nor through a link, which would then be gone.
            let link = path(&format!("{kind}-link-{nth}"));
            std::os::unix::fs::symlink(&target, &link).unwrap();
            scene.refused(3, build(&link));
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(&target));
        }
        let dangling = path(&format!("{kind}-dangling"));
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        let fifo = path(&format!("{kind}-fifo"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        let dir = path(&format!("{kind}-dir"));
        fs::create_dir(&dir).unwrap();
        for target in [&dangling, &fifo, &dir] {
            let kind_before = fs::symlink_metadata(target).unwrap().file_type();
            let stderr = scene.refused(3, build(target));
            assert!(stderr.contains("already exists"), "{stderr}");
            assert_eq!(fs::symlink_metadata(target).unwrap().file_type(), kind_before);
        }
        // What `mktemp` leaves holds nothing, and an archive of the kind is ours to replace.
        let target = path(&format!("{kind}-good.tar"));
        fs::write(&target, "").unwrap();
        let first = run(build(&target)).ok();
        assert_eq!(run(build(&target)).ok(), first);
    }
    let (oci, docker) = (path("oci-archive-good.tar"), path("docker-archive-good.tar"));
    scene.refused(3, scene.build_on(&base(), &format!("oci-archive:{docker}"), []));
    scene.refused(3, scene.build_on(&base(), &format!("docker-archive:{oci}"), []));
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_anything_is_built() {
    let scene = Scene::with_script("#!/bin/sh\necho built >>out-of-a-step\n");
    let registry = Registry::start();
    fs::write(scene.env.path("file"), "a file").unwrap();
    fs::create_dir(scene.env.path("dir")).unwrap();
    let out = scene.env.path("out");
    for digest_file in ["dir", "file/x", "/proc/phial/digest"] {
        let mut command = scene.build_on(&base(), &registry.reference("team/app:v1"), ["--digest-file", digest_file]);
        command.args(["--to", &format!("oci:{out}")]);
        scene.refused(6, command);
    }
    for target in [
        "oci:/proc/phial/out",
        "oci:file/x",
        "oci-archive:/proc/x.tar",
        "docker-archive:file/x.tar",
        "oci-archive:file",
    ] {
        let mut command = scene.build_on(&base(), &registry.reference("team/app:v1"), ["--to", target]);
        command.args(["--no-cache"]);
        let ran = run(command);
        assert!(matches!(ran.code, Some(3 | 6)), "{target}: {:?} {}", ran.code, ran.stderr);
        assert!(ran.stdout.is_empty() && !ran.stderr.contains("deps"), "{target}: {}", ran.stderr);
    }
    let requests = registry.requests();
    assert!(requests.iter().all(|request| request.starts_with("GET")), "nothing was pushed: {requests:?}");
}

#[test]
fn a_link_of_the_checkout_leads_no_output_out_of_it() {
    let scene = Scene::with_script("#!/bin/sh\necho built >>out-of-a-step\n");
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("bashrc"), "mine").unwrap();
    let dir = scene.env.dir();
    std::os::unix::fs::symlink(home.path(), dir.join("dist")).unwrap();
    std::os::unix::fs::symlink(home.path().join("bashrc"), dir.join("digest")).unwrap();
    fs::create_dir(home.path().join("empty")).unwrap();
    std::os::unix::fs::symlink(home.path().join("empty"), dir.join("app.oci")).unwrap();
    let full = scene.env.path("digest");
    let digest_files = ["digest", "dist/digest", "./dist/../digest", &full].map(|file| ("oci:out".to_owned(), file));
    let targets = ["oci:app.oci", "oci:dist/new", "oci-archive:dist/app.tar", "docker-archive:dist/app.tar"];
    let targets = targets.map(str::to_owned).into_iter().chain([format!("oci:{}", scene.env.path("app.oci"))]);
    for (target, file) in digest_files.into_iter().chain(targets.map(|target| (target, "other"))) {
        let ran = run(scene.build_on(&base(), &target, ["--digest-file", file]));
        let stderr = ran.failed(3);
        assert!(stderr.contains("is a symbolic link, and none is followed"), "{target} {file}: {stderr}");
        assert!(stderr.contains("hint: remove the link, or name the place"), "{stderr}");
        assert!(!stderr.contains("deps"), "nothing is built: {stderr}");
    }
    let names: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(fs::read_to_string(home.path().join("bashrc")).unwrap(), "mine");

    // The links on the way of an absolute path that leads elsewhere are the caller's.
    let outer = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(home.path(), outer.path().join("home")).unwrap();
    let file = outer.path().join("home/bashrc");
    run(scene.build_on(&base(), "oci:out", ["--digest-file", file.to_str().unwrap()])).ok();
    assert!(fs::read_to_string(home.path().join("bashrc")).unwrap().starts_with("sha256:"));
}

#[test]
fn directories_of_outputs_are_made() {
    let scene = Scene::new();
    let archive = format!("oci-archive:{}", scene.env.path("deep/er/app.tar"));
    let build = scene.build_on(&base(), &archive, ["--digest-file", "outputs/x/digest"]);
    let line = run(build).ok();
    let written = fs::read_to_string(scene.env.path("outputs/x/digest")).unwrap();
    assert_eq!(written.trim_end(), digest(&line));
}

#[test]
fn a_digest_file_that_fails_in_the_end_leaves_the_digest_on_stdout_and_the_other_way_round() {
    let scene = Scene::new();
    let ran = run(scene.build(["--digest-file", "/dev/full"]));
    assert_eq!((ran.code, digest(ran.stdout.trim_end())), (Some(6), good()), "{}", ran.stderr);
    let ran = run(through("exec \"$@\" >/dev/full", &scene.build(["--digest-file", "digest"])));
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(scene.env.path("digest")).unwrap().trim_end(), good());
}

#[test]
fn a_reader_that_has_enough_ends_a_command_quietly() {
    let scene = Scene::new();
    for command in [scene.build([]), scene.env.phial(["cache", "ls"]), scene.env.phial(["cache", "ls", "--json"])] {
        // The reader is gone before anything is written.
        let script = "mkfifo wait; exec 3>&1
            { read x <wait; \"$@\" 3>&-; echo $? >&3; } | { exec <&-; echo go >wait; }";
        let ran = run(through(script, &command));
        fs::remove_file(scene.env.path("wait")).unwrap();
        assert_eq!((ran.stdout.trim_end(), ran.stderr.contains("error")), ("141", false), "{}", ran.stderr);
    }
}

/// What a commit can have in the place of the layout that `phial build` writes by default, in the clone.
#[test]
fn a_layout_with_links_is_refused_and_nothing_behind_them_is_read_or_written() {
    let replacements = [
        ("index.json", "ln -s /dev/zero $P"),
        ("index.json", "ln -s $C/keep $P"),
        ("index.json", "mkfifo $P"),
        ("oci-layout", "ln -s /dev/zero $P"),
        ("blobs", "ln -s $C $P"),
        ("blobs/sha256", "mkdir -p $(dirname $P); ln -s $C $P"),
        ("blobs/sha512", "mkdir -p $(dirname $P); ln -s $C $P"),
    ];
    for (name, commands) in replacements {
        let scene = Scene::new();
        let prepare = format!(
            "mkdir -p $C out; echo keep | tee $C/keep $C/.phial-mine; cd out; P={name}; \
             echo '{{\"imageLayoutVersion\":\"1.0.0\"}}' >oci-layout; rm -rf $P; {commands}"
        );
        let mut sh = std::process::Command::new("sh");
        sh.args(["-euc", &prepare]).current_dir(scene.env.dir()).env("C", scene.env.path("canary"));
        run(sh).ok();
        let target = format!("oci:{}", scene.env.path("out"));
        let build = through_program(&["timeout", "60"], &scene.build_on(&base(), &target, []));
        let error = scene.error(run(build), 3);
        assert!(error.contains("[DIR]/out"), "{name}: {commands}: {error}");
        let kept: Vec<_> = listing(&scene.env.dir().join("canary")).into_iter().map(|(path, _)| path).collect();
        assert_eq!(kept.len(), 2, "{name}: {commands}: {kept:?}");
    }
}
