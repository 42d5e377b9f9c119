//! Documents that must be refused, and what assembling keeps and changes.

use std::collections::BTreeMap;

use phial_layers::{Compression, DiffId, Digest};
use serde_json::{Value, json};

use super::*;
use crate::error::UserError as _;

fn manifest(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let digest = Digest::of(b"x");
    let mut value = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest, "size": 2},
        "layers": [{"mediaType": OCI_LAYER_GZIP, "digest": digest, "size": 3}],
    });
    change(&mut value);
    value.to_string().into_bytes()
}

fn image_with(config: &Value, change: impl FnOnce(&mut Value)) -> Result<Image, ImageError> {
    let bytes = config.to_string().into_bytes();
    let manifest = manifest(|m| {
        m["config"]["digest"] = json!(Digest::of(&bytes));
        m["config"]["size"] = json!(bytes.len());
        change(m);
    });
    Image::read(manifest, None, bytes)
}

fn config() -> Value {
    json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"y")]},
           "config": {"Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "Volumes": {"/data": {}}, "Labels": null},
           "container": "abc", "history": null})
}

fn chain(error: &ImageError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

#[test]
fn a_manifest_that_is_not_exactly_one_thing_is_refused() {
    type Change = fn(&mut Value);
    let rows: [(&str, Change); 13] = [
        ("schema version 1", |m| m["schemaVersion"] = json!(1)),
        ("schema version none", |m| drop(m.as_object_mut().unwrap().remove("schemaVersion"))),
        ("both `manifests`", |m| m["manifests"] = json!([])),
        ("neither", |m| m.as_object_mut().unwrap().retain(|key, _| key == "schemaVersion")),
        ("a manifest by its keys", |m| m["mediaType"] = json!(OCI_INDEX)),
        ("a manifest by its keys", |m| m["mediaType"] = json!("text/plain")),
        ("invalid value: integer `-1`", |m| m["layers"][0]["size"] = json!(-1)),
        ("out of range", |m| m["layers"][0]["size"] = json!((1_u64 << 53) + 1)),
        ("invalid type: floating point", |m| m["layers"][0]["size"] = json!(9.3e18)),
        ("is not a digest", |m| m["layers"][0]["digest"] = json!("sha256:../../../etc/passwd")),
        ("is not a digest", |m| m["layers"][0]["digest"] = json!(Digest::of(b"").as_str().to_uppercase())),
        ("is not a digest", |m| m["layers"][0]["digest"] = json!("")),
        ("missing field `config`", |m| drop(m.as_object_mut().unwrap().remove("config"))),
    ];
    for (expected, change) in rows {
        let error = read_manifest(&manifest(change), None).expect_err(expected);
        assert!(chain(&error).contains(expected), "{expected}: {}", chain(&error));
        assert_eq!(error.exit_kind().code(), 3);
    }
    assert!(read_manifest(b"[]", None).is_err());
    assert!(read_manifest(b"<html>", None).is_err());
    let huge = vec![b' '; 9 << 20];
    assert!(chain(&read_manifest(&huge, None).unwrap_err()).contains("more than"));
}

#[test]
fn the_announced_type_must_be_the_documents() {
    let own = manifest(|_| {});
    let silent = manifest(|m| drop(m.as_object_mut().unwrap().remove("mediaType")));
    for (bytes, announced, ok) in [
        (&own, Some(OCI_MANIFEST), true),
        (&own, Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), true),
        (&own, None, true),
        (&own, Some(DOCKER_MANIFEST), false),
        (&own, Some("text/plain"), false),
        (&silent, None, true),
        (&silent, Some(DOCKER_MANIFEST), true),
        (&silent, Some(OCI_INDEX), false),
    ] {
        assert_eq!(read_manifest(bytes, announced).is_ok(), ok, "{announced:?}");
    }
}

#[test]
fn a_config_that_cannot_be_honoured_is_refused() {
    type Change = fn(&mut Value);
    let rows: [(&str, Change); 9] = [
        ("`windows` is not `linux`", |c| c["os"] = json!("windows")),
        ("0 diff ids for 1", |c| c["rootfs"]["diff_ids"] = json!([])),
        ("2 diff ids for 1", |c| c["rootfs"]["diff_ids"] = json!([Digest::of(b"y"), Digest::of(b"z")])),
        ("`rootfs.type`", |c| c["rootfs"]["type"] = json!("zip")),
        ("no `=`", |c| c["config"]["Env"] = json!(["PATH"])),
        ("no name", |c| c["config"]["Env"] = json!(["=x"])),
        ("line break", |c| c["config"]["Env"] = json!(["A=secret\nB=2"])),
        ("line break", |c| c["config"]["Env"] = json!(["A=\0"])),
        ("not valid JSON of its kind", |c| *c = json!([])),
    ];
    for (expected, change) in rows {
        let mut config = config();
        change(&mut config);
        let error = image_with(&config, |_| {}).expect_err(expected);
        assert!(chain(&error).contains(expected), "{expected}: {}", chain(&error));
        assert!(!chain(&error).contains("secret"));
    }
}

