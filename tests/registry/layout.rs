//! OCI layouts and archives: what is written is read by others, and what is broken is refused.

use std::fs;
use std::io::Read;
use std::path::Path;

use phial::error::UserError as _;
use phial::event::discard;
use phial::image::{Image, OCI_CONFIG, Platform, canonical_json};
use phial::layout::{Layout, LayoutError, write_docker_archive, write_layout, write_oci_archive};
use phial_layers::Digest;
use serde_json::{Value, json};

use super::sample_images::{BlobMap, chain, run, two_layers};

fn digest_by_skopeo(reference: &str) -> String {
    let answer: Value = serde_json::from_str(&run("skopeo", &["inspect", reference])).unwrap();
    answer["Digest"].as_str().unwrap().to_owned()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|e| e.unwrap().path().strip_prefix(dir).unwrap().display().to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn a_layout_is_read_by_skopeo_and_umoci_and_by_ourselves() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("out.oci");
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    write_layout(&layout, &image, Some("v1"), &|d| blob_map.open(d), &discard).unwrap();
    let reference = format!("{}:v1", layout.display());
    assert_eq!(digest_by_skopeo(&format!("oci:{reference}")), image.manifest_digest.as_str());
    let bundle = dir.path().join("bundle");
    run("umoci", &["unpack", "--rootless", "--image", &reference, bundle.to_str().unwrap()]);
    assert_eq!(fs::read(bundle.join("rootfs/app/file")).unwrap(), b"one");
    let open = Layout::open_dir(&layout).unwrap();
    assert_eq!(open.resolve(Some("v1"), None, &Platform::host()).unwrap(), image);
    assert_eq!(open.resolve(None, None, &Platform::host()).unwrap(), image);
    assert_eq!(open.resolve(None, Some(&image.manifest_digest), &Platform::host()).unwrap(), image);
    for layer in &image.manifest.layers {
        let mut bytes = Vec::new();
        open.blob(layer).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, blob_map.0[&layer.digest]);
    }
}

#[test]
fn a_tag_moves_and_the_other_tags_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut blob_map = BlobMap::default();
    let (one, two) = (two_layers(&mut blob_map, b"one"), two_layers(&mut blob_map, b"two"));
    for (image, tag) in [(&one, "a"), (&one, "b"), (&two, "a"), (&two, "a")] {
        write_layout(dir.path(), image, Some(tag), &|d| blob_map.open(d), &discard).unwrap();
    }
    let layout = Layout::open_dir(dir.path()).unwrap();
    let digest = |tag| layout.resolve(Some(tag), None, &Platform::host()).map(|image| image.manifest_digest);
    assert_eq!(digest("a").unwrap(), two.manifest_digest);
    assert_eq!(digest("b").unwrap(), one.manifest_digest);
    let error = digest("c").unwrap_err();
    assert!(error.to_string().contains("no image tagged `c`; it has `b`, `a`"), "{error}");
    let error = layout.resolve(None, None, &Platform::host()).unwrap_err();
    assert!(matches!(error, LayoutError::Ambiguous { .. }) && error.hint().is_some(), "{error}");
}

#[test]
fn writing_again_changes_nothing_and_repairs_a_bad_blob() {
    let dir = tempfile::tempdir().unwrap();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let write = || write_layout(dir.path(), &image, None, &|d| blob_map.open(d), &discard);
    write().unwrap();
    let (before, index) = (files(dir.path()), fs::read(dir.path().join("index.json")).unwrap());
    let blob = dir.path().join("blobs/sha256").join(image.manifest.layers[0].digest.hex());
    let whole = fs::read(&blob).unwrap();
    fs::write(&blob, b"torn").unwrap();
    fs::write(dir.path().join("blobs/sha256/.phial-killed"), b"half").unwrap();
    write().unwrap();
    assert_eq!(fs::read(&blob).unwrap(), whole);
    assert_eq!((files(dir.path()), fs::read(dir.path().join("index.json")).unwrap()), (before, index));
}

