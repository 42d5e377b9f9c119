//! What refers to an image is found again: by the API, by the fallback tag, in a layout; by us and by others.

use std::fs;
use std::sync::Arc;
use std::thread;

use phial::attest::{ImageLocation, ListedRecord, records};
use phial::error::UserError as _;
use phial::event::discard;
use phial::image::{EMPTY, Image, OCI_INDEX, OCI_MANIFEST, Platform, fallback_tag};
use phial::layout::{self, Layout};
use phial::registry::{ArtifactPush, ReferrersSupport, RegistryError};
use serde_json::{Value, json};

use super::{client, descriptors, double, location, oras, pushed, ran, record, skopeo, written};
use crate::harness::{Registry, TestEnv};
use crate::registry::sample_images::{BlobMap, two_layers};
use crate::scripted::{self, Kind, Quirks};

const IN_TOTO: &str = "application/vnd.in-toto+json";

/// The referrers of the records that can be judged, in order.
fn judged(at: &ImageLocation, image: &Image) -> Vec<String> {
    let found = records(at, &client(), &image.manifest_digest).unwrap();
    let mut digests: Vec<String> = found
        .into_iter()
        .map(|listed| match listed {
            ListedRecord::Valid(record) => record.referrer.to_string(),
            ListedRecord::Invalid(_, flaw) => panic!("{flaw}"),
        })
        .collect();
    digests.sort();
    digests
}

#[test]
fn without_the_api_records_are_listed_under_the_fallback_tag_for_us_and_for_oras() {
    let registry = Registry::start();
    let (client, name) = (client(), registry.reference("team/app:v1").parse().unwrap());
    let image = pushed(&client, &name, b"one");
    assert_eq!(client.referrers_support(&name, &image.manifest_digest).unwrap(), ReferrersSupport::FallbackTag);
    let at = location(&name);
    let mut put = [
        record(&client, &at, &image, &ran(&image, 1, &[("test", false)])),
        record(&client, &at, &image, &ran(&image, 2, &[("test", true)])),
    ];
    put.sort();
    assert_eq!(judged(&at, &image), put);

    let index = oras(&[
        "manifest",
        "fetch",
        "--plain-http",
        &format!("{}:{}", name.name(), fallback_tag(&image.manifest_digest)),
    ]);
    let index: Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["mediaType"], OCI_INDEX);
    for entry in index["manifests"].as_array().unwrap() {
        assert_eq!(entry["artifactType"], IN_TOTO, "{entry}");
        assert_eq!(entry["mediaType"], OCI_MANIFEST);
        let kind = &entry["annotations"]["in-toto.io/predicate-type"];
        assert_eq!(kind, "https://in-toto.io/attestation/test-result/v0.1", "annotations of the manifest: {entry}");
    }
    let seen = oras(&["discover", "--plain-http", "--format", "json", "--artifact-type", IN_TOTO, &name.to_string()]);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let mut digests: Vec<&str> =
        seen["manifests"].as_array().unwrap().iter().map(|it| it["digest"].as_str().unwrap()).collect();
    digests.sort_unstable();
    assert_eq!(digests, put);
    assert_eq!(
        skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{name}")]),
        image.manifest_digest.as_str()
    );
}

#[test]
fn a_record_that_is_there_is_not_written_again() {
    let registry = Registry::start();
    let (client, name) = (client(), registry.reference("team/app:v1").parse().unwrap());
    let image = pushed(&client, &name, b"one");
    let run = ran(&image, 1, &[("test", true)]);
    record(&client, &location(&name), &image, &run);
    let before = registry.requests().len();
    record(&client, &location(&name), &image, &run);
    let sent = registry.requests().split_off(before);
    assert!(!sent.iter().any(|line| line.starts_with("PUT") && line.contains("/sha256-")), "{sent:#?}");
    assert_eq!(judged(&location(&name), &image).len(), 1);
}

#[test]
fn what_oras_attached_stays_listed_beside_ours() {
    let env = TestEnv::new();
    let registry = Registry::start();
    let (client, name) = (client(), registry.reference("team/app:v1").parse().unwrap());
    let image = pushed(&client, &name, b"one");
    fs::write(env.dir().join("bom.json"), "{}").unwrap();
    let bom = env.path("bom.json");
    let attach = |kind: &str| {
        oras(&[
            "attach",
            "--plain-http",
            "--disable-path-validation",
            "--artifact-type",
            kind,
            &name.to_string(),
            &bom,
        ]);
    };
    attach("application/vnd.cyclonedx+json");
    let ours = record(&client, &location(&name), &image, &ran(&image, 1, &[("test", true)]));
    attach("application/spdx+json");
    let listed = client.referrers(&name, &image.manifest_digest).unwrap();
    let mut kinds: Vec<&str> = listed.iter().filter_map(|entry| entry.artifact_type.as_deref()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["application/spdx+json", "application/vnd.cyclonedx+json", IN_TOTO]);
    assert_eq!(judged(&location(&name), &image), [ours]);
}

