//! One type for one name: who reads the name of a type knows which one is meant, without the path that it is imported by.

use std::collections::BTreeMap;

use super::paths::{code, without_tests};
use super::{read, rust, shown};

/// The types that a file of code defines: the line, counted from 1, and the name. An associated type is none of them, nor is what a
/// function defines: these are indented.
fn types(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = code.lines().enumerate().filter(|(_, line)| !line.starts_with(char::is_whitespace));
    lines.filter_map(|(number, line)| {
        let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let mut from_keyword = words.skip_while(|word| !matches!(*word, "struct" | "enum" | "trait" | "type"));
        from_keyword.nth(1).map(|name| (number + 1, name))
    })
}

/// The places of every name that more than one type has.
fn shared<'a>(files: impl IntoIterator<Item = &'a (String, String)>) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, code) in files {
        for (line, name) in types(code) {
            places.entry(name).or_default().push(format!("{path}:{line}"));
        }
    }
    places.retain(|_, places| places.len() > 1);
    places.into_iter().map(|(name, places)| format!("`{name}` is defined in {}", places.join(", "))).collect()
}

#[test]
fn no_two_types_have_one_name() {
    let ours = rust(&["src", "layers/src"]).into_iter();
    let ours = ours.filter(|path| !path.ends_with("tests.rs") && !path.ends_with("fuzz.rs"));
    let files: Vec<_> = ours.map(|path| (shown(&path), code(without_tests(&read(&path))))).collect();
    let wrong = shared(&files);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_that_two_types_have_is_found_with_its_places() {
    let first = "pub struct Key;\n\npub(super) enum Kind {}\nimpl Iterator for Key {\n    type Item = u8;\n}\n";
    let second = "pub(in crate::a) type Key<'a> = &'a str;\nimpl Iterator for B {\n    type Item = u8;\n}\nunsafe trait Kind {}\n";
    let files = [("a.rs".to_owned(), first.to_owned()), ("b.rs".to_owned(), second.to_owned())];
    assert_eq!(shared(&files), ["`Key` is defined in a.rs:1, b.rs:1", "`Kind` is defined in a.rs:3, b.rs:5"]);
    assert!(shared(&files[..1]).is_empty());
}
