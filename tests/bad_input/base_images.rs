//! The base: not there, another than was named, or damaged.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use insta::assert_snapshot;

use super::settings::without_digest;
use super::{Scene, run};
use crate::harness::Registry;
use crate::harness::busybox::busybox_base;

#[track_caller]
fn error_of(scene: &Scene, code: i32, base: &str) -> String {
    scene.refused(code, scene.build_on(base, &format!("oci:{}", scene.out().display()), []))
}

#[test]
fn a_layout_that_is_not_there_or_is_none_is_refused() {
    let scene = Scene::new();
    assert_snapshot!(error_of(&scene, 3, &format!("oci:{}", scene.env.path("nowhere"))), @r"
    error: there is no `[DIR]/nowhere`
    hint: correct the path, or create a base image there with `phial base`
    ");
    assert_snapshot!(error_of(&scene, 3, &format!("oci-archive:{}", scene.env.path("nowhere.tar"))), @r"
    error: there is no `[DIR]/nowhere.tar`
    hint: correct the path, or create a base image there with `phial base`
    ");
    assert_snapshot!(error_of(&scene, 3, &format!("oci:{}", scene.env.path("home"))), @"error: `[DIR]/home` is not an OCI layout: it has no `oci-layout` file");
    fs::write(scene.env.path("file"), "no image").unwrap();
    assert_snapshot!(error_of(&scene, 3, &format!("oci:{}", scene.env.path("file"))), @r"
    error: `[DIR]/file` is not an OCI layout: it is not a directory
    hint: for an archive write `oci-archive:[DIR]/file`
    ");
    assert_snapshot!(error_of(&scene, 2, "oci:"), @"error: cannot use `base`: `oci:` is not an image reference: the path is empty or holds a NUL");
}

#[test]
fn a_tag_or_digest_that_is_not_in_the_layout_is_refused_with_a_list_of_what_is() {
    let scene = Scene::new();
    let base = format!("oci:{}", busybox_base().display());
    assert_snapshot!(without_digest(&error_of(&scene, 3, &format!("{base}:v9"))), @"error: `[BASE]` has no image tagged `v9`; it has `sha256:[HEX]`");
    let digest = "1".repeat(64);
    assert_snapshot!(without_digest(&error_of(&scene, 3, &format!("{base}@sha256:{digest}"))), @"error: `[BASE]` has no image `sha256:1...`; it has `sha256:[HEX]`");
}

#[test]
fn a_registry_without_the_image_or_without_that_digest_is_named() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let named = |output: String| output.replace(&registry.host(), "[HOST]");
    assert_snapshot!(named(error_of(&scene, 3, &registry.reference("elixir:1.18"))), @r"
    error: `[HOST]/elixir:1.18` is not in the registry
    hint: check the name and the tag; without a login, some registries say this of private repositories
    ");
    let by_digest = registry.reference(&format!("elixir@sha256:{}", "1".repeat(64)));
    assert_snapshot!(without_digest(&named(error_of(&scene, 3, &by_digest))), @r"
    error: `[HOST]/elixir@sha256:1...` is not in the registry
    hint: check the name and the tag; without a login, some registries say this of private repositories
    ");
}

/// A host and port where nothing listens.
pub(super) fn closed_port() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    format!("127.0.0.1:{}", listener.local_addr().unwrap().port())
}

#[test]
fn a_registry_that_does_not_answer_is_named() {
    let (scene, host) = (Scene::new(), closed_port());
    let output = error_of(&scene, 4, &format!("{host}/elixir:1.18"));
    assert_snapshot!(output.replace(&host, "[HOST]"), @r"
    error: cannot reach the registry for `GET http://[HOST]/v2/elixir/manifests/1.18`: error sending request: client error (Connect): tcp connect error: Connection refused (os error 111)
    hint: check host and port; plain http is used for loopback and for hosts named with `--plain-http` only
    ");
}

/// A copy of the base, and the path of its layer in it.
fn copied(scene: &Scene, name: &str) -> (PathBuf, PathBuf) {
    let dir = scene.env.dir().join(name);
    let mut copy = Command::new("cp");
    copy.arg("-R").arg(busybox_base()).arg(&dir);
    run(copy).ok();
    let blobs = fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let layer = blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    (dir, layer)
}

pub(super) fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 16].iter_mut().for_each(|byte| *byte = !*byte);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// What is done to a file.
type Act<'a> = &'a dyn Fn(&Path);

#[test]
fn a_damaged_layer_of_a_layout_is_refused_and_its_tree_not_kept() {
    let scene = Scene::new();
    let cases: [(&str, Act<'_>); 4] = [
        ("flipped", &damage),
        ("short", &|layer| fs::write(layer, &fs::read(layer).unwrap()[..1000]).unwrap()),
        ("gone", &|layer| fs::remove_file(layer).unwrap()),
        ("a link", &|layer| {
            fs::remove_file(layer).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", layer).unwrap();
        }),
    ];
    let mut all = String::new();
    for (name, act) in cases {
        let (dir, layer) = copied(&scene, name);
        act(&layer);
        let before = fs::read_dir(scene.env.cache().join("trees")).map_or(0, Iterator::count);
        let output = error_before_sound(&scene, &format!("oci:{}", dir.display()));
        assert_eq!(fs::read_dir(scene.env.cache().join("trees")).unwrap().count(), before, "{name}: a tree was kept");
        all = format!("{all}{name}: {output}");
    }
    assert_snapshot!(without_digest(&all), @r"
    flipped: error: the layer `sha256:[HEX]` cannot be unpacked: the layer is refused: the compressed stream is corrupt: corrupt gzip stream does not have a matching checksum
    hint: fetch the layer again and compare its digest
    short: error: the layer `sha256:[HEX]` cannot be unpacked: cannot read the layer: `sha256:[HEX]` ends after 1000 of 1022658 bytes
    gone: error: `[DIR]/gone` lacks the blob `sha256:[HEX]`
    hint: copy or build the image again
    a link: error: `blobs/sha256/[HEX]` in `[DIR]/a link` is not a regular file
    hint: copy or build the image again
    ");
    scene.sound();
}

/// As [`error_of`], without the good build afterwards: that would put the base into the cache.
#[track_caller]
fn error_before_sound(scene: &Scene, base: &str) -> String {
    let output = scene.error(run(scene.build_on(base, &format!("oci:{}", scene.out().display()), [])), 3);
    assert!(!scene.out().exists(), "the target");
    scene.tidy();
    output
}

#[test]
fn a_config_that_names_another_tar_than_its_layer_is_refused() {
    let scene = Scene::new();
    let (dir, _) = copied(&scene, "lying");
    let blob = |hex: &str| dir.join("blobs/sha256").join(hex);
    let hex = |value: &serde_json::Value| value["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    let read = |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };

    let mut index = read(&dir.join("index.json"));
    let mut manifest = read(&blob(&hex(&index["manifests"][0])));
    let mut config = read(&blob(&hex(&manifest["config"])));
    config["rootfs"]["diff_ids"][0] = format!("sha256:{}", "1".repeat(64)).into();
    put(&dir, &config, &mut manifest["config"]);
    put(&dir, &manifest, &mut index["manifests"][0]);
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    assert_snapshot!(without_digest(&error_before_sound(&scene, &format!("oci:{}", dir.display()))), @r"
    error: the layer `sha256:[HEX]` does not unpack to the diff ID `sha256:1...` of the image's config
    hint: copy or build the image again
    ");
}

/// Puts a document into a layout and what it is now into its descriptor.
fn put(dir: &Path, document: &serde_json::Value, descriptor: &mut serde_json::Value) {
    let bytes = document.to_string();
    let digest = phial_layers::Digest::of(bytes.as_bytes());
    descriptor["digest"] = digest.as_str().into();
    descriptor["size"] = bytes.len().into();
    fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
}

#[test]
fn an_archive_that_is_no_tar_or_a_strange_one_is_refused() {
    let scene = Scene::new();
    let archive = scene.env.path("x.tar");
    let file = |name: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).expect("a name");
        header.set_size(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let end = [0; 1024];
    let repeated = [file("index.json"), file("index.json"), end.to_vec()].concat();
    let mut wrong = file("index.json");
    wrong[0] = b'x'; // its checksum is another one
    for (what, bytes) in [
        ("a text", b"no image, and longer than the header of a tar".repeat(20)),
        ("cut", file("index.json")[..300].to_vec()),
        ("a wrong checksum", [wrong, end.to_vec()].concat()),
        ("a name twice", repeated),
        ("many entries", [file("x").repeat(100_001), end.to_vec()].concat()),
    ] {
        fs::write(&archive, bytes).unwrap();
        let error = error_of(&scene, 3, &format!("oci-archive:{archive}"));
        assert!(error.contains("`[DIR]/x.tar` is not an OCI layout: "), "{what}: {error}");
    }
}
