//! What has no proof gets no name: each refusal with its exit code and reason, and nothing written.

use std::fs;

use phial::attest::{ImageLocation, Partition, TestRun, single_blob};
use phial::error::UserError as _;
use phial::event::discard;
use phial::image::{Artifact, Descriptor, IN_TOTO, Image, OCI_INDEX, RegistryRef};
use phial_layers::Digest;
use serde_json::Value;

use super::{client, double, location, pushed, ran, record, skopeo, written};
use crate::harness::busybox::busybox_base;
use crate::harness::{Registry, TestEnv, run};
use crate::scripted;

/// An image in a registry, and a try to release it.
struct Case {
    env: TestEnv,
    memory: scripted::Registry,
    name: RegistryRef,
    image: Image,
}

impl Case {
    fn new() -> Self {
        let memory = double(false);
        let name = memory.reference("team/app:build-7");
        let image = pushed(&client(), &name, b"one");
        Self { env: TestEnv::new(), memory, name, image }
    }

    fn record(&self, run: &TestRun) -> String {
        record(&client(), &location(&self.name), &self.image, run)
    }

    fn ran(&self, at: i64, commands: &[(&str, bool)]) -> TestRun {
        ran(&self.image, at, commands)
    }

    #[track_caller]
    fn passes(&self, args: &[&str]) {
        let tag = ["release", &self.name.to_string(), "--tag", "v1"];
        run(self.env.phial([&tag[..], args].concat())).ok();
        assert_eq!(self.memory.tag("team/app", "v1"), Some(self.image.manifest_digest.clone()));
    }

    /// Checks that it is refused with this code and text, and that no tag was moved.
    #[track_caller]
    fn refused(&self, code: i32, args: &[&str], expected: &str) {
        let tag = ["release", &self.name.to_string(), "--tag", "v1"];
        let ran = run(self.env.phial([&tag[..], args].concat()));
        assert_eq!(ran.stdout, "");
        let err = ran.failed(code);
        assert!(err.contains(expected), "`{expected}` is not in: {err}");
        assert!(err.contains("hint: "), "no remedy: {err}");
        assert_eq!(self.memory.tag("team/app", "v1"), None, "refused, and named all the same");
    }
}

#[test]
fn an_untested_image() {
    let case = Case::new();
    case.refused(7, &[], "it has no test record");
    case.refused(7, &[], "hint: run `phial test");
    case.refused(7, &["--require", "test"], "it has no test record");
}

#[test]
fn a_failed_image_until_it_passes() {
    let case = Case::new();
    case.record(&case.ran(1, &[("test", true), ("credo", false)]));
    let both = ["--require", "test", "--require", "credo"];
    case.refused(7, &both, "`credo` failed at 1970-01-01T00:00:01Z");
    case.record(&case.ran(2, &[("credo", true)]));
    case.passes(&both);
}

#[test]
fn a_failure_that_is_newer_than_a_success() {
    let case = Case::new();
    case.record(&case.ran(1, &[("test", true)]));
    let failed = case.record(&TestRun { url: Some("https://ci.example/9".into()), ..case.ran(2, &[("test", false)]) });
    case.refused(7, &[], "`test` failed at 1970-01-01T00:00:02Z (https://ci.example/9");
    case.refused(7, &[], &failed);
}

#[test]
fn a_command_that_is_required_and_was_never_run() {
    let case = Case::new();
    case.record(&case.ran(1, &[("test", true)]));
    case.refused(7, &["--require", "test", "--require", "credo"], "`credo` was never run, only `test`");
    case.passes(&["--require", "test"]);
}

#[test]
fn a_command_that_happened_to_pass_is_not_the_test() {
    let case = Case::new();
    case.record(&case.ran(1, &[("true", true)]));
    case.refused(7, &[], "`test` was never run, only `true`");
    case.passes(&["--require", "true"]);
}

#[test]
fn a_part_of_the_tests() {
    let case = Case::new();
    let part = |nth| TestRun { partition: Some(Partition { nth, of: 2 }), ..case.ran(nth.into(), &[("test", true)]) };
    case.record(&part(1));
    case.refused(7, &[], "only the parts 1/2 of `test` were run");
    case.record(&part(2));
    case.passes(&[]);
}

