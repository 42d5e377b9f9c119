//! The deps cache in a registry: what one runner made, another need not make.

use std::process::Command;

use phial_layers::Digest;

use crate::harness::busybox::busybox_base;
use crate::harness::prebuilt::oras;
use crate::harness::{self, Repo, TestEnv, run};
use crate::scripted::{Fault, Kind, Quirks, Registry, When};

/// A runner: a cache of its own, and a clone of the same repository.
struct Runner {
    env: TestEnv,
    repo: Repo,
}

impl Runner {
    fn new() -> Self {
        let env = TestEnv::with_empty_cache();
        let repo = env.shell_app();
        Self { env, repo }
    }

    fn build(&self, to: &str, more: &[&str]) -> Command {
        let base = format!("oci:{}", busybox_base().display());
        let mut build = self.env.phial(["build", self.repo.source(), "--base", &base, "--to", to]);
        build.args(["--progress", "plain"]).args(more).env("NO_COLOR", "1");
        build
    }

    /// The deps layer as `--json` tells it.
    fn deps(&self, to: &str, more: &[&str]) -> (Digest, bool, String) {
        let ran = run(self.build(to, &[more, &["--json"]].concat()));
        let output = ran.stderr.clone();
        let json: serde_json::Value = serde_json::from_str(&ran.ok()).expect("JSON");
        let deps = &json["layers"][0];
        assert_eq!(deps["name"], "deps");
        let digest = deps["layer"]["digest"].as_str().expect("a digest").parse().expect("a digest");
        (digest, deps["cached"] == true, output)
    }

    /// Forgets the files of a layer, as a cache that was too full does.
    fn forget(&self, digest: &Digest) {
        std::fs::remove_file(self.env.cache().join("blobs/sha256").join(digest.hex())).expect("the blob");
    }
}

/// How often the blob was fetched.
fn fetched(registry: &Registry, digest: &Digest) -> usize {
    let journal = registry.journal();
    journal.iter().filter(|entry| entry.kind == Kind::GetBlob && entry.path.ends_with(digest.hex())).count()
}

fn tag_puts(registry: &Registry) -> usize {
    registry.journal().iter().filter(|entry| entry.kind == Kind::PutTag && entry.path.contains("/deps-")).count()
}

#[test]
fn a_second_runner_reuses_the_deps_layer_of_the_first() {
    let registry = Registry::open(Quirks::none());
    let to = registry.reference("team/app:v1").to_string();
    let (one, two) = (Runner::new(), Runner::new());
    let (made, cached, output) = one.deps(&to, &["--cache", "write"]);
    assert!(!cached && output.contains("has a new entry"), "{output}");
    one.deps(&to, &["--cache", "write"]);
    assert_eq!(tag_puts(&registry), 1, "an entry is written once");

    two.repo.write("notes", "only the source\n");
    two.repo.commit("Only the source");
    let (taken, cached, output) = two.deps(&to, &["--cache", "read"]);
    assert!(cached && output.contains(&format!("cached in {}/team/app", registry.host)), "{output}");
    assert_eq!(taken, made);
    assert_eq!(fetched(&registry, &made), 1, "its files are needed to compile the app");
    assert!(!output.lines().any(|line| line.starts_with("deps | ")), "no step ran: {output}");
    let with = run(two.build(&to, &[])).ok();
    let without = run(two.build(&to, &["--no-cache"])).ok();
    assert_eq!(with, without, "the cache is not in the digest");

    two.repo.write("VERSION", "2.0\n");
    two.repo.commit("Another key");
    let (other, cached, _) = two.deps(&to, &["--cache", "read"]);
    assert!(!cached && other != made);
    assert_eq!(tag_puts(&registry), 1, "who reads gives nothing");
    assert_eq!(registry.broken_tags(), Vec::<String>::new());
}

#[test]
fn a_layer_that_no_step_needs_is_mounted_and_never_fetched() {
    let registry = Registry::open(Quirks::none());
    let runner = Runner::new();
    let cache = registry.reference("team/cache").to_string();
    let flags = ["--cache", "write", "--cache-repo", &cache];
    let (made, _, _) = runner.deps(&registry.reference("team/app:v1").to_string(), &flags);
    runner.forget(&made);
    let mounts = registry.count(Kind::PostMount);
    let to = registry.reference("team/other:v1");
    let (taken, cached, output) = runner.deps(&to.to_string(), &["--cache", "read", "--cache-repo", &cache]);
    assert!(cached && taken == made, "{output}");
    assert_eq!(fetched(&registry, &made), 0);
    assert_eq!(registry.count(Kind::PostMount), mounts + 1);
    assert!(registry.tag("team/other", "v1").is_some());
    assert_eq!(registry.broken_tags(), Vec::<String>::new());
    let layout = format!("oci:{}", runner.env.path("out"));
    runner.deps(&layout, &["--cache", "read", "--cache-repo", &cache]);
    assert_eq!(fetched(&registry, &made), 1, "a layout needs the bytes");
}

