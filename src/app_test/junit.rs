//! How many tests there were: from the closing lines of `ExUnit`, or from reports in the form of `JUnit`.

use crate::attest::Counts;

/// Adds up closing lines of `ExUnit`, one for each app of an umbrella, however the output arrives.
#[derive(Debug, Default)]
pub(super) struct Closing {
    line: Vec<u8>,
    sum: Option<Counts>,
}

/// No closing line is longer; of a longer line only so much is kept.
const WIDTH: usize = 400;

impl Closing {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = WIDTH.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.close();
            }
        }
    }

    /// The sum, if there was any closing line.
    pub(super) fn counts(mut self) -> Option<Counts> {
        self.close();
        self.sum
    }

    fn close(&mut self) {
        let line = std::mem::take(&mut self.line);
        if let Some(counts) = closing_line(&without_colour(&String::from_utf8_lossy(&line))) {
            self.sum = Some(add(self.sum.unwrap_or_default(), counts));
        }
    }
}

fn add(one: Counts, two: Counts) -> Counts {
    Counts {
        tests: one.tests.saturating_add(two.tests),
        failures: one.failures.saturating_add(two.failures),
        skipped: one.skipped.saturating_add(two.skipped),
    }
}

/// `3 doctests, 1 property, 12 tests, 1 failure, 2 excluded, 1 skipped`, and since Elixir 1.19
/// `12 tests, 1 failure, 1 skipped (2 excluded)` (`ExUnit.CLIFormatter`).
fn closing_line(line: &str) -> Option<Counts> {
    if let Some(result) = line.trim().strip_prefix("Result: ") {
        return result_line(result);
    }
    let excluded = line.trim().strip_suffix(" excluded)").and_then(|rest| rest.rsplit_once(" ("));
    let (line, excluded) = excluded.unwrap_or((line.trim(), "0"));
    let mut counts = Counts { skipped: excluded.parse().ok()?, ..Counts::default() };
    let (mut tests, mut failures) = (false, false);
    for part in line.split(", ") {
        let (number, word) = part.split_once(' ')?;
        let number: u64 = number.parse().ok()?;
        match word {
            "failure" | "failures" => (counts.failures, failures) = (counts.failures.saturating_add(number), true),
            "invalid" => counts.failures = counts.failures.saturating_add(number),
            "excluded" | "skipped" => counts.skipped = counts.skipped.saturating_add(number),
            _ if failures || !word.chars().all(|c| c.is_ascii_lowercase() || c == '_') => return None,
            // Tests of every kind stand before the failures: tests, doctests, properties, features.
            _ => {
                tests = true;
                counts.tests = counts.tests.saturating_add(number);
            }
        }
    }
    (tests && failures).then_some(counts)
}

/// As Elixir 1.20 writes it: `34 passed`, `8/9 passed (2/2 doctests, 6/7 tests), 1 skipped, 2 excluded`,
/// `0 tests, 1 invalid`.
fn result_line(line: &str) -> Option<Counts> {
    let kinds = line.split_once(" (").and_then(|(before, rest)| Some((before, rest.split_once(')')?.1)));
    let (line, rest) = kinds.unwrap_or((line, ""));
    let mut counts = Counts::default();
    for (nth, part) in line.split(", ").chain(rest.split(", ").filter(|part| !part.is_empty())).enumerate() {
        let (number, word) = part.split_once(' ')?;
        match (nth, word) {
            (0, "passed") => {
                let (passed, all) = number.split_once('/').unwrap_or((number, number));
                counts.tests = all.parse().ok()?;
                counts.failures = counts.tests.checked_sub(passed.parse().ok()?)?;
            }
            (0, "tests") if number == "0" => {}
            (1.., "skipped" | "excluded") => {
                counts = add(counts, Counts { skipped: number.parse().ok()?, ..Counts::default() });
            }
            (1.., "invalid") => {
                let invalid = number.parse().ok()?;
                counts = add(counts, Counts { tests: invalid, failures: invalid, skipped: 0 });
            }
            _ => return None,
        }
    }
    Some(counts)
}

/// Without the sequences that set colours (ECMA-48, SGR).
fn without_colour(line: &str) -> String {
    let mut pieces = line.split("\u{1b}[");
    let mut clean = pieces.next().unwrap_or("").to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        clean.push_str(rest.strip_prefix('m').unwrap_or(piece));
    }
    clean
}

