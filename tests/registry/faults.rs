//! Registries that answer oddly: redirects, wrong bytes, stale sessions, transient errors.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use phial::error::UserError as _;
use phial::event::{Event, discard};
use phial::image::{BlobError, BlobReader, Descriptor, Image, OCI_LAYER, OCI_MANIFEST};
use phial::registry::{Client, Credentials, Push, Pushed, RegistryError};
use phial_layers::Digest;

use super::sample_images::{BlobMap, chain, two_layers};
use super::scripted::{
    Fault, Kind, Quirks, Registry, Request, Response, Server, When, quick_retries, quick_timeouts, respond,
};
use crate::harness::{TestEnv, run};

pub(super) fn client() -> Client {
    Client::new(Credentials::none()).unwrap().with_retry_policy(quick_retries())
}

pub(super) fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(OCI_LAYER, bytes)
}

pub(super) fn read(server: &Server, descriptor: &Descriptor) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut blob = client().blob(&server.reference("app"), descriptor).map_err(|e| chain(&e))?;
    blob.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

#[test]
fn a_blob_is_followed_to_another_host_without_the_password() {
    let store = Server::start(|_| respond(200).body("hello"));
    let to = format!("http://{}/bucket?X-Signature=secret", store.host);
    let server = Server::start(move |request| match request.headers.get("authorization") {
        Some(_) => respond(307).with("Location", to.clone()),
        None => respond(401).with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let auths = serde_json::json!({"auths": {&server.host: {"username": "u", "password": "p"}}});
    let mut host = phial::host::Host::read();
    host.env = std::collections::BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), auths.to_string())]);
    host.home = "/nonexistent".into();
    let client = Client::new(Credentials::from_host(&host)).unwrap();
    let mut bytes = Vec::new();
    client.blob(&server.reference("app"), &layer(b"hello")).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"hello");
    assert!(!store.requests()[0].headers.contains_key("authorization"));
    assert_eq!(store.requests()[0].headers["accept-encoding"], "identity");
}

#[test]
fn loops_and_unsafe_redirects_are_refused() {
    for (location, expected) in [
        ("/v2/loop", "more than 5 redirects"),
        ("http://registry.invalid/x", "plain http is for loopback and hosts named"),
        ("ftp://127.0.0.1/x", "neither http nor https"),
        ("", "names no new place"),
    ] {
        let server = Server::start(move |_| respond(302).with("Location", location));
        let error = read(&server, &layer(b"hello")).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(server.requests().len() <= 6);
    }
}

