//! The scripted registry is a registry: skopeo, oras and we ourselves find it so, whatever its quirks.

use std::process::Command;

use phial::event::discard;
use phial::image::{Platform, RegistryRef};
use phial::registry::{Client, Credentials, Push};
use phial_layers::Digest;

use super::sample_images::{BlobMap, run, two_layers};
use super::scripted::{Fault, Head, Kind, Quirks, Registry, When};

fn client(registry: &Registry) -> Client {
    let mut host = phial::host::Host::read();
    host.env = [("DOCKER_AUTH_CONFIG".to_owned(), registry.config().to_string())].into();
    host.home = "/nonexistent".into();
    Client::new(Credentials::from_host(&host)).unwrap()
}

/// An image of two layers as a layout for skopeo, and its digest.
fn laid(dir: &std::path::Path) -> (String, Digest) {
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, &(0..=255).collect::<Vec<u8>>().repeat(5000));
    let open = |d: &Digest| blob_map.open(d);
    phial::layout::write_layout(dir, &image, Some("v1"), &open, &discard).unwrap();
    (format!("oci:{}:v1", dir.display()), image.manifest_digest)
}

fn skopeo(registry: &Registry, args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    std::fs::write(&file, registry.config().to_string()).unwrap();
    run("skopeo", &[&args[..1], &["--authfile", file.to_str().unwrap()], &args[1..]].concat())
}

#[test]
fn skopeo_pushes_to_every_profile_and_reads_the_same_back() {
    for quirks in Quirks::profiles() {
        let name = quirks.name;
        // skopeo trusts `expires_in` alone, and cannot do without HEAD.
        let quirks = Quirks { token_uses: usize::MAX, head_blob: Head::Works, ..quirks };
        let registry = Registry::with_tokens(quirks);
        registry.make("team/app");
        let dir = tempfile::tempdir().unwrap();
        let (layout, digest) = laid(&dir.path().join("oci"));
        let to = format!("docker://{}/team/app:v1", registry.host);
        let back = format!("oci:{}:v1", dir.path().join("back").display());
        skopeo(&registry, &["copy", "--quiet", "--dest-tls-verify=false", "--preserve-digests", &layout, &to]);
        let format = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &to];
        assert_eq!(skopeo(&registry, &format).trim(), digest.as_str(), "{name}");
        skopeo(&registry, &["copy", "--quiet", "--src-tls-verify=false", &to, &back]);
        run("umoci", &["stat", "--image", back.strip_prefix("oci:").unwrap()]);
        assert_eq!(registry.tag("team/app", "v1"), Some(digest), "{name}");
        assert_eq!(registry.broken_tags(), Vec::<String>::new(), "{name}");
        assert!(registry.storage_journal().iter().all(|entry| entry.authorization.is_none()), "{name}");
    }
}

#[test]
fn skopeo_lists_tags_and_deletes_from_it() {
    let registry = Registry::with_password(Quirks::none());
    let dir = tempfile::tempdir().unwrap();
    let (layout, _) = laid(&dir.path().join("oci"));
    for tag in ["b", "a"] {
        let to = format!("docker://{}/app:{tag}", registry.host);
        skopeo(&registry, &["copy", "--quiet", "--dest-tls-verify=false", &layout, &to]);
    }
    let repository = format!("docker://{}/app", registry.host);
    let tags: serde_json::Value =
        serde_json::from_str(&skopeo(&registry, &["list-tags", "--tls-verify=false", &repository])).unwrap();
    assert_eq!(tags["Tags"], serde_json::json!(["a", "b"]));
    skopeo(&registry, &["delete", "--tls-verify=false", &format!("{repository}:a")]);
    assert_eq!(registry.tag("app", "b"), None, "it deletes the manifest, and its tags with it");
}

#[test]
fn it_refuses_without_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, _) = laid(&dir.path().join("oci"));
    for registry in [Registry::with_password(Quirks::none()), Registry::with_tokens(Quirks::none())] {
        let to = format!("docker://{}/app:v1", registry.host);
        let output = Command::new("skopeo")
            .args(["copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", "ann:wrong", &layout, &to])
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert_eq!(registry.received(), 0);
    }
}

#[test]
fn it_injects_faults_and_keeps_a_journal() {
    let registry = Registry::with_tokens(Quirks::none());
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let open = |d: &Digest| blob_map.open(d);
    let tags = ["v1".to_owned()];
    let to = registry.reference("app");
    registry.fail(Kind::PutTag, When::Nth(1), Fault::Status(503));
    let push = Push { image: &image, blobs: &open, base: None, tags: &tags };
    client(&registry).push(&to, &push, &discard).unwrap();
    let statuses: Vec<u16> =
        registry.journal().iter().filter(|entry| entry.kind == Kind::PutTag).map(|entry| entry.status).collect();
    assert_eq!(statuses, [503, 201]);
    let journal = format!("{:?}", registry.journal());
    assert!(journal.contains("Bearer ") && !journal.contains("token-1"), "hashes only: {journal}");
    let size: u64 = image.manifest.layers.iter().chain([&image.manifest.config]).map(|blob| blob.size).sum();
    assert_eq!(registry.received(), size);
    registry.heal();
    let v1 = RegistryRef { tag: Some("v1".into()), ..to };
    assert_eq!(client(&registry).image(&v1, &Platform::host()).unwrap(), image);
}

/// oras, logged in by its own file.
fn oras(registry: &Registry, args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, registry.config().to_string()).unwrap();
    let mut oras = Command::new(crate::harness::prebuilt::oras());
    oras.args(args).args(["--plain-http", "--registry-config"]).arg(&file).env("HOME", "/nonexistent");
    crate::harness::run(oras).ok()
}

#[test]
fn oras_pushes_attaches_finds_and_pulls() {
    for quirks in [Quirks::none(), Quirks::docker_hub(), Quirks::gar(), Quirks::debian(), Quirks::zot()] {
        let (name, referrers) = (quirks.name, quirks.referrers);
        // oras, too, trusts `expires_in` alone; it takes another port for the same host, credentials and all, and asks `/v2/`
        // for no challenge.
        let quirks = Quirks { token_uses: usize::MAX, storage: false, bare_401: false, ..quirks };
        let registry = Registry::with_tokens(quirks);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("note");
        std::fs::write(&file, "a phial holds an elixir").unwrap();
        let (file, of) = (file.to_str().unwrap(), format!("{}/team/notes:v1", registry.host));
        oras(&registry, &["push", "--disable-path-validation", "--artifact-type", "text/note", &of, file]);
        let other = ["attach", "--disable-path-validation", "--artifact-type", "text/other", &of, file];
        oras(&registry, &other);
        let found = oras(&registry, &["discover", "--format", "json", &of]);
        assert!(found.contains("text/other"), "{name}: {found}");
        assert!(registry.count(Kind::Referrers) > 0, "{name}");
        let fallback = registry.journal().iter().any(|entry| entry.method == "PUT" && entry.path.contains("/sha256-"));
        assert_eq!(fallback, !referrers, "{name}: the fallback tag is for registries without the API");
        let back = dir.path().join("back");
        oras(&registry, &["pull", "--output", back.to_str().unwrap(), "--allow-path-traversal", &of]);
        let tags = oras(&registry, &["repo", "tags", &of.replace(":v1", "")]);
        assert!(tags.lines().any(|tag| tag == "v1"), "{name}: {tags}");
        assert_eq!(registry.broken_tags(), Vec::<String>::new(), "{name}");
    }
}
