//! Names are given to the very bytes that were tested, in a registry and in a layout.

use std::fs;

use phial::attest::ImageLocation;
use phial::error::UserError as _;
use phial::event::discard;
use phial::image::fallback_tag;
use phial::layout::{self, Names, Put};
use phial::release::ReleaseError;
use serde_json::Value;

use super::{client, double, location, oras, pushed, ran, record, skopeo, written};
use crate::harness::{Registry, TestEnv, run};
use crate::scripted::{self, Kind, Quirks};

fn inspect(name: &str) -> String {
    skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{name}")])
}

#[test]
fn a_tested_image_gets_its_tags_and_the_bytes_stay_what_they_are() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let built = registry.reference("team/app:build-7");
    let image = pushed(&client(), &built.parse().unwrap(), b"one");
    record(&client(), &location(&built.parse().unwrap()), &image, &ran(&image, 1, &[("test", true), ("credo", true)]));
    let out = run(env.phial(["release", &built, "--tag", "v1", "--tag", "latest"])).ok();
    let (v1, latest) = (registry.reference("team/app:v1"), registry.reference("team/app:latest"));
    assert_eq!(out, format!("{v1}@{0}\n{latest}@{0}", image.manifest_digest));
    for name in [&v1, &latest] {
        assert_eq!(inspect(name), image.manifest_digest.as_str());
        let bytes = oras(&["manifest", "fetch", "--plain-http", name]);
        assert_eq!(bytes.as_bytes(), image.manifest_bytes, "re-serialised");
    }
}

#[test]
fn a_tag_that_is_there_is_success_and_nothing_is_sent() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let built = registry.reference("team/app:build-7");
    let image = pushed(&client(), &built.parse().unwrap(), b"one");
    record(&client(), &location(&built.parse().unwrap()), &image, &ran(&image, 1, &[("test", true)]));
    let release = || run(env.phial(["release", &built, "--tag", "v1"])).ok();
    let first = release();
    let before = registry.requests().len();
    assert_eq!(release(), first);
    let sent = registry.requests().split_off(before);
    assert!(!sent.iter().any(|line| line.starts_with("PUT") || line.starts_with("POST")), "{sent:#?}");
}

#[test]
fn an_image_is_named_by_digest_as_well_as_by_tag() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let built = registry.reference("team/app:build-7");
    let image = pushed(&client(), &built.parse().unwrap(), b"one");
    record(&client(), &location(&built.parse().unwrap()), &image, &ran(&image, 1, &[("test", true)]));
    let by_digest = format!("{}@{}", registry.reference("team/app"), image.manifest_digest);
    let ran = run(env.phial(["release", &by_digest, "--tag", "v1", "--progress", "plain"]));
    assert!(ran.stderr.contains(&format!("image              {by_digest}")), "{}", ran.stderr);
    assert_eq!(ran.ok(), format!("{}@{}", registry.reference("team/app:v1"), image.manifest_digest));
}

#[test]
fn a_tag_moves_only_with_the_flag_and_from_the_given_digest() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let (old, new) = (registry.reference("team/app:v1"), registry.reference("team/app:build-8"));
    let before = pushed(&client(), &old.parse().unwrap(), b"old");
    let image = pushed(&client(), &new.parse().unwrap(), b"new");
    record(&client(), &location(&new.parse().unwrap()), &image, &ran(&image, 1, &[("test", true)]));
    let release = |args: &[&str]| run(env.phial([&["release", &new, "--tag", "v1"], args].concat()));
    let refused = release(&[]).failed(7);
    assert!(refused.contains(&format!("`{old}` already points to `{}`", before.manifest_digest)), "{refused}");
    assert!(refused.contains("hint: use `--move`"), "{refused}");
    let refused = release(&["--expect", image.config_bytes.is_empty().to_string().as_str()]).failed(2);
    assert!(refused.contains("not a digest"), "{refused}");
    let other = image.manifest.config.digest.as_str();
    let refused = release(&["--expect", other, "--move"]).failed(7);
    assert!(refused.contains(&format!("but `--expect` says `{other}`")), "{refused}");
    assert_eq!(inspect(&old), before.manifest_digest.as_str(), "refused, and moved all the same");
    release(&["--expect", before.manifest_digest.as_str()]).ok();
    assert_eq!(inspect(&old), image.manifest_digest.as_str());
    pushed(&client(), &old.parse().unwrap(), b"old");
    release(&["--move"]).ok();
    assert_eq!(inspect(&old), image.manifest_digest.as_str());
}

