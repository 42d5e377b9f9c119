//! What the documents say of the program: flags, commands, exit codes, modules, paths.

use std::collections::BTreeSet;
use std::fs;

use super::markdown::{Document, documents, repository};
use crate::harness::{TestEnv, run};

/// Flags of other programs.
const OTHERS: [&str; 7] = ["--key", "--partitions", "--path", "--lib", "--pids-limit", "--test", "--rootless"];

/// Each command of `phial` with the text of its `--help`.
fn helps() -> Vec<(String, String)> {
    let env = TestEnv::new();
    let help = |words: &[&str]| run(env.phial([words, &["--help"]].concat())).ok();
    let mut all = Vec::new();
    for name in subcommands(&help(&[])) {
        let text = help(&[&name]);
        for inner in subcommands(&text) {
            all.push((format!("{name} {inner}"), help(&[&name, &inner])));
        }
        all.push((name, text));
    }
    all
}

/// The names below `Commands:` of a help text.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The flags in a piece of code up to a lone `--`, without their values.
fn flags(code: &str) -> Vec<&str> {
    let words = code.split(|c: char| c.is_whitespace() || c == '`').take_while(|word| *word != "--");
    words.filter(|word| word.starts_with("--")).map(|word| word.split(['=', '#']).next().unwrap_or(word)).collect()
}

/// The code of a document: lines of shell blocks, and spans.
fn code(document: &Document) -> Vec<String> {
    let shell = document.blocks.iter().filter(|block| matches!(block.language.as_str(), "sh" | "text"));
    let joined = shell.map(|block| block.text.replace("\\\n", " "));
    let lines =
        joined.flat_map(|text| text.lines().map(|line| line.trim_start_matches("$ ").to_owned()).collect::<Vec<_>>());
    lines.chain(document.spans.iter().map(|span| span.replace('\n', " "))).collect()
}

#[test]
fn every_flag_in_the_documents_exists() {
    let helps = helps();
    let has = |help: &str, flag: &str| help.split([' ', ',', '\n']).any(|word| word == flag);
    let mut wrong = BTreeSet::new();
    for document in documents() {
        for code in code(&document) {
            let own = code.strip_prefix("phial ").map(|rest| {
                helps
                    .iter()
                    .filter(|(name, _)| rest == *name || rest.starts_with(&format!("{name} ")))
                    .max_by_key(|(name, _)| name.len())
            });
            for flag in flags(&code) {
                let known = match own {
                    Some(Some((_, help))) => has(help, flag) || matches!(flag, "--help" | "--version"),
                    Some(None) => flag == "--help",
                    None if code.starts_with("--") => {
                        helps.iter().any(|(_, help)| has(help, flag)) || OTHERS.contains(&flag)
                    }
                    None => true,
                };
                if !known {
                    wrong.insert(format!("{}: `{flag}` in `{code}`", document.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", Vec::from_iter(wrong).join("\n"));
}

#[test]
fn the_readme_lists_every_command() {
    let rows = Document::read("README.md").table(&["command", "what it does"]);
    let listed: BTreeSet<String> = rows.iter().map(|row| row[0].trim_matches('`').replacen("phial ", "", 1)).collect();
    let known: BTreeSet<String> =
        helps().into_iter().map(|(name, _)| name).filter(|name| !name.contains(' ')).collect();
    assert_eq!(listed, known);
}

#[test]
fn the_readme_is_short() {
    assert!(Document::read("README.md").text.lines().count() <= 250);
}

#[test]
fn the_exit_codes_are_those_of_the_program() {
    let rows = Document::read("docs/exit-codes.md").table(&["code", "meaning"]);
    let listed: BTreeSet<u8> =
        rows.iter().flat_map(|row| row[0].split(", ")).map(|code| code.parse().expect("a code")).collect();
    let source = fs::read_to_string(repository().join("src/error.rs")).expect("src/error.rs");
    let body = source.split_once("enum ExitKind {").and_then(|(_, rest)| rest.split_once("\n}")).expect("the enum").0;
    let mut known = BTreeSet::from([0]);
    known.extend(body.lines().filter_map(|line| line.split_once(" = ")?.1.trim_end_matches(',').parse::<u8>().ok()));
    assert!(known.len() > 8, "{known:?}");
    assert_eq!(listed, known);
}

#[test]
fn the_architecture_lists_every_module_in_its_order() {
    let rows = Document::read("docs/architecture.md").table(&["module", "in one sentence"]);
    let listed: Vec<String> =
        rows.iter().skip(1).flat_map(|row| row[0].split(", ")).map(|name| name.trim_matches('`').to_owned()).collect();
    let source = fs::read_to_string(repository().join("src/lib.rs")).expect("src/lib.rs");
    let modules =
        source.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    assert_eq!(listed, modules.collect::<Vec<_>>());
}

#[test]
fn every_name_of_the_code_in_the_documents_exists() {
    let mut words = BTreeSet::new();
    for place in ["src", "layers/src", "tests"] {
        let files = walkdir::WalkDir::new(repository().join(place)).into_iter().filter_map(Result::ok);
        for file in files.filter(|file| file.path().extension().is_some_and(|extension| extension == "rs")) {
            let text = fs::read_to_string(file.path()).expect("a source");
            words.extend(text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned));
        }
    }
    let mut wrong = BTreeSet::new();
    for name in ["CONTRIBUTING.md", "docs/architecture.md", "docs/style.md"] {
        for span in Document::read(name).spans {
            let word = |part: &str| part.chars().all(|c| c.is_alphanumeric() || c == '_');
            let names = span.trim_end_matches("()").split("::");
            // Types, methods of types, and functions that are shown with their parentheses.
            let is_name = names.clone().all(word) && (span.ends_with("()") || span.starts_with(char::is_uppercase));
            if is_name && !names.clone().all(|part| words.contains(part)) {
                wrong.insert(format!("{name}: `{span}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", Vec::from_iter(wrong).join("\n"));
}

fn is_placeholder(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase())
}

#[test]
fn every_path_of_the_repository_in_the_documents_exists() {
    let places = ["src/", "layers/", "tests/", "testdata/", "docs/", "benches/", "fuzz/", ".ci/"];
    let mut wrong = BTreeSet::new();
    for document in documents() {
        for span in &document.spans {
            let path = span.split([' ', ':', '#']).next().unwrap_or("");
            // A part in capitals is for the reader to fill in.
            let filled_in = |part: &&str| {
                !part.split(['.', '-']).next_back().is_some_and(is_placeholder) && !part.split('.').any(is_placeholder)
            };
            let path = path.split('/').take_while(filled_in).collect::<Vec<_>>().join("/");
            if path == "fuzz/regressions" {
                continue; // is made with the first regression
            }
            if places.iter().any(|place| path.starts_with(place)) && !repository().join(&path).exists() {
                wrong.insert(format!("{}: `{path}`", document.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", Vec::from_iter(wrong).join("\n"));
}

#[test]
fn flags_are_read_up_to_the_command_of_the_sandbox() {
    assert_eq!(flags("phial run oci:x --env A=1 --json -- mix run --no-halt"), ["--env", "--json"]);
    assert_eq!(
        subcommands("x\n\nCommands:\n  build  Build\n         more\n  help   Help\n\nOptions:\n  -h"),
        ["build"]
    );
}