#[test]
fn eight_writers_at_once_lose_no_record() {
    for registry in [None, Some(Registry::start())] {
        let memory = double(false);
        let host = registry.as_ref().map_or_else(|| memory.host.clone(), Registry::host);
        let name = format!("{host}/team/app:v1").parse().unwrap();
        let image = Arc::new(pushed(&client(), &name, b"one"));
        let writers: Vec<_> = (0..8)
            .map(|nth| {
                let (image, at) = (Arc::clone(&image), location(&name));
                thread::spawn(move || record(&client(), &at, &image, &ran(&image, nth, &[("test", nth % 2 == 0)])))
            })
            .collect();
        let mut put: Vec<String> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        put.sort();
        assert_eq!(judged(&location(&name), &image), put);
    }
}

#[test]
fn a_list_that_another_overwrote_is_written_again() {
    let memory = double(false);
    let name = memory.reference("team/app:v1");
    let image = pushed(&client(), &name, b"one");
    // Once, right after our list is put, another client puts its own, made from what it read before.
    let other = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).to_string();
    let tag = fallback_tag(&image.manifest_digest);
    memory.interfere(Kind::GetTag, 2, move |hands| {
        hands.put("team/app", Some(&tag), OCI_INDEX, other.as_bytes());
    });
    let put = record(&client(), &location(&name), &image, &ran(&image, 1, &[("test", false)]));
    assert_eq!(judged(&location(&name), &image), [put]);
    assert_eq!(memory.count(Kind::PutTag), 1 + 2);
}

#[test]
fn the_api_is_used_where_it_works_whatever_headers_say() {
    for says_subject in [true, false] {
        let memory = scripted::Registry::open(Quirks {
            says_subject: Some(says_subject),
            referrers_page: 2,
            referrers_late: 3,
            ..Quirks::none()
        });
        let name = memory.reference("team/app:v1");
        let image = pushed(&client(), &name, b"one");
        let mut put: Vec<String> = (0..5)
            .map(|nth| record(&client(), &location(&name), &image, &ran(&image, nth, &[("test", true)])))
            .collect();
        put.sort();
        assert_eq!(client().referrers_support(&name, &image.manifest_digest).unwrap(), ReferrersSupport::Api);
        assert_eq!(descriptors(&client().referrers(&name, &image.manifest_digest).unwrap()), put, "all pages");
        assert_eq!(judged(&location(&name), &image), put);
        assert_eq!(memory.tag("team/app", &fallback_tag(&image.manifest_digest)), None);
    }
}

#[test]
fn a_registry_that_only_seems_to_have_the_api_gets_the_fallback_tag() {
    let none = Quirks { referrers: false, ..Quirks::none() };
    for quirks in [Quirks { says_subject: Some(true), ..none.clone() }, Quirks { pages: true, ..none.clone() }] {
        let memory = scripted::Registry::open(quirks.clone());
        let name = memory.reference("team/app:v1");
        let image = pushed(&client(), &name, b"one");
        let put = record(&client(), &location(&name), &image, &ran(&image, 1, &[("test", true)]));
        assert!(memory.tag("team/app", &fallback_tag(&image.manifest_digest)).is_some(), "{quirks:?}");
        assert_eq!(judged(&location(&name), &image), [put]);
    }
}

#[test]
fn a_registry_that_takes_a_record_and_never_lists_it_is_an_error() {
    let memory = scripted::Registry::open(Quirks { referrers_late: usize::MAX, ..Quirks::none() });
    let name = memory.reference("team/app:v1");
    let image = pushed(&client(), &name, b"one");
    let (artifact, document) = ran(&image, 1, &[("test", false)]).record(image.descriptor());
    let refused = client()
        .put_referrer(
            &name,
            ArtifactPush { artifact: &artifact, blobs: &phial::attest::single_blob(&document), mount: &[] },
        )
        .unwrap_err();
    assert_eq!(refused.exit_kind().code(), 4);
    assert!(refused.to_string().contains("does not list it"), "{refused}");
}

