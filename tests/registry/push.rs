//! Pushing to and pulling from a real registry.

use std::collections::BTreeMap;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;

use phial::error::UserError as _;
use phial::event::{Event, discard};
use phial::host::Host;
use phial::image::{Image, Platform, RegistryRef, assemble};
use phial::registry::{BaseLayers, Client, Credentials, Push, Pushed, RegistryError};
use phial_layers::Digest;

use super::docker_registry::Registry;
use super::sample_images::{BlobMap, chain, options, run, two_layers};

fn client() -> Client {
    Client::new(Credentials::none()).unwrap()
}

fn tags(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}

fn push_of<'a>(image: &'a Image, blobs: phial::image::Blobs<'a>, tags: &'a [String]) -> Push<'a> {
    Push { image, blobs, base: None, tags }
}

fn by_skopeo(reference: &RegistryRef, more: &[&str]) -> String {
    let reference = format!("docker://{reference}");
    let args = [&["inspect", "--tls-verify=false", "--format", "{{.Digest}}"][..], more, &[&reference]].concat();
    run("skopeo", &args).trim().to_owned()
}

#[test]
fn a_pushed_image_is_read_by_skopeo_and_umoci_and_by_ourselves() {
    let registry = Registry::open();
    let to = registry.reference("team/app");
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let open = |d: &Digest| blob_map.open(d);
    let outcome = client().push(&to, &push_of(&image, &open, &tags(&["v1", "latest"])), &discard).unwrap();
    assert_eq!(outcome.blobs.iter().filter(|(_, how)| *how == Pushed::Uploaded).count(), 3);
    let v1 = registry.reference("team/app:v1");
    assert_eq!(by_skopeo(&v1, &[]), image.manifest_digest.as_str());
    let dir = tempfile::tempdir().unwrap();
    let layout = format!("{}:v1", dir.path().join("oci").display());
    run("skopeo", &["copy", "--src-tls-verify=false", &format!("docker://{v1}"), &format!("oci:{layout}")]);
    run("umoci", &["unpack", "--rootless", "--image", &layout, dir.path().join("bundle").to_str().unwrap()]);
    assert_eq!(std::fs::read(dir.path().join("bundle/rootfs/app/file")).unwrap(), b"one");
    let by_digest = RegistryRef { digest: Some(image.manifest_digest.clone()), ..to.clone() };
    for reference in [&v1, &to, &by_digest] {
        assert_eq!(client().image(reference, &Platform::host()).unwrap(), image);
        assert_eq!(client().head_manifest(reference).unwrap(), Some(image.manifest_digest.clone()));
    }
    let mut bytes = Vec::new();
    client().blob(&to, &image.manifest.layers[1]).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, blob_map.0[&image.manifest.layers[1].digest]);
    let missing = registry.reference("team/app:v2");
    assert_eq!(client().head_manifest(&missing).unwrap(), None);
    let error = client().resolve(&missing).unwrap_err();
    assert_eq!((error.exit_kind().code(), error.to_string()), (3, format!("`{missing}` is not in the registry")));
}

#[test]
fn a_second_push_costs_a_request_for_its_tag_and_a_new_source_one_layer() {
    let registry = Registry::open();
    let to = registry.reference("app");
    let mut blob_map = BlobMap::default();
    let (one, two) = (two_layers(&mut blob_map, b"one"), two_layers(&mut blob_map, b"two"));
    let open = |d: &Digest| blob_map.open(d);
    let tags = tags(&["v1"]);
    client().push(&to, &push_of(&one, &open, &tags), &discard).unwrap();
    let mark = registry.requests(0).len();
    let again = client().push(&to, &push_of(&one, &open, &tags), &discard).unwrap();
    assert!(again.existed);
    let requests = registry.requests(mark);
    assert_eq!(requests, ["HEAD /v2/app/manifests/v1"]);
    client().push(&to, &push_of(&two, &open, &tags), &discard).unwrap();
    let puts: Vec<String> = registry.requests(mark + 1).into_iter().filter(|r| r.starts_with("PUT ")).collect();
    let uploads = puts.iter().filter(|r| r.contains("/uploads/")).count();
    assert_eq!(uploads, 2, "the changed layer and the config: {puts:?}");
    let manifests: Vec<&str> = puts.iter().filter_map(|r| r.split("/manifests/").nth(1)).collect();
    assert_eq!(manifests, [two.manifest_digest.as_str(), "v1"], "the tag moves last");
    assert_eq!(client().head_manifest(&registry.reference("app:v1")).unwrap(), Some(two.manifest_digest));
}

