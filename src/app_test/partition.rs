//! Which part of the tests runs: from `--partition`, or from the variables in which a CI engine numbers its parallel jobs.

use super::error::TestError;
use crate::attest::Partition;
use crate::error::Error;
use crate::host::Host;

/// How a CI engine numbers parallel jobs.
struct CiEngine {
    name: &'static str,
    /// Variable with the number of this job.
    index: &'static str,
    /// Variable with the number of jobs.
    count: &'static str,
    /// The number of the first job.
    first: u32,
}

const ENGINES: [CiEngine; 4] = [
    CiEngine { name: "Buildkite", index: "BUILDKITE_PARALLEL_JOB", count: "BUILDKITE_PARALLEL_JOB_COUNT", first: 0 },
    CiEngine { name: "GitLab", index: "CI_NODE_INDEX", count: "CI_NODE_TOTAL", first: 1 },
    CiEngine { name: "CircleCI", index: "CIRCLE_NODE_INDEX", count: "CIRCLE_NODE_TOTAL", first: 0 },
    CiEngine { name: "Semaphore", index: "SEMAPHORE_JOB_INDEX", count: "SEMAPHORE_JOB_COUNT", first: 1 },
];

/// A part of the tests.
pub(super) struct Chosen {
    pub(super) partition: Partition,
    /// The CI engine whose variables say so; `None` for the flag.
    pub(super) engine: Option<&'static str>,
}

/// The part that `flag` or the environment asks for; `None` for all tests.
pub(super) fn choose(flag: Option<&str>, host: &Host) -> Result<Option<Chosen>, Error> {
    if let Some(text) = flag {
        let wrong = || TestError::Partition { from: "--partition", text: text.to_owned() };
        let (nth, of) = text.split_once('/').ok_or_else(wrong)?;
        let partition = check(nth.parse().ok(), of.parse().ok()).ok_or_else(wrong)?;
        return Ok((partition.of > 1).then_some(Chosen { partition, engine: None }));
    }
    for CiEngine { name, index, count, first } in ENGINES {
        let (Some(nth), Some(of)) = (host.var(index), host.var(count)) else { continue };
        let wrong = || TestError::Partition { from: index, text: format!("{nth}/{of}") };
        let from_one = nth.parse::<u32>().ok().and_then(|nth| nth.checked_add(1 - first));
        let partition = check(from_one, of.parse().ok()).ok_or_else(wrong)?;
        return Ok((partition.of > 1).then_some(Chosen { partition, engine: Some(name) }));
    }
    Ok(None)
}

fn check(nth: Option<u32>, of: Option<u32>) -> Option<Partition> {
    nth.zip(of).filter(|(nth, of)| (1..=*of).contains(nth)).map(|(nth, of)| Partition { nth, of })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(flag: Option<&str>, env: &[(&str, &str)]) -> String {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match choose(flag, &Host { env, ..Host::read() }) {
            Ok(chosen) => chosen.map_or_else(|| "all".to_owned(), |chosen| chosen.partition.to_string()),
            Err(_) => "refused".to_owned(),
        }
    }

    #[test]
    fn a_part_comes_from_the_flag_or_the_engine_and_is_counted_from_one() {
        let two = |name, count| [(name, "2"), (count, "4")];
        let buildkite = two("BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT");
        assert_eq!(chosen(None, &[]), "all");
        assert_eq!(chosen(None, &buildkite), "3/4");
        assert_eq!(chosen(None, &two("CI_NODE_INDEX", "CI_NODE_TOTAL")), "2/4");
        assert_eq!(chosen(None, &two("CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL")), "3/4");
        assert_eq!(chosen(None, &[("CI_NODE_TOTAL", "1"), ("CI_NODE_INDEX", "1")]), "all");
        assert_eq!(chosen(Some("1/2"), &buildkite), "1/2");
        assert_eq!(chosen(Some("1/1"), &buildkite), "all");
        for wrong in ["", "2", "0/2", "3/2", "a/b", "-1/2"] {
            assert_eq!(chosen(Some(wrong), &[]), "refused", "{wrong}");
        }
        assert_eq!(chosen(None, &two("BUILDKITE_PARALLEL_JOB_COUNT", "BUILDKITE_PARALLEL_JOB")), "refused");
    }
}
