//! Reads the test records of an image: strictly, since a failure must never look like a success.

use std::collections::{BTreeMap, BTreeSet};

use phial_layers::Digest;
use serde_json::Value;

use super::error::AttestError;
use super::image_location::ImageLocation;
use super::run::{Partition, test_name};
use super::statement::{Resource, STATEMENT_TYPE, Statement, TEST_RESULT_TYPE, TestResult};
use crate::image::{Artifact, IN_TOTO, canonical_json, from_rfc3339, read_json, shown};
use crate::registry::Client;

/// A test record among the referrers of an image.
#[derive(Debug)]
pub enum ListedRecord {
    /// One that counts.
    Valid(TestRecord),
    /// One that cannot be read, by its digest: it may be of a failure.
    Invalid(Digest, RecordError),
}

/// The result of one test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRecord {
    /// The referrer that holds it.
    pub referrer: Digest,
    /// When the run ended, in milliseconds since 1970; `None` in a record of another tool, which does not say.
    pub finished: Option<i64>,
    /// Whether all of it passed.
    pub passed: bool,
    /// Whether each command passed, by name.
    pub commands: BTreeMap<String, bool>,
    /// The part of the tests that ran; `None` for all.
    pub partition: Option<Partition>,
    /// The page of the run in its CI.
    pub url: Option<String>,
}

/// Why a test record is invalid.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its blob is missing, or its size or digest is wrong.
    #[error("it is damaged: {0}")]
    Damaged(AttestError),
    /// It is not an in-toto statement, or not one as Phial writes it.
    #[error("{0}")]
    Malformed(String),
    /// Its subject is something else.
    #[error("its subject is `{0}`")]
    WrongSubject(String),
}

/// The test records among the referrers of `subject`.
pub fn records(location: &ImageLocation, client: &Client, subject: &Digest) -> Result<Vec<ListedRecord>, AttestError> {
    let mut found = Vec::new();
    for (digest, artifact) in location.listed_referrers(client, subject)? {
        match artifact {
            Ok(artifact) => found.extend(records_in(location, client, subject, &artifact)?),
            Err(error) => found.push(ListedRecord::Invalid(digest, RecordError::Damaged(error))),
        }
    }
    Ok(found)
}

/// The test records among the layers of an artifact.
fn records_in(
    location: &ImageLocation,
    client: &Client,
    subject: &Digest,
    artifact: &Artifact,
) -> Result<Vec<ListedRecord>, AttestError> {
    let mut found = Vec::new();
    // Whatever type the artifact has: some registries lose the `artifactType` in lists.
    let mut seen = BTreeSet::new();
    let documents = artifact.manifest.layers.iter().filter(|layer| layer.media_type == IN_TOTO);
    for document in documents.filter(|layer| seen.insert(&layer.digest)) {
        let read = match location.document(client, document) {
            Ok(bytes) => read(&artifact.digest, subject, &bytes),
            Err(error) if error.is_damage() || is_gone(&error) => Err(RecordError::Damaged(error)),
            Err(error) => return Err(error),
        };
        let read = match read {
            Ok(Some(_)) if !artifact.is_about(subject) => {
                let other = artifact.manifest.subject.as_ref().map(|subject| subject.digest.to_string());
                Err(RecordError::WrongSubject(other.unwrap_or_else(|| "nothing".into())))
            }
            read => read,
        };
        match read {
            Ok(record) => found.extend(record.map(ListedRecord::Valid)),
            Err(error) => found.push(ListedRecord::Invalid(artifact.digest.clone(), error)),
        }
    }
    Ok(found)
}

fn is_gone(error: &AttestError) -> bool {
    matches!(error, AttestError::Registry(crate::registry::RegistryError::NotFound { .. }))
}