#[test]
fn an_image_is_refused_for_its_layers_and_its_config_blob() {
    let foreign = image_with(&config(), |m| m["layers"][0]["mediaType"] = json!("application/x-what")).unwrap_err();
    assert!(foreign.to_string().contains("application/x-what"));
    let artifact = image_with(&config(), |m| m["config"]["mediaType"] = json!("application/x-sbom")).unwrap_err();
    assert!(artifact.to_string().contains("not the config"));
    let swapped = image_with(&config(), |m| m["config"]["digest"] = json!(Digest::of(b"other"))).unwrap_err();
    assert!(swapped.to_string().contains("does not match its digest"));
    let size = image_with(&config(), |m| m["config"]["size"] = json!(1)).unwrap_err();
    assert!(matches!(size, ImageError::Size { .. }));
}

fn terms() -> ImageOptions {
    ImageOptions {
        created: 951_827_696,
        entrypoint: Some(vec!["/app/start".into()]),
        cmd: None,
        env: BTreeMap::from([("A".into(), "2".into()), ("B".into(), "3".into())]),
        working_dir: Some("/app".into()),
        user: Some("1000:1000".into()),
        labels: BTreeMap::from([("team".into(), "students".into())]),
        annotations: BTreeMap::from([("org.opencontainers.image.revision".into(), "abc".into())]),
    }
}

fn layer() -> NewLayer {
    let layer = PackedLayer {
        diff_id: DiffId(Digest::of(b"tar")),
        digest: Digest::of(b"zst"),
        size: 3,
        tar_size: 3,
        entries: 1,
        compression: Compression::Zstd,
    };
    NewLayer { layer, created_by: "phial build".into() }
}

#[test]
fn a_docker_base_keeps_its_blobs_and_gets_oci_names() {
    let base = image_with(&config(), |m| {
        m["mediaType"] = json!(DOCKER_MANIFEST);
        m["config"]["mediaType"] = json!(DOCKER_CONFIG);
        m["layers"][0]["mediaType"] = json!(DOCKER_LAYER_GZIP);
    })
    .unwrap();
    let image = assemble(&base, &[layer()], &terms());
    let read = Image::read(image.manifest_bytes.clone(), Some(OCI_MANIFEST), image.config_bytes.clone()).unwrap();
    assert_eq!(read, image, "what is written is read back as the same value");
    let types: Vec<&str> = image.manifest.layers.iter().map(|l| l.media_type.as_str()).collect();
    assert_eq!(types, [OCI_LAYER_GZIP, OCI_LAYER_ZSTD]);
    assert_eq!(image.manifest.layers[0].digest, base.manifest.layers[0].digest);
    assert_eq!(image.manifest.config.media_type, OCI_CONFIG);
    let text = String::from_utf8(image.manifest_bytes.clone()).unwrap();
    assert!(text.contains(&format!("\"mediaType\":\"{OCI_MANIFEST}\"")), "some registries ask for it: {text}");
}

#[test]
fn the_config_is_the_bases_with_the_terms_over_it() {
    let base = image_with(&config(), |_| {}).unwrap();
    let config = assemble(&base, &[layer()], &terms()).config;
    assert_eq!(config.config.env, ["PATH=/bin", "A=2", "B=3"]);
    assert_eq!(config.config.entrypoint, ["/app/start"]);
    assert!(config.config.cmd.is_empty(), "the base's Cmd would become arguments of the new entry point");
    assert_eq!(config.config.other["Volumes"], json!({"/data": {}}));
    assert_eq!(config.created.as_deref(), Some("2000-02-29T12:34:56Z"));
    let named: Vec<Option<&str>> = config.history.iter().map(|h| h.created_by.as_deref()).collect();
    assert_eq!(named, [None, Some("phial build")], "one entry for each layer");
}

#[test]
fn the_same_values_are_the_same_bytes_and_sorted() {
    let base = Image::scratch(&Platform::linux("amd64"));
    let (one, two) = (assemble(&base, &[layer()], &terms()), assemble(&base, &[layer()], &terms()));
    assert_eq!(one.manifest_digest, two.manifest_digest);
    let text = String::from_utf8(one.config_bytes).unwrap();
    assert!(text.starts_with(r#"{"architecture":"amd64","config":{"Entrypoint":["/app/start"],"Env":["A=2","B=3"],"#));
    assert!(!text.contains(": ") && !text.contains('\n'));
}
