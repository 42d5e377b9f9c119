//! Test records as they are found: read strictly, since a failure must never look like a success.

use std::collections::BTreeMap;

use phial_layers::Digest;
use serde_json::Value;

use super::error::AttestError;
use super::image_location::ImageLocation;
use super::run::{Partition, test_name};
use super::statement::{Resource, STATEMENT, Statement, TEST_RESULT, TestResult};
use crate::image::{Artifact, IN_TOTO, canonical_json, from_rfc3339, read_json, shown};
use crate::registry::Client;

/// What stands beside an image and tells how its tests ended.
#[derive(Debug)]
pub enum Listed {
    /// A record that can be judged.
    Record(Record),
    /// One that cannot: it may be hiding a failure.
    Flawed(Digest, Flaw),
}

/// How one run of tests ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The referrer that holds it.
    pub referrer: Digest,
    /// When the run ended, in milliseconds since 1970; `None` in a record of another tool, which has no such field.
    pub finished: Option<i64>,
    /// Whether all of it passed.
    pub passed: bool,
    /// Whether each command passed, by name.
    pub commands: BTreeMap<String, bool>,
    /// Which part of the tests it is about, if not all.
    pub partition: Option<Partition>,
    /// Where the run can be looked at.
    pub url: Option<String>,
}

/// Why a record cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// Its bytes are not what its digest says, or no JSON.
    #[error("it is damaged: {0}")]
    Damaged(AttestError),
    /// It is not a statement, or not as Phial writes one.
    #[error("{0}")]
    Form(String),
    /// It is about something else.
    #[error("it is about `{0}`")]
    Other(String),
}

/// The test records that stand beside `subject`.
pub fn records(place: &ImageLocation, client: &Client, subject: &Digest) -> Result<Vec<Listed>, AttestError> {
    let mut found = Vec::new();
    for (digest, artifact) in place.listing(client, subject)? {
        match artifact {
            Ok(artifact) => found.extend(of_artifact(place, client, subject, &artifact)?),
            Err(error) => found.push(Listed::Flawed(digest, Flaw::Damaged(error))),
        }
    }
    Ok(found)
}

fn of_artifact(
    place: &ImageLocation,
    client: &Client,
    subject: &Digest,
    artifact: &Artifact,
) -> Result<Vec<Listed>, AttestError> {
    let mut found = Vec::new();
    // Whatever the artifact calls itself: lists lose or mistake the `artifactType`.
    for document in artifact.manifest.layers.iter().filter(|layer| layer.media_type == IN_TOTO) {
        let read = match place.document(client, document) {
            Ok(bytes) => read(&artifact.digest, subject, &bytes),
            Err(error) if error.is_damage() || is_gone(&error) => Err(Flaw::Damaged(error)),
            Err(error) => return Err(error),
        };
        let read = match read {
            Ok(Some(_)) if !artifact.is_about(subject) => {
                let other = artifact.manifest.subject.as_ref().map(|subject| subject.digest.to_string());
                Err(Flaw::Other(other.unwrap_or_else(|| "nothing".into())))
            }
            read => read,
        };
        match read {
            Ok(record) => found.extend(record.map(Listed::Record)),
            Err(flaw) => found.push(Listed::Flawed(artifact.digest.clone(), flaw)),
        }
    }
    Ok(found)
}

fn is_gone(error: &AttestError) -> bool {
    matches!(error, AttestError::Registry(crate::registry::RegistryError::NotFound { .. }))
}

