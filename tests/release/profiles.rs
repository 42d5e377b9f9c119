//! Build, push, record, release, and release elsewhere: with each registry that users have, with and without tokens.

use std::fs;

use phial::attest::{Listed, records};
use phial::host::Host;
use phial::image::RegistryRef;
use phial::registry::{Client, Credentials};

use super::{place, pushed, ran, record};
use crate::scripted::{Quirks, Registry};
use crate::world::{World, run};

fn login(registry: &Registry, world: &World) -> Client {
    let home = world.dir().join("home");
    fs::create_dir_all(home.join(".docker")).unwrap();
    fs::write(home.join(".docker/config.json"), registry.config().to_string()).unwrap();
    let host = Host { env: std::collections::BTreeMap::new(), home, ..Host::read() };
    Client::new(Credentials::from_host(&host)).unwrap()
}

fn whole_way(registry: &Registry, quirks: &Quirks) {
    let world = World::with_empty_cache();
    let client = login(registry, &world);
    for repository in ["team/app", "prod/app"] {
        registry.make(repository);
    }
    let name = registry.reference("team/app:build-7");
    let image = pushed(&client, &name, b"one");
    let release = |args: &[&str]| run(world.phial([&["release", &name.to_string()], args].concat()));
    release(&["--tag", "v1"]).failed(7);
    record(&client, &place(&name), &image, &ran(&image, 1, &[("test", false)]));
    release(&["--tag", "v1"]).failed(7);
    assert_eq!(registry.tag("team/app", "v1"), None, "{}", quirks.name);
    record(&client, &place(&name), &image, &ran(&image, 2, &[("test", true)]));
    for _ in 0..2 {
        let out = release(&["--tag", "v1"]).ok();
        assert_eq!(out, format!("{}@{}", registry.reference("team/app:v1"), image.manifest_digest), "{}", quirks.name);
    }
    let to: RegistryRef = registry.reference("prod/app");
    release(&["--tag", "v1", "--to", &to.to_string()]).ok();
    for repository in ["team/app", "prod/app"] {
        assert_eq!(registry.tag(repository, "v1"), Some(image.manifest_digest.clone()), "{}", quirks.name);
        let at = place(&registry.reference(repository));
        let found = records(&at, &client, &image.manifest_digest).unwrap();
        assert!(
            found.len() == 2 && found.iter().all(|it| matches!(it, Listed::Record(_))),
            "{}: {found:?}",
            quirks.name
        );
    }
    assert_eq!(registry.broken_tags(), Vec::<String>::new(), "{}", quirks.name);
    let beyond = registry.beyond();
    assert!(beyond.iter().all(|entry| entry.authorization.is_none()), "{}: credentials left the registry", quirks.name);
}

#[test]
fn every_registry_that_is_open() {
    for quirks in Quirks::profiles() {
        whole_way(&Registry::open(quirks.clone()), &quirks);
    }
}

#[test]
fn every_registry_with_tokens() {
    for quirks in Quirks::profiles() {
        whole_way(&Registry::with_tokens(quirks.clone()), &quirks);
    }
}