#[test]
fn where_the_fallback_tag_is_the_image_itself_the_list_has_another_tag() {
    let memory = scripted::Registry::open(Quirks::gitlab());
    let name = memory.reference("team/app:v1");
    let image = pushed(&client(), &name, b"one");
    assert_eq!(judged(&location(&name), &image), Vec::<String>::new());
    let put = record(&client(), &location(&name), &image, &ran(&image, 1, &[("test", true)]));
    assert_eq!(judged(&location(&name), &image), [put]);
    assert_eq!(memory.tag("team/app", &fallback_tag(&image.manifest_digest)), None, "the image's own digest stays");
}

#[test]
fn something_else_under_the_fallback_tag_is_not_written_over() {
    let memory = double(false);
    let name = memory.reference("team/app:v1");
    let image = pushed(&client(), &name, b"one");
    let tag = fallback_tag(&image.manifest_digest);
    let other = pushed(&client(), &memory.reference(&format!("team/app:{tag}")), b"another image");
    let (artifact, document) = ran(&image, 1, &[("test", true)]).record(image.descriptor());
    for refused in [
        client()
            .put_referrer(
                &name,
                ArtifactPush { artifact: &artifact, blobs: &phial::attest::single_blob(&document), mount: &[] },
            )
            .unwrap_err(),
        client().referrers(&name, &image.manifest_digest).unwrap_err(),
    ] {
        assert!(matches!(refused, RegistryError::Image { .. }), "{refused}");
        assert_eq!(refused.exit_kind().code(), 3);
    }
    assert_eq!(memory.tag("team/app", &tag), Some(other.manifest_digest));
}

#[test]
fn an_entry_with_a_wrong_type_and_without_annotations_is_read_all_the_same() {
    // What cosign 3.1 writes under the fallback tag.
    let memory = double(false);
    let name = memory.reference("team/app:v1");
    let image = pushed(&client(), &name, b"one");
    let put = record(&client(), &location(&name), &image, &ran(&image, 1, &[("test", false)]));
    let tag = fallback_tag(&image.manifest_digest);
    let mut index = memory.direct_access().document("team/app", &tag);
    let entry = &mut index["manifests"][0];
    entry["artifactType"] = EMPTY.into();
    entry.as_object_mut().unwrap().remove("annotations");
    memory.direct_access().put("team/app", Some(&tag), OCI_INDEX, index.to_string().as_bytes());
    assert_eq!(judged(&location(&name), &image), [put]);
}

#[test]
fn a_referrer_that_was_removed_is_skipped() {
    let memory = double(false);
    let name = memory.reference("team/app:v1");
    let image = pushed(&client(), &name, b"one");
    let gone = record(&client(), &location(&name), &image, &ran(&image, 1, &[("test", true)]));
    let kept = record(&client(), &location(&name), &image, &ran(&image, 2, &[("test", true)]));
    memory.direct_access().forget("team/app", &gone);
    assert_eq!(judged(&location(&name), &image), [kept]);
}

#[test]
fn a_list_that_names_what_is_gone_can_still_be_added_to() {
    let registry = Registry::start();
    let (client, name) = (client(), registry.reference("team/app:v1").parse().unwrap());
    let image = pushed(&client, &name, b"one");
    let gone = record(&client, &location(&name), &image, &ran(&image, 1, &[("test", true)]));
    oras(&[
        "manifest",
        "delete",
        "--plain-http",
        "--force",
        "--distribution-spec",
        "v1.1-referrers-api",
        &format!("{}@{gone}", name.name()),
    ]);
    let kept = record(&client, &location(&name), &image, &ran(&image, 2, &[("test", true)]));
    assert_eq!(judged(&location(&name), &image), [kept]);
}

#[test]
fn in_a_layout_records_are_entries_without_a_tag_that_other_tools_skip() {
    let env = TestEnv::new();
    let dir = env.dir().join("layout");
    let image = written(&dir, Some("v1"), b"one");
    let other = written(&dir, Some("other"), b"two");
    let at = ImageLocation::Layout(dir.clone());
    let put = record(&client(), &at, &image, &ran(&image, 1, &[("test", true)]));
    record(&client(), &at, &other, &ran(&other, 1, &[("test", false)]));
    assert_eq!(judged(&at, &image), std::slice::from_ref(&put));
    let oci = |tag: &str| format!("oci:{}:{tag}", dir.display());
    for (tag, image) in [("v1", &image), ("other", &other)] {
        assert_eq!(skopeo(&["inspect", "--format", "{{.Digest}}", &oci(tag)]), image.manifest_digest.as_str());
    }
    let seen = oras(&["discover", "--oci-layout", "--format", "json", &format!("{}:v1", dir.display())]);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(seen["manifests"][0]["digest"], put.as_str());
    assert_eq!(seen["manifests"][0]["artifactType"], IN_TOTO);
}

