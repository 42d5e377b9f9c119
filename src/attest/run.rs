//! A test run, and the record that is made of it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use phial_layers::Digest;
use serde_json::{Map, json};

use super::statement::{Resource, STATEMENT_TYPE, Statement, TEST_RESULT_TYPE, TestResult};
use crate::image::{Artifact, Descriptor, IN_TOTO, canonical_json, rfc3339_millis};

/// The tests that ran in an image, and their results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// Digest of the image's manifest.
    pub image: Digest,
    /// SHA of the commit that the image says it was built from.
    pub commit: Option<String>,
    /// Digest of the base image that the image says it was built on.
    pub base: Option<Digest>,
    /// The commands in the order in which they ran. A run without commands has failed.
    pub commands: Vec<CommandResult>,
    /// Names of the variables that the commands had beside the image's own. Values may be secret.
    pub env: Vec<String>,
    /// The part of the tests that ran; `None` for all.
    pub partition: Option<Partition>,
    /// Version of Phial.
    pub version: String,
    /// When it started, in milliseconds since 1970.
    pub started: i64,
    /// When it ended, in milliseconds since 1970. The latest record of a command counts.
    pub finished: i64,
    /// The page of the run in its CI.
    pub url: Option<String>,
}

/// One command and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandResult {
    /// What the settings call it: `test`, `credo`.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Whether its exit code was 0.
    pub passed: bool,
    /// How it ended: `exit code 0`, `signal 9`, `timed out after 600 s`.
    pub outcome: String,
    /// How many tests it ran, if that could be read from its output or report.
    pub counts: Option<TestCounts>,
    /// Wall clock, in milliseconds.
    pub millis: u64,
}

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestCounts {
    /// Tests that ran.
    pub tests: u64,
    /// Tests that failed.
    pub failures: u64,
    /// Tests that were skipped or excluded.
    pub skipped: u64,
}

/// The part `nth` of `of` of the tests, counted from 1. As text `1/4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    /// From 1 to `of`.
    pub nth: u32,
    /// The number of parts.
    pub of: u32,
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.nth, self.of)
    }
}

/// The name of a command in `passedTests` and `failedTests`: with its partition, which must not pass for all tests.
pub(super) fn test_name(command: &str, partition: Option<Partition>) -> String {
    partition.map_or_else(|| command.to_owned(), |partition| format!("{command} {partition}"))
}

impl TestRun {
    /// Whether there are commands and all have passed.
    pub fn passed(&self) -> bool {
        !self.commands.is_empty() && self.commands.iter().all(|command| command.passed)
    }

    /// The record: an artifact that refers to `subject`, the descriptor of the image's manifest, and the only blob of it.
    pub fn record(&self, subject: Descriptor) -> (Artifact, Vec<u8>) {
        let document = canonical_json(&self.statement());
        let layer = Descriptor {
            annotations: BTreeMap::from([(PREDICATE_TYPE.to_owned(), TEST_RESULT_TYPE.to_owned())]),
            ..Descriptor::of(IN_TOTO, &document)
        };
        let annotations = BTreeMap::from([
            ("org.opencontainers.image.created".to_owned(), rfc3339_millis(self.finished)),
            (PREDICATE_TYPE.to_owned(), TEST_RESULT_TYPE.to_owned()),
            ("dev.phial.result".to_owned(), self.result().to_owned()),
        ]);
        (Artifact::about(subject, IN_TOTO, layer, annotations), document)
    }

    fn result(&self) -> &'static str {
        if self.passed() { "PASSED" } else { "FAILED" }
    }

    fn statement(&self) -> Statement {
        let names = |passed: bool| -> Vec<String> {
            let commands = self.commands.iter().filter(|command| command.passed == passed);
            commands.map(|command| test_name(&command.name, self.partition)).collect()
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
            kind: STATEMENT_TYPE.into(),
            subject: vec![subject],
            predicate_type: TEST_RESULT_TYPE.into(),
            predicate: Some(predicate),
        }
    }

    /// What the predicate has no field for, as annotations of resource descriptors.
    fn configuration(&self) -> Vec<Resource> {
        let mut annotations = Map::new();
        annotations.insert("started".into(), rfc3339_millis(self.started).into());
        annotations.insert("finished".into(), rfc3339_millis(self.finished).into());
        annotations.insert("env".into(), json!(self.env));
        annotations.extend(self.partition.map(|partition| ("partition".to_owned(), partition.to_string().into())));
        let run = Resource {
            name: Some("run".into()),
            uri: Some(format!("pkg:generic/phial@{}", self.version)),
            annotations,
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
        [run].into_iter().chain(base).chain(commit).chain(self.commands.iter().map(CommandResult::resource)).collect()
    }
}

/// The annotation in which `BuildKit` puts the predicate type (its `docs/attestations/attestation-storage.md`).
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

impl CommandResult {
    fn resource(&self) -> Resource {
        let mut annotations = Map::new();
        annotations.insert("passed".into(), self.passed.into());
        annotations.insert("ended".into(), self.outcome.clone().into());
        annotations.insert("millis".into(), self.millis.into());
        if let Some(counts) = self.counts {
            let TestCounts { tests, failures, skipped } = counts;
            annotations.insert("counts".into(), json!({ "tests": tests, "failures": failures, "skipped": skipped }));
        }
        Resource {
            name: Some(format!("command/{}", self.name)),
            media_type: Some("application/json".into()),
            content: Some(STANDARD.encode(canonical_json(&self.argv))),
            annotations,
            ..Resource::default()
        }
    }
}

fn digest_set(digest: &Digest) -> BTreeMap<String, String> {
    BTreeMap::from([(digest.algorithm().to_owned(), digest.hex().into())])
}
