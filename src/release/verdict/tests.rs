use super::*;

/// A record that ended at this second, of these commands and whether they passed.
fn record(finished: i64, commands: &[(&str, bool)]) -> Record {
    let text = format!("{finished} {commands:?}");
    Record {
        referrer: Digest::of(text.as_bytes()),
        finished: Some(finished * 1000),
        passed: !commands.is_empty() && commands.iter().all(|(_, passed)| *passed),
        commands: commands.iter().map(|(name, passed)| ((*name).to_owned(), *passed)).collect(),
        partition: None,
        url: None,
    }
}

fn part(finished: i64, nth: u32, of: u32, passed: bool) -> Record {
    let whole = record(finished, &[("test", passed)]);
    let referrer = Digest::of(format!("{finished} {nth}/{of}").as_bytes());
    Record { referrer, partition: Some(Partition { nth, of }), ..whole }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The doubts about these records, as they are told; in whatever order they are listed.
fn doubts(records: &[Record], requires: &[&str]) -> String {
    let requires = set(requires);
    let said = |records: Vec<Record>| {
        let verdict = judge(records.into_iter().map(Listed::Record).collect(), &requires);
        assert!(!verdict.doubts.is_empty() || !verdict.proven.is_empty(), "neither doubt nor proof");
        verdict.doubts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let (there, back) = (said(records.to_vec()), said(records.iter().rev().cloned().collect()));
    assert_eq!(there, back, "the order of the list decides");
    there
}

#[test]
fn nothing_proves_nothing() {
    assert_eq!(doubts(&[], &["test"]), "it has no test record");
    assert_eq!(doubts(&[], &["test"]), "it has no test record");
    assert!(doubts(&[record(1, &[])], &["test"]).starts_with("`test` failed at 1970-01-01T00:00:01Z"));
}

#[test]
fn the_newest_record_of_each_command_wins() {
    let (good, bad) = (|at| record(at, &[("test", true)]), |at| record(at, &[("test", false)]));
    assert_eq!(doubts(&[good(1)], &["test"]), "");
    assert_eq!(doubts(&[bad(1), good(2)], &["test"]), "");
    assert!(doubts(&[good(1), bad(2)], &["test"]).starts_with("`test` failed at 1970-01-01T00:00:02Z"));
    assert!(doubts(&[good(1), bad(1)], &["test"]).starts_with("`test` failed"), "of one moment the failure");
    let mixed = [record(1, &[("test", true), ("credo", false)]), record(2, &[("credo", true)])];
    assert_eq!(doubts(&mixed, &["test", "credo"]), "", "each command by itself");
    let mixed = [record(1, &[("test", true), ("credo", true)]), record(2, &[("credo", false)])];
    assert!(doubts(&mixed, &["test", "credo"]).starts_with("`credo` failed at 1970-01-01T00:00:02Z"));
    assert!(
        doubts(&[good(1), record(2, &[])], &["test"]).starts_with("`test` failed"),
        "a run that came to no command"
    );
    assert_eq!(doubts(&[record(1, &[]), good(2)], &["test"]), "");
}

#[test]
fn what_is_required_must_be_there_and_the_rest_is_only_noted() {
    let both = [record(1, &[("test", true), ("credo", false)])];
    assert_eq!(doubts(&both, &["test"]), "");
    let verdict = judge(both.iter().cloned().map(Listed::Record).collect(), &set(&["test"]));
    assert!(verdict.notes.iter().any(|note| note.starts_with("`credo` failed")), "{:?}", verdict.notes);
    assert_eq!(verdict.proven.keys().collect::<Vec<_>>(), ["test"]);
    assert_eq!(doubts(&[record(1, &[("test", true)])], &["test", "credo"]), "`credo` was never run, only `test`");
    assert!(doubts(&both, &["credo"]).starts_with("`credo` failed"));
    let anything = [record(1, &[("true", true)])];
    assert_eq!(doubts(&anything, &["test"]), "`test` was never run, only `true`", "whoever tests may run anything");
}

#[test]
fn a_part_of_the_tests_does_not_pass_for_all_of_them() {
    assert_eq!(doubts(&[part(1, 1, 2, true)], &["test"]), "of `test` only the parts 1/2 were run");
    assert_eq!(doubts(&[part(1, 1, 2, true), part(2, 2, 2, true)], &["test"]), "");
    assert!(doubts(&[part(1, 1, 2, false), part(2, 2, 2, true)], &["test"]).starts_with("`test` failed"));
    assert_eq!(doubts(&[part(1, 1, 2, false), part(2, 2, 2, true), part(3, 1, 2, true)], &["test"]), "");
    assert_eq!(
        doubts(&[part(1, 1, 2, true), part(1, 2, 3, true)], &["test"]),
        "of `test` only the parts 1/2, 2/3 were run"
    );
}

#[test]
fn parts_and_whole_runs_are_weighed_by_their_times() {
    let whole = |at, passed| record(at, &[("test", passed)]);
    let parts = |at, passed| [part(at, 1, 2, true), part(at + 1, 2, 2, passed)];
    assert_eq!(doubts(&[&[whole(1, false)][..], &parts(2, true)].concat(), &["test"]), "");
    assert!(doubts(&[&[whole(3, false)][..], &parts(1, true)].concat(), &["test"]).starts_with("`test` failed"));
    assert!(doubts(&[&[whole(2, false)][..], &parts(2, true)].concat(), &["test"]).starts_with("`test` failed"));
    assert!(doubts(&[&[whole(1, true)][..], &parts(2, false)].concat(), &["test"]).starts_with("`test` failed"));
    assert_eq!(doubts(&[&[whole(4, true)][..], &parts(1, false)].concat(), &["test"]), "");
    assert_eq!(doubts(&[whole(1, true), part(2, 1, 2, true)], &["test"]), "");
}

#[test]
fn a_record_of_another_tool_proves_nothing_and_its_failure_counts() {
    let other = |passed| Record { finished: None, passed, ..record(1, &[]) };
    assert_eq!(doubts(&[other(true)], &["test"]), "it has no test record");
    assert_eq!(doubts(&[other(true), record(1, &[("test", true)])], &["test"]), "");
    assert!(doubts(&[other(false), record(1, &[("test", true)])], &["test"]).starts_with("its tests failed (record"));
}

#[test]
fn a_record_that_cannot_be_judged_may_hide_a_failure() {
    let flawed = Listed::Flawed(Digest::of(b"x"), Flaw::Other("sha256:12".into()));
    let verdict = judge(vec![flawed, Listed::Record(record(1, &[("test", true)]))], &set(&["test"]));
    let said: Vec<String> = verdict.doubts.iter().map(ToString::to_string).collect();
    assert_eq!(said, [format!("the record `{}` cannot be believed: it is about `sha256:12`", Digest::of(b"x"))]);
}