#[test]
fn records_in_a_layout_outlive_a_new_build_and_other_tools_and_hide_no_image() {
    let env = TestEnv::new();
    let dir = env.dir().join("layout");
    let image = written(&dir, None, b"one");
    let at = ImageLocation::Layout(dir.clone());
    let put = record(&client(), &at, &image, &ran(&image, 1, &[("test", true)]));
    let resolve = || Layout::open_dir(&dir).unwrap().resolve(None, None, &Platform::host()).unwrap().manifest_digest;
    assert_eq!(resolve(), image.manifest_digest, "the one image there is");
    written(&dir, None, b"one");
    assert_eq!(judged(&at, &image), std::slice::from_ref(&put), "the same image again");
    let other = env.dir().join("other");
    written(&other, Some("x"), b"two");
    skopeo(&["copy", "--quiet", &format!("oci:{}:x", other.display()), &format!("oci:{}:x", dir.display())]);
    assert_eq!(judged(&at, &image), [put], "skopeo wrote the index");
}

#[test]
fn a_tool_that_drops_the_artifact_type_from_the_index_does_not_lose_the_record() {
    let env = TestEnv::new();
    let dir = env.dir().join("layout");
    let image = written(&dir, None, b"one");
    let at = ImageLocation::Layout(dir.clone());
    let put = record(&client(), &at, &image, &ran(&image, 1, &[("test", true)]));
    let mut index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    for entry in index["manifests"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("artifactType");
    }
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    assert_eq!(judged(&at, &image), std::slice::from_ref(&put));
    let found = Layout::open_dir(&dir).unwrap().resolve(None, None, &Platform::host()).unwrap();
    assert_eq!(found.manifest_digest, image.manifest_digest, "the record is no second image");
    written(&dir, None, b"one");
    assert_eq!(judged(&at, &image), [put]);
}

#[test]
fn a_list_under_the_fallback_tag_of_a_layout_is_read_too() {
    // As regctl writes it.
    let env = TestEnv::new();
    let dir = env.dir().join("layout");
    let image = written(&dir, None, b"one");
    let at = ImageLocation::Layout(dir.clone());
    let put = record(&client(), &at, &image, &ran(&image, 1, &[("test", true)]));
    let mut index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    let entries = index["manifests"].as_array_mut().unwrap();
    let entry = entries.remove(entries.iter().position(|entry| entry["digest"] == put.as_str()).unwrap());
    let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).to_string();
    let digest = phial_layers::Digest::of(list.as_bytes());
    fs::write(dir.join("blobs/sha256").join(digest.hex()), &list).unwrap();
    let name = json!({"org.opencontainers.image.ref.name": fallback_tag(&image.manifest_digest)});
    entries.push(json!({"mediaType": OCI_INDEX, "digest": digest, "size": list.len(), "annotations": name}));
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    assert_eq!(judged(&at, &image), [put]);
    let found = Layout::open_dir(&dir).unwrap().resolve(None, None, &Platform::host()).unwrap();
    assert_eq!(found.manifest_digest, image.manifest_digest, "the list is no second image");
}

#[test]
fn a_record_that_cannot_be_finished_leaves_the_layout_as_it_was() {
    let env = TestEnv::new();
    let dir = env.dir().join("layout");
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    layout::write_layout(&dir, &image, Some("v1"), &|digest| blob_map.open(digest), &discard).unwrap();
    let before = files_of(&dir);
    let (artifact, _) = ran(&image, 1, &[("test", true)]).record(image.descriptor());
    let nothing = |_: &_| Ok(None);
    ImageLocation::Layout(dir.clone()).attach(&client(), &artifact, &nothing, &discard).unwrap_err();
    assert_eq!(files_of(&dir), before);
}

fn files_of(dir: &std::path::Path) -> Vec<String> {
    let walk = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().filter_map(Result::ok);
    walk.filter(|entry| entry.file_type().is_file()).map(|entry| entry.path().display().to_string()).collect()
}
