//! One word for one thing: the names that the project has given up, because the field has another word, do not come back.

use std::collections::BTreeSet;

use super::paths::code;
use super::{files, read, rust, shown};

/// Files and modules that are called otherwise, with what they are called.
const MODULES: &[(&str, &str)] = &[
    ("act", "apply"),
    ("behind", "enterprise_proxy"),
    ("circumstances", "step_env"),
    ("clients", "client_pool"),
    ("counts", "junit"),
    ("far", "remote_cache"),
    ("finish", "image_config"),
    ("foundation", "create"),
    ("front", "nginx_front"),
    ("hidden", "userns_helper"),
    ("judge", "verdict"),
    ("look", "inspect"),
    ("more", "test_deps"),
    ("mouth", "ui"),
    ("near", "fallback"),
    ("normal", "determinism"),
    ("onward", "resume"),
    ("order", "spec"),
    ("out", "artifacts"),
    ("outer", "stage1"),
    ("parts", "prebuilt"),
    ("pipe", "body_stream"),
    ("pipeline", "build"),
    ("place", "location"),
    ("prepare", "recipe"),
    ("proof", "reproducibility"),
    ("put", "manifests"),
    ("recall", "results"),
    ("rooms", "architecture"),
    ("said", "render"),
    ("seeds", "hex_reuse"),
    ("send", "upload_session"),
    ("sessions", "upload_journal"),
    ("steady", "determinism"),
    ("stubborn", "faults"),
    ("tail", "output_tail"),
    ("teller", "warnings"),
    ("trial", "app_test"),
    ("twice", "rebuild_check"),
    ("whole_way", "end_to_end"),
    ("wire", "protocol"),
    ("work", "layers"),
    ("works", "mix_up_to_date"),
    ("world", "harness"),
];

/// Types, traits, functions, constants and local values that are called otherwise.
const NAMES: &[(&str, &str)] = &[
    ("About", "TreeInfo"),
    ("Aside", "Shadowed"),
    ("Ask", "ReleaseRequest"),
    ("Beside", "Referrers"),
    ("Examination", "DoctorReport"),
    ("Excuse", "Override"),
    ("ImagePlace", "ImagePath"),
    ("Leave", "ReleasePolicy"),
    ("Lives", "Services"),
    ("Look", "LookupStep"),
    ("Mouth", "Ui"),
    ("Normal", "NormalizedManifest"),
    ("Order", "Spec"),
    ("Parcel", "BlobUpload"),
    ("Patience", "RetryPolicy"),
    ("Place", "Location"),
    ("Ran", "Output"),
    ("Recall", "Lookup"),
    ("Rung", "Isolation"),
    ("Sight", "LookupResult"),
    ("Slot", "Vacant"),
    ("Talk", "StageChannel"),
    ("Terms", "PackOptions, ImageOptions, NormalizeOptions"),
    ("Told", "CommandOutput"),
    ("Trouble", "StageError"),
    ("Way", "UploadMode"),
    ("Wish", "FileConfig"),
    ("Wishes", "NetworkOptions"),
    ("World", "Context, TestEnv"),
    ("act", "change, apply"),
    ("doubtfully", "retry_once_if_corrupt"),
    ("harvest", "diff"),
    ("judge", "evaluate"),
    ("lay", "create, stack, copy"),
    ("look", "find, inspect"),
    ("normal", "normalized"),
    ("order", "spec"),
    ("patiently", "retry"),
    ("place", "location"),
    ("proof", "record"),
    ("recall", "lookup"),
    ("said", "render"),
    ("stand", "assemble"),
    ("terms", "options"),
    ("told", "output, text"),
    ("twice", "checked, repeated"),
    ("whole_way", "build_test_and_release"),
    ("wire", "libgit2_url, protocol"),
    ("work", "what the thread does"),
];

/// Words that stand nowhere: not in code, not in comments, not in what users read.
const WORDS: &[(&str, &str)] = &[
    ("house", "project"),
    ("recall", "cached result"),
    ("recalled", "cached"),
    ("recalls", "takes from the cache"),
    ("rung", "isolation"),
    ("rungs", "isolations"),
    ("thereof", "of it"),
    ("told", "reported, output"),
    ("said", "reported, output"),
    ("whence", "from where, origin"),
];

/// Where a name of the lists is the field's own: seeds of a fuzzer, the order of bytes and of entries, terms of Erlang. File, name.
const ALLOWED_NAMES: &[(&str, &str)] = &[
    ("fuzz/src/bin/seeds.rs", "seeds"),
    ("fuzz/src/elixir.rs", "terms"),
    ("src/compare/files.rs", "order"),
    ("src/determinism/normalize/counters.rs", "terms"),
    ("src/elixir/beam.rs", "terms"),
    ("src/elixir/etf/mod.rs", "terms"),
    ("src/source/encoding.rs", "order"),
];

/// Where a word of the list is meant: file, word.
const ALLOWED: &[(&str, &str)] = &[("src/build/record.rs", "recalled"), ("src/store/mod.rs", "recall")];

/// The words of a text, without underscores: `recalled_layers` has `recalled`.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect()
}

/// The names that a file of code defines: types, traits, functions, modules, constants, and values bound by `let`.
fn defined(code: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut before = "";
    for word in code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()) {
        if word == "mut" && before == "let" {
            continue;
        }
        if matches!(before, "struct" | "enum" | "trait" | "type" | "fn" | "mod" | "const" | "static" | "let") {
            found.insert(word);
        }
        before = word;
    }
    found
}

#[test]
fn given_up_names_are_not_used() {
    let mut wrong = Vec::new();
    for path in rust(&["src", "layers", "tests", "benches", "fuzz"]) {
        let below = path.strip_prefix(super::project()).expect("a file of the project").with_extension("");
        let parts: BTreeSet<&str> = below.iter().filter_map(|part| part.to_str()).collect();
        let is_allowed = |name: &str| ALLOWED_NAMES.contains(&(&shown(&path), name));
        for (old, new) in MODULES.iter().filter(|(old, _)| parts.contains(old) && !is_allowed(old)) {
            wrong.push(format!("{}: the module `{old}` is `{new}`", shown(&path)));
        }
        let code = code(&read(&path));
        let defined = defined(&code);
        for (old, new) in NAMES.iter().filter(|(old, _)| defined.contains(old) && !is_allowed(old)) {
            wrong.push(format!("{}: `{old}` is `{new}`", shown(&path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn given_up_words_stand_neither_in_code_nor_in_what_people_read() {
    let mut wrong = Vec::new();
    let places = [
        "src",
        "layers/src",
        "layers/tests",
        "tests",
        "benches",
        "testdata",
        "docs",
        "README.md",
        "CONTRIBUTING.md",
        "fuzz/src",
        "CHANGELOG.md",
        "Cargo.toml",
        "Justfile",
        "clippy.toml",
        "deny.toml",
        ".cargo",
        ".ci",
    ];
    for path in files(&places).iter().filter(|path| !path.ends_with("tests/architecture/words.rs")) {
        let text = read(path);
        for (number, line) in text.lines().enumerate() {
            let found = words(line);
            for (old, new) in WORDS.iter().filter(|(old, _)| found.contains(old)) {
                if !ALLOWED.contains(&(&shown(path), *old)) {
                    wrong.push(format!("{}:{}: `{old}`: say `{new}`", shown(path), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} places\n{}", wrong.len(), wrong.join("\n"));
}
