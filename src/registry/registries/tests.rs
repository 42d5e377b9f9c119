//! Which entry fits a name, where it leads to, and what is refused in the file.

use std::collections::BTreeMap;

use super::*;
use crate::error::UserError as _;

fn reference(text: &str) -> RegistryRef {
    text.parse().unwrap()
}

fn conf(text: &str) -> Result<Registries, RegistryError> {
    Registries::of_text(Path::new("registries.conf"), text)
}

#[track_caller]
fn refused(text: &str, part: &str) {
    let error = conf(text).err().unwrap();
    assert!(error.to_string().contains(part) && error.exit_kind().code() == 2, "{error}");
}

#[test]
fn the_longest_prefix_counts_and_ends_where_a_part_of_the_name_ends() {
    let prefixes = ["example.com", "example.com/a", "example.com/a/b", "*.example.com", "*.example.com/a", "h:5000"];
    let text = prefixes.map(|p| format!("[[registry]]\nprefix = '{p}'\nlocation = 'x.example'\n"));
    let conf = conf(&text.concat()).unwrap();
    for (name, prefix) in [
        ("example.com/c", Some("example.com")),
        ("example.com/a:tag", Some("example.com/a")),
        ("example.com/ab", Some("example.com")),
        ("example.com/a/b/c", Some("example.com/a/b")),
        ("example.com:5000/a", None),
        ("example.com.evil.example/a", None),
        ("sub.example.com/b", Some("*.example.com")),
        ("a.sub.example.com:5000/b", Some("*.example.com")),
        ("sub.example.com/a/x", Some("*.example.com/a")),
        ("subexample.com/a", None),
        ("evil.example/sub.example.com/a", None),
        ("h:5000/x", Some("h:5000")),
        ("h:500/x", None),
        ("debian", None),
    ] {
        let found = conf.entry(&reference(name)).unwrap().map(|entry| entry.prefix.as_str());
        assert_eq!(found, prefix, "{name}");
    }
}

#[test]
fn one_image_alone_can_be_blocked() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let entry = |prefix: &str| format!("[[registry]]\nprefix = '{prefix}'\nlocation = 'x.example'\nblocked = true\n");
    let prefixes = ["r.example/a:1", "r.example/a:latest", &format!("r.example/b@{digest}")];
    let text = prefixes.map(entry).concat() + "[[registry]]\nprefix = 'r.example/c:1'\nlocation = 'x.example/c'\n";
    let conf = conf(&text).unwrap();
    for name in ["r.example/a:1", "r.example/a", &format!("r.example/a:1@{digest}"), &format!("r.example/b:2@{digest}")]
    {
        let error = conf.entry(&reference(name)).unwrap_err();
        assert!(matches!(error, RegistryError::Blocked { .. }), "{name}: {error}");
    }
    for name in
        ["r.example/a:12", "r.example/a/b:1", "r.example/b:1", &format!("r.example/a@{digest}"), "r.example/c:2"]
    {
        assert!(conf.entry(&reference(name)).unwrap().is_none(), "{name}");
    }
    let error = conf.entry(&reference("r.example/c:1")).unwrap_err().to_string();
    assert!(error.contains("the prefix `r.example/c:1` has a tag or digest, and is not `blocked`"), "{error}");
}

#[test]
fn mirrors_come_in_order_and_the_location_last() {
    let conf = conf(
        "unqualified-search-registries = ['docker.io']\nshort-name-mode = 'enforcing'\n[aliases]\n'a' = 'b.example/a'\n\
         [[registry]]\nprefix = 'docker.io'\nlocation = 'hub.example/proxy/'\n\
         [[registry.mirror]]\nlocation = 'm1.example:5000/hub'\ninsecure = true\n\
         [[registry.mirror]]\nlocation = 'm2.example'\npull-from-mirror = 'digest-only'\n\
         [[registry.mirror]]\nlocation = 'm3.example'\npull-from-mirror = 'tag-only'\n\
         [[registry]]\nlocation = 'plain.example'\nmirror-by-digest-only = true\n\
         [[registry.mirror]]\nlocation = 'm4.example'\n\
         [[registry]]\nprefix = '*.wild.example'\nlocation = 'w.example'\n\
         [[registry]]\nprefix = '*.same.example'\ninsecure = true\n",
    )
    .unwrap();
    let digest = format!("sha256:{}", "a".repeat(64));
    for (name, sources) in [
        (
            "debian:12",
            "m1.example:5000/hub/library/debian:12 m3.example/library/debian:12 hub.example/proxy/library/debian:12",
        ),
        (
            &format!("debian@{digest}"),
            &format!(
                "m1.example:5000/hub/library/debian@{digest} m2.example/library/debian@{digest} hub.example/proxy/library/debian@{digest}"
            ),
        ),
        ("plain.example/a:b", "plain.example/a:b"),
        (&format!("plain.example/a@{digest}"), &format!("m4.example/a@{digest} plain.example/a@{digest}")),
        ("a.wild.example:5000/b", "w.example:5000/b:latest"),
        ("a.same.example/b:c", "a.same.example/b:c"),
    ] {
        let name = reference(name);
        let entry = conf.entry(&name).unwrap().unwrap();
        let found = entry.sources(&name, if name.digest.is_some() { NamedBy::Digest } else { NamedBy::Tag }).unwrap();
        let text: Vec<String> = found.iter().map(|source| source.name.to_string()).collect();
        assert_eq!(text, sources.split(' ').map(|s| s.replace(":latest", "")).collect::<Vec<_>>(), "{name}");
        let insecure = found.iter().filter(|source| source.tls == Tls::Unverified).count();
        assert_eq!(insecure, usize::from(name.host == "docker.io" || name.host.ends_with("same.example")));
    }
}

