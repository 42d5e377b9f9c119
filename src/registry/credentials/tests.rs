//! Files as their owners write them, and helpers as they behave.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn host(home: &Path, env: &[(&str, &str)]) -> Host {
    let bin = home.join("bin").display().to_string();
    let path = ("PATH".to_owned(), format!("{bin}:/usr/bin:/bin"));
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).chain([path]).collect();
    Host {
        env,
        cwd: home.into(),
        home: home.into(),
        clock: crate::host::Clock::read(),
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
        Ok(Some(Login::Identity { token, fallback })) => {
            let fallback = fallback.map(|(user, password)| format!("/{user}/{}", password.expose()));
            format!("identity/{}{}", token.expose(), fallback.unwrap_or_default())
        }
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
        let output = user(Credentials::from_host(&host(home.path(), &[])).find("r.example", "x"));
        assert!(output.contains("error") && output.contains("config.json") && !output.contains("unter2"), "{output}");
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

#[test]
fn a_named_file_is_the_only_place_and_must_be_there() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), ".docker/config.json", r#"{"auths":{"r.example":{"username":"docker","password":"p"}}}"#);
    write(home.path(), "own.json", r#"{"auths":{"o.example":{"username":"own","password":"p"}}}"#);
    let host = host(home.path(), &[("CI_REGISTRY", "r.example"), ("CI_JOB_TOKEN", "t")]);
    let find =
        |file: &str, name: &str| user(Credentials::from_options(&host, Some(&home.path().join(file))).find(name, "x"));
    assert_eq!(find("own.json", "o.example"), "own/p");
    assert_eq!(find("own.json", "r.example"), "none");
    assert!(find("gone.json", "r.example").contains("gone.json`: there is no such file"));
}

