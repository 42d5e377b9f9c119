//! Bearer tokens: who gets credentials, for which scopes, how often.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use phial::error::UserError as _;
use phial::host::Host;
use phial::registry::{Client, LoginUse, NetworkOptions, RegistryError};
use serde_json::{Value, json};

use super::sample_images::chain;
use super::scripted::{Request, Response, Server, respond};

const MANIFEST: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

fn client(auths: &Value) -> Client {
    client_naming(&[], auths)
}

/// A client for which the token server is named by `--plain-http`.
fn client_of(tokens: &Server, auths: &Value) -> Client {
    client_naming(&[tokens], auths)
}

fn client_naming(named: &[&Server], auths: &Value) -> Client {
    let env = BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), json!({"auths": auths}).to_string())]);
    let home = Path::new("/nonexistent");
    let host = Host {
        env,
        cwd: home.into(),
        home: home.into(),
        clock: phial::host::Clock::read(),
        uid: 4242,
        gid: 4242,
        cores: NonZeroUsize::MIN,
    };
    let plain_http = named.iter().map(|server| server.host.clone()).collect();
    Client::from_host(&host, &NetworkOptions { plain_http, ..NetworkOptions::default() }).unwrap()
}

fn token(text: &str) -> Response {
    respond(200).body(json!({"token": text, "expires_in": 300}).to_string())
}

fn challenge(realm: &str, more: &str) -> Response {
    respond(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"reg\"{more}"))
}

/// A registry that wants `Bearer good` from the token server at `realm`.
fn registry(realm: String) -> Server {
    Server::start(move |request| {
        if request.headers.get("authorization").is_some_and(|value| value == "Bearer good") {
            respond(200).body(MANIFEST)
        } else {
            challenge(&realm, ",scope=\"repository:else:*\"")
        }
    })
}

fn user(server: &Server) -> Value {
    json!({&server.host: {"username": "user", "password": "hunter2"}})
}

const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

#[test]
fn a_token_is_requested_once_with_our_scope_and_the_password_goes_nowhere_else() {
    let tokens = Server::start(|_| token("good"));
    let server = registry(format!("http://{}/token?x=1", tokens.host));
    let client = client_of(&tokens, &user(&server));
    for _ in 0..3 {
        client.resolve(&server.reference("team/app:v1")).unwrap();
    }
    let requests = tokens.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].path, "/token?x=1&service=reg&scope=repository%3Ateam%2Fapp%3Apull");
    assert_eq!(requests[0].headers["authorization"], BASIC);
    assert_eq!(server.requests().len(), 4, "the first request learns what the registry wants");
    assert!(
        server.requests().iter().all(|request| request.headers.get("authorization").is_none_or(|value| value != BASIC))
    );
    client.resolve(&server.reference("team/web:v1")).unwrap();
    assert_eq!(tokens.requests().len(), 2, "another repository is another scope");
}