#[test]
fn a_blob_with_the_wrong_bytes_is_refused() {
    type Reply = fn() -> Response;
    let rows: [(Reply, &str); 6] = [
        (|| respond(200).body("hellO"), "the bytes are `sha256:"),
        (|| respond(200).body("hell"), "ends after 4 of 5"),
        (|| respond(200).body("hello!"), "more than the 5"),
        (|| respond(200).with("Content-Length", "9").body("hell"), "broke off"),
        (|| respond(200).with("Content-Encoding", "gzip").body("hello"), "Content-Encoding"),
        (|| respond(404), "is not in the registry"),
    ];
    for (reply, expected) in rows {
        let server = Server::start(move |_| reply());
        let error = read(&server, &layer(b"hello")).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_manifest_with_the_wrong_bytes_is_refused() {
    let good = r#"{"schemaVersion":2,"manifests":[]}"#;
    let other = Digest::of(b"other");
    let digest = other.to_string();
    let long = format!("{}{}", good, " ".repeat(9 << 20));
    let rows = [
        (respond(200).body(good).with("Docker-Content-Digest", digest), "v1", "does not match its digest"),
        (respond(200).body(good).with("Content-Type", OCI_MANIFEST), "v1", "was announced as"),
        (respond(200).body("<html>").with("Content-Type", "text/html; charset=utf-8"), "v1", "an HTML page"),
        (respond(200).body(long), "v1", "more than 8388608 bytes"),
        (respond(200).body("{}"), "v1", "schema version none"),
        (respond(400).body("\u{1b}[31mred\u{202e}"), "v1", "returned status 400: \\u{1b}[31mred\\u{202e}"),
    ];
    for (reply, tag, expected) in rows {
        let server = Server::start(move |_| reply.clone());
        let error = client().resolve(&server.reference(&format!("app:{tag}"))).unwrap_err();
        assert!(chain(&error).contains(expected), "{expected}: {}", chain(&error));
    }
    let server = Server::start(move |_| respond(200).body(good));
    let error = client().resolve(&server.reference(&format!("app@{other}"))).unwrap_err();
    assert!(matches!(error, RegistryError::Blob { source: BlobError::Digest { .. }, .. }), "{}", chain(&error));
    let server = Server::start(|_| respond(400).body("x".repeat(100_000)));
    let error = client().resolve(&server.reference("app")).unwrap_err().to_string();
    assert!(error.len() < 700, "{}", error.len());
}

#[test]
fn a_transient_error_is_retried_and_a_lasting_one_is_reported() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => respond(429).with("Retry-After", "0"),
        1 => respond(503),
        _ => respond(200).body(r#"{"schemaVersion":2,"manifests":[]}"#),
    });
    client().resolve(&server.reference("app")).unwrap();
    assert_eq!(server.requests().len(), 3);
    let server = Server::start(|_| respond(500).body("out of order").with("Retry-After", "0"));
    let error = client().resolve(&server.reference("app")).unwrap_err();
    assert_eq!((error.exit_kind().code(), server.requests().len()), (4, 5));
    assert!(error.to_string().contains("out of order"));
    let server = Server::start(|_| respond(429).with("Retry-After", "86400"));
    let error = client().resolve(&server.reference("app")).unwrap_err();
    assert_eq!(server.requests().len(), 1, "a day is not waited for: {error}");
    let error = client().resolve(&Server::start(|_| respond(429)).reference("app")).unwrap_err();
    assert!(error.hint().unwrap().contains("a mirror of it in `registries.conf`"), "{:?}", error.hint());
}

#[test]
fn a_stalled_connection_is_closed_and_retried() {
    let registry = Registry::open(Quirks::none());
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, &(0..=255).collect::<Vec<u8>>().repeat(40_000));
    let client = client().with_retry_policy(quick_timeouts());
    let open = |d: &Digest| blob_map.open(d);
    let tags = ["v1".to_owned()];
    let push = Push { image: &image, blobs: &open, base: None, tags: &tags };
    for kind in [Kind::HeadTag, Kind::PutBlob, Kind::PutTag, Kind::GetTag] {
        registry.fail(kind, When::Nth(1), Fault::Stall);
    }
    client.push(&registry.reference("app"), &push, &discard).unwrap();
    assert_eq!(client.resolve(&registry.reference("app:v1")).unwrap().digest, image.manifest_digest);
    registry.fail(Kind::GetTag, When::Always, Fault::Stall);
    let error = client.resolve(&registry.reference("app:v1")).unwrap_err();
    assert_eq!(error.exit_kind().code(), 4);
    assert!(error.to_string().contains("timed out"), "{error}");
}

#[test]
fn retry_after_is_read_as_seconds_or_a_date() {
    for (wish, tries) in [
        ("0", 5),
        ("Thu, 26 Nov 2026 12:00:00 GMT", 5), // past, by the registry's own clock
        ("Thu, 26 Nov 2026 14:00:00 GMT", 1), // an hour, which is not waited for
        ("soon", 5),
    ] {
        let server = Server::start(move |_| {
            respond(503).with("Retry-After", wish).with("Date", "Thu, 26 Nov 2026 13:00:00 GMT")
        });
        let error = client().resolve(&server.reference("app")).unwrap_err();
        assert_eq!((server.requests().len(), error.exit_kind().code()), (tries, 4), "{wish}");
        let hint = error.hint().unwrap_or_default();
        assert_eq!(hint.contains("wait 3600 seconds"), tries == 1, "{wish}: {hint}");
    }
}

#[test]
fn a_registry_without_head_is_asked_by_get() {
    let body = r#"{"schemaVersion":2,"manifests":[]}"#;
    for head in [respond(405), respond(200), respond(501)] {
        let server =
            Server::start(move |request| if request.method == "HEAD" { head.clone() } else { respond(200).body(body) });
        assert_eq!(client().head_manifest(&server.reference("app")).unwrap(), Some(Digest::of(body.as_bytes())));
    }
}

