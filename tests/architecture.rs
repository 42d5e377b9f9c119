//! The rules that a compiler does not hold: which module uses which, circles of files, how long a file is, what is never committed.

mod circles;
mod file_access;
mod paths;
mod type_names;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use self::paths::{code, paths};

/// The modules in the order in which data passes through them. A module uses only those before it.
const MODULES: [&str; 33] = [
    "error",
    "event",
    "host",
    "secret",
    "tree",
    "image",
    "store",
    "layout",
    "registry",
    "elixir",
    "compare",
    "source",
    "recipe",
    "determinism",
    "sandbox",
    "rootfs",
    "config",
    "context",
    "repository",
    "runtime",
    "publish",
    "base_image",
    "remote_cache",
    "build",
    "run",
    "lock",
    "verify",
    "diff",
    "explain",
    "attest",
    "app_test",
    "release",
    "cli",
];

/// Lines in a file, tests in it included.
const LONGEST: usize = 400;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of ours below these places, relative to the project, without what git ignores by name.
fn files(places: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in places {
        let walk = WalkDir::new(project().join(place)).sort_by_file_name().into_iter();
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
    path.strip_prefix(project()).unwrap_or(path).display().to_string()
}

/// The module that a file under `src/` belongs to; none for `lib.rs` and `main.rs`.
fn module_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix(project().join("src")).ok()?;
    let first = below.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// The modules that a source text names: `crate::a::b` and `crate::{a::b, c}`.
fn used_modules(text: &str) -> BTreeSet<String> {
    let crates = paths(&code(text)).into_iter().filter(|path| path[0] == "crate");
    let mut names: BTreeSet<String> = crates.map(|path| path[1].clone()).collect();
    names.retain(|name| name.chars().next().is_some_and(char::is_lowercase));
    names
}

#[test]
fn a_module_uses_only_those_before_it() {
    let position = |name: &str| MODULES.iter().position(|module| *module == name);
    let mut wrong = BTreeSet::new();
    for path in rust(&["src"]) {
        let Some(module) = module_of(&path) else { continue };
        let Some(own) = position(&module) else {
            wrong.insert(format!("`{module}` is not in the list of modules"));
            continue;
        };
        for known in used_modules(&read(&path)) {
            match position(&known) {
                Some(other) if other > own => {
                    wrong.insert(format!("`{module}` -> `{known}` in {}: not before it", shown(&path)));
                }
                None => {
                    wrong.insert(format!("`{module}` -> `{known}` in {}: no such module", shown(&path)));
                }
                Some(_) => {}
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "uses that the order of the modules does not allow:\n{}",
        Vec::from_iter(wrong).join("\n")
    );
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = rust(&["src", "layers", "benches", "fuzz", "tests"])
        .iter()
        .map(|path| (read(path).lines().count(), shown(path)))
        .filter(|(lines, _)| *lines > LONGEST)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "over {LONGEST} lines:\n{}", long.join("\n"));
}

#[test]
fn every_file_begins_with_what_it_does() {
    let bare: Vec<String> =
        rust(&["src", "layers/src"]).iter().filter(|path| !has_header(path)).map(|path| shown(path)).collect();
    assert!(bare.is_empty(), "without `//!`:\n{}", bare.join("\n"));
}

fn has_header(path: &Path) -> bool {
    path.ends_with("tests.rs") || read(path).starts_with("//!")
}

#[test]
fn no_hash_map_is_used_where_order_could_reach_a_digest() {
    let unordered: Vec<String> = rust(&["src", "layers/src"])
        .iter()
        .filter(|path| ["HashMap", "HashSet"].iter().any(|name| read(path).contains(name)))
        .map(|path| shown(path))
        .collect();
    assert!(unordered.is_empty(), "{}", unordered.join("\n"));
}

#[test]
fn no_path_of_a_developers_machine_is_committed() {
    let own = project().display().to_string();
    let homes = ["/Users/", "/.cargo/registry", "/.rustup/toolchains"];
    let places = ["src", "layers", "tests", "testdata", "README.md", "Justfile", ".ci", "Cargo.toml", "deny.toml"];
    let found: Vec<String> = files(&places)
        .iter()
        .filter(|path| !path.ends_with("tests/architecture.rs"))
        .filter(|path| {
            let text = read(path);
            text.contains(&own) || homes.iter().any(|home| text.contains(home))
        })
        .map(|path| shown(path))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
