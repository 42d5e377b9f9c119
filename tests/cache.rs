//! `phial cache`: what is kept, what it is, and how it stays below a limit.

use crate::world::small::small_base;
use crate::world::{World, run};

/// A world with one build in its cache.
fn built() -> (World, String) {
    let world = World::with_empty_cache();
    let repo = world.small_app();
    let base = format!("oci:{}", small_base().display());
    let out = format!("oci:{}", world.path("out"));
    let digest = run(world.phial(["build", repo.source(), "--base", &base, "--to", &out])).ok();
    (world, digest)
}

fn again(world: &World) -> std::process::Command {
    let base = format!("oci:{}", small_base().display());
    let out = format!("oci:{}", world.path("out"));
    world.phial(["build", &world.path("app"), "--base", &base, "--to", &out, "--progress", "plain"])
}

#[test]
fn what_a_build_keeps_is_listed_and_explained() {
    let (world, _) = built();
    let list = run(world.phial(["cache", "ls"])).ok();
    for kind in ["blob ", "tree ", "result "] {
        assert!(list.lines().any(|line| line.starts_with(kind)), "{list}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&run(world.phial(["cache", "ls", "--json"])).ok()).expect("JSON");
    let items = json.as_array().expect("a list");
    assert_eq!(items.len() + 1, list.lines().count(), "and a line that sums up");
    let results = items.iter().filter(|item| item["kind"] == "result");
    let told: Vec<String> = results
        .map(|item| run(world.phial(["cache", "show", &item["name"].as_str().expect("a name")[..16]])).ok())
        .collect();
    assert!(told.iter().any(|text| text.contains("  step deps\n") && text.contains("file VERSION = ")), "{told:#?}");
    let error = run(world.phial(["cache", "show", "nothing"])).failed(3);
    assert!(error.contains("nothing in the cache is called `nothing`") && error.contains("cache ls"), "{error}");
}

#[test]
fn a_pruned_cache_is_filled_again_with_the_same() {
    let (world, digest) = built();
    let said = run(world.phial(["cache", "prune", "--limit", "0"]));
    assert!(said.err.contains("removed from the cache, 0 B left"), "{}", said.err);
    assert_eq!(run(world.phial(["cache", "ls"])).ok(), "0 B in 0 things");
    let ran = run(again(&world));
    assert!(!ran.err.contains("recalled"), "{}", ran.err);
    assert_eq!(ran.ok(), digest);
    run(world.phial(["cache", "prune", "--unused-for", "1d"])).ok();
    let ran = run(again(&world));
    assert!(ran.err.contains("recalled"), "what was used a moment ago stays: {}", ran.err);
}

#[test]
fn a_build_keeps_the_cache_below_its_limit_and_says_what_it_removed() {
    let (world, digest) = built();
    let mut command = again(&world);
    command.env("PHIAL_CACHE_LIMIT", "100kB");
    let ran = run(command);
    assert!(ran.err.contains("removed from the cache"), "{}", ran.err);
    assert_eq!(ran.ok(), digest);
    let mut command = again(&world);
    command.env("PHIAL_CACHE_LIMIT", "much");
    let ran = run(command);
    assert!(ran.err.contains("`PHIAL_CACHE_LIMIT` cannot be used: `much` is no size"), "{}", ran.err);
    assert_eq!(ran.ok(), digest, "that fails no build");
    run(world.phial(["cache", "prune", "--limit", "much"])).failed(2);
}

#[test]
fn nothing_is_removed_while_another_phial_uses_it() {
    let (world, _) = built();
    let store = phial::store::Store::open(world.cache()).expect("the store");
    let error = run(world.phial(["cache", "prune", "--limit", "0"])).failed(6);
    assert!(error.contains("in use by another"), "{error}");
    drop(store);
    run(world.phial(["cache", "prune", "--limit", "0"])).ok();
}
