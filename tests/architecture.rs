//! The house rules that a compiler does not hold: which room knows which, how long a file is, what never stands in the tree.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// The rooms in the order in which data walks through them. A room knows those before it only.
const ROOMS: [&str; 21] = [
    "event", "host", "image", "store", "layout", "registry", "compare", "source", "prepare", "etf", "normal", "steady",
    "sandbox", "rootfs", "base", "config", "pipeline", "attest", "trial", "release", "cli",
];

/// Lines in a file, tests in it included.
const LONGEST: usize = 450;

fn house() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of ours below these places, relative to the house, without what git ignores by name.
fn files(places: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in places {
        let walk = WalkDir::new(house().join(place)).sort_by_file_name().into_iter();
        let ours = walk.filter_entry(|entry| !matches!(entry.file_name().to_str(), Some("target" | ".git")));
        found.extend(
            ours.filter_map(Result::ok).filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path),
        );
    }
    assert!(!found.is_empty(), "nothing below {places:?}");
    found
}

fn rust(places: &[&str]) -> Vec<PathBuf> {
    files(places).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).into_owned()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(house()).unwrap_or(path).display().to_string()
}

/// The room that a file under `src/` belongs to; none for `lib.rs` and `main.rs`.
fn room_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix(house().join("src")).ok()?;
    let first = below.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// The names that follow `crate::` in a source text, comments left out: `crate::a::b` and `crate::{a::b, c}`.
fn known_rooms(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
    let code = code.join("\n");
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, matched) in code.match_indices("crate::") {
        let rest = &code[at + matched.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 0_i32;
        let mut start = true;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if c.is_alphabetic() && start => {
                    names.insert(word(&group[i..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    names.retain(|name| name.chars().next().is_some_and(char::is_lowercase));
    names
}

#[test]
fn a_room_knows_only_those_before_it() {
    let place = |name: &str| ROOMS.iter().position(|room| *room == name);
    let mut wrong = BTreeSet::new();
    for path in rust(&["src"]) {
        let Some(room) = room_of(&path) else { continue };
        let Some(own) = place(&room) else {
            wrong.insert(format!("`{room}` is not in the table of rooms"));
            continue;
        };
        for known in known_rooms(&read(&path)) {
            match place(&known) {
                Some(other) if other > own => {
                    wrong.insert(format!("`{room}` -> `{known}` in {}: not before it", shown(&path)));
                }
                None => {
                    wrong.insert(format!("`{room}` -> `{known}` in {}: no such room", shown(&path)));
                }
                Some(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the plan of the house does not have:\n{}", Vec::from_iter(wrong).join("\n"));
}

#[test]
fn edges_are_read_from_paths_groups_and_bodies_but_not_from_comments() {
    let text = "use crate::{event::{Event, Watch}, store::Store, host};\n\
                // crate::cli\n\
                fn f() { crate::image::read(); }\n";
    assert_eq!(Vec::from_iter(known_rooms(text)), ["event", "host", "image", "store"]);
}

#[test]
fn no_file_outgrows_its_room() {
    let long: Vec<String> = rust(&["src", "layers/src"])
        .iter()
        .map(|path| (read(path).lines().count(), shown(path)))
        .filter(|(lines, _)| *lines > LONGEST)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "over {LONGEST} lines:\n{}", long.join("\n"));
}

#[test]
fn every_file_says_first_what_it_promises() {
    let silent: Vec<String> =
        rust(&["src", "layers/src"]).iter().filter(|path| !promises(path)).map(|path| shown(path)).collect();
    assert!(silent.is_empty(), "without `//!`:\n{}", silent.join("\n"));
}

fn promises(path: &Path) -> bool {
    path.ends_with("tests.rs") || read(path).starts_with("//!")
}

#[test]
fn nothing_unordered_stands_beside_a_digest() {
    let unordered: Vec<String> = rust(&["src", "layers/src"])
        .iter()
        .filter(|path| ["HashMap", "HashSet"].iter().any(|name| read(path).contains(name)))
        .map(|path| shown(path))
        .collect();
    assert!(unordered.is_empty(), "{}", unordered.join("\n"));
}

#[test]
fn no_path_of_a_developers_machine_is_written_down() {
    let own = house().display().to_string();
    let homes = ["/Users/", "/.cargo/registry", "/.rustup/toolchains"];
    let places = ["src", "layers", "tests", "testdata", "README.md", "Justfile", ".ci", "Cargo.toml", "deny.toml"];
    let told: Vec<String> = files(&places)
        .iter()
        .filter(|path| !path.ends_with("tests/architecture.rs"))
        .filter(|path| {
            let text = read(path);
            text.contains(&own) || homes.iter().any(|home| text.contains(home))
        })
        .map(|path| shown(path))
        .collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}
