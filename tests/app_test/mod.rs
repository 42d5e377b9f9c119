//! `phial test`: what is run in an image, what comes of it, and that nothing is left behind.

mod commands;
mod termination;
mod elixir;
mod services;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use phial::attest::{ImageLocation, ListedRecord, TestRecord, records};
use phial::host::Host;
use phial::registry::{Client, Credentials};
use phial_layers::Digest;

use crate::harness::busybox::busybox_base;
use crate::harness::{Repo, TestEnv, run};

/// A small app, built with these settings for its tests; its image as a reference.
struct Scene {
    env: TestEnv,
    repo: Repo,
    image: String,
}

impl Scene {
    /// `test` is the section `[test]` of the settings.
    #[track_caller]
    fn new(test: &str) -> Self {
        let env = TestEnv::with_empty_cache();
        let repo = env.shell_app();
        let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
        repo.write("phial.toml", format!("{settings}\n[test]\n{test}\n"));
        let image = format!("oci:{}", env.path("out"));
        let scene = Self { env, repo, image };
        scene.build();
        scene
    }

    #[track_caller]
    fn build(&self) -> Digest {
        self.repo.commit("Settings for the tests");
        let base = format!("oci:{}", busybox_base().display());
        let built = run(self.env.phial(["build", self.repo.source(), "--base", &base, "--to", &self.image])).ok();
        built.rsplit_once('@').expect("a digest").1.parse().expect("a digest")
    }

    /// A service of this machine needs settings that the caller names.
    fn test(&self, more: &[&str]) -> Command {
        let mut command = self.env.phial(["test", &self.image]);
        let settings = self.repo.dir().join("phial.toml");
        if fs::read_to_string(&settings).expect("settings").contains("image = 'oci:") {
            command.arg("--config").arg(settings);
        }
        command.args(more);
        command
    }

    /// The records of the image, the oldest first.
    #[track_caller]
    fn records(&self) -> Vec<TestRecord> {
        records_of(&self.env, "out")
    }
}

/// The records of the only image of a layout, the oldest first.
#[track_caller]
fn records_of(env: &TestEnv, layout: &str) -> Vec<TestRecord> {
    let dir = env.dir().join(layout);
    let subject = image_of(&dir);
    let client = Client::new(Credentials::from_host(&Host::read())).expect("a client");
    let mut found: Vec<TestRecord> = records(&ImageLocation::Layout(dir), &client, &subject)
        .expect("records")
        .into_iter()
        .map(|listed| match listed {
            ListedRecord::Valid(record) => record,
            ListedRecord::Invalid(digest, flaw) => panic!("{digest}: {flaw}"),
        })
        .collect();
    found.sort_by_key(|record| record.finished);
    found
}

/// The image of a layout, as opposed to what refers to it.
fn image_of(layout: &Path) -> Digest {
    let index = fs::read(layout.join("index.json")).expect("an index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    let manifests = index["manifests"].as_array().expect("manifests");
    let image = manifests.iter().find(|entry| entry.get("artifactType").is_none()).expect("an image");
    image["digest"].as_str().expect("a digest").parse().expect("a digest")
}

/// How many processes of the machine have this mark among their arguments.
fn alive(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").expect("proc").filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes())).count()
}

/// A number of seconds that no other process sleeps, to find one by.
fn mark(seed: u32) -> String {
    format!("{}{seed:02}", 1_000_000 + std::process::id())
}

#[track_caller]
fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nothing of a test is left: no process with the mark, no scratch in the cache, no mount below it.
#[track_caller]
fn nothing_is_left(env: &TestEnv, mark: &str) {
    assert_eq!(alive(mark), 0, "processes");
    let scratch = fs::read_dir(env.cache().join("scratch")).expect("scratch").count();
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(env.cache().to_str().expect("UTF-8")), "{mounts}");
    assert_eq!(scratch, 0, "scratch");
}