#[test]
fn a_dry_run_shows_everything_and_writes_nothing() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let built = registry.reference("team/app:build-7");
    let image = pushed(&client(), &built.parse().unwrap(), b"one");
    record(&client(), &location(&built.parse().unwrap()), &image, &ran(&image, 1, &[("test", true)]));
    let to = registry.reference("prod/app");
    let before = registry.requests().len();
    let args = ["release", &built, "--tag", "v1", "--to", &to, "--dry-run"];
    let ran = run(env.phial(args));
    assert!(ran.stderr.contains(&format!("{to}:v1  would be new")), "{}", ran.stderr);
    assert_eq!(ran.ok(), "");
    let json: Value = serde_json::from_str(&run(env.phial([&args[..], &["--json"]].concat())).ok()).unwrap();
    assert_eq!(
        (json["dry_run"].as_bool(), json["names"][0]["name"].as_str()),
        (Some(true), Some(format!("{to}:v1").as_str()))
    );
    let sent = registry.requests().split_off(before);
    assert!(sent.iter().all(|line| line.starts_with("GET") || line.starts_with("HEAD")), "{sent:#?}");
    run(env.phial([&args[..], &["--tag", "v1", "--require", "dialyzer"]].concat())).failed(7);
}

#[test]
fn json_lists_what_was_proven_by_what() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let built = registry.reference("team/app:build-7");
    let image = pushed(&client(), &built.parse().unwrap(), b"one");
    let record_digest =
        record(&client(), &location(&built.parse().unwrap()), &image, &ran(&image, 1, &[("test", true)]));
    let out = run(env.phial(["release", &built, "--tag", "v1", "--tag", "build-7", "--json"])).ok();
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["digest"], image.manifest_digest.as_str());
    assert_eq!(json["proven"]["test"], record_digest.as_str());
    assert_eq!(json["untested"], Value::Null);
    let changes: Vec<&str> =
        json["names"].as_array().unwrap().iter().map(|name| name["change"].as_str().unwrap()).collect();
    assert_eq!(changes, ["new", "unchanged"]);
}

#[test]
fn a_layout_gets_tags_and_keeps_its_other_entries() {
    let env = TestEnv::new();
    let dir = env.dir().join("app.oci");
    let image = written(&dir, None, b"one");
    let record_digest =
        record(&client(), &ImageLocation::Layout(dir.clone()), &image, &ran(&image, 1, &[("test", true)]));
    let out = run(env.phial(["release", "oci:app.oci", "--tag", "v1", "--tag", "latest"])).ok();
    assert_eq!(out, format!("oci:app.oci:v1@{0}\noci:app.oci:latest@{0}", image.manifest_digest));
    for tag in ["v1", "latest"] {
        let name = format!("oci:{}:{tag}", dir.display());
        assert_eq!(skopeo(&["inspect", "--format", "{{.Digest}}", &name]), image.manifest_digest.as_str());
        let seen = oras(&["discover", "--oci-layout", "--format", "json", &format!("{}:{tag}", dir.display())]);
        assert!(seen.contains(&record_digest), "{seen}");
    }
    let other = written(&dir, Some("next"), b"two");
    let refused = run(env.phial(["release", "oci:app.oci:next", "--tag", "v1", "--untested", "a drill"])).failed(7);
    assert!(refused.contains("`oci:app.oci:v1` already points to"), "{refused}");
    run(env.phial(["release", "oci:app.oci:next", "--tag", "v1", "--untested", "a drill", "--move"])).ok();
    let name = format!("oci:{}:v1", dir.display());
    assert_eq!(skopeo(&["inspect", "--format", "{{.Digest}}", &name]), other.manifest_digest.as_str());
}

#[test]
fn releasing_without_a_test_records_the_reason_next_to_the_image() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let built = registry.reference("team/app:build-7");
    let image = pushed(&client(), &built.parse().unwrap(), b"one");
    let mut release = env.phial(["release", &built, "--tag", "v1", "--untested", "the registry burns"]);
    release.env("CI_JOB_URL", "https://ci.example/jobs/7");
    let out = run(release).ok();
    assert_eq!(out, format!("{}@{}", registry.reference("team/app:v1"), image.manifest_digest));
    let kind = "application/vnd.phial.untested.v1+json";
    let seen = oras(&["discover", "--plain-http", "--format", "json", "--artifact-type", kind, &built]);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let entry = &seen["manifests"][0];
    assert_eq!(entry["annotations"]["dev.phial.untested"], "the registry burns");
    let into = env.path("pulled");
    fs::create_dir(&into).unwrap();
    let manifest = oras(&[
        "manifest",
        "fetch",
        "--plain-http",
        &format!("{}@{}", registry.reference("team/app"), entry["digest"].as_str().unwrap()),
    ]);
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let blob = format!("{}@{}", registry.reference("team/app"), manifest["layers"][0]["digest"].as_str().unwrap());
    let output: Value =
        serde_json::from_str(&oras(&["blob", "fetch", "--plain-http", "--output", "-", &blob])).unwrap();
    assert_eq!(output["doubts"], serde_json::json!(["it has no test record"]));
    assert_eq!(output["names"], serde_json::json!([registry.reference("team/app:v1")]));
    assert_eq!(output["url"], "https://ci.example/jobs/7");

    let refused = run(env.phial(["release", &built, "--tag", "v2"])).failed(7);
    assert!(refused.contains("it has no test record"), "an excuse is no test: {refused}");
}