/// A registry that has nothing and takes everything, with `location` for its uploads.
fn taker(location: &'static str) -> Server {
    Server::start(move |request| match request.method.as_str() {
        "POST" => respond(202).with("Location", location),
        "PUT" => respond(201),
        _ => respond(404),
    })
}

fn push_hello(server: &Server) -> Result<Pushed, RegistryError> {
    let open = |_: &Digest| Ok(Some(Box::new(&b"hello"[..]) as BlobReader));
    client().push_blob(&server.reference("team/app"), &layer(b"hello"), &open, &[])
}

#[test]
fn a_location_is_resolved_wherever_it_stands() {
    let own = format!("digest=sha256%3A{}", Digest::of(b"hello").hex());
    for (location, expected) in [
        ("/artifacts-uploads/x", format!("/artifacts-uploads/x?{own}")),
        ("?_state=a%2Fb", format!("/v2/team/app/blobs/uploads/?_state=a%2Fb&{own}")),
        ("abc", format!("/v2/team/app/blobs/uploads/abc?{own}")),
        ("/u?digest=sha256:0&z=1", format!("/u?z=1&{own}")),
    ] {
        let server = taker(location);
        assert_eq!(push_hello(&server).unwrap(), Pushed::Uploaded);
        let put = server.requests().into_iter().find(|request| request.method == "PUT").unwrap();
        assert_eq!(put.path, expected);
        assert_eq!(put.body, b"hello");
        assert_eq!(put.headers["content-length"], "5");
    }
    for location in ["http://registry.invalid/u", "ftp://127.0.0.1/u", "http://127.0.0.2:9/u", ""] {
        let server = taker(location);
        let error = push_hello(&server).unwrap_err();
        assert!(matches!(error, RegistryError::Redirect { .. }), "{location}: {}", chain(&error));
        assert_eq!(server.count("PUT", ""), 0);
    }
}

#[test]
fn a_dead_upload_session_is_restarted_a_few_times() {
    let count = AtomicUsize::new(0);
    let gone = r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"gone"}]}"#;
    let server = Server::start(move |request| match request.method.as_str() {
        "POST" => respond(202).with("Location", "/u"),
        "PUT" if count.fetch_add(1, Ordering::Relaxed) == 0 => respond(404).body(gone),
        "PUT" => respond(201),
        _ => respond(404),
    });
    assert_eq!(push_hello(&server).unwrap(), Pushed::Uploaded);
    assert_eq!((server.count("POST", ""), server.count("PUT", "")), (2, 2));
    let server = Server::start(move |request| match request.method.as_str() {
        "POST" => respond(202).with("Location", "/u"),
        _ => respond(404).body(gone),
    });
    let error = push_hello(&server).unwrap_err();
    assert!(error.to_string().contains("BLOB_UPLOAD_UNKNOWN"), "{error}");
    assert_eq!(server.count("PUT", ""), 3);
}

#[test]
fn the_blob_arrives_whatever_the_answer_to_a_mount() {
    for status in [202, 400, 401, 403, 404, 405, 500, 201] {
        let server = Server::start(move |request| match request.method.as_str() {
            "POST" if request.path.contains("mount=") => respond(status).with("Location", "/u"),
            "POST" => respond(202).with("Location", "/u"),
            "PUT" => respond(201),
            _ => respond(404), // so a 201 for the mount is a lie
        });
        let open = |_: &Digest| Ok(Some(Box::new(&b"hello"[..]) as BlobReader));
        let pushed = client().push_blob(&server.reference("app"), &layer(b"hello"), &open, &["base"]);
        assert_eq!(pushed.unwrap(), Pushed::Uploaded, "{status}");
        let begun = if status == 202 { 1 } else { 2 };
        assert_eq!(server.count("POST", ""), begun, "{status}: a session that is open is used");
        assert!(server.requests().iter().any(|request| request.path.contains("from=base")));
    }
}

pub(super) fn push(server: &Server, image: &Image, blob_map: &BlobMap) -> Result<(), RegistryError> {
    let open = |d: &Digest| blob_map.open(d);
    let tags = ["v1".to_owned()];
    client().push(&server.reference("app"), &Push { image, blobs: &open, base: None, tags: &tags }, &discard).map(drop)
}