#[test]
fn what_cannot_be_used_is_named_with_its_line() {
    refused("a = 1\n[[registry]]\nlocation = 'x.example'\ninsecure = 'yes'\n", "`registries.conf`: line 4: ");
    refused("a = 1\n[[registry]\n", "line 2: ");
    refused(
        "[[registry]]\nlocation = 'x.example'\n[[registry.mirror]]\ninsecure = true\n",
        "line 3: missing field `location`",
    );
    refused("[[registry]]\nlocation = 'https://x.example'\n", "`https://x.example` is not `host[:port][/path]`");
    refused("[[registry]]\nprefix = 'x.example'\n", "the entry `x.example` of `[[registry]]` has no `location`");
    refused("[[registry]]\n", "has no `location`");
    let mirror = "[[registry]]\nlocation = 'x.example'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'm.example'\n";
    refused(&format!("{mirror}pull-from-mirror = 'all'\n"), "one of them is enough");
    refused(
        "[[registry]]\nlocation = 'x.example'\n[[registry.mirror]]\nlocation = 'm.example'\npull-from-mirror = 'never'\n",
        "line 5: unknown variant `never`",
    );
    refused("[registries.insecure]\nregistries = ['x.example']\n", "`[registries.insecure]` is of version 1");
    for location in ["registry", "team/x", "x.example/app:tag", "x.example/UPPER"] {
        let conf = conf(&format!("[[registry]]\nprefix = 'r.example'\nlocation = '{location}'\n")).unwrap();
        let name = reference("r.example/a");
        let error = conf.entry(&name).unwrap().unwrap().sources(&name, NamedBy::Tag).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!(
                "for `r.example/a` it leads to `{location}/a`, which is not the name of a repository"
            )),
            "{error}"
        );
        assert!(conf.entry(&reference("other.example/a")).unwrap().is_none());
    }
    for fine in [
        "",
        "[registries.search]\nregistries = ['docker.io']\n[registries.block]\nregistries = []\n",
        "[[registry]]\nlocation = 'localhost/x'\n",
    ] {
        assert!(conf(fine).is_ok(), "{fine}");
    }
}

#[test]
fn a_users_own_file_replaces_the_systems_and_directories_add_to_it() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, mirror: &str| {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = format!("[[registry]]\nlocation = 'r.example'\n[[registry.mirror]]\nlocation = '{mirror}'\n");
        fs::write(path, text).unwrap();
    };
    let mirror = |env: &[(&str, &str)]| {
        let env: BTreeMap<_, _> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let host = Host { env, home: home.path().into(), cwd: home.path().into(), ..Host::read() };
        let name = reference("r.example/a");
        let registries = Registries::from_host(&host);
        registries
            .entry(&name)
            .map(|entry| entry.map(|entry| entry.sources(&name, NamedBy::Tag).unwrap()[0].name.host.clone()))
    };
    let named = ("CONTAINERS_REGISTRIES_CONF", "named.conf");
    assert_eq!(mirror(&[]).unwrap(), None);
    assert!(mirror(&[named]).unwrap_err().to_string().contains("named.conf"), "a named file must exist");
    write(".config/containers/registries.conf", "own.example");
    assert_eq!(mirror(&[]).unwrap().as_deref(), Some("own.example"));
    write("named.conf", "named.example");
    assert_eq!(mirror(&[named]).unwrap().as_deref(), Some("named.example"));
    write(".config/containers/registries.conf.d/20.conf", "second.example");
    write(".config/containers/registries.conf.d/10.conf", "first.example");
    write(".config/containers/registries.conf.d/30.off", "off.example");
    assert_eq!(mirror(&[]).unwrap().as_deref(), Some("second.example"));
    assert_eq!(mirror(&[named]).unwrap().as_deref(), Some("second.example"));
    let elsewhere = home.path().join("xdg").display().to_string();
    write("xdg/containers/registries.conf", "xdg.example");
    assert_eq!(mirror(&[("XDG_CONFIG_HOME", &elsewhere)]).unwrap().as_deref(), Some("xdg.example"));
}
