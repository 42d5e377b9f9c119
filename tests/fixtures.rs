//! The fixtures themselves: apps whose tests pass without Phial, and servers that answer.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use phial::compare::dependencies;

use crate::world::{Registry, World, hex_registry, in_root, run};

#[test]
fn an_app_is_always_the_same_commit() {
    let (one, two) = (World::new(), World::new());
    assert_eq!(one.app("hello").git(["rev-parse", "HEAD"]), two.app("hello").git(["rev-parse", "HEAD"]));
}

#[test]
fn apps_without_packages_pass_their_own_tests_in_the_base() {
    let world = World::new();
    for app in ["hello", "umbrella"] {
        let repo = world.app(app);
        let env = BTreeMap::from([("MIX_ENV", "test".to_owned())]);
        let said = run(in_root(repo.dir(), ["mix", "test"], &env)).ok();
        assert!(said.contains(" 0 failures"), "{said}");
    }
}

#[test]
fn the_app_with_packages_passes_its_own_tests_in_the_base() {
    let world = World::new();
    let hex = hex_registry();
    let (repo, _git) = world.deps_app(&hex);
    let lock = fs::read_to_string(repo.dir().join("mix.lock")).expect("a lock that Mix wrote");
    let read: Vec<String> = dependencies("", &lock).iter().map(ToString::to_string).collect();
    assert_eq!(read.len(), lock.lines().count() - 2, "each line between the braces is understood: {read:?}");
    assert!(read.contains(&"jiffy 1.1.2 added".to_owned()), "{read:?}");
    let mut env = hex.env();
    env.insert("MIX_ENV", "test".to_owned());
    let said = run(in_root(repo.dir(), ["mix", "test"], &env)).ok();
    assert!(said.contains(" 0 failures"), "{said}");
    assert!(hex.requests().iter().any(|path| path == "/tarballs/jiffy-1.1.2.tar"), "{:?}", hex.requests());
}

fn curl(args: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-s", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}"]).args(args);
    run(curl).ok()
}

#[test]
fn a_registry_answers_and_its_log_says_what_was_asked() {
    let registry = Registry::start();
    assert_eq!(curl(&[&format!("http://{}/v2/_catalog", registry.host())]), "200");
    assert!(registry.requests().contains(&"GET /v2/_catalog".to_owned()), "{}", registry.log());
}

#[test]
fn a_registry_with_a_password_asks_for_it() {
    let registry = Registry::with_htpasswd();
    let url = format!("http://{}/v2/", registry.host());
    assert_eq!(curl(&[&url]), "401");
    assert_eq!(curl(&["-u", &format!("{}:{}", Registry::USER, Registry::PASSWORD), &url]), "200");
}
