//! Images and settings that nothing can be started with: an error of who made them, and never one of Phial.

use std::fs;
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha512};

use super::{Scene, run};
use crate::harness::busybox::busybox_base;
use crate::harness::edit_image::{edit, edit_config};
use crate::harness::user::copy;

/// The base in the layout `name`, with another config.
fn changed_base(scene: &Scene, name: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
    let dir = scene.env.dir().join(name);
    let _ = fs::remove_dir_all(&dir);
    copy(&busybox_base(), &dir);
    edit_config(&dir, change);
    format!("oci:{}", dir.display())
}

#[test]
fn an_image_that_cannot_be_started_is_refused_by_name() {
    let scene = Scene::new();
    for (field, value, code, text) in [
        ("Cmd", json!([""]), 2, "the image has no command"),
        ("Cmd", json!(["cat", "a\0b"]), 3, "has a NUL"),
        ("Entrypoint", json!(["a\0b"]), 3, "has a NUL"),
        ("Entrypoint", json!([""]), 2, "the image has no command"),
        ("WorkingDir", json!("/a\0b"), 3, "has a NUL"),
        ("Env", json!(["A=b\0c"]), 3, "its value has a NUL"),
        ("Env", json!(["A\nB=c"]), 3, "its name has a NUL or a line break"),
        ("Env", json!(["=c"]), 3, "it has no name"),
    ] {
        let image = changed_base(&scene, "image", |config| config["config"][field] = value.clone());
        let stderr = run(scene.env.phial(["run", &image])).failed(code);
        assert!(stderr.contains(text), "{field} {value}: {stderr}");
    }
    let base = format!("oci:{}", busybox_base().display());
    for (args, code) in [(&["--workdir", "x"][..], 2), (&["--env", "=x"], 2), (&["--env", "A\nB=x"], 2)] {
        run(scene.env.phial([&["run", &base], args, &["--", "true"]].concat())).failed(code);
    }
    run(scene.env.phial(["run", &base, "--", ""])).failed(2);
}

#[test]
fn settings_that_nothing_can_be_started_with_are_refused_by_key() {
    for (settings, key) in [
        ("[image]\ncmd = [\"\"]\n", "image.cmd"),
        ("[image]\ncmd = [\"a\\u0000b\"]\n", "image.cmd"),
        ("[image]\nentrypoint = [\"\"]\n", "image.entrypoint"),
        ("[image]\nenv = { \"A=B\" = \"x\" }\n", "image.env"),
        ("[image]\nenv = { \"A\\nB\" = \"x\" }\n", "image.env"),
        ("[image]\nenv = { \"\" = \"x\" }\n", "image.env"),
        ("[image]\nenv = { A = \"x\\u0000\" }\n", "image.env.A"),
        ("[image]\nuser = \"0\\n1\"\n", "image.user"),
        ("[prepare]\nenv = { A = \"x\\u0000\" }\n", "prepare.env.A"),
        ("[prepare]\ninputs = [\"a\\u0000b\"]\n", "prepare.inputs"),
        ("[prepare]\nscript = \"a\\u0000b\"\n", "prepare.script"),
    ] {
        let scene = Scene::with(|repo| repo.write("phial.toml", settings));
        let stderr = scene.refused(2, scene.build([]));
        assert!(stderr.contains(&format!("`{key}` is ")), "{settings}: {stderr}");
    }
    let scene = Scene::new();
    let base = format!("oci:{}", busybox_base().display());
    for (settings, key) in [
        ("[test]\ncommand = [\"\"]\n", "test.command"),
        ("[test]\ncommand = \"a\\u0000\"\n", "test.command"),
        ("[test]\ncommand = \"true\"\nenv = { A = \"\\u0000\" }\n", "test.env.A"),
        (
            "[test]\ncommand = \"true\"\n[test.services.db]\nimage = \"oci:x\"\nenv = { A = \"\\u0000\" }\n",
            "test.services.db.env.A",
        ),
        (
            "[test]\ncommand = \"true\"\n[test.services.db]\nimage = \"oci:x\"\ntmpfs = [\"/a\\u0000\"]\n",
            "test.services.db.tmpfs",
        ),
    ] {
        fs::write(scene.env.path("test.toml"), settings).unwrap();
        let stderr = run(scene.env.phial(["test", &base, "--config", "test.toml"])).failed(2);
        assert!(stderr.contains(&format!("`{key}` is ")), "{settings}: {stderr}");
    }
}

