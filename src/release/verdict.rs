//! Whether what is known of an image's tests is enough: pure, from records to a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use phial_layers::Digest;

use crate::attest::{Flaw, Listed, Partition, Record};
use crate::image::{rfc3339, shown};

/// What the records say.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Each command that counts, and the record that proves it.
    pub proven: BTreeMap<String, Digest>,
    /// Why that is not enough; empty if it is.
    pub doubts: Vec<Doubt>,
    /// What is known and does not count.
    pub notes: Vec<String>,
}

/// Why an image is not proven.
#[derive(Debug)]
pub enum Doubt {
    /// There is no record of Phial's.
    Untested,
    /// None of a command that is required.
    Missing {
        /// The command.
        command: String,
        /// Those that there are records of.
        known: BTreeSet<String>,
    },
    /// The newest record of a command is of a failure.
    Failed {
        /// The command; `None` for a run that came to none, and for a record of another tool.
        command: Option<String>,
        /// The referrer.
        record: Digest,
        /// When, in milliseconds since 1970.
        finished: Option<i64>,
        /// Where it can be looked at.
        url: Option<String>,
    },
    /// Only parts of the tests were run.
    Incomplete {
        /// The command.
        command: String,
        /// The parts that passed.
        passed: Vec<Partition>,
    },
    /// A record that cannot be judged may be one of a failure.
    Flawed {
        /// The referrer.
        record: Digest,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

/// Judges `listed` for the commands that are required, one at least. For each the newest record wins, and of two of the
/// same moment the one of a failure. What else was run is noted and proves nothing: whoever tests may run anything.
pub fn judge(listed: Vec<Listed>, requires: &BTreeSet<String>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut records = Vec::new();
    for found in listed {
        match found {
            Listed::Flawed(record, flaw) => verdict.doubts.push(Doubt::Flawed { record, flaw }),
            Listed::Record(record) if record.finished.is_none() => verdict.foreign(&record),
            Listed::Record(record) => records.push(record),
        }
    }
    let known: BTreeSet<String> = records.iter().flat_map(|record| record.commands.keys().cloned()).collect();
    if !records.is_empty() {
        for command in requires {
            verdict.command(command, &records, &known);
        }
    } else if verdict.doubts.is_empty() {
        verdict.doubts.push(Doubt::Untested);
    }
    for command in known.difference(requires) {
        let mut aside = Verdict::default();
        aside.command(command, &records, &known);
        verdict.notes.extend(aside.doubts.iter().map(|doubt| format!("{doubt}, and is not required")));
    }
    verdict
}

/// One outcome of a command.
struct Outcome<'a> {
    record: &'a Record,
    passed: bool,
    finished: i64,
}

impl Verdict {
    /// A record of another tool proves nothing, since it does not say when it was made; a failure in it still counts.
    fn foreign(&mut self, record: &Record) {
        if record.passed {
            self.notes.push(format!("the record `{}` of another tool does not count", record.referrer));
        } else {
            self.doubts.push(failed(None, record));
        }
    }

    fn command(&mut self, command: &str, records: &[Record], known: &BTreeSet<String>) {
        let newest = newest(command, records);
        let proof = proof(&newest);
        let failures = newest.values().filter(|outcome| !outcome.passed);
        let failure = failures.max_by_key(|outcome| outcome.finished);
        match (proof, failure) {
            (proof, Some(failure)) if proof.as_ref().is_none_or(|(at, _)| failure.finished >= *at) => {
                self.doubts.push(failed(Some(command), failure.record));
            }
            (Some((_, record)), _) => {
                self.proven.insert(command.to_owned(), record);
            }
            (None, _) if newest.is_empty() => {
                self.doubts.push(Doubt::Missing { command: command.to_owned(), known: known.clone() });
            }
            (None, _) => {
                let passed = newest.keys().copied().flatten().collect();
                self.doubts.push(Doubt::Incomplete { command: command.to_owned(), passed });
            }
        }
    }
}

/// The newest outcome of a command as a whole and of each part of it. A run that came to no command at all is one of
/// each command.
fn newest<'a>(command: &str, records: &'a [Record]) -> BTreeMap<Option<Partition>, Outcome<'a>> {
    let mut newest: BTreeMap<Option<Partition>, Outcome<'a>> = BTreeMap::new();
    for record in records {
        let passed = match record.commands.get(command) {
            Some(passed) => *passed,
            None if record.commands.is_empty() => false,
            None => continue,
        };
        let outcome = Outcome { record, passed, finished: record.finished.unwrap_or(i64::MIN) };
        let rank = |outcome: &Outcome<'_>| (outcome.finished, !outcome.passed);
        if newest.get(&record.partition).is_none_or(|old| rank(old) < rank(&outcome)) {
            newest.insert(record.partition, outcome);
        }
    }
    newest
}

/// What proves a command, and since when: a run of all of it, or one of each of its parts, the oldest of which counts.
fn proof(newest: &BTreeMap<Option<Partition>, Outcome<'_>>) -> Option<(i64, Digest)> {
    let whole = newest.get(&None).filter(|outcome| outcome.passed);
    let mut proofs: Vec<(i64, Digest)> =
        whole.iter().map(|outcome| (outcome.finished, outcome.record.referrer.clone())).collect();
    let totals: BTreeSet<u32> = newest.keys().flatten().map(|partition| partition.of).collect();
    for of in totals {
        let parts = (1..=of).map(|nth| newest.get(&Some(Partition { nth, of })).filter(|outcome| outcome.passed));
        let Some(parts) = parts.collect::<Option<Vec<_>>>() else { continue };
        let oldest = parts.into_iter().min_by_key(|outcome| outcome.finished);
        proofs.extend(oldest.map(|outcome| (outcome.finished, outcome.record.referrer.clone())));
    }
    proofs.into_iter().max()
}

fn failed(command: Option<&str>, record: &Record) -> Doubt {
    let (finished, url) = (record.finished, record.url.clone());
    Doubt::Failed { command: command.map(str::to_owned), record: record.referrer.clone(), finished, url }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untested => write!(f, "it has no test record"),
            Self::Missing { command, known } if known.is_empty() => write!(f, "`{}` was never run", shown(command)),
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
                write!(f, "of `{}` only the parts {} were run", shown(command), parts.join(", "))
            }
            Self::Flawed { record, flaw } => write!(f, "the record `{record}` cannot be believed: {flaw}"),
        }
    }
}

#[cfg(test)]
mod tests;
