//! What `deny.toml` forbids, held without `cargo deny`: no Debian package carries it, and compiling it takes longer than
//! the tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use semver::{Version, VersionReq};
use serde_json::Value;

use crate::harness::run;

fn toml(name: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).expect("a file of the project").parse().expect("TOML")
}

fn texts(list: &toml::Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().filter_map(toml::Value::as_str).collect()
}

/// The packages that our targets are made of, as `cargo metadata` tells them.
fn packages(deny: &toml::Table) -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--format-version", "1"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    for target in texts(&deny["graph"]["targets"]) {
        cargo.args(["--filter-platform", target]);
    }
    let mut metadata: Value = serde_json::from_str(&run(cargo).ok()).expect("JSON");
    let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
    packages
}

/// Whether one may choose so in an SPDX expression that only licences of the list are left. What is not a conjunction of
/// choices is refused.
fn allowed(expression: &str, list: &[&str]) -> bool {
    expression.split(" AND ").all(|part| {
        let choices = part.trim_start_matches('(').trim_end_matches(')').replace(" OR ", "/");
        choices.split('/').any(|choice| list.contains(&choice.trim()))
    })
}

/// What a lock file has of what is banned: each package with the reason.
fn banned(deny: &toml::Table, lock: &toml::Table) -> Vec<String> {
    let mut found = vec![];
    for ban in deny["bans"]["deny"].as_array().expect("bans") {
        let spec = ban["crate"].as_str().expect("a name");
        let (name, range) = spec.split_once(':').unwrap_or((spec, "*"));
        let range: VersionReq = range.parse().expect("a range of versions");
        for package in lock["package"].as_array().expect("packages").iter().filter(|p| p["name"].as_str() == Some(name))
        {
            let version: Version = package["version"].as_str().expect("a version").parse().expect("a version");
            if range.matches(&version) {
                found.push(format!("{name} {version}: {}", ban["reason"]));
            }
        }
    }
    found
}

#[test]
fn no_package_of_the_lock_file_is_banned() {
    assert_eq!(banned(&toml("deny.toml"), &toml("Cargo.lock")), Vec::<String>::new());
}

#[test]
fn a_package_below_its_floor_is_found_and_every_floor_names_its_advisories() {
    let deny = toml("deny.toml");
    let bans = deny["bans"]["deny"].as_array().expect("bans");
    let mut floors = 0;
    for ban in bans {
        let Some((name, range)) = ban["crate"].as_str().expect("a name").split_once(":<") else { continue };
        let (floor, reason): (Version, &str) = (range.parse().expect(name), ban["reason"].as_str().expect("a reason"));
        let is_advisory = |word: &str| ["RUSTSEC-", "CVE-", "GHSA-"].iter().any(|kind| word.starts_with(kind));
        assert!(reason.split([' ', ',']).any(is_advisory), "{name}: {reason}");
        let lock = |version: &str| {
            let text = format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
            banned(&deny, &text.parse().expect("TOML"))
        };
        assert_eq!(lock("0.0.1").len(), 1, "{name}");
        assert_eq!(lock(&floor.to_string()), Vec::<String>::new(), "{name}");
        floors += 1;
    }
    assert!(floors > 30, "{floors}");
}

/// The oldest versions without a known hole, where no advisory database has it or `Cargo.toml` would allow an older one.
const FLOORS: [(&str, &str, &str); 3] = [
    ("libgit2-sys", "0.18.8", "seven CVEs of 2026 are fixed in libgit2 1.9.7"),
    ("libssh2-sys", "0.3.3", "CVE-2026-55200, -55199, -7598 and CVE-2025-15661 are in every libssh2 1.11.1"),
    ("rustls", "0.23.45", "RUSTSEC-2026-0285"),
];

#[test]
fn no_package_is_older_than_its_floor() {
    let (manifest, lock) = (toml("Cargo.toml"), toml("Cargo.lock"));
    for (name, floor, reason) in FLOORS {
        let floor: Version = floor.parse().expect("a version");
        let dependency = manifest["dependencies"].get(name).unwrap_or_else(|| panic!("{name} has no floor: {reason}"));
        let text = dependency.as_str().or_else(|| dependency.get("version")?.as_str()).expect("a version");
        let lowest: Version =
            text.parse().unwrap_or_else(|_| panic!("{name} `{text}` is not a whole version: {reason}"));
        assert!(lowest >= floor, "Cargo.toml allows {name} {lowest}: {reason}");
        let locked = lock["package"].as_array().expect("packages").iter().filter(|p| p["name"].as_str() == Some(name));
        let versions: Vec<Version> =
            locked.map(|p| p["version"].as_str().expect("a version").parse().expect("a version")).collect();
        assert!(
            !versions.is_empty() && versions.iter().all(|version| *version >= floor),
            "{name} {versions:?}: {reason}"
        );
    }
}

#[test]
fn every_package_comes_from_crates_io_or_this_project() {
    let lock = toml("Cargo.lock");
    for package in lock["package"].as_array().expect("packages") {
        let known = package
            .get("source")
            .is_none_or(|source| source.as_str() == Some("registry+https://github.com/rust-lang/crates.io-index"));
        assert!(known, "{package}");
    }
}

#[test]
fn every_package_may_be_used_under_a_licence_of_the_list() {
    let deny = toml("deny.toml");
    let list = texts(&deny["licenses"]["allow"]);
    for package in packages(&deny) {
        let licence = package["license"].as_str().unwrap_or("none that it names");
        assert!(allowed(licence, &list), "{} {}: {licence}", package["name"], package["version"]);
    }
}

#[test]
fn a_licence_is_allowed_if_one_choice_of_each_part_is() {
    let list = ["MIT", "ISC", "Unicode-3.0"];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0 OR MIT", true),
        ("Unlicense/MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0", false),
        ("none that it names", false),
    ] {
        assert_eq!(allowed(expression, &list), expected, "{expression}");
    }
}