#[test]
fn what_other_tools_wrote_into_the_index_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    write_layout(dir.path(), &image, Some("a"), &|d| blob_map.open(d), &discard).unwrap();
    let path = dir.path().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["manifests"][0]["x-note"] = json!("theirs");
    index["annotations"] = json!({"who": "them"});
    fs::write(&path, index.to_string()).unwrap();
    write_layout(dir.path(), &image, Some("b"), &|d| blob_map.open(d), &discard).unwrap();
    let after: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((&after["manifests"][0]["x-note"], &after["annotations"]["who"]), (&json!("theirs"), &json!("them")));
    assert_eq!(after["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn writers_at_the_same_time_lose_no_tag() {
    let dir = tempfile::tempdir().unwrap();
    let mut blob_map = BlobMap::default();
    let images: Vec<Image> = (0..6_u8).map(|n| two_layers(&mut blob_map, &[n])).collect();
    std::thread::scope(|scope| {
        for (n, image) in images.iter().enumerate() {
            let (blob_map, dir) = (&blob_map, dir.path());
            scope.spawn(move || {
                write_layout(dir, image, Some(&format!("t{n}")), &|d| blob_map.open(d), &discard).unwrap();
            });
        }
    });
    let layout = Layout::open_dir(dir.path()).unwrap();
    for (n, image) in images.iter().enumerate() {
        let found = layout.resolve(Some(&format!("t{n}")), None, &Platform::host()).unwrap();
        assert_eq!(found.manifest_digest, image.manifest_digest);
    }
}

#[test]
fn a_blob_with_the_wrong_bytes_leaves_no_image_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    blob_map.0.insert(image.manifest.layers[1].digest.clone(), b"another".to_vec());
    let error = write_layout(dir.path(), &image, None, &|d| blob_map.open(d), &discard).unwrap_err();
    assert_eq!(error.exit_kind().code(), 3, "{}", chain(&error));
    assert!(!files(dir.path()).iter().any(|name| name.contains(".phial-") || name == "index.json"));
    let archive = dir.path().join("out.tar");
    assert!(write_oci_archive(&archive, &image, None, &|d| blob_map.open(d), &discard).is_err());
    assert!(!archive.exists());
}

#[test]
fn a_directory_with_other_things_in_it_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), b"").unwrap();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let error = write_layout(dir.path(), &image, None, &|d| blob_map.open(d), &discard).unwrap_err();
    assert!(error.to_string().contains("but `thesis.txt`"), "{error}");
    assert_eq!(files(dir.path()), ["", "thesis.txt"]);
}

#[test]
fn archives_are_the_same_bytes_each_time_and_read_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let path = |name: &str| dir.path().join(name);
    for name in ["a.tar", "b.tar"] {
        write_oci_archive(&path(name), &image, Some("v1"), &|d| blob_map.open(d), &discard).unwrap();
        write_docker_archive(&path(&format!("d{name}")), &image, Some("app:v1"), &|d| blob_map.open(d), &discard)
            .unwrap();
    }
    assert_eq!(fs::read(path("a.tar")).unwrap(), fs::read(path("b.tar")).unwrap());
    assert_eq!(fs::read(path("da.tar")).unwrap(), fs::read(path("db.tar")).unwrap());
    run("tar", &["-tf", path("a.tar").to_str().unwrap()]);
    let read = Layout::open_archive(&path("a.tar")).unwrap().resolve(Some("v1"), None, &Platform::host()).unwrap();
    assert_eq!(read, image);
    let skopeo = digest_by_skopeo(&format!("oci-archive:{}:v1", path("a.tar").display()));
    assert_eq!(skopeo, image.manifest_digest.as_str());
    let copy = format!("oci:{}:v1", path("copied").display());
    run("skopeo", &["copy", &format!("docker-archive:{}:app:v1", path("da.tar").display()), &copy]);
    let copied = Layout::open_dir(&path("copied")).unwrap().resolve(None, None, &Platform::host()).unwrap();
    assert_eq!(copied.config.rootfs, image.config.rootfs, "the same layers, whatever their compression");
    assert_eq!(copied.config.config, image.config.config);
}

#[test]
fn a_layout_written_by_skopeo_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    write_layout(&dir.path().join("a"), &image, Some("v1"), &|d| blob_map.open(d), &discard).unwrap();
    let from = format!("oci:{}:v1", dir.path().join("a").display());
    run("skopeo", &["copy", &from, &format!("oci-archive:{}:v2", dir.path().join("b.tar").display())]);
    let read = Layout::open_archive(&dir.path().join("b.tar")).unwrap();
    assert_eq!(read.resolve(Some("v2"), None, &Platform::host()).unwrap(), image);
    let mut bytes = Vec::new();
    read.blob(&image.manifest.layers[1]).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, blob_map.0[&image.manifest.layers[1].digest]);
}

/// A layout, what spoils it, and the error that must follow. `read` reads everything.
fn refused(expected: &str, spoil: impl FnOnce(&Path, &Image)) {
    let dir = tempfile::tempdir().unwrap();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    write_layout(dir.path(), &image, Some("v1"), &|d| blob_map.open(d), &discard).unwrap();
    spoil(dir.path(), &image);
    let read = || -> Result<(), String> {
        let layout = Layout::open_dir(dir.path()).map_err(|e| chain(&e))?;
        let image = layout.resolve(Some("v1"), None, &Platform::host()).map_err(|e| chain(&e))?;
        for layer in &image.manifest.layers {
            let mut blob = layout.blob(layer).map_err(|e| chain(&e))?;
            std::io::copy(&mut blob, &mut std::io::sink()).map_err(|e| e.to_string())?;
        }
        Ok(())
    };
    let error = read().expect_err(expected);
    assert!(error.contains(expected), "{expected}: {error}");
}

fn blob(dir: &Path, digest: &Digest) -> std::path::PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

fn edit_index(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    fs::write(path, canonical_json(&index)).unwrap();
}