#[test]
fn anyone_may_ask_without_credentials_and_an_identity_token_is_posted() {
    let tokens = Server::start(|request| {
        if request.method == "POST" { token("good") } else { respond(200).body(r#"{"access_token":"good"}"#) }
    });
    let server = registry(format!("http://{}/token", tokens.host));
    client_of(&tokens, &json!({})).resolve(&server.reference("app")).unwrap();
    assert!(!tokens.requests()[0].headers.contains_key("authorization"));
    client_of(&tokens, &json!({&server.host: {"identitytoken": "id&t"}})).resolve(&server.reference("app")).unwrap();
    let post = &tokens.requests()[1];
    assert_eq!(post.method, "POST");
    let body = String::from_utf8(post.body.clone()).unwrap();
    assert_eq!(
        body,
        "grant_type=refresh_token&service=reg&client_id=phial&scope=repository%3Aapp%3Apull&refresh_token=id%26t"
    );
}

#[test]
fn a_registry_that_rejects_every_token_gets_two_and_no_more() {
    let tokens = Server::start(|_| token("bad"));
    let server = registry(format!("http://{}/token", tokens.host));
    let error = client_of(&tokens, &user(&server)).resolve(&server.reference("app")).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { login: LoginUse::Used, .. }), "{}", chain(&error));
    assert_eq!((tokens.requests().len(), error.exit_kind().code()), (2, 5));
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[test]
fn a_token_with_too_little_scope_is_requested_again_with_the_scope_of_the_challenge() {
    let tokens = Server::start(|request| token(if request.path.contains("other") { "good" } else { "small" }));
    let realm = format!("http://{}/token", tokens.host);
    let server = Server::start(move |request| match request.headers.get("authorization").map(String::as_str) {
        Some("Bearer good") => respond(200).body(MANIFEST),
        Some(_) => challenge(&realm, ",scope=\"repository:other:pull\",error=\"insufficient_scope\""),
        None => challenge(&realm, ""),
    });
    client_of(&tokens, &json!({})).resolve(&server.reference("app")).unwrap();
    assert_eq!(tokens.requests().len(), 2);
}

#[test]
fn no_credentials_go_to_a_token_server_that_must_not_have_them() {
    for realm in ["http://169.254.169.254/latest", "http://registry.invalid/token", "file:///etc/passwd", "/token", ""]
    {
        let server = registry(realm.into());
        let error = client(&user(&server)).resolve(&server.reference("app")).unwrap_err();
        assert!(matches!(error, RegistryError::Realm { .. }), "{realm}: {}", chain(&error));
        assert_eq!(error.exit_kind().code(), 5);
    }
    let elsewhere = Server::start(|_| token("good"));
    let to = format!("http://{}/token", elsewhere.host);
    let tokens = Server::start(move |_| respond(307).with("Location", to.clone()));
    let server = registry(format!("http://{}/token", tokens.host));
    client_naming(&[&tokens, &elsewhere], &user(&server)).resolve(&server.reference("app")).unwrap();
    assert!(!elsewhere.requests()[0].headers.contains_key("authorization"), "the redirect leaves the password behind");
    let tokens = Server::start(|_| respond(302).with("Location", "http://10.0.0.1/token"));
    let server = registry(format!("http://{}/token", tokens.host));
    let error = client_of(&tokens, &user(&server)).resolve(&server.reference("app")).unwrap_err();
    assert!(matches!(error, RegistryError::Realm { .. }), "{}", chain(&error));
    // Another port of the registry's host is another program: it gets nothing, unless the caller names it.
    let tokens = Server::start(|_| token("good"));
    let server = registry(format!("http://{}/token", tokens.host));
    let error = client(&user(&server)).resolve(&server.reference("app")).unwrap_err();
    assert!(matches!(error, RegistryError::Realm { .. }), "{}", chain(&error));
    assert!(tokens.requests().is_empty(), "{:?}", tokens.requests().len());
}

#[test]
fn an_odd_answer_of_a_token_server_is_an_error_with_its_reason() {
    let huge = format!(r#"{{"token":"{}"}}"#, "x".repeat(2 << 20));
    for (reply, expected) in [
        (respond(200).body("<html>"), "is not JSON with a token"),
        (respond(200).body("[]"), "is not JSON with a token"),
        (respond(200).body("{}"), "neither"),
        (respond(200).body(r#"{"token":""}"#), "neither"),
        (respond(200).body(huge), "more than 1048576 bytes"),
        (respond(404).body("nothing here"), "404 nothing here"),
        (
            respond(401).body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#),
            "UNAUTHORIZED wrong password",
        ),
    ] {
        let tokens = Server::start(move |_| reply.clone());
        let server = registry(format!("http://{}/token", tokens.host));
        let error = client_of(&tokens, &user(&server)).resolve(&server.reference("app")).unwrap_err();
        assert!(chain(&error).contains(expected), "{expected}: {}", chain(&error));
    }
    for life in ["0", "-1", "1e12", "null"] {
        let body = format!(r#"{{"token":"good","expires_in":{life}}}"#);
        let tokens = Server::start(move |_| respond(200).body(body.clone()));
        let server = registry(format!("http://{}/token", tokens.host));
        client_of(&tokens, &user(&server)).resolve(&server.reference("app")).unwrap();
    }
}

#[test]
fn a_401_that_asks_for_nothing_is_explained_at_the_root() {
    let tokens = Server::start(|_| token("good"));
    let realm = format!("http://{}/token", tokens.host);
    let server =
        Server::start(move |request: &Request| match request.headers.get("authorization").map(String::as_str) {
            Some("Bearer good") => respond(200).body(MANIFEST),
            _ if request.path == "/v2/" => challenge(&realm, ""),
            _ => respond(401),
        });
    client_of(&tokens, &json!({})).resolve(&server.reference("app")).unwrap();
    let mute = Server::start(|_| respond(401));
    let error = client_of(&tokens, &json!({})).resolve(&mute.reference("app")).unwrap_err();
    assert!(matches!(error, RegistryError::Challenge { .. }), "{}", chain(&error));
}

#[test]
fn an_expired_token_is_renewed_midway() {
    let made = AtomicUsize::new(0);
    let tokens = Server::start(move |_| token(&format!("t{}", made.fetch_add(1, Ordering::Relaxed))));
    let realm = format!("http://{}/token", tokens.host);
    let done = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let wanted = if done.load(Ordering::Relaxed) == 0 { "Bearer t0" } else { "Bearer t1" };
        if request.headers.get("authorization").is_some_and(|value| value == wanted) {
            done.fetch_add(1, Ordering::Relaxed);
            return respond(200).body(MANIFEST);
        }
        challenge(&realm, ",error=\"invalid_token\"")
    });
    let client = client_of(&tokens, &json!({}));
    client.resolve(&server.reference("app")).unwrap();
    client.resolve(&server.reference("app")).unwrap();
    assert_eq!(tokens.requests().len(), 2);
}

#[test]
fn a_token_server_that_knows_no_exchange_is_asked_with_the_password_beside_the_token() {
    for status in [404, 405] {
        let tokens =
            Server::start(move |request| if request.method == "POST" { respond(status) } else { token("good") });
        let server = registry(format!("http://{}/token", tokens.host));
        let login = json!({&server.host: {"auth": "dXNlcjpodW50ZXIy", "identitytoken": "idt"}});
        client_of(&tokens, &login).resolve(&server.reference("app")).unwrap();
        let requests = tokens.requests();
        assert_eq!((requests.len(), requests[1].method.as_str()), (2, "GET"));
        assert_eq!(requests[1].headers["authorization"], BASIC);
    }
}

#[test]
fn a_token_to_push_is_used_to_pull() {
    let tokens = Server::start(|_| token("good"));
    let server = registry(format!("http://{}/token", tokens.host));
    let client = client_of(&tokens, &json!({}));
    let name = server.reference("app:v1");
    client.resolve(&name).unwrap();
    // The double knows no uploads: what counts is which token was asked for.
    let _ = client.probe_push(&name);
    let scopes = |request: &Request| request.queries("scope");
    let requests = tokens.requests();
    assert_eq!(scopes(&requests[1]), ["repository:app:pull,push"]);
    client.resolve(&server.reference("app:v2")).unwrap();
    assert_eq!(tokens.requests().len(), 2);
    client.resolve(&server.reference("app/deep:v2")).unwrap();
    assert_eq!(tokens.requests().len(), 3, "another repository is another scope");
}
