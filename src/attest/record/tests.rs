use super::*;
use crate::attest::{CommandResult, TestCounts, TestRun};
use crate::image::{Descriptor, OCI_MANIFEST};

fn command(name: &str, passed: bool) -> CommandResult {
    let counts = Some(TestCounts { tests: 3, failures: u64::from(!passed), skipped: 0 });
    let (argv, outcome) = (vec!["mix".into(), name.into()], format!("exit code {}", i32::from(!passed)));
    CommandResult { name: name.into(), argv, passed, outcome, counts, millis: 1500 }
}

fn image() -> Digest {
    Digest::of(b"image")
}

fn run(commands: Vec<CommandResult>) -> TestRun {
    TestRun {
        image: image(),
        commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
        base: Some(Digest::of(b"base")),
        commands,
        env: vec!["DATABASE_URL".into()],
        partition: None,
        version: "0.1.0".into(),
        started: 1_795_346_000_000,
        finished: 1_795_346_002_250,
        url: Some("https://ci.example/1".into()),
    }
}

fn record(run: &TestRun) -> (Artifact, Vec<u8>) {
    run.record(Descriptor::new(OCI_MANIFEST, image(), 5))
}

fn reread(document: &[u8]) -> Result<Option<TestRecord>, RecordError> {
    read(&Digest::of(b"referrer"), &image(), document)
}

#[test]
fn a_record_is_an_in_toto_statement_with_the_fields_that_test_result_asks_for() {
    let (artifact, document) = record(&run(vec![command("test", true), command("credo", false)]));
    let value: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(value["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(value["subject"], serde_json::json!([{ "digest": { "sha256": image().hex() } }]));
    assert_eq!(value["predicateType"], "https://in-toto.io/attestation/test-result/v0.1");
    let predicate = &value["predicate"];
    assert_eq!(predicate["result"], "FAILED");
    assert_eq!(predicate["passedTests"], serde_json::json!(["test"]));
    assert_eq!(predicate["failedTests"], serde_json::json!(["credo"]));
    assert_eq!(predicate["url"], "https://ci.example/1");
    for resource in predicate["configuration"].as_array().unwrap() {
        let known = ["uri", "digest", "content"];
        assert!(known.iter().any(|field| resource.get(*field).is_some()), "no resource descriptor: {resource}");
    }
    assert!(!artifact.kind().contains("sigstore") && !artifact.kind().contains("dsse"), "a signature by its type");
    assert_eq!(artifact.manifest.annotations["dev.phial.result"], "FAILED");
    assert!(artifact.is_about(&image()));
    assert_eq!(artifact.manifest.layers[0].digest, Digest::of(&document));
}

#[test]
fn what_was_written_is_read_again() {
    let part = TestRun { partition: Some(Partition { nth: 2, of: 4 }), ..run(vec![command("test", true)]) };
    let read = reread(&record(&part).1).unwrap().unwrap();
    assert_eq!(read.finished, Some(1_795_346_002_250));
    assert_eq!((read.passed, read.partition), (true, Some(Partition { nth: 2, of: 4 })));
    assert_eq!(read.commands, BTreeMap::from([("test".to_owned(), true)]));
    assert_eq!(read.url.as_deref(), Some("https://ci.example/1"));
    let failed = reread(&record(&run(vec![command("test", true), command("credo", false)])).1).unwrap().unwrap();
    assert!(!failed.passed && failed.commands["test"] && !failed.commands["credo"]);
}

#[test]
fn a_run_without_a_command_has_failed() {
    let nothing = reread(&record(&run(vec![])).1).unwrap().unwrap();
    assert!(!nothing.passed && nothing.commands.is_empty());
}

#[test]
fn an_edited_record_is_not_believed() {
    let text = String::from_utf8(record(&run(vec![command("test", false)])).1).unwrap();
    let same = reread(text.as_bytes()).unwrap().unwrap();
    assert!(!same.passed);
    let other = Digest::of(b"other").hex().to_owned();
    for (from, to, expected) in [
        ("\"FAILED\"", "\"PASSED\"", "contradicts itself"),
        ("\"passed\":false", "\"passed\":true", "contradicts itself"),
        ("\"failedTests\":[\"test\"]", "\"failedTests\":[]", "contradicts itself"),
        ("\"passedTests\":[]", "\"passedTests\":[\"test\"]", "contradicts itself"),
        ("\"FAILED\"", "\"SUCCESS\"", "its result is `SUCCESS`"),
        ("{\"_type\"", "{ \"_type\"", "not in the form that Phial writes"),
        (image().hex(), &other, "its subject is `sha256:"),
        ("\"finished\":\"2026-", "\"finished\":\"next-", "does not say when the run finished"),
        ("Statement/v1", "Statement/v9", "not an in-toto statement v1"),
        ("\"predicate\":", "\"predicat\":", "has no predicate"),
    ] {
        let edited = text.replace(from, to);
        assert_ne!(edited, text, "{from} is not in {text}");
        let error = reread(edited.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{from} -> {to}: {error}");
    }
}

#[test]
fn statements_about_other_things_are_no_test_records() {
    let slsa = br#"{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://slsa.dev/provenance/v1","predicate":{},"subject":[]}"#;
    assert_eq!(reread(slsa).unwrap(), None);
}

#[test]
fn a_record_of_another_tool_has_a_result_and_nothing_else() {
    let text = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}}}}],
        "predicateType":"https://in-toto.io/attestation/test-result/v0.1",
        "predicate":{{"result":"FAILED","configuration":[],"extra":1}}}}"#,
        image().hex()
    );
    let read = reread(text.as_bytes()).unwrap().unwrap();
    assert!(!read.passed && read.finished.is_none() && read.commands.is_empty());
}