#[test]
fn a_record_that_names_another_digest() {
    let case = Case::new();
    let other = Digest::of(b"another image");
    case.record(&TestRun { image: other.clone(), ..case.ran(1, &[("test", true)]) });
    case.refused(7, &[], &format!("is invalid: its subject is `{other}`"));
}

#[test]
fn a_record_of_another_image_that_was_put_into_the_list() {
    let case = Case::new();
    let other = pushed(&client(), &case.memory.reference("team/app:other"), b"other");
    record(&client(), &location(&case.name), &other, &ran(&other, 1, &[("test", true)]));
    let list = phial::image::fallback_tag(&other.manifest_digest);
    let list = case.memory.direct_access().document("team/app", &list).to_string();
    let own = phial::image::fallback_tag(&case.image.manifest_digest);
    case.memory.direct_access().put("team/app", Some(&own), OCI_INDEX, list.as_bytes());
    case.refused(7, &[], &format!("its subject is `{}`", other.manifest_digest));
}

#[test]
fn a_record_that_somebody_edited_and_pushed_again() {
    let case = Case::new();
    let (_, document) = case.ran(1, &[("test", false)]).record(case.image.descriptor());
    let edited = String::from_utf8(document).unwrap().replace("FAILED", "PASSED").into_bytes();
    let layer = Descriptor::of(IN_TOTO, &edited);
    let artifact = Artifact::about(case.image.descriptor(), IN_TOTO, layer, std::collections::BTreeMap::new());
    location(&case.name).attach(&client(), &artifact, &single_blob(&edited), &discard).unwrap();
    case.refused(7, &[], "it contradicts itself");
}

#[test]
fn a_record_whose_bytes_somebody_edited_in_the_registry() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let name = registry.reference("team/app:build-7");
    let image = pushed(&client(), &name.parse().unwrap(), b"one");
    let run_of = ran(&image, 1, &[("test", false)]);
    record(&client(), &location(&name.parse().unwrap()), &image, &run_of);
    let digest = run_of.record(image.descriptor()).0.manifest.layers[0].digest.clone();
    let blob =
        registry.store().join(format!("docker/registry/v2/blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()));
    let text = fs::read_to_string(&blob).unwrap();
    fs::write(&blob, text.replace("FAILED", "PASSED")).unwrap();
    let refused = run(env.phial(["release", &name, "--tag", "v1"])).failed(7);
    assert!(refused.contains("it is damaged") && refused.contains(digest.as_str()), "{refused}");
}

#[test]
fn a_record_that_somebody_edited_in_a_layout() {
    let env = TestEnv::new();
    let dir = env.dir().join("app.oci");
    let image = written(&dir, Some("build"), b"one");
    let run_of = ran(&image, 1, &[("test", false)]);
    record(&client(), &ImageLocation::Layout(dir.clone()), &image, &run_of);
    let artifact = run_of.record(image.descriptor()).0;
    let blob = |digest: &Digest| dir.join("blobs/sha256").join(digest.hex());
    for digest in [&artifact.manifest.layers[0].digest, &artifact.digest] {
        let kept = fs::read(blob(digest)).unwrap();
        fs::write(blob(digest), String::from_utf8(kept.clone()).unwrap().replace("FAILED", "PASSED")).unwrap();
        let refused = run(env.phial(["release", "oci:app.oci:build", "--tag", "v1"])).failed(7);
        assert!(refused.contains("it is damaged"), "{refused}");
        fs::write(blob(digest), kept).unwrap();
    }
    let index = fs::read_to_string(dir.join("index.json")).unwrap();
    assert!(!index.contains("\"v1\""), "{index}");
}

#[test]
fn a_failure_in_a_record_of_another_tool() {
    let case = Case::new();
    case.record(&case.ran(1, &[("test", true)]));
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": case.image.manifest_digest.hex() } }],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": { "result": "FAILED", "configuration": [] },
    });
    let statement = statement.to_string().into_bytes();
    let layer = Descriptor::of(IN_TOTO, &statement);
    let artifact =
        Artifact::about(case.image.descriptor(), "application/x-other", layer, std::collections::BTreeMap::new());
    location(&case.name).attach(&client(), &artifact, &single_blob(&statement), &discard).unwrap();
    case.refused(7, &[], "its tests failed");
}