#[test]
fn an_override_that_is_not_needed_is_not_recorded() {
    let (env, memory) = (TestEnv::new(), double(true));
    let name = memory.reference("team/app:build-7");
    let image = pushed(&client(), &name, b"one");
    record(&client(), &location(&name), &image, &ran(&image, 1, &[("test", true)]));
    let before = memory.direct_access().manifests("team/app");
    let ran = run(env.phial(["release", &name.to_string(), "--tag", "v1", "--untested", "in a hurry"]));
    assert!(ran.stderr.contains("`--untested` is not needed"), "{}", ran.stderr);
    ran.ok();
    assert_eq!(memory.direct_access().manifests("team/app"), before);
}

#[test]
fn an_immutable_tag_at_the_same_digest_is_success_and_one_at_another_is_refused() {
    let (env, memory) = (TestEnv::new(), scripted::Registry::open(Quirks { immutable: Some(400), ..Quirks::none() }));
    let (one, two) = (memory.reference("team/app:build-7"), memory.reference("team/app:build-8"));
    let first = pushed(&client(), &one, b"one");
    let second = pushed(&client(), &two, b"two");
    for (name, image) in [(&one, &first), (&two, &second)] {
        record(&client(), &location(name), image, &ran(image, 1, &[("test", true)]));
    }
    let release = |name: &phial::image::RegistryRef, args: &[&str]| {
        run(env.phial([&["release", &name.to_string(), "--tag", "v1"], args].concat()))
    };
    release(&one, &[]).ok();
    release(&one, &[]).ok();
    release(&two, &[]).failed(7);
    let refused = release(&two, &["--move"]).failed(7);
    assert!(
        refused.contains(&format!("is immutable in its registry and points to `{}`", first.manifest_digest)),
        "{refused}"
    );
    assert_eq!(memory.tag("team/app", "v1"), Some(first.manifest_digest));
}

#[test]
fn an_immutable_fallback_tag_gets_a_hint_what_to_exclude() {
    let (env, memory) =
        (TestEnv::new(), scripted::Registry::open(Quirks { immutable: Some(400), referrers: false, ..Quirks::none() }));
    let name = memory.reference("team/app:build-7");
    let image = pushed(&client(), &name, b"one");
    record(&client(), &location(&name), &image, &ran(&image, 1, &[("test", false)]));
    let refused = run(env.phial(["release", &name.to_string(), "--tag", "v1", "--untested", "a drill"])).failed(3);
    assert!(refused.contains(&fallback_tag(&image.manifest_digest)) && refused.contains("`sha256-*`"), "{refused}");
    assert_eq!(memory.tag("team/app", "v1"), None, "the tag moves last");
}

#[test]
fn a_tag_that_was_moved_meanwhile_is_not_overwritten() {
    let (env, memory) = (TestEnv::new(), double(true));
    let name = memory.reference("team/app:build-7");
    let image = pushed(&client(), &name, b"one");
    record(&client(), &location(&name), &image, &ran(&image, 1, &[("test", true)]));
    // Another client gives `v1` away after we looked and before we write.
    let other = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    memory.interfere(Kind::HeadTag, 2, |hands| {
        hands.put("team/app", Some("v1"), phial::image::OCI_INDEX, other);
    });
    let refused = run(env.phial(["release", &name.to_string(), "--tag", "v1", "--move"])).failed(7);
    assert!(refused.contains("was changed by somebody else during the release"), "{refused}");
    assert_eq!(memory.tag("team/app", "v1"), Some(phial_layers::Digest::of(other)));
}

#[test]
fn a_tag_of_a_layout_that_was_moved_meanwhile_is_not_overwritten() {
    let env = TestEnv::new();
    let dir = env.dir().join("app.oci");
    let (old, new) = (written(&dir, Some("v1"), b"old"), written(&dir, Some("next"), b"new"));
    let before = fs::read(dir.join("index.json")).unwrap();
    let tags = ["v1".to_owned()];
    // It was seen to name nothing, and names something when the layout is locked.
    let check = |tag: &str, now: Option<&phial_layers::Digest>| {
        assert_eq!((tag, now), ("v1", Some(&old.manifest_digest)));
        false
    };
    let nothing = |_: &_| Ok(None);
    let put = Put { image: Some((&new, &nothing)), names: Names::Tags(&tags), referrers: None, check: &check };
    let error = ReleaseError::from(layout::put_into(&dir, &put, &discard).unwrap_err());
    assert_eq!(error.exit_kind().code(), 7);
    assert!(error.to_string().contains("was changed by somebody else during the release"), "{error}");
    assert_eq!(fs::read(dir.join("index.json")).unwrap(), before);
}