/// Reads a statement; `None` if its predicate is not a test result.
pub(super) fn read(referrer: &Digest, subject: &Digest, document: &[u8]) -> Result<Option<TestRecord>, RecordError> {
    let malformed = |why: &str| RecordError::Malformed(why.to_owned());
    let value: Value = read_json("the record", document).map_err(|_| malformed("it is not JSON"))?;
    let is_statement = value["_type"].as_str() == Some(STATEMENT_TYPE);
    match value["predicateType"].as_str() {
        Some(TEST_RESULT_TYPE) if is_statement => {}
        Some(other) if is_statement && other != TEST_RESULT_TYPE => return Ok(None),
        _ => return Err(malformed("it is not an in-toto statement v1")),
    }
    let statement: Statement = serde_json::from_value(value.clone())
        .map_err(|error| RecordError::Malformed(shown(&format!("its predicate is not a test result: {error}"))))?;
    let is_about =
        |resource: &Resource| resource.digest.get(subject.algorithm()).is_some_and(|hex| hex == subject.hex());
    if !statement.subject.iter().any(is_about) {
        let first = statement.subject.first().and_then(|resource| resource.digest.iter().next());
        return Err(RecordError::WrongSubject(
            first.map_or("nothing".into(), |(kind, hex)| shown(&format!("{kind}:{hex}"))),
        ));
    }
    let result = statement.predicate.ok_or_else(|| malformed("it has no predicate"))?;
    let passed = match result.result.as_str() {
        "PASSED" | "WARNED" => true,
        "FAILED" => false,
        other => return Err(RecordError::Malformed(shown(&format!("its result is `{other}`")))),
    };
    let record = TestRecord {
        referrer: referrer.clone(),
        finished: None,
        passed,
        commands: BTreeMap::new(),
        partition: None,
        url: result.url.clone(),
    };
    let Some(run) = result.configuration.iter().find(|resource| is_phial_run(resource)) else {
        return Ok(Some(record)); // written by another tool
    };
    if canonical_json(&value) != document {
        return Err(malformed("its JSON is not in the form that Phial writes"));
    }
    phial_record(record, run, &result).map(Some)
}

/// Whether this is the entry in which Phial describes the run.
fn is_phial_run(resource: &Resource) -> bool {
    resource.name.as_deref() == Some("run")
        && resource.uri.as_ref().is_some_and(|uri| uri.starts_with("pkg:generic/phial@"))
}

/// Reads what only Phial writes. It has every result twice, for readers of `test-result` and for Phial: both must agree.
fn phial_record(record: TestRecord, run: &Resource, result: &TestResult) -> Result<TestRecord, RecordError> {
    let malformed = |why: &str| RecordError::Malformed(why.to_owned());
    let annotation = |name: &str| run.annotations.get(name).and_then(Value::as_str);
    let finished = annotation("finished")
        .and_then(from_rfc3339)
        .ok_or_else(|| malformed("it does not say when the run finished"))?;
    let partition = match run.annotations.get("partition") {
        None => None,
        Some(text) => {
            Some(text.as_str().and_then(parse_partition).ok_or_else(|| malformed("its partition is invalid"))?)
        }
    };
    let mut commands = BTreeMap::new();
    for resource in &result.configuration {
        let Some(name) = resource.name.as_deref().and_then(|name| name.strip_prefix("command/")) else { continue };
        let passed = resource.annotations.get("passed").and_then(Value::as_bool);
        let passed = passed.ok_or_else(|| malformed("it does not say for each command whether it passed"))?;
        *commands.entry(name.to_owned()).or_insert(true) &= passed;
    }
    let all = !commands.is_empty() && commands.values().all(|passed| *passed);
    let mut listed: Vec<(&str, bool)> = result.passed_tests.iter().map(|name| (name.as_str(), true)).collect();
    listed.extend(result.failed_tests.iter().map(|name| (name.as_str(), false)));
    listed.sort_unstable();
    let expected: Vec<(String, bool)> =
        commands.iter().map(|(name, passed)| (test_name(name, partition), *passed)).collect();
    let mut expected: Vec<(&str, bool)> = expected.iter().map(|(name, passed)| (name.as_str(), *passed)).collect();
    expected.sort_unstable();
    if all != record.passed || listed != expected {
        return Err(malformed("it contradicts itself: its result does not follow from its commands"));
    }
    Ok(TestRecord { finished: Some(finished), commands, partition, ..record })
}

fn parse_partition(text: &str) -> Option<Partition> {
    let (nth, of) = text.split_once('/')?;
    let (nth, of) = (nth.parse().ok()?, of.parse().ok()?);
    (1..=of).contains(&nth).then_some(Partition { nth, of })
}

#[cfg(test)]
mod tests;