#[test]
fn a_broken_cache_gives_a_notice_and_the_same_image() {
    let app = Registry::open(Quirks::none());
    let to = app.reference("team/app:v1").to_string();
    let right = run(Runner::new().build(&to, &[])).ok();
    let check = |kind: Kind, when: When, fault: Fault, mode: &str, expected: &str| {
        let cache = Registry::open(Quirks::none());
        let at = cache.reference("cache").to_string();
        run(Runner::new().build(&to, &["--cache", "write", "--cache-repo", &at])).ok();
        cache.fail(kind, when, fault);
        let at = if mode == "write" { cache.reference("other").to_string() } else { at };
        let ran = run(Runner::new().build(&to, &["--cache", mode, "--cache-repo", &at]));
        assert!(ran.stderr.contains(expected), "{kind:?} {fault:?}: {}", ran.stderr);
        assert_eq!(ran.ok(), right, "{kind:?} {fault:?}");
    };
    check(Kind::GetTag, When::Always, Fault::Garbage, "read", "is not read: ");
    check(Kind::GetTag, When::Always, Fault::Expired, "read", "is not read: ");
    // The first blob is the entry's config, the second the layer.
    check(Kind::GetBlob, When::Nth(2), Fault::Status(404), "read", "cannot be fetched and is built here");
    check(Kind::GetBlob, When::Nth(2), Fault::WrongDigest, "read", "cannot be fetched and is built here");
    check(Kind::PutTag, When::Always, Fault::Redirect, "write", "is not written: ");
    check(Kind::PostUpload, When::Always, Fault::Status(404), "write", "is not written: ");
}

#[test]
fn a_tag_that_is_no_cache_entry_is_ignored() {
    let registry = Registry::open(Quirks::none());
    let to = registry.reference("team/app:v1").to_string();
    let runner = Runner::new();
    let (made, _, _) = runner.deps(&to, &["--cache", "write"]);
    // Somebody has put another image under the entry's tag.
    let journal = registry.journal();
    let put = journal.iter().find(|entry| entry.kind == Kind::PutTag && entry.path.contains("/deps-")).expect("a PUT");
    let tag = put.path.rsplit('/').next().expect("a tag").to_owned();
    let client = phial::registry::Client::new(phial::registry::Credentials::none()).expect("a client");
    let app = client.resolve(&registry.reference("team/app:v1")).expect("the app");
    client.tag(&registry.reference("team/app"), &tag, &app.bytes, &app.media_type).expect("a tag");
    let (again, cached, output) = Runner::new().deps(&to, &["--cache", "read"]);
    assert!(!cached && output.contains("is not an entry of the cache"), "{output}");
    assert_eq!(again, made);
}

