//! Released elsewhere: the image, what refers to it, and then the name, from registries and layouts to registries and layouts.

use std::fs;

use phial::attest::{ImageLocation, ListedRecord, records};
use phial::image::{Image, RegistryRef, fallback_tag};
use serde_json::Value;

use super::{client, double, location, oras, pushed, ran, record, skopeo, written};
use crate::harness::{Registry, TestEnv, run};
use crate::scripted::{Fault, Kind, When};

/// The number of records of passing tests that refer to the image.
fn proofs(at: &ImageLocation, image: &Image) -> usize {
    let found = records(at, &client(), &image.manifest_digest).unwrap();
    found.iter().filter(|listed| matches!(listed, ListedRecord::Valid(record) if record.passed)).count()
}

fn at(name: &str) -> ImageLocation {
    location(&name.parse().unwrap())
}

fn inspect(name: &str) -> String {
    skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", name])
}

#[test]
fn to_another_repository_blobs_are_mounted_and_what_refers_to_the_image_comes_along() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let built = registry.reference("team/app:build-7");
    let image = pushed(&client(), &built.parse().unwrap(), b"one");
    record(&client(), &at(&built), &image, &ran(&image, 1, &[("test", true)]));
    fs::write(env.dir().join("bom.json"), "{\"bomFormat\":\"CycloneDX\"}").unwrap();
    let kind = "application/vnd.cyclonedx+json";
    let bom = env.path("bom.json");
    oras(&["attach", "--plain-http", "--disable-path-validation", "--artifact-type", kind, &built, &bom]);
    let before = registry.requests().len();
    let to = registry.reference("prod/app");
    let out = run(env.phial(["release", &built, "--tag", "v1", "--to", &to])).ok();
    assert_eq!(out, format!("{to}:v1@{}", image.manifest_digest));
    let sent = registry.requests().split_off(before);
    let mounts = sent.iter().filter(|line| line.starts_with("POST") && line.contains("mount=")).count();
    assert!(mounts >= image.manifest.layers.len() + 2, "layers, the record and the list: {sent:#?}");
    let last = sent.iter().rposition(|line| line.starts_with("PUT")).unwrap();
    assert!(sent[last].ends_with("/manifests/v1"), "the tag moves last: {sent:#?}");

    assert_eq!(inspect(&format!("docker://{to}:v1")), image.manifest_digest.as_str());
    assert_eq!(proofs(&at(&to), &image), 1);
    let seen = oras(&["discover", "--plain-http", "--format", "json", &format!("{to}:v1")]);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let mut kinds: Vec<&str> =
        seen["manifests"].as_array().unwrap().iter().map(|it| it["artifactType"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["application/vnd.cyclonedx+json", "application/vnd.in-toto+json"]);
    run(env.phial(["release", &format!("{to}:v1"), "--tag", "v1.0"])).ok();
}

#[test]
fn to_another_registry_whichever_way_each_keeps_referrers() {
    let env = TestEnv::new();
    let (plain, api) = (Registry::start(), double(true));
    let first = plain.reference("team/app:build-7");
    let image = pushed(&client(), &first.parse().unwrap(), b"one");
    record(&client(), &at(&first), &image, &ran(&image, 1, &[("test", true)]));
    let middle = api.reference("prod/app").to_string();
    let last = plain.reference("back/app");
    run(env.phial(["release", &first, "--tag", "v1", "--to", &middle])).ok();
    assert_eq!(api.tag("prod/app", "v1"), Some(image.manifest_digest.clone()));
    assert_eq!(proofs(&at(&middle), &image), 1);
    let out = run(env.phial(["release", &format!("{middle}:v1"), "--to", &last])).ok();
    assert_eq!(out, format!("{last}@{}", image.manifest_digest), "no tag, only the digest");
    assert_eq!(inspect(&format!("docker://{last}@{}", image.manifest_digest)), image.manifest_digest.as_str());
    assert_eq!(proofs(&at(&last), &image), 1);
}

#[test]
fn from_a_layout_to_a_registry_and_back() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let dir = env.dir().join("app.oci");
    let image = written(&dir, None, b"one");
    record(&client(), &ImageLocation::Layout(dir.clone()), &image, &ran(&image, 1, &[("test", true)]));
    let to = registry.reference("prod/app");
    run(env.phial(["release", "oci:app.oci", "--tag", "v1", "--to", &to])).ok();
    assert_eq!(inspect(&format!("docker://{to}:v1")), image.manifest_digest.as_str());
    run(env.phial(["release", &format!("{to}:v1"), "--tag", "v1", "--tag", "latest", "--to", "oci:back.oci"])).ok();
    let back = env.dir().join("back.oci");
    for tag in ["v1", "latest"] {
        assert_eq!(inspect(&format!("oci:{}:{tag}", back.display())), image.manifest_digest.as_str());
    }
    assert_eq!(proofs(&ImageLocation::Layout(back.clone()), &image), 1);
    let archive = env.path("app.tar");
    let mut tar = std::process::Command::new("tar");
    tar.args(["--create", "--file", &archive, "--directory"]).arg(&back).args(["blobs", "index.json", "oci-layout"]);
    run(tar).ok();
    let from = format!("oci-archive:{archive}:v1");
    let refused = run(env.phial(["release", &from, "--tag", "v2"])).failed(2);
    assert!(refused.contains("an archive is written once"), "{refused}");
    let again = registry.reference("again/app");
    run(env.phial(["release", &from, "--tag", "v2", "--to", &again, "--to", "oci:app.oci"])).ok();
    assert_eq!(inspect(&format!("docker://{again}:v2")), image.manifest_digest.as_str());
    assert_eq!(inspect(&format!("oci:{}:v2", dir.display())), image.manifest_digest.as_str());
    assert_eq!(proofs(&at(&again), &image), 1);
}

