//! Build, push, pull, test, release, and release elsewhere: with each registry that users have, with and without tokens.

use std::fs;

use phial::attest::{ListedRecord, records};
use phial::host::Host;
use phial::image::RegistryRef;
use phial::registry::{Client, Credentials};

use super::end_to_end::built;
use super::location;
use crate::harness::{TestEnv, run};
use crate::scripted::{Kind, Quirks, Registry};

fn login(registry: &Registry, env: &TestEnv) -> Client {
    let home = env.dir().join("home");
    fs::create_dir_all(home.join(".docker")).unwrap();
    fs::write(home.join(".docker/config.json"), registry.config().to_string()).unwrap();
    let host = Host { env: std::collections::BTreeMap::new(), home, ..Host::read() };
    Client::new(Credentials::from_host(&host)).unwrap()
}

/// One machine builds, another one, which has nothing yet, tests and releases.
fn build_test_and_release(registry: &Registry, quirks: &Quirks) {
    let (builder, env) = (TestEnv::with_empty_cache(), TestEnv::with_empty_cache());
    login(registry, &builder);
    let client = login(registry, &env);
    for repository in ["team/app", "prod/app"] {
        registry.make(repository);
    }
    let name = registry.reference("team/app:build-7");
    let digest = built(&builder, "command = 'test -e out/prod/app && exit ${CODE:-0}'", &name.to_string());
    assert_eq!(registry.tag("team/app", "build-7"), Some(digest.clone()), "{}", quirks.name);
    let release = |args: &[&str]| run(env.phial([&["release", &name.to_string()], args].concat()));
    let test = |args: &[&str]| run(env.phial([&["test", &name.to_string()], args].concat()));
    release(&["--tag", "v1"]).failed(7);
    let pulled = registry.count(Kind::GetBlob);
    test(&["--env", "CODE=3"]).failed(1);
    assert!(registry.count(Kind::GetBlob) > pulled, "{}: nothing was pulled", quirks.name);
    release(&["--tag", "v1"]).failed(7);
    assert_eq!(registry.tag("team/app", "v1"), None, "{}", quirks.name);
    assert_eq!(test(&[]).ok(), format!("{name}@{digest}"), "{}", quirks.name);
    for _ in 0..2 {
        let out = release(&["--tag", "v1"]).ok();
        assert_eq!(out, format!("{}@{}", registry.reference("team/app:v1"), digest), "{}", quirks.name);
    }
    let to: RegistryRef = registry.reference("prod/app");
    release(&["--tag", "v1", "--to", &to.to_string()]).ok();
    for repository in ["team/app", "prod/app"] {
        assert_eq!(registry.tag(repository, "v1"), Some(digest.clone()), "{}", quirks.name);
        let at = location(&registry.reference(repository));
        let found = records(&at, &client, &digest).unwrap();
        assert!(
            found.len() == 2 && found.iter().all(|it| matches!(it, ListedRecord::Valid(_))),
            "{}: {found:?}",
            quirks.name
        );
    }
    assert_eq!(registry.broken_tags(), Vec::<String>::new(), "{}", quirks.name);
    let storage_journal = registry.storage_journal();
    assert!(
        storage_journal.iter().all(|entry| entry.authorization.is_none()),
        "{}: credentials left the registry",
        quirks.name
    );
}

#[test]
fn every_registry_that_is_open() {
    for quirks in Quirks::profiles() {
        build_test_and_release(&Registry::open(quirks.clone()), &quirks);
    }
}

#[test]
fn every_registry_with_tokens() {
    for quirks in Quirks::profiles() {
        build_test_and_release(&Registry::with_tokens(quirks.clone()), &quirks);
    }
}
