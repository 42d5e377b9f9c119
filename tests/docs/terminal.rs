//! The terminal session in the README is what `testdata/record-terminal` records, but for what differs from run to run.

use std::process::Command;

use super::markdown::Document;
use super::{between, generated, writes};
use crate::harness::prebuilt::elixir_base;
use crate::harness::{TestEnv, run, search_path, testdata};

/// The session as it is now.
fn record() -> String {
    let env = TestEnv::with_empty_cache();
    let mut script = Command::new(testdata("record-terminal"));
    script.arg(env!("CARGO_BIN_EXE_phial")).arg(elixir_base()).arg(env.dir().join("session"));
    script
        .env_clear()
        .env("PATH", search_path())
        .env("HOME", env.dir().join("home"))
        .env("PHIAL_CACHE_DIR", env.cache());
    run(script).ok()
}

/// What must not differ: no digests, times, sizes and counts, and no output of the app's own commands.
fn form(session: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in session
        .lines()
        .filter(|line| !line.contains(" | ") && !line.ends_with(" |") && !line.starts_with("note: isolation"))
    {
        let mut form = String::new();
        for word in line.split_inclusive([' ', '@', ':']) {
            let (text, end) = word.split_at(word.trim_end_matches([' ', '@', ':']).len());
            let number = text.starts_with(|c: char| c.is_ascii_digit());
            let digest = text.len() >= 12 && text.trim_end_matches('…').chars().all(|c| c.is_ascii_hexdigit());
            form += if digest || number { "N" } else { text };
            form += end;
        }
        let form = form.split_whitespace().collect::<Vec<_>>().join(" ");
        lines.push(form.trim_end_matches(" N s").to_owned()); // what takes no time says none
    }
    lines
}

#[test]
fn the_session_in_the_readme_is_current() {
    let session = record();
    if writes() {
        return generated("README.md", &|text| between(text, "terminal", &format!("\n```text\n{session}\n```\n\n")));
    }
    let readme = Document::read("README.md");
    let shown = readme.blocks.iter().find(|block| block.text.starts_with("$ ")).expect("a session in the README");
    assert_eq!(form(&shown.text), form(&session), "run `just docs`; now it is:\n{session}");
}

#[test]
fn a_form_has_no_numbers_and_no_digests() {
    let one = "build prod  38 files  3.66 s\ntest | 4 tests\nshop:main@sha256:57ef4f635e4d…\n";
    let other = "build prod  40 files  13.01 s\nshop:main@sha256:0ffffffffff0…\n";
    assert_eq!(form(one), form(other));
    assert_ne!(form(one), form("build prod  cached\nshop:main@sha256:57ef4f635e4d…\n"));
}