#[test]
fn entries_are_listed_and_removed_by_age() {
    let registry = Registry::open(Quirks::none());
    let to = registry.reference("team/app:v1").to_string();
    let at = registry.reference("team/app").to_string();
    let runner = Runner::new();
    let list = || run(runner.env.phial(["cache", "ls", "--in", &at])).ok();
    assert_eq!(list(), "0 B in 0 entries");
    let (first, _, _) = runner.deps(&to, &["--cache", "write"]);
    runner.repo.write("VERSION", "2.0\n");
    runner.repo.commit("Another key");
    runner.deps(&to, &["--cache", "write"]);
    let listed = list();
    assert_eq!(listed.lines().filter(|line| line.contains(" deps-")).count(), 2, "{listed}");
    assert!(listed.ends_with("in 2 entries"), "{listed}");
    let json: serde_json::Value =
        serde_json::from_str(&run(runner.env.phial(["cache", "ls", "--json", "--in", &at])).ok()).expect("JSON");
    assert!(json[0]["key"].as_str().is_some_and(|key| key.len() == 64), "{json}");

    let show = |name: &str| run(runner.env.phial(["cache", "show", "--in", &at, name]));
    let (tag, digest, key) = (&json[0]["tag"], json[0]["digest"].as_str().expect("a digest"), &json[0]["key"]);
    let shown = show(tag.as_str().expect("a tag")).ok();
    for line in
        [format!("  manifest {digest}"), format!("  key {}", key.as_str().expect("a key")), "  file VERSION = ".into()]
    {
        assert!(shown.contains(&line), "{line}: {shown}");
    }
    for name in [digest, &digest["sha256:".len()..][..12], &key.as_str().expect("a key")[..12]] {
        assert_eq!(show(name).ok(), shown, "{name}");
    }
    assert!(show("deps-").failed(2).contains("`deps-` is ambiguous: 2 names"));
    let error = show("nothing").failed(3);
    assert!(error.contains("the cache has no entry `nothing`") && error.contains("`phial cache ls --in`"), "{error}");

    let prune = |more: &[&str]| run(runner.env.phial([&["cache", "prune", "--in", &at], more].concat()));
    assert!(prune(&["--unused-for", "1h"]).stderr.contains("0 entries"), "what is an hour old at least");
    assert!(prune(&[]).stderr.contains("0 entries"), "no limit by default");
    let size = json[1]["size"].as_u64().expect("a size").to_string();
    assert!(prune(&["--limit", &size]).stderr.contains("1 entry of"));
    assert!(list().ends_with("in 1 entry"));
    // The image that holds the same layer is whole.
    assert_eq!(registry.broken_tags(), Vec::<String>::new());
    assert!(registry.tag("team/app", "v1").is_some());
    prune(&["--limit", "0"]).ok();
    let (again, cached, _) = Runner::new().deps(&to, &["--cache", "read"]);
    assert!(!cached && again == first);

    let firm = Registry::open(Quirks { deletes: false, ..Quirks::none() });
    let at = firm.reference("app").to_string();
    run(Runner::new().build(&firm.reference("app:v1").to_string(), &["--cache", "write"])).ok();
    let error = run(runner.env.phial(["cache", "prune", "--in", &at, "--limit", "0"])).failed(4);
    assert!(error.contains("returned status 405") && error.contains("set up a cleanup rule"), "{error}");
}

/// What a tool prints of a registry without TLS.
fn stdout_of(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    let mut tool = Command::new(program);
    tool.args(args).env("HOME", "/nonexistent");
    run(tool).ok()
}

#[test]
fn an_image_records_the_digest_of_the_cache_s_entry_and_is_the_same_without_a_cache() {
    let registry = harness::Registry::start();
    let to = registry.reference("team/app:v1");
    let digest = |runner: &Runner, to: &str, more: &[&str]| -> String {
        let line = run(runner.build(to, more)).ok();
        line.rsplit_once('@').expect("TARGET@digest").1.to_owned()
    };
    let writer = Runner::new();
    let made = digest(&writer, &to, &["--cache", "write"]);
    assert_eq!(digest(&Runner::new(), &to, &["--cache", "read"]), made);
    assert_eq!(digest(&Runner::new(), &to, &["--cache", "off"]), made);
    let layout = Runner::new();
    assert_eq!(digest(&layout, &format!("oci:{}", layout.env.path("out")), &[]), made);

    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
    let raw = |name: &str, more: &[&str]| {
        let name = format!("docker://{name}");
        json(stdout_of("skopeo", &[&["inspect", "--tls-verify=false", "--raw"], more, &[&name]].concat()))
    };
    let config = raw(&to, &["--config"]);
    let record = config["config"]["Labels"]["dev.phial.record"].as_str().expect("a record").to_owned();
    let recorded = json(record)["deps_cache"].clone();
    assert_eq!(recorded, raw(&to, &[])["annotations"]["dev.phial.deps-cache"]);

    let tags = stdout_of(
        "skopeo",
        &["list-tags", "--tls-verify=false", &format!("docker://{}", registry.reference("team/app"))],
    );
    let tags = json(tags)["Tags"].as_array().expect("tags").clone();
    let tag = tags.iter().filter_map(|tag| tag.as_str()).find(|tag| tag.starts_with("deps-")).expect("an entry");
    let entry = registry.reference(&format!("team/app:{tag}"));
    let manifest = raw(&entry, &[]);
    assert_eq!(manifest["config"]["digest"], recorded);
    assert_eq!(manifest["artifactType"], "application/vnd.phial.deps-cache.v1");
    assert!(manifest["annotations"]["org.opencontainers.image.created"].is_string(), "{manifest}");
    // Others take it: as an image, and as an artifact.
    let (image, artifact) = (writer.env.path("image"), writer.env.path("artifact"));
    stdout_of(
        "skopeo",
        &["copy", "-q", "--src-tls-verify=false", &format!("docker://{entry}"), &format!("oci:{image}")],
    );
    stdout_of(oras(), &["copy", "--from-plain-http", "--to-oci-layout", &entry, &format!("{artifact}:1")]);
}
