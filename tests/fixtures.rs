//! The fixtures themselves: apps whose tests pass without Phial, and servers that answer.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use phial::compare::dependencies;

use crate::harness::{Registry, TestEnv, hex_registry, in_rootfs, run, testdata};

#[test]
fn an_app_is_always_the_same_commit() {
    let (one, two) = (TestEnv::new(), TestEnv::new());
    assert_eq!(one.app("hello").git(["rev-parse", "HEAD"]), two.app("hello").git(["rev-parse", "HEAD"]));
}

#[test]
fn apps_without_packages_pass_their_own_tests_in_the_base() {
    let env = TestEnv::new();
    for app in ["hello", "umbrella"] {
        let repo = env.app(app);
        let vars = BTreeMap::from([("MIX_ENV", "test".to_owned())]);
        let output = run(in_rootfs(repo.dir(), ["mix", "test"], &vars)).ok();
        assert!(output.contains(" 0 failures"), "{output}");
    }
}

#[test]
fn the_app_with_packages_passes_its_own_tests_in_the_base() {
    let env = TestEnv::new();
    let hex = hex_registry();
    let (repo, _git) = env.deps_app_and_git(&hex);
    let lock = fs::read_to_string(repo.dir().join("mix.lock")).expect("a lock that Mix wrote");
    let read: Vec<String> = dependencies("", &lock).iter().map(ToString::to_string).collect();
    assert_eq!(read.len(), lock.lines().count() - 2, "each line between the braces is understood: {read:?}");
    assert!(read.contains(&"jiffy 1.1.2 added".to_owned()), "{read:?}");
    let mut vars = hex.env();
    vars.insert("MIX_ENV", "test".to_owned());
    let output = run(in_rootfs(repo.dir(), ["mix", "test"], &vars)).ok();
    assert!(output.contains(" 0 failures"), "{output}");
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

/// `testdata/mirrors trixie` on a machine of this release with these sources, as (file name, text with `@` for the
/// release's name), whose lists were never fetched.
fn mirrors(sources: &[(&str, &str)]) -> Vec<String> {
    let release = fs::read_to_string("/etc/os-release").expect("os-release");
    let own = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).expect("a release with a name");
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display();
    for name in ["parts", "lists/partial", "cache"] {
        fs::create_dir_all(dir.path().join(name)).expect("a directory of apt's");
    }
    for (name, text) in sources {
        fs::write(dir.path().join("parts").join(name), text.replace('@', own.trim_matches('"'))).expect("sources");
    }
    let config = format!(
        "Dir::Etc::sourcelist \"{at}/none\"; Dir::Etc::sourceparts \"{at}/parts\"; Dir::State::lists \"{at}/lists\"; \
         Dir::Cache \"{at}/cache\";\n"
    );
    fs::write(dir.path().join("apt.conf"), config).expect("apt's settings");
    let mut command = Command::new(testdata("mirrors"));
    command.arg("trixie").env("APT_CONFIG", dir.path().join("apt.conf"));
    run(command).ok().lines().map(str::to_owned).collect()
}

#[test]
fn the_machines_mirrors_are_found_however_its_sources_are_written() {
    let deb822 = "Types: deb\nURIs: https://mirror.example/debian http://second.example/debian/\n\
                  Suites: @ @-updates @-backports\nComponents: main contrib\nSigned-By: /usr/share/keyrings/x.gpg\n\n\
                  Types: deb deb-src\nURIs: http://mirror.example/security\nSuites: @-security\nComponents: main\n\n\
                  Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: @\nComponents: main\n";
    let inline = "Types: deb\nURIs: https://mirror.example/debian\nSuites: @\nComponents: main\nSigned-By:\n \
                  -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEXXX\n -----END PGP PUBLIC KEY BLOCK-----\n";
    let lines = "deb [arch=amd64,arm64 signed-by=/usr/share/keyrings/x.gpg] https://mirror.example/debian @ main contrib\n\
                 deb-src [signed-by=/usr/share/keyrings/x.gpg] https://mirror.example/debian @ main\n# deb http://off.example/debian @ main\n\
                 deb http://mirror.example/security/ @-security main\ndeb http://tools.example/ stable main\n";
    let listed = "deb mirror+file:/etc/apt/mirrors/debian.list @ main\n";
    for (sources, expected) in [
        (
            &[("debian.sources", deb822)][..],
            &[
                "https://mirror.example/debian/ trixie",
                "https://mirror.example/debian/ trixie-updates",
                "http://second.example/debian/ trixie",
                "http://second.example/debian/ trixie-updates",
                "http://mirror.example/security/ trixie-security",
            ][..],
        ),
        (&[("debian.sources", inline)], &["https://mirror.example/debian/ trixie"]),
        (
            &[("old.list", lines)],
            &["https://mirror.example/debian/ trixie", "http://mirror.example/security/ trixie-security"],
        ),
        (&[("cloud.list", listed)], &["mirror+file:/etc/apt/mirrors/debian.list/ trixie"]),
        (
            &[("debian.sources", inline), ("security.list", "deb http://mirror.example/security/ @-security main\n")],
            &["https://mirror.example/debian/ trixie", "http://mirror.example/security/ trixie-security"],
        ),
    ] {
        let mut found = mirrors(sources);
        found.sort();
        let mut expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
        expected.sort();
        assert_eq!(found, expected, "{sources:?}");
    }
}
