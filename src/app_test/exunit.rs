//! Counts tests by the summary lines that `ExUnit.CLIFormatter` prints, in the forms that it has had up to Elixir 1.20.

use crate::attest::TestCounts;

/// Adds up the summary lines of an output stream: an umbrella project prints one for each app.
#[derive(Debug, Default)]
pub(super) struct SummaryLines {
    line: Vec<u8>,
    sum: Option<TestCounts>,
}

/// Bytes that are kept of a line. No summary line is longer.
const MAX_LINE: usize = 400;

impl SummaryLines {
    /// Takes the next piece of the output, which may end within a line.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// The sum; `None` if no line was a summary.
    pub(super) fn counts(mut self) -> Option<TestCounts> {
        self.end_line();
        self.sum
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if let Some(counts) = summary(&strip_ansi_escapes::strip_str(String::from_utf8_lossy(&line))) {
            self.sum = Some(sum(self.sum.unwrap_or_default(), counts));
        }
    }
}

/// Both together.
pub(super) fn sum(one: TestCounts, two: TestCounts) -> TestCounts {
    TestCounts {
        tests: one.tests.saturating_add(two.tests),
        failures: one.failures.saturating_add(two.failures),
        skipped: one.skipped.saturating_add(two.skipped),
    }
}

/// `3 doctests, 1 property, 12 tests, 1 failure, 2 excluded, 1 skipped`, and since Elixir 1.19
/// `12 tests, 1 failure, 1 skipped (2 excluded)` (`ExUnit.CLIFormatter`).
fn summary(line: &str) -> Option<TestCounts> {
    if let Some(result) = line.trim().strip_prefix("Result: ") {
        return result_line(result);
    }
    let excluded = line.trim().strip_suffix(" excluded)").and_then(|rest| rest.rsplit_once(" ("));
    let (line, excluded) = excluded.unwrap_or((line.trim(), "0"));
    let mut counts = TestCounts { skipped: excluded.parse().ok()?, ..TestCounts::default() };
    let (mut tests, mut failures) = (false, false);
    for part in line.split(", ") {
        let (number, word) = part.split_once(' ')?;
        let number: u64 = number.parse().ok()?;
        match word {
            "failure" | "failures" => (counts.failures, failures) = (counts.failures.saturating_add(number), true),
            "invalid" => counts.failures = counts.failures.saturating_add(number),
            "excluded" | "skipped" => counts.skipped = counts.skipped.saturating_add(number),
            _ if failures || !word.chars().all(|c| c.is_ascii_lowercase() || c == '_') => return None,
            // Tests of every kind come before the failures: tests, doctests, properties, features.
            _ => {
                tests = true;
                counts.tests = counts.tests.saturating_add(number);
            }
        }
    }
    (tests && failures).then_some(counts)
}

/// Since Elixir 1.20: `34 passed`, `8/9 passed (2/2 doctests, 6/7 tests), 1 skipped, 2 excluded`,
/// `0 tests, 1 invalid`.
fn result_line(line: &str) -> Option<TestCounts> {
    let by_kind = line.split_once(" (").and_then(|(before, rest)| Some((before, rest.split_once(')')?.1)));
    let (line, rest) = by_kind.unwrap_or((line, ""));
    let mut counts = TestCounts::default();
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
                counts = sum(counts, TestCounts { skipped: number.parse().ok()?, ..TestCounts::default() });
            }
            (1.., "invalid") => {
                let invalid = number.parse().ok()?;
                counts = sum(counts, TestCounts { tests: invalid, failures: invalid, skipped: 0 });
            }
            _ => return None,
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Option<(u64, u64, u64)> {
        let mut lines = SummaryLines::default();
        text.as_bytes().chunks(7).for_each(|chunk| lines.push(chunk));
        lines.counts().map(|counts| (counts.tests, counts.failures, counts.skipped))
    }

    #[test]
    fn summary_lines_of_exunit_add_up() {
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
    fn of_an_endless_line_only_the_beginning_is_kept() {
        let mut lines = SummaryLines::default();
        (0..1000).for_each(|_| lines.push(&[b'x'; 1000]));
        assert_eq!(lines.line.len(), MAX_LINE);
    }
}