#[test]
fn base_layers_that_are_not_cached_are_mounted_or_streamed() {
    let (registry, other) = (Registry::open(), Registry::open());
    let from = registry.reference("builder/elixir");
    let mut blob_map = BlobMap::default();
    let base =
        assemble(&Image::scratch(&Platform::host()), &[blob_map.layer("base", &vec![7; 2_000_000])], &options("sh"));
    let open = |d: &Digest| blob_map.open(d);
    client().push(&from, &push_of(&base, &open, &tags(&["1"])), &discard).unwrap();
    let mut own = BlobMap::default();
    let image = assemble(&base, &[own.layer("app/file", b"one")], &options("run"));
    let open = |d: &Digest| own.open(d);
    let tags = tags(&["v1"]);
    let push = Push { base: Some(BaseLayers { repository: &from, count: 1 }), ..push_of(&image, &open, &tags) };
    for (to, expected) in [(registry.reference("app"), Pushed::Mounted), (other.reference("app"), Pushed::Uploaded)] {
        let outcome = client().push(&to, &push, &discard).unwrap();
        let how: BTreeMap<Digest, Pushed> = outcome.blobs.into_iter().collect();
        assert_eq!(how[&base.manifest.layers[0].digest], expected);
        assert_eq!(
            client().image(&RegistryRef { tag: Some("v1".into()), ..to.clone() }, &Platform::host()).unwrap(),
            image
        );
        let mut bytes = Vec::new();
        client().blob(&to, &image.manifest.layers[0]).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, blob_map.0[&image.manifest.layers[0].digest]);
    }
    let nowhere = Push { base: None, ..push };
    let error = client().push(&registry.reference("lost"), &nowhere, &discard).unwrap_err();
    assert!(matches!(error, RegistryError::Source { .. }), "{}", chain(&error));
    assert_eq!(client().head_manifest(&registry.reference("lost:v1")).unwrap(), None);
}

#[test]
fn a_layer_with_the_wrong_bytes_moves_no_tag() {
    let registry = Registry::open();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let lie = blob_map.0.get_mut(&image.manifest.layers[1].digest).unwrap();
    lie[20] ^= 1;
    let open = |d: &Digest| blob_map.open(d);
    let error =
        client().push(&registry.reference("app"), &push_of(&image, &open, &tags(&["v1"])), &discard).unwrap_err();
    assert_eq!(error.exit_kind().code(), 3, "{}", chain(&error));
    assert!(chain(&error).contains("the bytes are `sha256:"), "{}", chain(&error));
    assert_eq!(client().head_manifest(&registry.reference("app:v1")).unwrap(), None);
    let by_digest = RegistryRef { digest: Some(image.manifest_digest), ..registry.reference("app") };
    assert_eq!(client().head_manifest(&by_digest).unwrap(), None);
}

#[test]
fn many_layers_are_sent_at_once_and_each_is_reported_as_complete() {
    let registry = Registry::open();
    let mut blob_map = BlobMap::default();
    let layers: Vec<_> =
        (0..20_u32).map(|n| blob_map.layer(&format!("file{n}"), &n.to_le_bytes().repeat(50_000))).collect();
    let image = assemble(&Image::scratch(&Platform::host()), &layers, &options("sh"));
    let open = |d: &Digest| blob_map.open(d);
    let heard = Mutex::new(BTreeMap::new());
    let watch = |event| {
        if let Event::BytesTransferred { digest, done, total } = event {
            heard.lock().unwrap().insert(digest, (done, total));
        }
    };
    client().push(&registry.reference("many"), &push_of(&image, &open, &tags(&["v1"])), &watch).unwrap();
    let heard = heard.into_inner().unwrap();
    assert_eq!(heard.len(), 21);
    assert!(heard.values().all(|(done, total)| done == total), "{heard:?}");
    assert_eq!(client().image(&registry.reference("many:v1"), &Platform::host()).unwrap(), image);
}

