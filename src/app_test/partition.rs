//! Which part of the tests is run: as told, or as the CI engine counts its parallel jobs.

use super::TestError;
use crate::attest::Partition;
use crate::error::Error;
use crate::host::Host;

/// Index and count by engine, and what the engine counts from.
const ENGINES: [(&str, &str, &str, u32); 4] = [
    ("Buildkite", "BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", 0),
    ("GitLab", "CI_NODE_INDEX", "CI_NODE_TOTAL", 1),
    ("CircleCI", "CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL", 0),
    ("Semaphore", "SEMAPHORE_JOB_INDEX", "SEMAPHORE_JOB_COUNT", 1),
];

/// The part, and the engine that says so if it is not told. `None` for all of the tests.
pub(super) fn partition(told: Option<&str>, host: &Host) -> Result<Option<(Partition, Option<&'static str>)>, Error> {
    if let Some(text) = told {
        let wrong = || TestError::Partition { from: "--partition", text: text.to_owned() };
        let (nth, of) = text.split_once('/').ok_or_else(wrong)?;
        let part = check(nth.parse().ok(), of.parse().ok()).ok_or_else(wrong)?;
        return Ok((part.of > 1).then_some((part, None)));
    }
    for (engine, index, count, first) in ENGINES {
        let (Some(nth), Some(of)) = (host.var(index), host.var(count)) else { continue };
        let wrong = || TestError::Partition { from: index, text: format!("{nth}/{of}") };
        let counted = nth.parse::<u32>().ok().and_then(|nth| nth.checked_add(1 - first));
        let part = check(counted, of.parse().ok()).ok_or_else(wrong)?;
        return Ok((part.of > 1).then_some((part, Some(engine))));
    }
    Ok(None)
}

fn check(nth: Option<u32>, of: Option<u32>) -> Option<Partition> {
    nth.zip(of).filter(|(nth, of)| (1..=*of).contains(nth)).map(|(nth, of)| Partition { nth, of })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(told: Option<&str>, env: &[(&str, &str)]) -> String {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match partition(told, &Host { env, ..Host::read() }) {
            Ok(part) => part.map_or_else(|| "all".to_owned(), |(part, _)| part.to_string()),
            Err(_) => "refused".to_owned(),
        }
    }

    #[test]
    fn a_part_is_told_or_comes_from_the_engine_and_is_counted_from_one() {
        let two = |name, count| [(name, "2"), (count, "4")];
        let buildkite = two("BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT");
        assert_eq!(of(None, &[]), "all");
        assert_eq!(of(None, &buildkite), "3/4");
        assert_eq!(of(None, &two("CI_NODE_INDEX", "CI_NODE_TOTAL")), "2/4");
        assert_eq!(of(None, &two("CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL")), "3/4");
        assert_eq!(of(None, &[("CI_NODE_TOTAL", "1"), ("CI_NODE_INDEX", "1")]), "all");
        assert_eq!(of(Some("1/2"), &buildkite), "1/2");
        assert_eq!(of(Some("1/1"), &buildkite), "all");
        for wrong in ["", "2", "0/2", "3/2", "a/b", "-1/2"] {
            assert_eq!(of(Some(wrong), &[]), "refused", "{wrong}");
        }
        assert_eq!(of(None, &two("BUILDKITE_PARALLEL_JOB_COUNT", "BUILDKITE_PARALLEL_JOB")), "refused");
    }
}