#[test]
fn our_own_variable_is_a_file_or_its_text_and_stands_above_the_others() {
    let home = tempfile::tempdir().unwrap();
    let entry = |user: &str| format!(r#"{{"auths":{{"r.example/team":{{"username":"{user}","password":"p"}}}}}}"#);
    write(home.path(), "own.json", &entry("file"));
    let inline = entry("inline");
    let docker = entry("docker");
    let find = |own: &str, repository: &str| {
        let host = host(home.path(), &[("PHIAL_REGISTRY_AUTH", own), ("DOCKER_AUTH_CONFIG", &docker)]);
        user(Credentials::from_host(&host).find("r.example", repository))
    };
    assert_eq!(find("own.json", "team/app"), "file/p");
    assert_eq!(find(&inline, "team/app"), "inline/p");
    assert_eq!(find("{}", "team/app"), "docker/p");
    assert_eq!(find("{}", "other"), "none");
    assert!(find("gone.json", "team/app").contains("there is no such file"));
}

#[test]
fn gitlab_gives_its_jobs_a_login_for_its_own_registry_only() {
    let home = tempfile::tempdir().unwrap();
    let own = ("CI_REGISTRY", "registry.gitlab.example:5050");
    let (name, password) = (("CI_REGISTRY_USER", "gitlab-ci-token"), ("CI_REGISTRY_PASSWORD", "job"));
    let token = ("CI_JOB_TOKEN", "jt");
    let proxy = ("CI_DEPENDENCY_PROXY_SERVER", "gitlab.example:443");
    let (proxy_user, proxy_password) =
        (("CI_DEPENDENCY_PROXY_USER", "gitlab-ci-token"), ("CI_DEPENDENCY_PROXY_PASSWORD", "pw"));
    for (env, host_name, expected) in [
        (&[own, name, password, token][..], "registry.gitlab.example:5050", "gitlab-ci-token/job"),
        (&[own, token], "registry.gitlab.example:5050", "gitlab-ci-token/jt"),
        (&[own, name, password], "registry.gitlab.example", "none"),
        (&[own, name, password], "evil.example", "none"),
        (&[own], "registry.gitlab.example:5050", "none"),
        (&[token], "registry.gitlab.example:5050", "none"),
        (&[own, token, proxy, proxy_user, proxy_password], "gitlab.example", "gitlab-ci-token/pw"),
        (&[own, token, proxy, proxy_user, proxy_password], "gitlab.example:443", "gitlab-ci-token/pw"),
        (&[own, token, proxy, proxy_user, proxy_password], "gitlab.example:5000", "none"),
        (&[own, token, proxy, proxy_user, proxy_password], "registry.gitlab.example:5050", "gitlab-ci-token/jt"),
        (&[proxy, proxy_user], "gitlab.example", "none"),
    ] {
        let credentials = Credentials::from_host(&host(home.path(), env));
        assert_eq!(user(credentials.find(host_name, "team/app")), expected, "{env:?}");
    }
    write(
        home.path(),
        ".docker/config.json",
        r#"{"auths":{"registry.gitlab.example:5050":{"username":"u","password":"p"}}}"#,
    );
    let credentials = Credentials::from_host(&host(home.path(), &[own, token]));
    assert_eq!(user(credentials.find("registry.gitlab.example:5050", "team/app")), "u/p", "a file stands above");
}

#[test]
fn tokens_differ_from_passwords_and_an_exact_key_wins_over_a_url() {
    let home = tempfile::tempdir().unwrap();
    let acr = STANDARD.encode("00000000-0000-0000-0000-000000000000:");
    let both = STANDARD.encode("u:p");
    let config = format!(
        r#"{{"auths": {{
            "acr.example": {{"auth": "{acr}", "identitytoken": "idt"}},
            "both.example": {{"auth": "{both}", "identitytoken": "idt"}},
            "angle.example": {{"username": "<token>", "password": "idt"}},
            "https://r.example/v1/": {{"username": "url", "password": "p"}},
            "r.example": {{"username": "exact", "password": "p"}}
        }}}}"#
    );
    write(home.path(), ".docker/config.json", &config);
    let credentials = Credentials::from_host(&host(home.path(), &[]));
    for (name, expected) in [
        ("acr.example", "identity/idt"),
        ("both.example", "identity/idt/u/p"),
        ("angle.example", "identity/idt"),
        ("r.example", "exact/p"),
    ] {
        assert_eq!(user(credentials.find(name, "x")), expected, "{name}");
    }
}

#[test]
fn amazons_hosts_are_known_and_no_others() {
    for (name, region) in [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Some("eu-west-1")),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", Some("eu-west-1")),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
        ("12345678901.dkr.ecr.eu-west-1.amazonaws.com", None),
        ("123456789012.dkr.ecr.--evil/x.amazonaws.com", None),
        ("123456789012.dkr.ecr.eu-west-1.evil.example", None),
        ("public.ecr.aws", None),
        ("registry.example", None),
    ] {
        assert_eq!(ecr_region(name), region, "{name}");
    }
}