/// `None` for a statement that is not about tests.
fn read(referrer: &Digest, subject: &Digest, document: &[u8]) -> Result<Option<Record>, Flaw> {
    let form = |why: &str| Flaw::Form(why.to_owned());
    let value: Value = read_json("the record", document).map_err(|_| form("it is no JSON"))?;
    let is_statement = value["_type"].as_str() == Some(STATEMENT);
    match value["predicateType"].as_str() {
        Some(TEST_RESULT) if is_statement => {}
        Some(other) if is_statement && other != TEST_RESULT => return Ok(None),
        _ => return Err(form("it is no in-toto statement of version 1")),
    }
    let statement: Statement = serde_json::from_value(value.clone())
        .map_err(|error| Flaw::Form(shown(&format!("it is no test result: {error}"))))?;
    let own = (subject.algorithm(), subject.hex());
    let is_about = |resource: &Resource| resource.digest.get(own.0).is_some_and(|hex| hex == own.1);
    if !statement.subject.iter().any(is_about) {
        let first = statement.subject.first().and_then(|resource| resource.digest.iter().next());
        return Err(Flaw::Other(first.map_or("nothing".into(), |(kind, hex)| shown(&format!("{kind}:{hex}")))));
    }
    let result = statement.predicate.ok_or_else(|| form("it has no predicate"))?;
    let passed = match result.result.as_str() {
        "PASSED" | "WARNED" => true,
        "FAILED" => false,
        other => return Err(Flaw::Form(shown(&format!("its result is `{other}`")))),
    };
    let record = Record {
        referrer: referrer.clone(),
        finished: None,
        passed,
        commands: BTreeMap::new(),
        partition: None,
        url: result.url.clone(),
    };
    let Some(run) = result.configuration.iter().find(|resource| is_ours(resource)) else {
        return Ok(Some(record)); // of another tool
    };
    if canonical_json(&value) != document {
        return Err(form("its bytes are not as Phial writes them"));
    }
    own_record(record, run, &result).map(Some)
}

fn is_ours(resource: &Resource) -> bool {
    resource.name.as_deref() == Some("run")
        && resource.uri.as_ref().is_some_and(|uri| uri.starts_with("pkg:generic/phial@"))
}

/// A record of ours says everything twice, and both must agree.
fn own_record(record: Record, run: &Resource, result: &TestResult) -> Result<Record, Flaw> {
    let form = |why: &str| Flaw::Form(why.to_owned());
    let note = |name: &str| run.annotations.get(name).and_then(Value::as_str);
    let finished = note("finished").and_then(from_rfc3339).ok_or_else(|| form("it does not say when the run ended"))?;
    let partition = match run.annotations.get("partition") {
        None => None,
        Some(text) => Some(text.as_str().and_then(partition).ok_or_else(|| form("its partition is none"))?),
    };
    let mut commands = BTreeMap::new();
    for resource in &result.configuration {
        let Some(name) = resource.name.as_deref().and_then(|name| name.strip_prefix("command/")) else { continue };
        let passed = resource.annotations.get("passed").and_then(Value::as_bool);
        let passed = passed.ok_or_else(|| form("it does not say of each command whether it passed"))?;
        *commands.entry(name.to_owned()).or_insert(true) &= passed;
    }
    let all = !commands.is_empty() && commands.values().all(|passed| *passed);
    let mut named: Vec<(&str, bool)> = result.passed_tests.iter().map(|name| (name.as_str(), true)).collect();
    named.extend(result.failed_tests.iter().map(|name| (name.as_str(), false)));
    named.sort_unstable();
    let expected: Vec<(String, bool)> =
        commands.iter().map(|(name, passed)| (test_name(name, partition), *passed)).collect();
    let mut expected: Vec<(&str, bool)> = expected.iter().map(|(name, passed)| (name.as_str(), *passed)).collect();
    expected.sort_unstable();
    if all != record.passed || named != expected {
        return Err(form("it contradicts itself: its result and its commands do not agree"));
    }
    Ok(Record { finished: Some(finished), commands, partition, ..record })
}

fn partition(text: &str) -> Option<Partition> {
    let (nth, of) = text.split_once('/')?;
    let (nth, of) = (nth.parse().ok()?, of.parse().ok()?);
    (1..=of).contains(&nth).then_some(Partition { nth, of })
}

#[cfg(test)]
mod tests;
