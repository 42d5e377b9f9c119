//! TLS, logins, proxies and token servers as companies have them: pushed by us, read by skopeo, podman and oras.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use phial::error::UserError as _;
use phial::host::Host;
use phial::image::{Image, Platform, RegistryRef};
use phial::registry::{Client, LoginUse, NetworkOptions, RegistryError, RetryPolicy};
use phial_layers::Digest;
use serde_json::json;

use super::nginx_front::NginxFront;
use super::sample_images::{chain, pushed};
use crate::harness::prebuilt::oras;
use crate::harness::{TestEnv, run as ran};

/// What is in the home: the login, in Docker's place.
fn login(home: &Path) {
    fs::create_dir_all(home.join(".docker")).unwrap();
    let config = json!({"auths": {"registry.example/team": {"auth": "dXNlcjpwYXNzd29yZA=="}}});
    fs::write(home.join(".docker/config.json"), config.to_string()).unwrap();
}

fn host(home: &Path, env: &[(&str, &str)]) -> Host {
    let env: BTreeMap<_, _> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Host { env, cwd: home.into(), home: home.into(), ..Host::read() }
}

fn client(front: &NginxFront, home: &Path, trusted: bool) -> Client {
    let ca_file = trusted.then(|| front.ca().into());
    let wishes = NetworkOptions { ca_file, ..NetworkOptions::default() };
    let client = Client::from_host(&host(home, &[("HTTPS_PROXY", &front.proxy())]), &wishes).unwrap();
    client.with_retry_policy(RetryPolicy { tries: 1, ..RetryPolicy::USUAL })
}

fn push(client: &Client, to: &str) -> Result<Image, RegistryError> {
    pushed(client, &to.parse().unwrap(), b"behind")
}

/// What skopeo, podman and oras say is there, each with the same login, CA and proxy.
fn read_by_others(front: &NginxFront, env: &TestEnv, name: &str, digest: &Digest) {
    let home = env.dir().join("home");
    let auth = env.path("auth.json");
    fs::write(&auth, json!({"auths": {"registry.example": {"auth": "dXNlcjpwYXNzd29yZA=="}}}).to_string()).unwrap();
    let certs = env.path("certs");
    fs::create_dir_all(&certs).unwrap();
    fs::copy(front.ca(), format!("{certs}/ca.crt")).unwrap();
    let tool = |program: &Path, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).env("HTTPS_PROXY", front.proxy()).env("HOME", &home).env("XDG_RUNTIME_DIR", &home);
        ran(command).ok()
    };
    let docker = format!("docker://{name}");
    let inspect = ["inspect", "--authfile", &auth, "--cert-dir", &certs, "--format", "{{.Digest}}", &docker];
    assert_eq!(tool("skopeo".as_ref(), &inspect), digest.as_str());
    let layout = format!("oci:{}:v1", env.path("copied"));
    tool("skopeo".as_ref(), &["copy", "--quiet", "--src-authfile", &auth, "--src-cert-dir", &certs, &docker, &layout]);
    let (root, state) = (env.path("root"), TestEnv::short_dir());
    let storage = ["--root", &root, "--runroot", state.path().to_str().unwrap(), "--storage-driver", "vfs"];
    let pull = ["pull", "--quiet", "--authfile", &auth, "--cert-dir", &certs, name];
    assert!(!tool("podman".as_ref(), &[&storage[..], &pull].concat()).is_empty());
    let fetch = ["manifest", "fetch", "--descriptor", "--registry-config", &auth, "--ca-file", &front.ca(), name];
    assert!(tool(&oras(), &fetch).contains(digest.as_str()));
}

