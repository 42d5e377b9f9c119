//! Decides whether an image's test records prove the commands that are required. Pure: from records to a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use phial_layers::Digest;

use crate::attest::{ListedRecord, Partition, RecordError, TestRecord};
use crate::image::{rfc3339, shown};

/// What the test records of an image prove.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Each required command that has passed, and the digest of the record that proves it.
    pub proven: BTreeMap<String, Digest>,
    /// Why the image is not proven; empty if it is.
    pub problems: Vec<Problem>,
    /// Sentences about records that do not count.
    pub notes: Vec<String>,
}

/// Why an image is not proven.
#[derive(Debug)]
pub enum Problem {
    /// There is no record that Phial has written.
    NoRecord,
    /// No record has a command that is required.
    Missing {
        /// The command.
        command: String,
        /// The commands that there are records of, one at least: a run without commands is a failure of each.
        known: BTreeSet<String>,
    },
    /// The newest record of a command is of a failure.
    Failed {
        /// The command; `None` for a record of another tool.
        command: Option<String>,
        /// The digest of the record.
        record: Digest,
        /// When the run ended, in milliseconds since 1970.
        finished: Option<i64>,
        /// The page of the run in its CI.
        url: Option<String>,
    },
    /// Only some parts of the tests were run.
    Incomplete {
        /// The command.
        command: String,
        /// The parts that passed.
        passed: Vec<Partition>,
    },
    /// A record is invalid, and may be of a failure.
    Invalid {
        /// The digest of the record.
        record: Digest,
        /// What is wrong with it.
        error: RecordError,
    },
}

/// Evaluates the records for the commands that are required, one at least. For each command the newest record counts, and of two
/// with the same time the one of a failure. Other commands are noted and prove nothing: a tester may run any command.
pub fn evaluate(listed: Vec<ListedRecord>, requires: &BTreeSet<String>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut records = Vec::new();
    for record in listed {
        match record {
            ListedRecord::Invalid(record, error) => verdict.problems.push(Problem::Invalid { record, error }),
            ListedRecord::Valid(record) if record.finished.is_none() => verdict.foreign(&record),
            ListedRecord::Valid(record) => records.push(record),
        }
    }
    let known: BTreeSet<String> = records.iter().flat_map(|record| record.commands.keys().cloned()).collect();
    if !records.is_empty() {
        for command in requires {
            verdict.command(command, &records, &known);
        }
    } else if verdict.problems.is_empty() {
        verdict.problems.push(Problem::NoRecord);
    }
    for command in known.difference(requires) {
        let mut other = Verdict::default();
        other.command(command, &records, &known);
        verdict.notes.extend(other.problems.iter().map(|doubt| format!("{doubt}, and is not required")));
    }
    verdict
}

/// The result of a command in one record.
struct CommandOutcome<'a> {
    record: &'a TestRecord,
    passed: bool,
    finished: i64,
}

impl CommandOutcome<'_> {
    /// Of two outcomes the one that counts has the higher rank; that of records of one moment does not depend on their order.
    fn rank(&self) -> (i64, bool, &Digest) {
        (self.finished, !self.passed, &self.record.referrer)
    }
}

impl Verdict {
    /// Takes a record of another tool. It proves nothing, since it does not say when the run ended; a failure in it counts.
    fn foreign(&mut self, record: &TestRecord) {
        if record.passed {
            self.notes.push(format!("the record `{}` of another tool does not count", record.referrer));
        } else {
            self.problems.push(failed(None, record));
        }
    }

    /// Adds the run that proves a command, or the problem with it.
    fn command(&mut self, command: &str, records: &[TestRecord], known: &BTreeSet<String>) {
        let newest = newest(command, records);
        let passing = passing_run(&newest);
        let failures = newest.values().filter(|outcome| !outcome.passed);
        let failure = failures.max_by_key(|outcome| outcome.finished);
        match (passing, failure) {
            (passing, Some(failure)) if passing.as_ref().is_none_or(|(at, _)| failure.finished >= *at) => {
                self.problems.push(failed(Some(command), failure.record));
            }
            (Some((_, record)), _) => {
                self.proven.insert(command.to_owned(), record);
            }
            (None, _) if newest.is_empty() => {
                self.problems.push(Problem::Missing { command: command.to_owned(), known: known.clone() });
            }
            (None, _) => {
                let passed = newest.keys().copied().flatten().collect();
                self.problems.push(Problem::Incomplete { command: command.to_owned(), passed });
            }
        }
    }
}

/// The newest outcome of a command for all tests (`None`) and for each partition. A run without commands is a failure of
/// each command.
fn newest<'a>(command: &str, records: &'a [TestRecord]) -> BTreeMap<Option<Partition>, CommandOutcome<'a>> {
    let mut newest: BTreeMap<Option<Partition>, CommandOutcome<'a>> = BTreeMap::new();
    for record in records {
        let passed = match record.commands.get(command) {
            Some(passed) => *passed,
            None if record.commands.is_empty() => false,
            None => continue,
        };
        let outcome = CommandOutcome { record, passed, finished: record.finished.unwrap_or(i64::MIN) };
        let is_newer = |old: &CommandOutcome<'_>| old.rank() < outcome.rank();
        if newest.get(&record.partition).is_none_or(is_newer) {
            newest.insert(record.partition, outcome);
        }
    }
    newest
}

/// The time and the digest of the record that proves a command: a run of all tests, or the oldest of runs of all parts.
fn passing_run(newest: &BTreeMap<Option<Partition>, CommandOutcome<'_>>) -> Option<(i64, Digest)> {
    let whole = newest.get(&None).filter(|outcome| outcome.passed);
    let mut runs: Vec<(i64, Digest)> =
        whole.iter().map(|outcome| (outcome.finished, outcome.record.referrer.clone())).collect();
    let totals: BTreeSet<u32> = newest.keys().flatten().map(|partition| partition.of).collect();
    for of in totals {
        let parts = (1..=of).map(|nth| newest.get(&Some(Partition { nth, of })).filter(|outcome| outcome.passed));
        let Some(parts) = parts.collect::<Option<Vec<_>>>() else { continue };
        let oldest = parts.into_iter().min_by_key(|outcome| outcome.finished);
        runs.extend(oldest.map(|outcome| (outcome.finished, outcome.record.referrer.clone())));
    }
    runs.into_iter().max()
}

fn failed(command: Option<&str>, record: &TestRecord) -> Problem {
    let (finished, url) = (record.finished, record.url.clone());
    Problem::Failed { command: command.map(str::to_owned), record: record.referrer.clone(), finished, url }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecord => write!(f, "it has no test record"),
            Self::Missing { command, known } => {
                let known: Vec<String> = known.iter().map(|name| format!("`{}`", shown(name))).collect();
                write!(f, "`{}` was never run, only {}", shown(command), known.join(", "))
            }
            Self::Failed { command, record, finished, url } => {
                match command {
                    Some(command) => write!(f, "`{}` failed", shown(command))?,
                    None => write!(f, "its tests failed")?,
                }
                if let Some(finished) = finished {
                    write!(f, " at {}", rfc3339(finished.div_euclid(1000)))?;
                }
                match url {
                    Some(url) => write!(f, " ({}; record `{record}`)", shown(url)),
                    None => write!(f, " (record `{record}`)"),
                }
            }
            Self::Incomplete { command, passed } => {
                let parts: Vec<String> = passed.iter().map(ToString::to_string).collect();
                write!(f, "only the parts {} of `{}` were run", parts.join(", "), shown(command))
            }
            Self::Invalid { record, error } => write!(f, "the record `{record}` is invalid: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
