//! Test records of images and the tags that they allow, against docker-registry, layouts, and registries with quirks;
//! skopeo and oras read the same.

#![expect(clippy::unwrap_used, reason = "a test that panics has reported enough")]

mod copies;
mod tags;
mod profiles;
mod referrers;
mod refusals;
mod end_to_end;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use phial::attest::{self, ImageLocation, TestCounts, TestRun};
use phial::event::discard;
use phial::image::{Descriptor, Image, RegistryRef};
use phial::layout;
use phial::registry::{Client, Credentials};

use crate::harness::run;
use crate::registry::sample_images::{self, BlobMap, two_layers};
use crate::scripted::{self, Quirks};

fn client() -> Client {
    let host = phial::host::Host { env: BTreeMap::new(), home: "/nonexistent".into(), ..phial::host::Host::read() };
    Client::new(Credentials::from_host(&host)).unwrap()
}

/// An image in a repository, under a tag.
fn pushed(client: &Client, to: &RegistryRef, content: &[u8]) -> Image {
    sample_images::pushed(client, to, content).unwrap()
}

/// An image in a layout, under a tag.
fn written(dir: &Path, tag: Option<&str>, content: &[u8]) -> Image {
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, content);
    layout::write_layout(dir, &image, tag, &|digest| blob_map.open(digest), &discard).unwrap();
    image
}

/// A run that ended at this second, with these commands and whether they passed.
fn ran(image: &Image, finished: i64, commands: &[(&str, bool)]) -> TestRun {
    let command = |(name, passed): &(&str, bool)| attest::CommandResult {
        name: (*name).into(),
        argv: vec!["mix".into(), (*name).into()],
        passed: *passed,
        outcome: format!("exit code {}", i32::from(!passed)),
        counts: Some(TestCounts { tests: 3, failures: u64::from(!passed), skipped: 0 }),
        millis: 1,
    };
    TestRun {
        image: image.manifest_digest.clone(),
        commit: None,
        base: None,
        commands: commands.iter().map(command).collect(),
        env: vec![],
        partition: None,
        version: "0.0.0".into(),
        started: finished * 1000,
        finished: finished * 1000,
        url: None,
    }
}

/// Attaches the record of a run to its image; the record's digest.
fn record(client: &Client, at: &ImageLocation, image: &Image, run: &TestRun) -> String {
    let (artifact, document) = run.record(image.descriptor());
    at.attach(client, &artifact, &attest::single_blob(&document), &discard).unwrap();
    artifact.digest.to_string()
}

/// A registry in memory without the referrers API, or with it.
fn double(referrers: bool) -> scripted::Registry {
    scripted::Registry::open(Quirks { referrers, ..Quirks::none() })
}

fn location(reference: &RegistryRef) -> ImageLocation {
    ImageLocation::Registry(reference.repository_only())
}

fn descriptors(found: &[Descriptor]) -> Vec<String> {
    let mut digests: Vec<String> = found.iter().map(|entry| entry.digest.to_string()).collect();
    digests.sort();
    digests
}

fn skopeo(args: &[&str]) -> String {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(args);
    run(skopeo).ok()
}

fn oras(args: &[&str]) -> String {
    let mut oras = Command::new(crate::harness::prebuilt::oras());
    oras.args(args).env("HOME", "/nonexistent");
    run(oras).ok()
}