fn host(home: &Path) -> Host {
    let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    Host {
        env,
        cwd: home.into(),
        home: home.into(),
        clock: phial::host::Clock::read(),
        uid: 4242,
        gid: 4242,
        cores: NonZeroUsize::MIN,
    }
}

#[test]
fn a_private_registry_wants_the_right_password() {
    let registry = Registry::locked();
    let to = registry.reference("team/app");
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let open = |d: &Digest| blob_map.open(d);
    let tags = tags(&["v1"]);
    let push = push_of(&image, &open, &tags);
    let error = client().push(&to, &push, &discard).unwrap_err();
    assert_eq!(error.exit_kind().code(), 5, "{}", chain(&error));
    assert!(error.hint().unwrap().contains("docker login"), "{error:?}");
    let home = tempfile::tempdir().unwrap();
    let with = |password: &str| {
        let auths = serde_json::json!({"auths": {&registry.host: {"username": "user", "password": password}}});
        std::fs::create_dir_all(home.path().join(".docker")).unwrap();
        std::fs::write(home.path().join(".docker/config.json"), auths.to_string()).unwrap();
        Client::new(Credentials::from_host(&host(home.path()))).unwrap()
    };
    let error = with("hunter2").push(&to, &push, &discard).unwrap_err();
    assert_eq!(error.exit_kind().code(), 5, "{}", chain(&error));
    assert!(error.hint().unwrap().contains("may be wrong"));
    assert!(!format!("{error:?} {}", chain(&error)).contains("hunter2"));
    with("password").push(&to, &push, &discard).unwrap();
    let v1 = registry.reference("team/app:v1");
    assert_eq!(by_skopeo(&v1, &["--creds", "user:password"]), image.manifest_digest.as_str());
    assert_eq!(with("password").image(&v1, &Platform::host()).unwrap(), image);
    let mark = registry.requests(0).len();
    assert!(with("password").push(&to, &push, &discard).unwrap().existed);
    assert_eq!(registry.requests(mark).len(), 2, "one to be asked for the password");
}

#[test]
fn a_manifest_gets_another_name_with_the_same_bytes() {
    let registry = Registry::open();
    let to = registry.reference("app");
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let open = |d: &Digest| blob_map.open(d);
    client().push(&to, &push_of(&image, &open, &[]), &discard).unwrap();
    let by_digest = RegistryRef { digest: Some(image.manifest_digest.clone()), ..to.clone() };
    let found = client().resolve(&by_digest).unwrap();
    client().tag(&to, "released", &found.bytes, &found.media_type).unwrap();
    let released = client().resolve(&registry.reference("app:released")).unwrap();
    assert_eq!(released, found);
}

#[test]
fn an_image_pushed_by_skopeo_with_docker_media_types_is_read_and_built_upon() {
    let registry = Registry::open();
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let open = |d: &Digest| blob_map.open(d);
    client().push(&registry.reference("oci"), &push_of(&image, &open, &tags(&["v1"])), &discard).unwrap();
    let (from, to) = (registry.reference("oci:v1"), registry.reference("docker:v1"));
    let (from, docker) = (format!("docker://{from}"), format!("docker://{to}"));
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    run("skopeo", &[&["copy", "--format", "v2s2"], &plain[..], &[&from, &docker]].concat());
    let docker = client().image(&to, &Platform::host()).unwrap();
    assert_eq!(docker.manifest.media_type(), phial::image::DOCKER_MANIFEST);
    let upon = assemble(&docker, &[blob_map.layer("more", b"more")], &options("run"));
    let open = |d: &Digest| blob_map.open(d);
    let push_tags = tags(&["v2"]);
    let push = Push { base: Some(BaseLayers { repository: &to, count: 2 }), ..push_of(&upon, &open, &push_tags) };
    client().push(&registry.reference("docker"), &push, &discard).unwrap();
    assert_eq!(by_skopeo(&registry.reference("docker:v2"), &[]), upon.manifest_digest.as_str());
}
