//! `phial verify`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::edited_image::Forged;
use crate::build_matrix::apps::stress;
use crate::harness::busybox::busybox_base;
use crate::harness::prebuilt::elixir_base;
use crate::harness::user::copy;
use crate::harness::{Output, Repo, TestEnv, User, run};

/// The small app's image, and where it is.
fn built() -> (TestEnv, Repo, String) {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let to = format!("oci:{}", env.path("out"));
    let from = format!("oci:{}", busybox_base().display());
    run(env.phial(["build", repo.source(), "--base", &from, "--to", &to])).ok();
    (env, repo, to)
}

fn verify(env: &TestEnv, image: &str, more: &[&str]) -> Output {
    run(env.phial([&["verify", image, "--progress", "quiet"], more].concat()))
}

fn verify_small(env: &TestEnv, repo: &Repo, image: &str, more: &[&str]) -> Output {
    let from = format!("oci:{}", busybox_base().display());
    verify(env, image, &[&["--source", repo.source(), "--base", &from], more].concat())
}

#[test]
fn an_image_is_rebuilt_by_another_user_in_another_place() {
    let (env, repo, _) = built();
    let root = rustix::process::geteuid().is_root();
    let user = User::new(if root { 4321 } else { rustix::process::getuid().as_raw() }, &repo, &busybox_base());
    copy(&env.dir().join("out"), Path::new(&user.path("image")));
    let output = run(user.phial(&["verify", "oci:image", "--source", "app", "--base", "oci:base"])).ok();
    assert!(output.starts_with("sha256:") && output.contains(" is reproducible from commit "), "{output}");
    assert_eq!(output.lines().count(), 1, "{output}");
}

#[test]
fn an_elixir_image_is_rebuilt_from_an_empty_cache() {
    let env = TestEnv::new();
    let repo = stress(&env, 8);
    let (from, to) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
    run(env.phial(["build", repo.source(), "--base", &from, "--to", &to, "--env", "prod"])).ok();
    let other = TestEnv::with_empty_cache();
    let output = verify(&other, &to, &["--source", repo.source(), "--base", &from]).ok();
    assert!(output.contains(&repo.git(["rev-parse", "HEAD"])), "{output}");
}

#[test]
fn a_byte_changed_by_hand_is_found_and_its_file_named() {
    let (env, repo, image) = built();
    let mut forged = Forged::open(&env.dir().join("out"));
    let last = forged.manifest["layers"].as_array().unwrap().len() - 1;
    forged.change(last, |tar| {
        let at = tar.windows(11).position(|window| window == b"prod of 1.0").expect("the built file");
        tar[at] = b'P';
    });
    forged.write();
    let output = verify_small(&env, &repo, &image, &[]).failed(8);
    assert!(output.contains("layer `build prod`: `app/out/prod/app`: "), "{output}");
    let ran = verify_small(&env, &repo, &image, &["--json"]);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &json["equal"]), (Some(8), &Value::Bool(false)));
    assert!(json["comparison"].to_string().contains("out/prod/app"), "{json}");
}

#[test]
fn a_layer_that_is_damaged_or_cut_short_is_named() {
    for damage in [|bytes: &mut Vec<u8>| bytes.truncate(40), |bytes: &mut Vec<u8>| bytes[40] ^= 1] {
        let (env, repo, image) = built();
        let path = Forged::open(&env.dir().join("out")).layer(1);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let output = verify_small(&env, &repo, &image, &[]).failed(3);
        assert!(output.contains(&path.file_name().unwrap().display().to_string()), "{output}");
    }
}

#[test]
fn an_image_of_somebody_else_is_refused() {
    let env = TestEnv::with_empty_cache();
    let output = verify(&env, &format!("oci:{}", busybox_base().display()), &[]).failed(3);
    assert!(output.contains("has no record of how it was made\nhint: only images that `phial build` made"), "{output}");
}

#[test]
fn a_format_that_is_not_ours_is_refused_with_the_way_out() {
    for (format, way_out) in [("99", "newer"), ("1", "older")] {
        let (env, repo, image) = built();
        let mut forged = Forged::open(&env.dir().join("out"));
        let label = &mut forged.config["config"]["Labels"]["dev.phial.record"];
        let mut record: Value = serde_json::from_str(label.as_str().unwrap()).unwrap();
        record["format"] = format.parse::<u32>().unwrap().into();
        *label = record.to_string().into();
        forged.write();
        let output = verify_small(&env, &repo, &image, &[]).failed(3);
        assert!(output.contains(&format!("has format {format}, and this Phial makes format")), "{output}");
        assert!(output.contains(&format!("use the {way_out} Phial")), "{output}");
    }
}

#[test]
fn a_source_or_base_that_is_not_recorded_or_gone_is_named_with_the_flag() {
    let (env, repo, image) = built();
    let from = format!("oci:{}", busybox_base().display());
    let output = verify(&env, &image, &["--base", &from]).failed(2);
    assert!(output.contains("does not record where its repository is\nhint: name it with `--source`"), "{output}");
    let output = verify(&env, &image, &["--source", repo.source()]).failed(2);
    assert!(output.contains("does not record where its base image is\nhint: name it with `--base`"), "{output}");
    let gone = env.path("gone");
    let output = verify(&env, &image, &["--base", &from, "--source", &gone]).failed(3);
    assert!(output.contains(&format!("the repository `{gone}` that the image records is not available")), "{output}");
    let output = verify(&env, &image, &["--base", &format!("oci:{gone}"), "--source", repo.source()]).failed(3);
    assert!(
        output.contains(&format!("the base image `oci:{gone}` that the image records is not available")),
        "{output}"
    );
    assert!(output.contains("name another place with `--base`"), "{output}");
}

#[test]
fn settings_of_a_file_are_asked_for_again() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let (from, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).unwrap();
    let file = env.path("other.toml");
    fs::write(&file, settings.replace("cmd = [", "user = \"7\"\ncmd = [")).unwrap();
    run(env.phial(["build", repo.source(), "--base", &from, "--to", &to, "--config", &file])).ok();
    let output = verify_small(&env, &repo, &to, &[]).failed(2);
    assert!(output.contains("the image was built with other settings") && output.contains("--config FILE"), "{output}");
    verify_small(&env, &repo, &to, &["--config", &file]).ok();
}
