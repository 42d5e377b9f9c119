//! A run of tests as plain facts, and the record that they make.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use phial_layers::Digest;
use serde_json::{Map, json};

use super::statement::{Resource, STATEMENT, Statement, TEST_RESULT, TestResult};
use crate::image::{Artifact, Descriptor, IN_TOTO, canonical_json, rfc3339_millis};

/// What was run in an image, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Digest of the manifest that was tested.
    pub image: Digest,
    /// SHA of the commit it was built from, if it says so.
    pub commit: Option<String>,
    /// Digest of the base it was built on, if it says so.
    pub base: Option<Digest>,
    /// What was run, in this order. A run that came to no command has failed.
    pub commands: Vec<Command>,
    /// Names of the variables the commands saw beside the image's own; no values.
    pub env: Vec<String>,
    /// Which part of the tests was run, if not all.
    pub partition: Option<Partition>,
    /// Version of Phial.
    pub version: String,
    /// Milliseconds since 1970.
    pub started: i64,
    /// Milliseconds since 1970. Of two records the one with the later end counts.
    pub finished: i64,
    /// Where the run can be looked at.
    pub url: Option<String>,
}

/// One command and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What the settings call it: `test`, `credo`.
    pub name: String,
    /// The command itself.
    pub argv: Vec<String>,
    /// Whether it counts as a success.
    pub passed: bool,
    /// How it ended, in words: `exit code 0`, `signal 9`, `no end within 600 s`.
    pub ended: String,
    /// What it said of its tests.
    pub counts: Option<Counts>,
    /// Wall clock, in milliseconds.
    pub millis: u64,
}

/// Tests by their outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that were run.
    pub tests: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those left out.
    pub skipped: u64,
}

/// The `nth` of `of` parts, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    /// Which one.
    pub nth: u32,
    /// How many there are.
    pub of: u32,
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.nth, self.of)
    }
}

/// The name of a command in the lists of a test result: a part of the tests must not pass for all of them.
pub(super) fn test_name(command: &str, partition: Option<Partition>) -> String {
    partition.map_or_else(|| command.to_owned(), |partition| format!("{command} {partition}"))
}

impl Run {
    /// Whether there is nothing in it that failed, and something that did not.
    pub fn passed(&self) -> bool {
        !self.commands.is_empty() && self.commands.iter().all(|command| command.passed)
    }

    /// The record: a referrer of `subject`, the descriptor of the tested manifest, and the document that it names.
    pub fn record(&self, subject: Descriptor) -> (Artifact, Vec<u8>) {
        let document = canonical_json(&self.statement());
        let layer = Descriptor {
            annotations: BTreeMap::from([(PREDICATE_TYPE.to_owned(), TEST_RESULT.to_owned())]),
            ..Descriptor::of(IN_TOTO, &document)
        };
        let annotations = BTreeMap::from([
            ("org.opencontainers.image.created".to_owned(), rfc3339_millis(self.finished)),
            (PREDICATE_TYPE.to_owned(), TEST_RESULT.to_owned()),
            ("dev.phial.result".to_owned(), self.result().to_owned()),
        ]);
        (Artifact::about(subject, IN_TOTO, layer, annotations), document)
    }

    fn result(&self) -> &'static str {
        if self.passed() { "PASSED" } else { "FAILED" }
    }

    fn statement(&self) -> Statement {
        let names = |passed: bool| -> Vec<String> {
            let those = self.commands.iter().filter(|command| command.passed == passed);
            those.map(|command| test_name(&command.name, self.partition)).collect()
        };
        let predicate = TestResult {
            result: self.result().into(),
            configuration: self.configuration(),
            url: self.url.clone(),
            passed_tests: names(true),
            warned_tests: Vec::new(),
            failed_tests: names(false),
        };
        let subject = Resource { digest: digest_set(&self.image), ..Resource::default() };
        Statement {
            kind: STATEMENT.into(),
            subject: vec![subject],
            predicate_type: TEST_RESULT.into(),
            predicate: Some(predicate),
        }
    }

    /// All that the predicate has no field of its own for, as in-toto's resource descriptors allow it.
    fn configuration(&self) -> Vec<Resource> {
        let mut run = Map::new();
        run.insert("started".into(), rfc3339_millis(self.started).into());
        run.insert("finished".into(), rfc3339_millis(self.finished).into());
        run.insert("env".into(), json!(self.env));
        run.extend(self.partition.map(|partition| ("partition".to_owned(), partition.to_string().into())));
        let phial = Resource {
            name: Some("run".into()),
            uri: Some(format!("pkg:generic/phial@{}", self.version)),
            annotations: run,
            ..Resource::default()
        };
        let base = self.base.iter().map(|base| Resource {
            name: Some("base".into()),
            digest: digest_set(base),
            ..Resource::default()
        });
        let commit = self.commit.iter().map(|sha| Resource {
            name: Some("source".into()),
            digest: BTreeMap::from([("gitCommit".to_owned(), sha.clone())]),
            ..Resource::default()
        });
        [phial].into_iter().chain(base).chain(commit).chain(self.commands.iter().map(Command::resource)).collect()
    }
}

/// `BuildKit`'s annotation for the same thing (`docs/attestations/attestation-storage.md`).
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

impl Command {
    fn resource(&self) -> Resource {
        let mut notes = Map::new();
        notes.insert("passed".into(), self.passed.into());
        notes.insert("ended".into(), self.ended.clone().into());
        notes.insert("millis".into(), self.millis.into());
        if let Some(counts) = self.counts {
            let Counts { tests, failures, skipped } = counts;
            notes.insert("counts".into(), json!({ "tests": tests, "failures": failures, "skipped": skipped }));
        }
        Resource {
            name: Some(format!("command/{}", self.name)),
            media_type: Some("application/json".into()),
            content: Some(STANDARD.encode(canonical_json(&self.argv))),
            annotations: notes,
            ..Resource::default()
        }
    }
}

fn digest_set(digest: &Digest) -> BTreeMap<String, String> {
    BTreeMap::from([(digest.algorithm().to_owned(), digest.hex().into())])
}
