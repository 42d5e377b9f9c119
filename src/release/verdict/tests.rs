use super::*;

/// A record that ended at this second, of these commands and whether they passed.
fn record(finished: i64, commands: &[(&str, bool)]) -> TestRecord {
    let text = format!("{finished} {commands:?}");
    TestRecord {
        referrer: Digest::of(text.as_bytes()),
        finished: Some(finished * 1000),
        passed: !commands.is_empty() && commands.iter().all(|(_, passed)| *passed),
        commands: commands.iter().map(|(name, passed)| ((*name).to_owned(), *passed)).collect(),
        partition: None,
        url: None,
    }
}

fn part(finished: i64, nth: u32, of: u32, passed: bool) -> TestRecord {
    let whole = record(finished, &[("test", passed)]);
    let referrer = Digest::of(format!("{finished} {nth}/{of}").as_bytes());
    TestRecord { referrer, partition: Some(Partition { nth, of }), ..whole }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The problems with these records, which do not depend on the order of the list.
fn problems(records: &[TestRecord], requires: &[&str]) -> String {
    let requires = set(requires);
    let text = |records: Vec<TestRecord>| {
        let verdict = evaluate(records.into_iter().map(ListedRecord::Valid).collect(), &requires);
        assert!(!verdict.problems.is_empty() || !verdict.proven.is_empty(), "neither problem nor proof");
        verdict.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let (forward, backward) = (text(records.to_vec()), text(records.iter().rev().cloned().collect()));
    assert_eq!(forward, backward, "the order of the list decides");
    forward
}

#[test]
fn nothing_proves_nothing() {
    assert_eq!(problems(&[], &["test"]), "it has no test record");
    assert_eq!(problems(&[], &["test"]), "it has no test record");
    assert!(problems(&[record(1, &[])], &["test"]).starts_with("`test` failed at 1970-01-01T00:00:01Z"));
}

#[test]
fn the_newest_record_of_each_command_wins() {
    let (good, bad) = (|at| record(at, &[("test", true)]), |at| record(at, &[("test", false)]));
    assert_eq!(problems(&[good(1)], &["test"]), "");
    assert_eq!(problems(&[bad(1), good(2)], &["test"]), "");
    assert!(problems(&[good(1), bad(2)], &["test"]).starts_with("`test` failed at 1970-01-01T00:00:02Z"));
    assert!(problems(&[good(1), bad(1)], &["test"]).starts_with("`test` failed"), "of one moment the failure");
    let mixed = [record(1, &[("test", true), ("credo", false)]), record(2, &[("credo", true)])];
    assert_eq!(problems(&mixed, &["test", "credo"]), "", "each command by itself");
    let mixed = [record(1, &[("test", true), ("credo", true)]), record(2, &[("credo", false)])];
    assert!(problems(&mixed, &["test", "credo"]).starts_with("`credo` failed at 1970-01-01T00:00:02Z"));
    assert!(problems(&[good(1), record(2, &[])], &["test"]).starts_with("`test` failed"), "a run without commands");
    assert_eq!(problems(&[record(1, &[]), good(2)], &["test"]), "");
}

#[test]
fn of_records_of_one_moment_the_same_one_is_the_proof_in_any_order() {
    let [one, two] =
        [b"one", b"two"].map(|text| TestRecord { referrer: Digest::of(text), ..record(1, &[("test", true)]) });
    let record_of_test = |records: [&TestRecord; 2]| {
        let listed = records.into_iter().cloned().map(ListedRecord::Valid).collect();
        evaluate(listed, &set(&["test"])).proven["test"].clone()
    };
    assert_eq!(record_of_test([&one, &two]), record_of_test([&two, &one]));
}

#[test]
fn what_is_required_must_be_there_and_the_rest_is_only_noted() {
    let both = [record(1, &[("test", true), ("credo", false)])];
    assert_eq!(problems(&both, &["test"]), "");
    let verdict = evaluate(both.iter().cloned().map(ListedRecord::Valid).collect(), &set(&["test"]));
    assert!(verdict.notes.iter().any(|note| note.starts_with("`credo` failed")), "{:?}", verdict.notes);
    assert_eq!(verdict.proven.keys().collect::<Vec<_>>(), ["test"]);
    assert_eq!(problems(&[record(1, &[("test", true)])], &["test", "credo"]), "`credo` was never run, only `test`");
    assert!(problems(&both, &["credo"]).starts_with("`credo` failed"));
    let anything = [record(1, &[("true", true)])];
    assert_eq!(problems(&anything, &["test"]), "`test` was never run, only `true`", "a tester may run any command");
}

#[test]
fn a_part_of_the_tests_does_not_pass_for_all_of_them() {
    assert_eq!(problems(&[part(1, 1, 2, true)], &["test"]), "only the parts 1/2 of `test` were run");
    assert_eq!(problems(&[part(1, 1, 2, true), part(2, 2, 2, true)], &["test"]), "");
    assert!(problems(&[part(1, 1, 2, false), part(2, 2, 2, true)], &["test"]).starts_with("`test` failed"));
    assert_eq!(problems(&[part(1, 1, 2, false), part(2, 2, 2, true), part(3, 1, 2, true)], &["test"]), "");
    assert_eq!(
        problems(&[part(1, 1, 2, true), part(1, 2, 3, true)], &["test"]),
        "only the parts 1/2, 2/3 of `test` were run"
    );
}

#[test]
fn parts_and_whole_runs_are_weighed_by_their_times() {
    let whole = |at, passed| record(at, &[("test", passed)]);
    let parts = |at, passed| [part(at, 1, 2, true), part(at + 1, 2, 2, passed)];
    assert_eq!(problems(&[&[whole(1, false)][..], &parts(2, true)].concat(), &["test"]), "");
    assert!(problems(&[&[whole(3, false)][..], &parts(1, true)].concat(), &["test"]).starts_with("`test` failed"));
    assert!(problems(&[&[whole(2, false)][..], &parts(2, true)].concat(), &["test"]).starts_with("`test` failed"));
    assert!(problems(&[&[whole(1, true)][..], &parts(2, false)].concat(), &["test"]).starts_with("`test` failed"));
    assert_eq!(problems(&[&[whole(4, true)][..], &parts(1, false)].concat(), &["test"]), "");
    assert_eq!(problems(&[whole(1, true), part(2, 1, 2, true)], &["test"]), "");
}

#[test]
fn a_record_of_another_tool_proves_nothing_and_its_failure_counts() {
    let other = |passed| TestRecord { finished: None, passed, ..record(1, &[]) };
    assert_eq!(problems(&[other(true)], &["test"]), "it has no test record");
    assert_eq!(problems(&[other(true), record(1, &[("test", true)])], &["test"]), "");
    assert!(problems(&[other(false), record(1, &[("test", true)])], &["test"]).starts_with("its tests failed (record"));
}

#[test]
fn an_invalid_record_may_hide_a_failure() {
    let invalid = ListedRecord::Invalid(Digest::of(b"x"), RecordError::WrongSubject("sha256:12".into()));
    let verdict = evaluate(vec![invalid, ListedRecord::Valid(record(1, &[("test", true)]))], &set(&["test"]));
    let texts: Vec<String> = verdict.problems.iter().map(ToString::to_string).collect();
    assert_eq!(texts, [format!("the record `{}` is invalid: its subject is `sha256:12`", Digest::of(b"x"))]);
}