/// The `<testsuite>` elements of a report, each whole and as it stands; none if it is no report.
pub(super) fn suites(report: &str) -> Vec<&str> {
    let mut suites = Vec::new();
    let mut rest = report;
    while let Some(start) = rest.find("<testsuite").filter(|_| suites.len() < 100_000) {
        let from = &rest[start..];
        if let Some(inner) = from.strip_prefix("<testsuites") {
            rest = inner;
            continue;
        }
        let Some(tag) = from.find('>') else { break };
        let end = if from[..tag].ends_with('/') {
            tag + 1
        } else {
            let Some(end) = from.find("</testsuite>") else { break };
            end + "</testsuite>".len()
        };
        suites.push(&from[..end]);
        rest = &from[end..];
    }
    suites
}

/// The sum of what suites say in their first tags.
pub(super) fn counted(suites: &[&str]) -> Option<Counts> {
    suites.iter().fold(None, |sum: Option<Counts>, suite| {
        let tag = &suite[..suite.find('>').unwrap_or(0)];
        let number = |name: &str| -> Option<u64> {
            let value = tag.split_once(&format!(" {name}=\""))?.1;
            value.split('"').next()?.parse().ok()
        };
        let Some(tests) = number("tests") else { return sum };
        let failures = number("failures").unwrap_or(0).saturating_add(number("errors").unwrap_or(0));
        let skipped = number("skipped").unwrap_or(0);
        Some(add(sum.unwrap_or_default(), Counts { tests, failures, skipped }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Option<(u64, u64, u64)> {
        let mut closing = Closing::default();
        text.as_bytes().chunks(7).for_each(|chunk| closing.push(chunk));
        closing.counts().map(|counts| (counts.tests, counts.failures, counts.skipped))
    }

    #[test]
    fn closing_lines_of_exunit_add_up() {
        for (text, expected) in [
            ("....\n\nFinished in 0.1 seconds\n5 tests, 0 failures\n", Some((5, 0, 0))),
            ("1 test, 1 failure", Some((1, 1, 0))),
            (
                "\u{1b}[32m3 doctests, 1 property, 12 tests, 1 failure, 2 excluded, 1 skipped\u{1b}[0m\n",
                Some((16, 1, 3)),
            ),
            ("2 tests, 0 failures, 1 invalid\n", Some((2, 1, 0))),
            ("12 tests, 1 failure, 1 skipped (2 excluded)\r\n", Some((12, 1, 3))),
            ("5 tests, 0 failures (x excluded)\n", None),
            ("==> a\n2 tests, 0 failures\n==> b\n3 tests, 1 failure\n", Some((5, 1, 0))),
            ("\u{1b}[32mResult: 34 passed\u{1b}[0m\n", Some((34, 0, 0))),
            ("Result: 237 passed (1 property, 236 tests)\n", Some((237, 0, 0))),
            ("Result: 8/9 passed (2/2 doctests, 6/7 tests), 1 skipped, 2 excluded\nFailed: 1 test\n", Some((9, 1, 3))),
            ("Result: 0 tests, 1 invalid, 1 excluded\n", Some((1, 1, 1))),
            ("Result: 9/8 passed\n", None),
            ("1 test, 18446744073709551615 failures, 9 invalid\n", Some((1, u64::MAX, 0))),
            ("Result: all passed\nResult: 3 gates passed\n", None),
            ("0 failures\n", None),
            ("I ran 5 tests, 0 failures\n", None),
            ("All tests have been excluded.\n", None),
            ("", None),
        ] {
            assert_eq!(counts(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_endless_line_takes_no_endless_room() {
        let mut closing = Closing::default();
        (0..1000).for_each(|_| closing.push(&[b'x'; 1000]));
        assert_eq!(closing.line.len(), WIDTH);
    }

    #[test]
    fn suites_of_a_report_are_found_and_counted() {
        let report = r#"<?xml version="1.0"?><testsuites><testsuite name="a" tests="3" failures="1" errors="1" skipped="1">
            <testcase name="x"/></testsuite><testsuite tests="2" name="b"/></testsuites>"#;
        let found = suites(report);
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with("</testsuite>") && found[1].ends_with("/>"));
        assert_eq!(counted(&found), Some(Counts { tests: 5, failures: 2, skipped: 1 }));
        assert_eq!(counted(&suites("<project/>")), None);
        assert!(suites("<testsuite name=\"cut").is_empty());
    }
}