#[test]
fn a_broken_layout_is_refused_by_name() {
    refused("has no `oci-layout`", |dir, _| fs::remove_file(dir.join("oci-layout")).unwrap());
    refused("`9.9.9`", |dir, _| fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"9.9.9"}"#).unwrap());
    refused("no `index.json`", |dir, _| fs::remove_file(dir.join("index.json")).unwrap());
    refused("not valid JSON", |dir, _| fs::write(dir.join("index.json"), "<html>").unwrap());
    refused("more than", |dir, _| fs::File::create(dir.join("index.json")).unwrap().set_len(1 << 30).unwrap());
    refused("no image tagged `v1`; it has none", |dir, _| edit_index(dir, |i| i["manifests"] = json!([])));
    refused("more than one image", |dir, image| {
        edit_index(dir, |i| {
            let mut other = i["manifests"][0].clone();
            other["digest"] = json!(image.manifest.config.digest);
            i["manifests"].as_array_mut().unwrap().push(other);
        });
    });
    refused("is not a digest", |dir, _| edit_index(dir, |i| i["manifests"][0]["digest"] = json!("sha256:../../x")));
    refused("integer `-1`", |dir, _| edit_index(dir, |i| i["manifests"][0]["size"] = json!(-1)));
    refused("more than the", |dir, _| edit_index(dir, |i| i["manifests"][0]["size"] = json!(10)));
    refused("was announced as", |dir, _| edit_index(dir, |i| i["manifests"][0]["mediaType"] = json!(OCI_CONFIG)));
}

#[test]
fn a_broken_blob_is_refused_by_name() {
    refused("the bytes are", |dir, image| {
        let path = blob(dir, &image.manifest.layers[1].digest);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(path, bytes).unwrap();
    });
    refused("ends after", |dir, image| {
        let file = fs::File::options().write(true).open(blob(dir, &image.manifest.layers[0].digest)).unwrap();
        file.set_len(5).unwrap();
    });
    refused("lacks the blob", |dir, image| fs::remove_file(blob(dir, &image.manifest.layers[0].digest)).unwrap());
    refused("does not match its digest", |dir, image| {
        let path = blob(dir, &image.manifest.config.digest);
        let bytes = fs::read_to_string(&path).unwrap().replace("/app", "/opt");
        fs::write(path, bytes).unwrap();
    });
    refused("not a regular file", |dir, image| {
        let path = blob(dir, &image.manifest.layers[0].digest);
        fs::rename(&path, dir.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("../../elsewhere", path).unwrap();
    });
    refused("not a regular file", |dir, _| {
        fs::rename(dir.join("blobs"), dir.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.join("blobs")).unwrap();
    });
    refused("not a regular file", |dir, image| {
        let path = blob(dir, &image.manifest.layers[0].digest);
        fs::remove_file(&path).unwrap();
        run("mkfifo", &[path.to_str().unwrap()]);
    });
    refused("not a regular file", |dir, _| {
        fs::remove_file(dir.join("index.json")).unwrap();
        fs::create_dir(dir.join("index.json")).unwrap();
    });
}

#[test]
fn a_config_for_another_machine_than_the_index_says_is_refused() {
    let other = Platform::linux("s390x");
    let dir = tempfile::tempdir().unwrap();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    write_layout(dir.path(), &image, Some("v1"), &|d| blob_map.open(d), &discard).unwrap();
    edit_index(dir.path(), |i| i["manifests"][0]["platform"] = json!(other));
    let layout = Layout::open_dir(dir.path()).unwrap();
    let error = layout.resolve(Some("v1"), None, &other).unwrap_err();
    assert!(chain(&error).contains("no images for `linux/s390x`"), "{}", chain(&error));
}

#[test]
fn an_archive_with_hostile_names_is_harmless_and_others_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let good = dir.path().join("good.tar");
    write_oci_archive(&good, &image, None, &|d| blob_map.open(d), &discard).unwrap();
    let hostile = |name: &str, times: usize, kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        [header.as_bytes().repeat(times), fs::read(&good).unwrap()].concat()
    };
    let path = dir.path().join("hostile.tar");
    for name in ["../../etc/passwd", "/etc/passwd", "blobs/sha256/../../../x"] {
        fs::write(&path, hostile(name, 1, tar::EntryType::Regular)).unwrap();
        assert_eq!(Layout::open_archive(&path).unwrap().resolve(None, None, &Platform::host()).unwrap(), image);
    }
    fs::write(&path, hostile("index.json", 1, tar::EntryType::Symlink)).unwrap();
    assert_eq!(Layout::open_archive(&path).unwrap().resolve(None, None, &Platform::host()).unwrap(), image);
    fs::write(&path, hostile("index.json", 1, tar::EntryType::Regular)).unwrap();
    assert!(chain(&Layout::open_archive(&path).unwrap_err()).contains("`index.json` appears twice"));
    fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
    assert!(Layout::open_archive(&path).unwrap_err().to_string().contains("it is compressed"));
    let path = dir.path().join("docker.tar");
    write_docker_archive(&path, &image, None, &|d| blob_map.open(d), &discard).unwrap();
    assert!(Layout::open_archive(&path).unwrap_err().hint().unwrap().contains("docker save"));
}