#[test]
fn a_copy_without_a_tag_adds_no_image_to_a_layout() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let name = registry.reference("team/app:build-7");
    let image = pushed(&client(), &name.parse().unwrap(), b"one");
    record(&client(), &at(&name), &image, &ran(&image, 1, &[("test", true)]));
    let other = written(&env.dir().join("app.oci"), None, b"other");
    run(env.phial(["release", &name, "--to", "oci:app.oci"])).ok();
    let index = fs::read_to_string(env.dir().join("app.oci/index.json")).unwrap();
    assert!(
        index.contains(other.manifest_digest.as_str()) && index.contains(image.manifest_digest.as_str()),
        "{index}"
    );
}

#[test]
fn one_refusing_target_leaves_all_targets_as_they_were() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let built = registry.reference("team/app:build-7");
    let image = pushed(&client(), &built.parse().unwrap(), b"one");
    record(&client(), &at(&built), &image, &ran(&image, 1, &[("test", true)]));
    let taken: RegistryRef = registry.reference("taken/app:v1").parse().unwrap();
    pushed(&client(), &taken, b"other");
    let free = registry.reference("free/app");
    let before = registry.requests().len();
    run(env.phial(["release", &built, "--tag", "v1", "--to", &free, "--to", &taken.name()])).failed(7);
    let sent = registry.requests().split_off(before);
    assert!(sent.iter().all(|line| line.starts_with("GET") || line.starts_with("HEAD")), "{sent:#?}");
}

#[test]
fn an_override_is_recorded_at_every_target() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let built = registry.reference("team/app:build-7");
    pushed(&client(), &built.parse().unwrap(), b"one");
    let to = registry.reference("prod/app");
    run(env.phial(["release", &built, "--tag", "v1", "--to", &to, "--to", "oci:out.oci", "--untested", "a drill"]))
        .ok();
    let kind = "application/vnd.phial.untested.v1+json";
    let seen = oras(&["discover", "--plain-http", "--format", "json", "--artifact-type", kind, &format!("{to}:v1")]);
    assert!(seen.contains("a drill"), "{seen}");
    let layout = format!("{}:v1", env.path("out.oci"));
    let seen = oras(&["discover", "--oci-layout", "--format", "json", "--artifact-type", kind, &layout]);
    assert!(seen.contains("a drill"), "{seen}");
}

#[test]
fn the_tags_of_cosign_are_copied_along_and_add_no_image() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let built = registry.reference("team/app:build-7");
    let image = pushed(&client(), &built.parse().unwrap(), b"one");
    record(&client(), &at(&built), &image, &ran(&image, 1, &[("test", true)]));
    fs::write(env.dir().join("payload"), "{\"critical\":{}}").unwrap();
    let payload = format!("{}:application/vnd.dev.cosign.simplesigning.v1+json", env.path("payload"));
    let sign = |repository: &str, ending: &str, note: &str| {
        let tag = format!("{}:{}.{ending}", registry.reference(repository), fallback_tag(&image.manifest_digest));
        oras(&["push", "--plain-http", "--disable-path-validation", "--annotation", note, &tag, &payload]);
        oras(&["resolve", "--plain-http", &tag])
    };
    let (signature, attestation) = (sign("team/app", "sig", "a=1"), sign("team/app", "att", "a=1"));
    let own = sign("prod/app", "att", "b=2");
    assert_ne!(attestation, own);
    let to = registry.reference("prod/app");
    let ran = run(env.phial(["release", &built, "--tag", "v1", "--to", &to]));
    assert!(ran.stderr.contains(".att` keeps what it has"), "{}", ran.stderr);
    ran.ok();
    let there = |ending: &str| {
        oras(&["resolve", "--plain-http", &format!("{to}:{}.{ending}", fallback_tag(&image.manifest_digest))])
    };
    assert_eq!((there("sig"), there("att")), (signature, own));
}

#[test]
fn after_any_failure_no_tag_is_set_and_a_rerun_finishes() {
    let env = TestEnv::new();
    let kinds = [
        Kind::PostUpload,
        Kind::PutBlob,
        Kind::PutManifest,
        Kind::GetManifest,
        Kind::GetBlob,
        Kind::Referrers,
        Kind::PutTag,
        Kind::HeadTag,
    ];
    for (kind, referrers) in kinds.into_iter().flat_map(|kind| [(kind, true), (kind, false)]) {
        // Two registries, so that every blob goes over the wire.
        let (from, to) = (double(referrers), double(referrers));
        let built = from.reference("team/app:build-7");
        let image = pushed(&client(), &built, b"one");
        record(&client(), &location(&built), &image, &ran(&image, 1, &[("test", true)]));
        let release = || {
            let location = to.reference("prod/app").to_string();
            run(env.phial(["release", &built.to_string(), "--tag", "v1", "--tag", "v2", "--to", &location]))
        };
        for registry in [&from, &to] {
            registry.fail(kind, When::Always, Fault::Status(403));
        }
        let ended = release();
        let code = ended.code;
        let is_read_by_get = kind == Kind::HeadTag; // HEAD is advice
        assert!(code == Some(5) || is_read_by_get, "{kind:?}: {code:?}: {}", ended.stderr);
        if !is_read_by_get {
            let named = ["v1", "v2"].map(|tag| to.tag("prod/app", tag));
            assert_eq!(named, [None, None], "{kind:?}");
        }
        for registry in [&from, &to] {
            registry.heal();
        }
        release().ok();
        assert_eq!(
            ["v1", "v2"].map(|tag| to.tag("prod/app", tag)),
            [1, 2].map(|_| Some(image.manifest_digest.clone()))
        );
        assert_eq!(to.broken_tags(), Vec::<String>::new());
    }
}