#[test]
fn amazons_programs_are_asked_for_amazons_hosts() {
    let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    let home = tempfile::tempdir().unwrap();
    let mut steps = Vec::new();
    let credentials = Credentials::from_host(&host(home.path(), &[]));
    assert!(credentials.search(ecr, "app", &mut |step| steps.push(step)).unwrap().is_none());
    assert_eq!(steps.last().unwrap().result, LookupResult::Absent);
    let find = |name: &str| user(credentials.find(name, "app"));
    write(home.path(), "bin/aws", "#!/bin/sh\necho 'Unable to locate credentials' >&2; exit 253\n");
    fs::set_permissions(home.path().join("bin/aws"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        find(ecr).contains("`aws ecr get-login-password` returned no credentials")
            && find(ecr).contains("Unable to locate")
    );
    assert_eq!(find("registry.example"), "none");
    write(home.path(), "bin/aws", "#!/bin/sh\necho \"$1.$2.$3.$4\"\n");
    assert_eq!(find(ecr), "AWS/ecr.get-login-password.--region.eu-west-1");
    helper(home.path(), "ecr-login", r#"echo "{\"Username\":\"AWS\",\"Secret\":\"$(cat)\"}""#);
    assert_eq!(find(ecr), format!("AWS/{ecr}"), "the helper goes first");
    helper(home.path(), "ecr-login", "echo 'credentials not found in native keychain'; exit 1");
    assert_eq!(find(ecr), "none");
}

#[test]
fn helpers_of_registries_conf_know_of_all_registries_before_or_after_the_files() {
    let home = tempfile::tempdir().unwrap();
    helper(home.path(), "one", r#"echo "{\"Username\":\"one\",\"Secret\":\"$(cat)\"}""#);
    helper(home.path(), "none", "echo 'credentials not found in native keychain'; exit 1");
    write(home.path(), ".docker/config.json", r#"{"auths":{"r.example":{"username":"file","password":"p"}}}"#);
    let find = |list: &str, name: &str| {
        write(home.path(), ".config/containers/registries.conf", &format!("credential-helpers = [{list}]\n"));
        user(Credentials::from_host(&host(home.path(), &[])).find(name, "x"))
    };
    assert_eq!(find("", "o.example"), "none");
    assert_eq!(find("'one'", "r.example"), "one/r.example");
    assert_eq!(find("'one'", "docker.io"), "one/docker.io");
    assert_eq!(find("'none', 'containers-auth.json', 'one'", "r.example"), "file/p");
    assert_eq!(find("'none', 'containers-auth.json', 'one'", "o.example"), "one/o.example");
    assert_eq!(find("'none'", "r.example"), "file/p");
    assert!(find("'missing'", "r.example").contains("`docker-credential-missing`"));
    write(home.path(), ".config/containers/registries.conf.d/1.conf", "credential-helpers = ['one']\n");
    assert_eq!(find("'missing'", "r.example"), "one/r.example");
    let named = Credentials::from_options(&host(home.path(), &[]), Some(&home.path().join(".docker/config.json")));
    assert_eq!(user(named.find("o.example", "x")), "none", "a named file is the only source");
}

#[test]
fn lookup_steps_are_reported_without_a_secret() {
    let home = tempfile::tempdir().unwrap();
    helper(home.path(), "keys", r#"echo '{"Username":"u","Secret":"hunter2"}'"#);
    helper(home.path(), "empty", "echo 'credentials not found in native keychain'; exit 1");
    write(home.path(), ".config/containers/auth.json", r#"{"credHelpers":{"https://r.example":"empty"}}"#);
    write(home.path(), ".docker/config.json", r#"{"auths":{"r.example/team":{"username":"u","password":"hunter2"}}}"#);
    let credentials = Credentials::from_host(&host(home.path(), &[("DOCKER_AUTH_CONFIG", r#"{"credsStore":"keys"}"#)]));
    let find = |credentials: &Credentials, repository: &str| {
        let mut steps = Vec::new();
        let found = credentials.search("r.example", repository, &mut |step| steps.push(step));
        assert!(found.is_ok_and(|login| login.is_some()) && !format!("{steps:?}").contains("hunter2"));
        steps
    };
    let helper = Some("docker-credential-keys".to_owned());
    let result = LookupResult::Login { key: "r.example".into(), helper, kind: "user and password" };
    assert_eq!(find(&credentials, "team/app"), [LookupStep { place: "`DOCKER_AUTH_CONFIG`".into(), result }]);
    let steps = find(&Credentials::from_host(&host(home.path(), &[])), "team/app");
    let results: Vec<&LookupResult> = steps.iter().map(|step| &step.result).collect();
    let without = LookupResult::HelperWithoutLogin { helper: "docker-credential-empty".into() };
    let login = LookupResult::Login { key: "r.example/team".into(), helper: None, kind: "user and password" };
    assert_eq!(results, [&LookupResult::Absent, &without, &LookupResult::NoLogin, &login]);
}

#[test]
fn a_file_of_logins_is_read_up_to_its_limit() {
    let home = tempfile::tempdir().unwrap();
    let entry = r#"{"auths":{"r.example":{"username":"u","password":"p"}}}"#;
    let padded = |size: usize| entry.to_owned() + &" ".repeat(size - entry.len());
    let find = |text: &str| {
        write(home.path(), ".docker/config.json", text);
        user(Credentials::from_host(&host(home.path(), &[])).find("r.example", "x"))
    };
    assert_eq!(find(&padded(4 << 20)), "u/p");
    assert!(find(&padded((4 << 20) + 1)).contains("more than 4194304 bytes"));
    assert_eq!(find(" \n"), "none", "an empty file has no logins");
    fs::remove_file(home.path().join(".docker/config.json")).unwrap();
    fs::create_dir(home.path().join(".docker/config.json")).unwrap();
    assert!(user(Credentials::from_host(&host(home.path(), &[])).find("r.example", "x")).contains("config.json"));
    let in_a_file = host(home.path(), &[("REGISTRY_AUTH_FILE", "plain/auth.json")]);
    write(home.path(), "plain", "x");
    assert_eq!(user(Credentials::from_host(&in_a_file).find("r.example", "x")), "none");
}

#[test]
fn the_directories_of_variables_and_of_the_user_are_searched() {
    let home = tempfile::tempdir().unwrap();
    let entry = |user: &str| format!(r#"{{"auths":{{"r.example":{{"username":"{user}","password":"p"}}}}}}"#);
    write(home.path(), "run/containers/auth.json", &entry("runtime"));
    write(home.path(), "cfg/containers/auth.json", &entry("config"));
    let dir = |name: &str| home.path().join(name).display().to_string();
    let (run, cfg) = (dir("run"), dir("cfg"));
    let find = |env: &[(&str, &str)]| user(Credentials::from_host(&host(home.path(), env)).find("r.example", "x"));
    assert_eq!(find(&[("XDG_CONFIG_HOME", &cfg)]), "config/p");
    assert_eq!(find(&[("XDG_CONFIG_HOME", &cfg), ("XDG_RUNTIME_DIR", &run)]), "runtime/p");
    assert!(files(&host(home.path(), &[]))[0].starts_with("/run/containers/4242"));
}

#[test]
fn what_is_empty_is_no_login_and_exact_keys_win() {
    let home = tempfile::tempdir().unwrap();
    helper(home.path(), "url", r#"echo '{"Username":"url","Secret":"s"}'"#);
    helper(home.path(), "exact", r#"echo '{"Username":"exact","Secret":"s"}'"#);
    let find = |config: &str, name: &str| {
        write(home.path(), ".docker/config.json", config);
        user(Credentials::from_host(&host(home.path(), &[])).find(name, "x"))
    };
    let both = r#"{"credHelpers":{"https://r.example":"url","r.example":"exact"}}"#;
    assert_eq!(find(both, "r.example"), "exact/s");
    assert_eq!(find(both, "o.example"), "none");
    assert_eq!(find(r#"{"credsStore":""}"#, "r.example"), "none");
    assert_eq!(find(r#"{"credsStore":"url"}"#, "r.example"), "url/s");
    let auth = |entry: &str| find(&format!(r#"{{"auths":{{"r.example":{entry}}}}}"#), "r.example");
    assert_eq!(auth(r#"{"username":"u"}"#), "none");
    assert_eq!(auth(r#"{"username":"","password":"p"}"#), "none");
    assert_eq!(auth(r#"{"auth":"","username":"u","password":"p","registrytoken":"","identitytoken":""}"#), "u/p");
    for hub in ["docker.io", "index.docker.io", "https://registry-1.docker.io/v2/"] {
        let config = format!(r#"{{"auths":{{"{hub}":{{"username":"hub","password":"p"}}}}}}"#);
        assert_eq!(find(&config, "docker.io"), "hub/p", "{hub}");
    }
}
