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
        ("line break", |c| c["config"]["Env"] = json!(["A\nB=secret"])),
        ("its value has a NUL", |c| c["config"]["Env"] = json!(["A=secret\0"])),
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

fn options() -> ImageOptions {
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
        entries: Some(1),
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
    let image = assemble(&base, &[layer()], &options());
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
    let config = assemble(&base, &[layer()], &options()).config;
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
    let (one, two) = (assemble(&base, &[layer()], &options()), assemble(&base, &[layer()], &options()));
    assert_eq!(one.manifest_digest, two.manifest_digest);
    let text = String::from_utf8(one.config_bytes).unwrap();
    assert!(text.starts_with(r#"{"architecture":"amd64","config":{"Entrypoint":["/app/start"],"Env":["A=2","B=3"],"#));
    assert!(!text.contains(": ") && !text.contains('\n'));
}

#[test]
fn sizes_and_numbers_are_refused_beyond_their_limits() {
    let sized = |size: u64| manifest(|m| m["layers"][0]["size"] = json!(size));
    assert!(read_manifest(&sized(1 << 53), None).is_ok() && read_manifest(&sized((1 << 53) + 1), None).is_err());
    let entry = json!({ "mediaType": OCI_MANIFEST, "digest": Digest::of(b"x"), "size": 2 });
    let index = |count: usize| json!({ "schemaVersion": 2, "manifests": vec![&entry; count] }).to_string().into_bytes();
    assert!(
        matches!(read_manifest(&index(1000), None), Ok(ManifestOrIndex::Index(index)) if index.manifests.len() == 1000)
    );
    assert!(chain(&read_manifest(&index(1001), None).unwrap_err()).contains("more than 1000 entries"));
    let mut padded = manifest(|_| {});
    padded.resize(usize::try_from(MAX_MANIFEST_PULL).unwrap(), b' ');
    assert!(read_manifest(&padded, None).is_ok());
    padded.push(b' ');
    assert!(matches!(read_manifest(&padded, None), Err(ImageError::TooLarge { limit: MAX_MANIFEST_PULL, .. })));
    let check = |size: u64| match read_manifest(&manifest(|m| m["config"]["size"] = json!(size)), None) {
        Ok(ManifestOrIndex::Manifest(manifest)) => manifest.check_image(),
        other => panic!("{other:?}"),
    };
    assert!(check(MAX_MANIFEST_PULL).is_ok());
    assert!(matches!(check(MAX_MANIFEST_PULL + 1), Err(ImageError::TooLarge { what: "the config", .. })));
    let level = |depth: usize| read_json::<Value>("x", format!("{}{}", "{\"a\":".repeat(depth), "1").as_bytes());
    assert!(level(65).is_err(), "the depth of objects is bounded too");
}

#[test]
fn a_descriptor_fits_only_its_own_bytes() {
    let descriptor = Descriptor::of("text/plain", b"hello");
    assert_eq!((descriptor.size, &descriptor.digest), (5, &Digest::of(b"hello")));
    assert!(descriptor.check(b"hello").is_ok());
    assert!(matches!(descriptor.check(b"hell"), Err(BlobError::Short { actual: 4, expected: 5, .. })));
    assert!(matches!(descriptor.check(b"hello!"), Err(BlobError::Long { expected: 5, .. })));
    assert!(matches!(descriptor.check(b"jello"), Err(BlobError::Digest { .. })));
}

#[test]
fn an_image_for_another_platform_is_refused() {
    let image = image_with(&config(), |_| {}).unwrap();
    assert!(image.check_platform(&Platform::linux("amd64")).is_ok());
    let usual = Platform { variant: Some("v1".into()), ..Platform::linux("amd64") };
    assert_eq!((usual.to_string(), image.platform().to_string()), ("linux/amd64".into(), "linux/amd64".into()));
    assert_eq!(Platform { variant: Some("v7".into()), ..Platform::linux("arm") }.to_string(), "linux/arm/v7");
    assert_eq!(Platform { variant: Some("v8".into()), ..Platform::linux("arm64") }.to_string(), "linux/arm64");
    for other in [Platform::linux("arm64"), Platform { os: "windows".into(), ..Platform::linux("amd64") }] {
        let error = image.check_platform(&other).unwrap_err();
        assert!(error.to_string().contains(&other.to_string()) && error.hint().unwrap().contains("digest"), "{error}");
    }
    assert_eq!(image.layers().map(|layer| layer.compression).collect::<Vec<_>>(), [Compression::Gzip]);
    assert_eq!(image.descriptor().digest, image.manifest_digest);
    assert_eq!(image.clone().of_type("application/x").manifest.artifact_type.as_deref(), Some("application/x"));
}

#[test]
fn steps_without_a_layer_do_not_count_as_layers_in_the_history() {
    let mut config = config();
    config["history"] = json!([{ "created_by": "ENV A=1", "empty_layer": true }]);
    let base = image_with(&config, |_| {}).unwrap();
    let image =
        assemble(&base, &[layer()], &ImageOptions { cmd: Some(vec!["run".into()]), entrypoint: None, ..options() });
    let named: Vec<_> = image.config.history.iter().map(|h| (h.created_by.as_deref(), h.empty_layer)).collect();
    assert_eq!(named, [(None, false), (Some("ENV A=1"), true), (Some("phial build"), false)]);
    assert_eq!(image.config.history[2].created, image.config.created);
    let run = &image.config.config;
    assert_eq!(
        (run.cmd.as_slice(), run.user.as_str(), run.directory().as_str()),
        (&["run".to_owned()][..], "1000:1000", "/app")
    );
    assert_eq!(run.labels["team"], "students");
}

#[test]
fn an_artifact_names_each_blob_once_and_has_a_type() {
    let document = Descriptor::of("text/plain", EMPTY_BYTES);
    let artifact = Artifact::about(
        Descriptor::of(OCI_MANIFEST, b"x"),
        "application/y",
        document,
        BTreeMap::from([("a".into(), "b".into())]),
    );
    assert_eq!((artifact.blobs().len(), artifact.kind()), (1, "application/y"));
    assert_eq!(artifact.descriptor().annotations["a"], "b");
    let plain = Artifact::read(&Digest::of(b"x"), manifest(|_| {}), None).unwrap().unwrap();
    assert_eq!((plain.kind(), plain.blobs().len()), (OCI_CONFIG, 1), "config and layer are the same blob here");
    let index = json!({ "schemaVersion": 2, "manifests": [] }).to_string().into_bytes();
    assert_eq!(Artifact::read(&Digest::of(b"x"), index, None).unwrap(), None);
}

#[test]
fn a_build_record_is_read_in_its_own_format_only() {
    let record = Provenance {
        format: 3,
        commit: "0123".into(),
        root: None,
        source: Some("https://h/r".into()),
        base: None,
        base_digest: Digest::of(b"base"),
        envs: vec!["prod".into()],
        compression: "gzip".into(),
        network: "host".into(),
        settings: Digest::of(b"settings"),
        script: "built-in".into(),
        lock: Some(Digest::of(b"lock")),
        deps_cache: None,
    };
    let image = |label: Option<&str>, annotation: Option<&str>| {
        let mut options = options();
        options.labels.extend(label.map(|text| (LABEL.to_owned(), text.to_owned())));
        options.annotations.extend(annotation.map(|text| ("dev.phial.format".to_owned(), text.to_owned())));
        assemble(&Image::scratch(&Platform::linux("amd64")), &[], &options)
    };
    let of = |label: Option<&str>, annotation: Option<&str>| Provenance::of(&image(label, annotation), 3);
    assert_eq!(of(Some(&record.json()), None), Recorded::Here(Box::new(record.clone())));
    assert_eq!(of(Some(&record.json().replace("\"format\":3", "\"format\":2")), None), Recorded::Format(2));
    assert_eq!(of(Some("{\"format\":3}"), None), Recorded::Not);
    assert_eq!(of(Some("x"), Some("1")), Recorded::Not);
    assert_eq!(
        (of(None, Some("1")), of(None, Some("x")), of(None, None)),
        (Recorded::Format(1), Recorded::Not, Recorded::Not)
    );
    let annotations = record.annotations();
    assert_eq!(
        (annotations["dev.phial.format"].as_str(), annotations["org.opencontainers.image.revision"].as_str()),
        ("3", "0123")
    );
    assert_eq!(annotations["dev.phial.lock"], Digest::of(b"lock").to_string());
    assert!(!annotations.contains_key("org.opencontainers.image.base.name"));
}

#[test]
fn the_source_of_a_blob_says_how_the_command_ends() {
    use std::io::{Error, ErrorKind};
    let refused = || ImageError::Ambiguous { why: "x" };
    for (error, code, is_mismatch) in [
        (BlobSourceError::Missing, 6, false),
        (BlobSourceError::Open(refused().into()), 3, false),
        (BlobSourceError::Read(Error::new(ErrorKind::InvalidData, "x")), 3, true),
        (BlobSourceError::Read(stream_error(refused())), 3, false),
        (BlobSourceError::Read(ErrorKind::PermissionDenied.into()), 6, false),
    ] {
        assert_eq!((error.exit_kind().code(), error.is_mismatch(), error.hint()), (code, is_mismatch, None), "{error}");
    }
    let platform = ImageError::Platform { wanted: "a".into(), found: "no".into(), offered: "b".into() };
    assert!(BlobSourceError::Open(platform.into()).hint().is_some());
    assert_eq!(read_exit_kind(&ErrorKind::NotFound.into()), None);
}

#[test]
fn untrusted_text_is_escaped_and_cut() {
    for c in [
        '\u{1b}', '\n', '\u{7f}', '\u{9b}', '\u{200b}', '\u{200f}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{2069}',
        '\u{feff}',
    ] {
        assert_eq!(shown(&format!("a{c}b")), format!("a{}b", c.escape_unicode()));
    }
    for same in ["plain \u{e4} \u{4e2d}", "\u{2010}\u{2065}"] {
        assert_eq!(shown(same), same);
    }
    assert_eq!(shown(&"x".repeat(512)).len(), 512);
    assert_eq!(shown(&"x".repeat(513)).len(), 512);
    assert_eq!(shown(&format!("{}\n", "x".repeat(511))).len(), 511, "an escape is not cut in two");
    assert!(ImageError::Ambiguous { why: "x" }.hint().is_none());
    assert!(layer_compression("x").unwrap_err().hint().unwrap().contains("convert"));
}