#[test]
fn a_registry_that_cannot_say_what_refers_to_the_image_is_no_proof() {
    // 403 to the question may hide a failure: that is no "no".
    let server = scripted::Server::start(|request| {
        let document = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        match request.path.as_str() {
            path if path.contains("/referrers/") => scripted::respond(403),
            path if path.contains("/manifests/") => {
                scripted::respond(200).with("Content-Type", OCI_INDEX).body(document)
            }
            _ => scripted::respond(404),
        }
    });
    let refused = client().referrers(&server.reference("app"), &Digest::of(b"image")).unwrap_err();
    assert_eq!(refused.exit_kind().code(), 5, "{refused}");
}

#[test]
fn impossible_arguments() {
    let case = Case::new();
    case.record(&case.ran(1, &[("test", true)]));
    let name = case.name.to_string();
    let reserved = phial::image::fallback_tag(&case.image.manifest_digest);
    for (args, code, expected) in [
        (&["release", &name][..], 2, "there is nothing to do"),
        (&["release", &name, "--tag", "not a tag"], 2, "cannot use `tag`"),
        (&["release", &name, "--tag", &reserved], 2, "is reserved for referrers"),
        (&["release", &name, "--tag", "v1", "--to", "oci-archive:x.tar"], 2, "it is an archive"),
        (&["release", &name, "--tag", "v1", "--to", &name], 2, "it has a tag or digest"),
        (&["release", &name, "--tag", "v1", "--to", "Upper/Case"], 2, "cannot use `to`"),
        (&["release", &name, "--tag", "v1", "--untested", " "], 2, "`--untested` has no reason"),
        (&["release", &name, "--tag", "v1", "--config", "nowhere.toml"], 2, "cannot read"),
        (&["release", "docker-archive:x.tar", "--tag", "v1"], 2, "can be written, not read"),
        (&["release", &name.replace("build-7", "nothing"), "--tag", "v1"], 3, "is not in the registry"),
        (&["release", "oci:nowhere", "--tag", "v1"], 3, "there is no `nowhere`"),
    ] {
        let refused = run(case.env.phial(args)).failed(code);
        assert!(refused.contains(expected), "{args:?}: {refused}");
    }
    assert_eq!(case.memory.tag("team/app", "v1"), None);
}

#[test]
fn an_index_of_images() {
    let case = Case::new();
    let entry = serde_json::json!(case.image.descriptor());
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] }).to_string();
    case.memory.direct_access().put("team/app", Some("many"), OCI_INDEX, index.as_bytes());
    let name = case.memory.reference("team/app:many").to_string();
    let refused = run(case.env.phial(["release", &name, "--tag", "v1"])).failed(3);
    assert!(
        refused.contains("is an index of images") && refused.contains("hint: name the image of one platform"),
        "{refused}"
    );
}

#[test]
fn what_the_images_own_settings_require() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let repo = env.shell_app();
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).unwrap();
    repo.write("phial.toml", format!("{settings}\n[release]\nrequires = [\"test\", \"credo\"]\n"));
    repo.commit("What a release needs");
    let name = registry.reference("team/app:build-7");
    let base = format!("oci:{}", busybox_base().display());
    let digest = run(env.phial(["build", repo.source(), "--base", &base, "--to", &name])).ok();
    let digest: Digest = digest.rsplit_once('@').unwrap().1.parse().unwrap();
    let image = client().image(&name.parse().unwrap(), &phial::image::Platform::host()).unwrap();
    assert_eq!(image.manifest_digest, digest);
    record(&client(), &location(&name.parse().unwrap()), &image, &ran(&image, 1, &[("test", true)]));
    let elsewhere = TestEnv::with_empty_cache();
    for env in [&env, &elsewhere] {
        let refused = run(env.phial(["release", &name, "--tag", "v1"])).failed(7);
        assert!(refused.contains("`credo` was never run, only `test`"), "{refused}");
    }
    fs::write(env.dir().join("own.toml"), "[release]\nrequires = [\"test\"]\n").unwrap();
    run(env.phial(["release", &name, "--tag", "v1", "--config", "own.toml"])).ok();
    record(&client(), &location(&name.parse().unwrap()), &image, &ran(&image, 2, &[("credo", true)]));
    run(env.phial(["release", &name, "--tag", "v2"])).ok();
    let inspect = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    let v2 = format!("docker://{}", registry.reference("team/app:v2"));
    assert_eq!(skopeo(&[&inspect[..], &[&v2]].concat()), digest.as_str());
    let _: Value = serde_json::from_slice(&image.config_bytes).unwrap();
}
