//! Targets for documents: the JSON of images, records and registries, and the reports of tests.

use std::error::Error;

use phial::app_test::fuzz::{exunit, junit as junit_report};
use phial::attest::fuzz::test_record;
use phial::attest::{CommandResult, TestCounts, TestRun};
use phial::image::{
    Config, Descriptor, Image, ImageError, Index, Manifest, ManifestOrIndex, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST,
    Platform, Provenance, canonical_json, read_json, read_manifest,
};
use phial::registry::fuzz::{auth_file, responses};
use phial_layers::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The image that records are about.
fn subject() -> Digest {
    Digest::of(b"image")
}

/// A test record, a manifest, an index, a config, a build record, responses of registries and a file of logins.
pub(crate) fn documents() -> Vec<Vec<u8>> {
    let digest = Digest::of(b"").to_string();
    let descriptor =
        |kind: &str| json!({ "mediaType": kind, "digest": digest, "size": 2, "annotations": { "a": "b" } });
    let command = |name: &str, passed| CommandResult {
        name: name.into(),
        argv: vec!["mix".into(), name.into()],
        passed,
        outcome: "exit code".into(),
        counts: Some(TestCounts { tests: 3, failures: 0, skipped: 1 }),
        millis: 1500,
    };
    let run = TestRun {
        image: subject(),
        commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
        base: Some(Digest::of(b"base")),
        commands: vec![command("test", true), command("credo", true)],
        env: vec!["DATABASE_URL".into()],
        partition: None,
        version: "0.1.0".into(),
        started: 1_795_346_000_000,
        finished: 1_795_346_002_250,
        url: Some("https://ci.example/1".into()),
    };
    let failed = TestRun { commands: vec![command("test", false)], ..run.clone() };
    let record = |run: &TestRun| run.record(Descriptor::new(OCI_MANIFEST, subject(), 5)).1;
    let values = [
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG), "layers": [descriptor(OCI_LAYER)], "subject": descriptor(OCI_MANIFEST) }),
        json!({ "schemaVersion": 2, "manifests": [{ "mediaType": OCI_MANIFEST, "digest": digest, "size": 9_007_199_254_740_993_u64, "platform": { "os": "linux", "architecture": "arm64", "variant": "v8" } }] }),
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [digest] }, "history": [{ "empty_layer": true }], "config": { "Env": ["A=b"], "Cmd": null, "WorkingDir": "../x", "Healthcheck": { "Interval": 1.5e300 }, "ExposedPorts": { "4000/tcp": {} } } }),
        json!({ "format": 3, "commit": "0123", "base_digest": digest, "envs": ["prod"], "compression": "zstd", "network": "none", "settings": digest, "script": "builtin" }),
        json!({ "tags": ["1.0", null, "sha256:00"] }),
        json!({ "errors": [{ "code": "DENIED", "message": "\u{1b}[31mno\u{202e}" }, {}] }),
        json!({ "token": "t", "access_token": "", "expires_in": 1e300 }),
        json!({ "auths": { "https://r.example/v1/": { "auth": "dTpw" }, "r.example/a": null }, "credHelpers": null, "credsStore": "x" }),
    ];
    let raw = [
        r#"{"a":1,"a":2}"#,
        r#"{"schemaVersion":2,"layers":null,"manifests":[]}"#,
        "[0.1,-0,1e-7,123456789012345678901]",
    ];
    let nested = "[".repeat(64) + &"]".repeat(64);
    let values = values.iter().map(|value| value.to_string().into_bytes());
    let raw = raw.into_iter().chain([nested.as_str()]).map(|text| text.as_bytes().to_vec());
    values.chain(raw).chain([record(&run), record(&failed)]).collect()
}

/// What is written canonically is read as the same value, and written to the same bytes.
fn stable<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(value: &T) {
    let written = canonical_json(value);
    let again = read_json::<T>("the document", &written).expect("what was written");
    assert_eq!(again, *value);
    assert_eq!(canonical_json(&again), written);
}

fn refused(error: &ImageError) {
    assert!(!error.to_string().contains(char::is_control), "{error}");
    assert!(error.source().is_none_or(|cause| !cause.to_string().contains(char::is_control)), "{error:?}");
}

/// JSON that comes from a registry, an image or a record.
pub(crate) fn json(bytes: &[u8]) {
    match read_json::<Value>("the document", bytes) {
        Ok(value) => stable(&value),
        Err(error) => refused(&error),
    }
    match read_manifest(bytes, None) {
        Ok(ManifestOrIndex::Manifest(manifest)) => stable::<Manifest>(&manifest),
        Ok(ManifestOrIndex::Index(index)) => {
            stable::<Index>(&index);
            Platform::linux("arm64").select(&index).map_or_else(|error| refused(&error), drop);
        }
        Err(error) => refused(&error),
    }
    match read_json::<Config>("the config", bytes) {
        Ok(config) => {
            stable(&config);
            image(&config, bytes);
        }
        Err(error) => refused(&error),
    }
    if let Ok(record) = serde_json::from_slice::<Provenance>(bytes) {
        assert_eq!(serde_json::from_str::<Provenance>(&record.json()).ok().as_ref(), Some(&record));
    }
    responses(bytes);
    auth_file(bytes);
    test_record(&subject(), bytes);
}

/// An image with this config and layers for its diff IDs.
fn image(config: &Config, bytes: &[u8]) {
    let layer = Descriptor::of(OCI_LAYER, b"");
    let manifest = json!({ "schemaVersion": 2, "config": Descriptor::of(OCI_CONFIG, bytes), "layers": vec![layer; config.rootfs.diff_ids.len()] });
    match Image::read(canonical_json(&manifest), None, bytes.to_vec()) {
        Ok(image) => {
            assert_eq!((image.config_bytes.as_slice(), &image.config), (bytes, config));
            let directory = config.config.directory();
            assert!(directory.starts_with('/') && directory.split('/').all(|part| part != ".."), "{directory}");
            assert_eq!(image.layers().count(), config.rootfs.diff_ids.len());
        }
        Err(error) => refused(&error),
    }
}

/// Reports with suites in suites, comments, entities, and cut ones; and what `ExUnit` prints.
pub(crate) fn reports() -> Vec<Vec<u8>> {
    let reports = [
        r#"<?xml version="1.0"?><testsuites><testsuite name="a>" tests="3" failures="1" errors="1" skipped="1">
        <!-- </testsuite> --><testsuite tests="1"/><testcase name="x"/></testsuite><testsuite tests="2" name="b"/></testsuites>"#,
        "<testsuites><testsuite tests=\"1\"></testsuite><testsuite tests=\"2\"><testcase",
        "<!DOCTYPE r [<!ENTITY a \"x\"><!ENTITY b \"&a;&a;\">]><testsuite tests=\"1\">&b;</testsuite>",
        "<project><testsuite tests=\"1\"/></project>",
        "\u{feff}<x:testsuite xmlns:x='u' tests='18446744073709551615' errors='1'><![CDATA[</testsuite>]]></x:testsuite>",
        "<testsuites/><testsuite tests=\"1\"/>",
        "....\n\nFinished in 0.1 seconds\n3 doctests, 12 tests, 1 failure, 1 skipped (2 excluded)\n",
        "\u{1b}[32mResult: 8/9 passed (2/2 doctests, 6/7 tests), 1 skipped, 2 excluded\u{1b}[0m\r\n",
    ];
    reports.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Reports and output of tests.
pub(crate) fn junit(bytes: &[u8]) {
    junit_report(&String::from_utf8_lossy(bytes));
    exunit(bytes);
}
