//! Files as their owners write them, and helpers as they behave.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn host(home: &Path, env: &[(&str, &str)]) -> Host {
    let bin = home.join("bin").display().to_string();
    let path = ("PATH".to_owned(), format!("{bin}:/usr/bin:/bin"));
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).chain([path]).collect();
    Host {
        env,
        cwd: home.into(),
        home: home.into(),
        now: 0,
        millis: 0,
        began: std::time::Instant::now(),
        uid: 4242,
        gid: 4242,
        cores: NonZeroUsize::MIN,
    }
}

fn write(home: &Path, name: &str, text: &str) {
    let path = home.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn helper(home: &Path, name: &str, script: &str) {
    write(home, &format!("bin/docker-credential-{name}"), &format!("#!/bin/sh\n{script}\n"));
    let path = home.join(format!("bin/docker-credential-{name}"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn user(found: Result<Option<Login>, RegistryError>) -> String {
    match found {
        Ok(Some(Login::Basic { user, password })) => format!("{user}/{}", password.expose()),
        Ok(Some(Login::Identity(token))) => format!("identity/{}", token.expose()),
        Ok(Some(Login::Bearer(token))) => format!("bearer/{}", token.expose()),
        Ok(None) => "none".into(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn the_most_specific_key_wins_and_hosts_match_exactly() {
    let home = tempfile::tempdir().unwrap();
    let pair = |text: &str| STANDARD.encode(text);
    let config = format!(
        r#"{{"auths": {{
            "registry.example": {{"auth": "{}"}},
            "registry.example/team": {{"username": "team", "password": "t"}},
            "registry.example/team/app": {{"auth": "{}"}},
            "https://other.example/v2/": {{"auth": "{}"}},
            "https://index.docker.io/v1/": {{"auth": "{}"}},
            "marker.example": {{}}, "null.example": null,
            "token.example": {{"identitytoken": "idt"}},
            "bearer.example": {{"registrytoken": "reg"}}
        }}, "credHelpers": null, "x": 1}}"#,
        pair("host:h"),
        pair("app:a:b"),
        pair("other:o\0\0"),
        pair("hub:d")
    );
    write(home.path(), ".docker/config.json", &config);
    let credentials = Credentials::from_host(&host(home.path(), &[]));
    for (name, repository, expected) in [
        ("registry.example", "else", "host/h"),
        ("registry.example", "team/web", "team/t"),
        ("registry.example", "team/app", "app/a:b"),
        ("registry.example", "team/app/deep", "app/a:b"),
        ("registry.example", "team2", "host/h"),
        ("registry.example:5000", "team/app", "none"),
        ("evil-registry.example", "team/app", "none"),
        ("other.example", "x", "other/o"),
        ("docker.io", "library/debian", "hub/d"),
        ("marker.example", "x", "none"),
        ("null.example", "x", "none"),
        ("token.example", "x", "identity/idt"),
        ("bearer.example", "x", "bearer/reg"),
    ] {
        assert_eq!(user(credentials.find(name, repository)), expected, "{name}/{repository}");
    }
}

#[test]
fn places_are_searched_in_order_and_the_auth_file_alone_if_named() {
    let home = tempfile::tempdir().unwrap();
    let entry = |user: &str| format!(r#"{{"auths":{{"r.example":{{"username":"{user}","password":"p"}}}}}}"#);
    let find = |env: &[(&str, &str)]| user(Credentials::from_host(&host(home.path(), env)).find("r.example", "x"));
    assert_eq!(find(&[]), "none");
    write(home.path(), ".dockercfg", r#"{"https://r.example": {"username":"old","password":"p"}}"#);
    assert_eq!(find(&[]), "old/p");
    write(home.path(), ".docker/config.json", &entry("docker"));
    assert_eq!(find(&[]), "docker/p");
    write(home.path(), ".config/containers/auth.json", &entry("containers"));
    assert_eq!(find(&[]), "containers/p");
    write(home.path(), "dc/config.json", &entry("dc"));
    assert_eq!(find(&[("DOCKER_CONFIG", "dc")]), "dc/p");
    write(home.path(), "only.json", "{}");
    assert_eq!(find(&[("REGISTRY_AUTH_FILE", "only.json"), ("DOCKER_CONFIG", "dc")]), "none");
    assert_eq!(find(&[("REGISTRY_AUTH_FILE", "only.json"), ("DOCKER_AUTH_CONFIG", &entry("inline"))]), "inline/p");
}

#[test]
fn a_broken_file_is_named_and_never_quoted() {
    let home = tempfile::tempdir().unwrap();
    for text in [
        r#"{"auths": {"r.example": "hunter2"}}"#,
        r#"{"auths": {"r.example": {"auth": "hunter2"}}}"#,
        "hunter2",
        r#"{"auths": {"r.example": {"auth": "aHVudGVyMg=="}}}"#,
    ] {
        write(home.path(), ".docker/config.json", text);
        let said = user(Credentials::from_host(&host(home.path(), &[])).find("r.example", "x"));
        assert!(said.contains("error") && said.contains("config.json") && !said.contains("unter2"), "{said}");
    }
}

#[test]
fn helpers_are_asked_by_their_protocol() {
    let home = tempfile::tempdir().unwrap();
    helper(
        home.path(),
        "good",
        r#"test "$1" = get && printf '{"ServerURL":"x","Username":"u","Secret":"%s"}' "$(cat)""#,
    );
    helper(home.path(), "token", r#"echo '{"Username":"<token>","Secret":"idt"}'"#);
    helper(home.path(), "empty", "echo 'credentials not found in native keychain'; exit 1");
    helper(home.path(), "broken", "echo 'no keychain here'; exit 1");
    helper(home.path(), "leaky", r#"echo '{"Username":"u","Secret":"hunter2"'; exit 1"#);
    helper(home.path(), "flood", "head -c 200000 /dev/zero");
    let find = |config: &str, name: &str| {
        write(home.path(), ".docker/config.json", config);
        user(Credentials::from_host(&host(home.path(), &[])).find(name, "x"))
    };
    let with = |name: &str| find(&format!(r#"{{"credHelpers":{{"r.example":"{name}"}}}}"#), "r.example");
    assert_eq!(with("good"), "u/r.example");
    assert_eq!(find(r#"{"credHelpers":{"https://r.example":"good"}}"#, "r.example"), "u/https://r.example");
    assert_eq!(find(r#"{"credsStore":"good","auths":{"docker.io":{}}}"#, "docker.io"), format!("u/{HUB_KEY}"));
    assert_eq!(with("token"), "identity/idt");
    assert_eq!(with("empty"), "none");
    assert!(with("broken").contains("no keychain here"));
    assert!(!with("leaky").contains("hunter2"));
    assert!(with("flood").contains("more than 65536"));
    assert!(with("missing").contains("not in `PATH`"));
    assert!(with("../../bin/sh").contains("its name may have"));
}