#[test]
fn a_variable_of_several_lines_is_what_every_command_reads_again() {
    let key = "-----BEGIN KEY-----\nMII\n\ttab=\n-----END KEY-----\n";
    let scene = Scene::with(|repo| {
        let settings = fs::read_to_string(repo.dir().join("phial.toml")).unwrap();
        let env = format!("[image]\nenv = {{ KEY = {} }}\n", serde_json::to_string(key).unwrap());
        let steps = format!("[prepare]\nenv = {{ STEP_KEY = {} }}\n", serde_json::to_string(key).unwrap());
        let settings =
            settings.replace("[image]\n", &env).replace("[prepare]\n", &steps) + "[test]\ncommand = \"true\"\n";
        repo.write(
            "phial.toml",
            settings.replace("cmd = [\"cat\", \"out/prod/app\"]", "cmd = [\"sh\", \"-c\", \"printf %s \\\"$KEY\\\"\"]"),
        );
    });
    run(scene.build([])).ok();
    let image = format!("oci:{}", scene.out().display());
    let base = format!("oci:{}", busybox_base().display());
    assert_eq!(run(scene.env.phial(["run", &image])).stdout, key);
    run(scene.env.phial(["test", &image])).ok();
    run(scene.env.phial(["diff", &image, &image])).ok();
    run(scene.env.phial(["verify", &image, "--source", scene.repo.source(), "--base", &base])).ok();
    // As a base image, too.
    let base = changed_base(&scene, "base", |config| config["config"]["Env"] = json!([format!("KEY={key}")]));
    run(scene.build_on(&base, &format!("oci:{}", scene.env.path("second")), [])).ok();
}

#[test]
fn an_image_for_another_processor_is_neither_run_nor_built_on() {
    let scene = Scene::new();
    let base = changed_base(&scene, "s390x", |config| config["architecture"] = "s390x".into());
    let build = scene.build_on(&base, &format!("oci:{}", scene.out().display()), []);
    fs::write(scene.env.path("test.toml"), "[test]\ncommand = \"true\"\n").unwrap();
    for command in [
        build,
        scene.env.phial(["run", &base, "--", "true"]),
        scene.env.phial(["test", &base, "--config", "test.toml"]),
    ] {
        let stderr = run(command).failed(3);
        assert!(stderr.contains("the image is for `linux/s390x`, and this machine is `linux/"), "{stderr}");
        assert!(stderr.contains("hint: name an image for `linux/"), "{stderr}");
    }
    // What starts nothing in it reads it.
    run(scene.env.phial(["diff", &base, &base])).ok();
}

#[test]
fn onbuild_of_a_base_image_is_reported() {
    let scene = Scene::new();
    let onbuild = json!(["RUN mix deps.get", "COPY . /app"]);
    let base = changed_base(&scene, "onbuild", |config| config["config"]["OnBuild"] = onbuild.clone());
    let mut build = scene.env.phial(["build", scene.repo.source(), "--base", &base, "--progress", "plain"]);
    build.args(["--to", &format!("oci:{}", scene.out().display())]);
    let ran = run(build);
    let notice = "note: the base image's ONBUILD instructions are not run, and stay in the image's config: `RUN mix deps.get`, `COPY . /app`";
    assert!(ran.stderr.contains(notice), "{}", ran.stderr);
    ran.ok();
    assert!(!run(scene.build(["--progress", "plain"])).stderr.contains("ONBUILD"));
}

#[test]
fn layers_that_are_named_by_sha512_are_read() {
    let scene = Scene::new();
    let dir = scene.env.dir().join("long");
    copy(&busybox_base(), &dir);
    edit(&dir, |_, manifest| {
        let layer = &mut manifest["layers"][0]["digest"];
        let old = dir.join("blobs").join(layer.as_str().unwrap().replace(':', "/"));
        let bytes = fs::read(&old).unwrap();
        let hex = Sha512::digest(&bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        fs::create_dir_all(dir.join("blobs/sha512")).unwrap();
        fs::rename(old, dir.join("blobs/sha512").join(&hex)).unwrap();
        *layer = format!("sha512:{hex}").into();
    });
    let base = format!("oci:{}", dir.display());
    assert_eq!(run(scene.env.phial(["run", &base, "--", "echo", "x"])).ok(), "x");
    let to = format!("oci:{}", scene.out().display());
    run(scene.build_on(&base, &to, [])).ok();
    assert!(run(scene.env.phial(["run", &to])).ok().contains("prod of 1.0"));
    run(scene.env.phial(["diff", &base, &to])).failed(1);
    assert!(Path::new(&scene.out()).join("blobs/sha512").is_dir());
    // A diff ID of sha512 names a tree that none is named by.
    edit_config(&dir, |config| config["rootfs"]["diff_ids"][0] = format!("sha512:{}", "ab".repeat(64)).into());
    let stderr = run(scene.env.phial(["run", &base, "--", "true"])).failed(3);
    assert!(stderr.contains("has a diff ID of `sha512`") && stderr.contains("hint: "), "{stderr}");
}
