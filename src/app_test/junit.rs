//! Reads and writes test reports in the form of `JUnit`.
//!
//! A report that tests wrote is hostile input: it is read as a stream, without recursion; a document type, which could
//! declare entities, ends the reading.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, SerializeError, TestCase, TestCaseStatus, TestSuite};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::exunit::sum;
use crate::attest::{CommandResult, TestCounts};

/// Suites that are read of one report.
const MAX_SUITES: usize = 100_000;

/// The outermost `testsuite` elements of a report.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Suites {
    /// Each element as it stands in the report.
    pub(super) elements: Vec<String>,
    /// The sum of the attributes `tests`, `failures` + `errors` and `skipped`; `None` if no suite has `tests`.
    pub(super) counts: Option<TestCounts>,
    /// Whether the report was read to its end. If not, the suites before the fault are here.
    pub(super) is_complete: bool,
}

/// The suites of a report; none if it is not one.
pub(super) fn read(report: &str) -> Suites {
    let mut suites = Suites::default();
    // The reader skips a byte order mark without counting it.
    let report = report.trim_start_matches('\u{feff}');
    let mut reader = Reader::from_str(report);
    let mut open_lists: usize = 0;
    while suites.elements.len() < MAX_SUITES {
        let start = position(&reader);
        let (tag, has_content) = match reader.read_event() {
            Ok(Event::Start(tag)) => (tag, true),
            Ok(Event::Empty(tag)) => (tag, false),
            Ok(Event::End(_)) => {
                open_lists = open_lists.saturating_sub(1);
                continue;
            }
            Ok(Event::Eof) => {
                suites.is_complete = open_lists == 0;
                break;
            }
            Ok(Event::DocType(_)) | Err(_) => break,
            Ok(_) => continue,
        };
        if tag.local_name().as_ref() == b"testsuites" {
            open_lists += usize::from(has_content);
            continue;
        }
        if has_content && reader.read_to_end(tag.name()).is_err() {
            break;
        }
        if tag.local_name().as_ref() == b"testsuite" {
            suites.elements.extend(report.get(start..position(&reader)).map(str::to_owned));
            suites.counts = suites.counts.into_iter().chain(counts(&tag)).reduce(sum);
        }
    }
    suites
}

/// Bytes that have been read.
fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// What a suite says of itself.
fn counts(suite: &BytesStart<'_>) -> Option<TestCounts> {
    let (mut tests, mut failures, mut skipped) = (None, 0_u64, 0);
    // The check for duplicates takes quadratic time.
    for attribute in suite.attributes().with_checks(false).flatten() {
        let Some(number) = std::str::from_utf8(&attribute.value).ok().and_then(|value| value.parse().ok()) else {
            continue;
        };
        match attribute.key.as_ref() {
            b"tests" => tests = Some(number),
            b"failures" | b"errors" => failures = failures.saturating_add(number),
            b"skipped" => skipped = number,
            _ => {}
        }
    }
    tests.map(|tests| TestCounts { tests, failures, skipped })
}

/// One report of the suites of several.
pub(super) fn merge<'a>(reports: impl Iterator<Item = &'a Suites>) -> String {
    let elements: Vec<&str> = reports.flat_map(|suites| &suites.elements).map(String::as_str).collect();
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n{}\n</testsuites>\n", elements.join("\n"))
}

/// A report with a test case for each command, for tests that write none.
pub(super) fn of_commands(commands: &[CommandResult]) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new("phial test");
    for command in commands {
        let status = if command.passed {
            TestCaseStatus::success()
        } else {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(command.outcome.as_str()).set_description(command.outcome.as_str());
            status
        };
        let mut case = TestCase::new(command.name.as_str(), status);
        case.set_classname("phial").set_time(Duration::from_millis(command.millis));
        suite.add_test_case(case);
    }
    let mut report = Report::unnamed();
    report.add_test_suite(suite);
    report.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str, passed: bool) -> CommandResult {
        let outcome = format!("exit code {}", i32::from(!passed));
        CommandResult { name: name.into(), argv: vec![], passed, outcome, counts: None, millis: 1234 }
    }

    #[test]
    fn without_a_report_each_command_is_a_test_case() {
        let text = of_commands(&[command("test", true), command("a<b>\u{1}", false)]).unwrap();
        assert!(text.contains("name=\"a&lt;b&gt;\" classname=\"phial\" time=\"1.234\">"), "{text}");
        assert!(text.contains("<failure message=\"exit code 1\">"), "{text}");
        assert_eq!(read(&text).counts, Some(TestCounts { tests: 2, failures: 1, skipped: 0 }));
    }

    #[test]
    fn suites_of_a_report_are_found_and_counted() {
        let report = r#"<?xml version="1.0"?><testsuites><testsuite name="a>" tests="3" failures="1" errors="1" skipped="1">
            <!-- </testsuite> --><testsuite tests="1"/><testcase name="x"/></testsuite><testsuite tests="2" name="b"/></testsuites>"#;
        let suites = read(report);
        assert_eq!(suites.elements.len(), 2);
        assert!(suites.elements[0].starts_with("<testsuite name") && suites.elements[0].ends_with("</testsuite>"));
        assert_eq!(suites.elements[1], "<testsuite tests=\"2\" name=\"b\"/>");
        assert_eq!(suites.counts, Some(TestCounts { tests: 5, failures: 2, skipped: 1 }));
        assert!(suites.is_complete);
        assert_eq!(read("<project><testsuite tests=\"1\"/></project>").elements.len(), 0);
        assert_eq!(read(&merge([suites, read("<testsuite tests='4'/>")].iter())).counts.map(|sum| sum.tests), Some(9));
    }

    #[test]
    fn a_byte_order_mark_does_not_move_the_suites() {
        let suite = "<testsuite tests=\"1\"></testsuite>";
        assert_eq!(read(&format!("\u{feff}{suite}<testsuite tests=\"2\"/>")).elements[0], suite);
    }

    #[test]
    fn of_a_cut_report_the_whole_suites_count() {
        let cut = read("<testsuites><testsuite tests=\"1\"></testsuite><testsuite tests=\"2\"><testcase");
        assert_eq!((cut.counts.map(|sum| sum.tests), cut.elements.len(), cut.is_complete), (Some(1), 1, false));
        assert!(!read("<testsuites><testsuite tests=\"1\"/>").is_complete);
        assert_eq!(read("<testsuite name=\"cut").elements.len(), 0);
    }

    #[test]
    fn a_hostile_report_takes_no_time_and_declares_no_entities() {
        let bomb = "<!DOCTYPE r [<!ENTITY a \"x\"><!ENTITY b \"&a;&a;\">]><testsuite tests=\"1\">&b;</testsuite>";
        assert_eq!(read(bomb), Suites::default());
        let deep = format!("<testsuite tests=\"1\">{}", "<a>".repeat(1_000_000));
        assert_eq!(read(&deep), Suites::default());
        let wide = (0..100_000).map(|n| format!(" a{n}=\"\"")).collect::<Vec<_>>().concat();
        assert_eq!(read(&format!("<testsuite{wide} tests=\"1\"/>")).counts.map(|sum| sum.tests), Some(1));
    }
}