/// Has all blobs and the manifest, and reports `reported` for the tag.
fn with_tag(image: &Image, reported: Option<Digest>, put: Response) -> Server {
    let digest = image.manifest_digest.to_string();
    Server::start(move |request: &Request| match request.method.as_str() {
        "HEAD" if request.path.ends_with("/v1") => match &reported {
            Some(digest) => respond(200).with("Docker-Content-Digest", digest.to_string()),
            None => respond(404),
        },
        "HEAD" => respond(200).with("Docker-Content-Digest", digest.clone()),
        "PUT" => put.clone(),
        _ => respond(404),
    })
}

#[test]
fn an_immutable_tag_is_a_refusal_and_a_tag_that_did_not_move_is_noticed() {
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let other = Some(Digest::of(b"other"));
    let ecr = r#"{"errors":[{"code":"ImageTagAlreadyExistsException","message":"tag invalid: it already exists"}]}"#;
    let error = push(&with_tag(&image, other.clone(), respond(400).body(ecr)), &image, &blob_map).unwrap_err();
    assert!(matches!(error, RegistryError::Immutable { .. }), "{}", chain(&error));
    let server = with_tag(&image, other, respond(201));
    let error = push(&server, &image, &blob_map).unwrap_err();
    assert!(matches!(error, RegistryError::Verify { .. }), "{}", chain(&error));
    let same = with_tag(&image, Some(image.manifest_digest.clone()), respond(400).body(ecr));
    push(&same, &image, &blob_map).unwrap();
    assert_eq!(same.count("PUT", ""), 0);
}

#[test]
fn a_repository_that_must_be_created_first_gets_a_hint() {
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, b"one");
    let text = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}"#;
    let server = Server::start(move |_| respond(404).body(text));
    let error = push(&server, &image, &blob_map).unwrap_err();
    assert!(error.to_string().contains("NAME_UNKNOWN no such repository"), "{}", chain(&error));
    assert!(error.hint().unwrap().contains("create the repository"));
}

#[test]
fn a_closed_port_is_a_network_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    drop(listener);
    let error = client().resolve(&format!("{host}/app").parse().unwrap()).unwrap_err();
    assert_eq!(error.exit_kind().code(), 4);
    assert!(chain(&error).contains("Connection refused"), "{}", chain(&error));
}

#[test]
fn a_warning_is_passed_on_once_and_cannot_move_the_cursor() {
    let index = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let server = Server::start(move |request| {
        let nth = if request.path.ends_with("/b") { "\u{9b}2J\u{202e}second" } else { "this \\\"registry\\\" moves" };
        respond(200).with("Warning", format!("299 - \"{nth}\"")).body(index)
    });
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let to = Arc::clone(&heard);
    let client = client().with_notices(move |event| match event {
        Event::Notice { text } => to.lock().unwrap().push(text),
        other => panic!("{other:?}"),
    });
    for tag in ["a", "a", "b", "a", "b"] {
        client.resolve(&server.reference(&format!("app:{tag}"))).unwrap();
    }
    let host = &server.host;
    let expected =
        [r#"this "registry" moves"#, r"\u{9b}2J\u{202e}second"].map(|text| format!("`{host}` warns: {text}"));
    assert_eq!(*heard.lock().unwrap(), expected);
    // The mouth says it as it says other notices.
    let env = TestEnv::new();
    let output = run(env.phial(["doctor", "--registry", &format!("{host}/app:a")]));
    assert_eq!(output.stderr.matches(&format!("note: {}\n", expected[0])).count(), 1, "{}", output.stderr);
}

#[test]
fn headers_without_end_are_an_error() {
    type Bomb = fn() -> Response;
    let bombs: [Bomb; 2] = [
        || (0..20_000).fold(respond(200), |reply, nth| reply.with(&format!("X-{nth}"), "x")).body("{}"),
        || respond(200).with("X-Long", "x".repeat(8 << 20)).body("{}"),
    ];
    for bomb in bombs {
        let server = Server::start(move |_| bomb());
        let error = client().resolve(&server.reference("app")).unwrap_err();
        assert_eq!(error.exit_kind().code(), 4, "{}", chain(&error));
    }
}