#[test]
fn with_tls_and_a_password_others_read_what_we_push() {
    let front = NginxFront::with_htpasswd("");
    let env = TestEnv::with_empty_cache();
    let home = env.dir().join("home");
    login(&home);
    let name = "registry.example/team/app:v1";
    let error = push(&client(&front, &home, false), name).unwrap_err();
    assert!(chain(&error).contains("certificate") && error.hint().unwrap().contains("--ca-file"), "{}", chain(&error));
    assert_eq!(front.log(), "", "nothing is sent to a stranger");
    let client = client(&front, &home, true);
    let image = push(&client, name).unwrap();
    let reference: RegistryRef = name.parse().unwrap();
    assert_eq!(client.image(&reference, &Platform::host()).unwrap(), image);
    read_by_others(&front, &env, name, &image.manifest_digest);
    let error = push(&client, "registry.example/others/app:v1").unwrap_err();
    assert!(matches!(error, RegistryError::Denied { login: LoginUse::NotFound, .. }), "{}", chain(&error));
    assert!(front.led().iter().all(|to| to.starts_with("registry.example:443")), "{:?}", front.led());
}

#[test]
fn with_tls_and_a_token_server_of_another_name_too() {
    let front = NginxFront::with_tokens();
    let env = TestEnv::with_empty_cache();
    let home = env.dir().join("home");
    login(&home);
    let name = "registry.example/team/app:v1";
    let client = client(&front, &home, true);
    let image = push(&client, name).unwrap();
    let requests = front.tokens.as_ref().unwrap().requests();
    assert_eq!(requests.len(), 1, "one token is enough for a push");
    assert_eq!(requests[0].queries("scope"), ["repository:team/app:pull,push"]);
    assert!(!front.log().contains("dXNlcjpwYXNzd29yZA"));
    read_by_others(&front, &env, name, &image.manifest_digest);
    let output = ran(env.phial(["doctor", "--registry", name, "--ca-file", &front.ca()]).env_with(&front)).ok();
    for line in [
        "registry    `https://registry.example/`",
        "asks        a token from `https://auth.example/token`",
        "config.json`: user and password under the key `registry.example/team`",
        "pull        works",
        "push        works: an upload was begun and cancelled",
        "mount       works",
        "referrers   no: no API",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
    assert!(!output.contains("password`") && !output.contains("dXNlcjpwYXNzd29yZA"), "{output}");
    let output =
        ran(env.phial(["doctor", "--json", "--registry", name, "--ca-file", &front.ca()]).env_with(&front)).ok();
    let json: serde_json::Value = serde_json::from_str(&output).unwrap();
    let file = home.join(".docker/config.json").display().to_string();
    let found = json!({"place": file, "found": "login", "key": "registry.example/team", "helper": null, "kind": "user and password"});
    assert_eq!(json["looked"].as_array().unwrap().last(), Some(&found));
    assert!(json["looked"].as_array().unwrap().iter().rev().skip(1).all(|look| look["found"] == "absent"), "{json}");
    for (part, state) in
        [("login", "works"), ("pull", "works"), ("push", "works"), ("mount", "works"), ("referrers", "no")]
    {
        assert_eq!(json[part]["state"], state, "{json}");
    }
    assert_eq!((&json["registry"], &json["mirrors"]), (&json!("https://registry.example/"), &json!(null)));
}

#[test]
fn doctor_reports_what_fails_and_leaves_nothing_behind() {
    let front = NginxFront::with_htpasswd("");
    let env = TestEnv::new();
    let doctor = |args: &[&str]| {
        let args = [&["doctor", "--registry", "registry.example/team/new"][..], args].concat();
        ran(env.phial(args).env_with(&front))
    };
    let output = doctor(&["--ca-file", &front.ca()]);
    assert_eq!(output.code, Some(5), "{output:?}");
    assert!(
        output.stdout.contains("push        fails") && output.stdout.contains("anonymous access"),
        "{}",
        output.stdout
    );
    let output = doctor(&["--json", "--ca-file", &front.ca()]);
    let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((output.code, &json["push"]["state"], &json["push"]["exit"]), (Some(5), &json!("fails"), &json!(5)));
    assert!(json["push"]["hint"].as_str().unwrap().contains("docker login registry.example"), "{json}");
    login(&env.dir().join("home"));
    let output = doctor(&["--ca-file", &front.ca()]).ok();
    assert!(output.contains("push        works: an upload was begun and cancelled"), "{output}");
    assert!(output.contains("mount       unknown: not tried"), "{output}");
    assert!(output.contains(&format!("through the proxy `{}/` of `HTTPS_PROXY`", front.proxy())), "{output}");
    let log = front.log();
    let lines = |word: &str| log.lines().filter(|line| line.contains(word)).count();
    assert_eq!((lines("DELETE /v2/team/new/blobs/uploads/"), lines("PUT ")), (1, 0), "{log}");
    let gone = doctor(&["--authfile", "gone.json", "--ca-file", &front.ca()]);
    assert_eq!(gone.code, Some(5));
    assert!(gone.stdout.contains("gone.json`: there is no such file"), "{}", gone.stdout);
}

#[test]
fn a_client_certificate_and_a_ca_come_from_the_folder_of_their_host() {
    let front = NginxFront::with_htpasswd("ssl_client_certificate ca.pem; ssl_verify_client on;");
    let env = TestEnv::new();
    let home = env.dir().join("home");
    login(&home);
    let folder = |name: &str| {
        let folder = home.join(".config/containers/certs.d").join(name);
        fs::create_dir_all(&folder).unwrap();
        for (from, to) in [("ca.pem", "own.crt"), ("client.pem", "client.cert"), ("client.key", "client.key")] {
            fs::copy(front.path(from), folder.join(to)).unwrap();
        }
    };
    folder("registry.example:5000");
    let error = push(&client(&front, &home, true), "registry.example/team/app:v1").unwrap_err();
    assert!(chain(&error).contains("400"), "another port is another host: {}", chain(&error));
    folder("registry.example");
    let client = client(&front, &home, false);
    let image = push(&client, "registry.example/team/app:v1").unwrap();
    assert_eq!(
        client.head_manifest(&"registry.example/team/app:v1".parse().unwrap()).unwrap(),
        Some(image.manifest_digest)
    );
    fs::write(home.join(".config/containers/certs.d/registry.example/client.key"), "broken").unwrap();
    let args = ["doctor", "--registry", "registry.example/team/app"];
    assert!(ran(env.phial(args).env_with(&front)).failed(2).contains("client.cert`: it and its `.key` are no"));
}

#[test]
fn no_proxy_bypasses_the_proxy_whose_password_goes_to_it_alone() {
    let front = NginxFront::with_htpasswd("");
    let home = tempfile::tempdir().unwrap();
    let with_login = front.proxy().replace("//", "//pu:hunter2@");
    let wishes = NetworkOptions { ca_file: Some(front.ca().into()), ..NetworkOptions::default() };
    let make = |env: &[(&str, &str)]| {
        let client = Client::from_host(&host(home.path(), env), &wishes).unwrap();
        client.with_retry_policy(RetryPolicy { tries: 1, ..RetryPolicy::USUAL })
    };
    let name: RegistryRef = "registry.example/app".parse().unwrap();
    let denied = make(&[("ALL_PROXY", &with_login)]).resolve(&name).unwrap_err();
    assert!(matches!(denied, RegistryError::Denied { login: LoginUse::NotFound, .. }), "{}", chain(&denied));
    // `pu:hunter2` in base64.
    assert!(front.led().iter().all(|led| led == "registry.example:443 proxy-authorization: Basic cHU6aHVudGVyMg=="));
    let before = front.led().len();
    for except in ["registry.example", "example", ".example", "a.example, registry.example:443", "*"] {
        let error = make(&[("https_proxy", &with_login), ("NO_PROXY", except)]).resolve(&name).unwrap_err();
        assert!(matches!(error, RegistryError::Reach { .. }), "{except}: {}", chain(&error));
        assert!(!chain(&error).contains("hunter2"));
    }
    assert_eq!(front.led().len(), before);
    for other in ["registry.example:5000", ".registry.example", "gistry.example", "10.0.0.0/8"] {
        let error = make(&[("https_proxy", &with_login), ("NO_PROXY", other)]).resolve(&name).unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{other}: {}", chain(&error));
    }
}

/// A command with the proxy of a registry.
trait With {
    fn env_with(self, front: &NginxFront) -> Command;
}

impl With for Command {
    fn env_with(mut self, front: &NginxFront) -> Command {
        self.env("HTTPS_PROXY", front.proxy());
        self
    }
}

#[test]
fn plain_http_is_used_for_listed_hosts_only() {
    let registry = super::docker_registry::Registry::locked();
    let home = tempfile::tempdir().unwrap();
    login(home.path());
    // A proxy for plain http gets the whole URL, and every name leads to the registry.
    let proxy = format!("http://{}", registry.host);
    let make = |plain_http: &[&str]| {
        let plain_http = plain_http.iter().map(|name| (*name).to_owned()).collect();
        let wishes = NetworkOptions { plain_http, ..NetworkOptions::default() };
        let client = Client::from_host(&host(home.path(), &[("HTTP_PROXY", &proxy)]), &wishes).unwrap();
        client.with_retry_policy(RetryPolicy { tries: 1, ..RetryPolicy::USUAL })
    };
    let name = "registry.example/team/app:v1";
    for others in [&[][..], &["registry.example:5000"], &["example"], &["127.0.0.1"]] {
        let error = push(&make(others), name).unwrap_err();
        assert!(matches!(error, RegistryError::Reach { .. }), "{others:?}: {}", chain(&error));
        assert!(error.hint().unwrap().contains("--plain-http"), "{:?}", error.hint());
    }
    assert_eq!(registry.requests(0), [""; 0]);
    let client = make(&["registry.example"]);
    let image = push(&client, name).unwrap();
    assert_eq!(client.image(&name.parse().unwrap(), &Platform::host()).unwrap(), image);
    let requests = registry.requests(0);
    assert!(
        requests.iter().any(|line| line.starts_with("PUT ") && line.ends_with("/team/app/manifests/v1")),
        "{requests:?}"
    );
}

#[test]
fn a_failing_proxy_is_named_without_its_password() {
    use super::scripted::{Server, respond};
    let home = tempfile::tempdir().unwrap();
    let strict = Server::start(|_| respond(407).with("Proxy-Authenticate", "Basic realm=\"proxy\""));
    let broken = Server::start(|_| respond(502).body("no such host"));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (proxy, is_answered) in [(&strict.host, true), (&broken.host, true), (&nobody, false)] {
        let url = format!("http://pu:hunter2@{proxy}");
        let resolve = |name: &str, plain_http: &[String]| {
            let wishes = NetworkOptions { plain_http: plain_http.to_vec(), ..NetworkOptions::default() };
            let env = [("HTTPS_PROXY", url.as_str()), ("HTTP_PROXY", url.as_str())];
            let client = Client::from_host(&host(home.path(), &env), &wishes).unwrap();
            let client = client.with_retry_policy(RetryPolicy { tries: 1, ..RetryPolicy::USUAL });
            client.resolve(&name.parse().unwrap()).unwrap_err()
        };
        let error = resolve("registry.example/app:v1", &[]);
        let start = format!(
            "cannot reach the registry for `GET https://registry.example/v2/app/manifests/v1` through the proxy `http://{proxy}/` of `HTTPS_PROXY`: "
        );
        assert!(chain(&error).starts_with(&start) && !chain(&error).contains("hunter2"), "{}", chain(&error));
        assert!(error.hint().unwrap().contains("`NO_PROXY`"), "{:?}", error.hint());
        let error = resolve("registry.example/app:v1", &["registry.example".into()]);
        assert_eq!(matches!(error, RegistryError::Status { .. }), is_answered, "{}", chain(&error));
        assert!(error.hint().is_none_or(|hint| hint.contains("the proxy")));
    }
}
