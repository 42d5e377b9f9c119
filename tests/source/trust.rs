//! Whom a fetch believes, what it tells whom, and what is refused before anything is opened.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use phial::error::UserError as _;
use phial::event::discard;
use phial::host::Host;
use phial::source::{Access, GitHost, Location, SourceError, fetch};

use super::{CANARY, SourceTest, access, full_message, write};
use crate::harness::git_http::GitServer;

#[test]
fn what_is_no_revision_is_refused_before_any_connection() {
    let test = SourceTest::new();
    test.repo("shop");
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop/.git", server.url);
    let long = "x".repeat(1 << 20);
    for rev in [
        "",
        "-x",
        "--upload-pack=touch /tmp/x",
        "a..b",
        "HEAD@{1}",
        "@",
        "a b",
        "a\nb",
        "a\0b",
        "v1^{}",
        "HEAD~1",
        "a:b",
        "x.lock",
        "refs/heads/../x",
        &long,
        &"a".repeat(64),
    ] {
        let error = test.fetch(&url, rev).unwrap_err();
        assert_eq!(error.exit_kind().code(), 2, "{rev}");
        assert!(!full_message(&error).contains(char::is_control) && full_message(&error).len() < 2000, "{rev:?}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn what_is_no_source_is_refused_and_shows_no_user_information() {
    for location in [
        "",
        "-oProxyCommand=x",
        "--upload-pack=x",
        "ssh://-oX/y",
        "ssh://-x@host/y",
        "git@-host:y",
        "git@host:-y",
        "ext::sh -c x",
        "fd::3",
        "git://host/x",
        "ftp://host/x",
        "http://example.org/x",
        "http://127.0.0.1.example.org/x",
        "https:///x",
        "https://host",
        "https://host/",
        "https://ho st/x",
        "https://host/a b",
        "https://host/x\r\n",
        "https://host:99999/x",
        "file://host/x",
        "https://[::1/x",
        "https://a\\b/x",
    ] {
        let error = location.parse::<Location>().unwrap_err();
        assert_eq!((error.exit_kind().code(), error.hint().is_some()), (2, true), "{location}");
    }
    let error = format!("gopher://me:{CANARY}@host/x").parse::<Location>().unwrap_err();
    assert!(!full_message(&error).contains(CANARY), "{}", full_message(&error));
}

#[test]
fn a_location_shows_its_url_without_user_information() {
    for (text, shown) in [
        ("https://me:pw@Example.org:8443/a/b.git", "https://example.org:8443/a/b.git"),
        ("https://token@example.org/a", "https://example.org/a"),
        ("git@example.org:team/shop.git", "example.org:team/shop.git"),
        ("ssh://git@example.org:2222/a", "ssh://example.org:2222/a"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://localhost/a", "http://localhost/a"),
        ("./a:b", "./a:b"),
        ("dir/sub", "dir/sub"),
        ("file:///srv/x y", "/srv/x y"),
    ] {
        let location: Location = text.parse().unwrap();
        assert_eq!((location.to_string(), format!("{location:?}")), (shown.to_owned(), shown.to_owned()));
    }
}

#[test]
fn credentials_of_every_kind_open_a_private_server_and_are_never_shown() {
    let test = SourceTest::new();
    test.repo("shop");
    let (token, pair) = (base64("x-access-token"), base64("me"));
    let (by_token, by_name) =
        (GitServer::start_private(test.dir.path(), &token), GitServer::start_private(test.dir.path(), &pair));
    let home = test.path("home");
    write(
        &home,
        ".gitconfig",
        &format!(
            "[credential]\nhelper = \"!f() {{ test $1 = get && echo username=me && echo password={CANARY}; }}; f\"\n"
        ),
    );
    let (path, home) = (Host::read().var("PATH").unwrap().to_owned(), home.to_str().unwrap().to_owned());
    let asked = |server: &GitServer| format!("{}/shop/.git", server.url);
    let in_url = asked(&by_name).replace("http://", &format!("http://me:{CANARY}@"));
    let helper = [("PATH", path.as_str()), ("HOME", home.as_str())];
    let by_job = GitServer::start_private(test.dir.path(), &base64("gitlab-ci-token"));
    let good: [(_, _, &[_]); 5] = [
        ("token", asked(&by_token), &[("GIT_TOKEN", CANARY)]),
        ("token and name", asked(&by_name), &[("GIT_TOKEN", CANARY), ("GIT_USERNAME", "me")]),
        ("url", in_url, &[("GIT_TOKEN", "wrong")]),
        ("helper", asked(&by_name), &helper),
        ("job", asked(&by_job), &[("CI_JOB_TOKEN", CANARY), ("CI_SERVER_HOST", "127.0.0.1")]),
    ];
    for (kind, url, env) in &good {
        let fresh = SourceTest::new();
        let fetched = fresh.fetch_as(url, "main", env).map_err(|error| full_message(&error)).expect(kind);
        assert!(!format!("{fetched:?}").contains(CANARY), "{kind}");
        let mut files =
            walkdir::WalkDir::new(fresh.dir.path()).into_iter().flatten().filter(|e| e.file_type().is_file());
        assert!(!files.any(|file| String::from_utf8_lossy(&fs::read(file.path()).unwrap()).contains(CANARY)), "{kind}");
    }
    let wrong = format!("{CANARY}-wrong");
    let bad: [(&str, &[(&str, &str)]); 4] = [
        ("none were found", &[]),
        ("`GIT_TOKEN` refused", &[("GIT_TOKEN", &wrong), ("GITHUB_TOKEN", CANARY), ("CI_JOB_TOKEN", CANARY)]),
        (
            "`GIT_TOKEN`, `CI_JOB_TOKEN` refused",
            &[("GIT_TOKEN", &wrong), ("CI_JOB_TOKEN", &wrong), ("CI_SERVER_HOST", "127.0.0.1")],
        ),
        ("`GIT_TOKEN`, `git credential` refused", &[("GIT_TOKEN", &wrong), helper[0], helper[1]]),
    ];
    for (what, env) in bad {
        let fresh = SourceTest::new();
        let error = fresh.fetch_as(&asked(&by_token), "main", env).unwrap_err();
        assert_eq!(error.exit_kind().code(), 5, "{}", full_message(&error));
        assert!(
            full_message(&error).contains(what) && !full_message(&error).contains(CANARY),
            "{what}: {}",
            full_message(&error)
        );
    }
    assert!(!format!("{:?}", access(&[("GIT_TOKEN", CANARY)])).contains(CANARY));
}

fn base64(user: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{CANARY}")))
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_server() {
    let test = SourceTest::new();
    test.repo("shop");
    let thief = GitServer::start_private(test.dir.path(), "Basic none");
    for to in [thief.url.replace("127.0.0.1", "localhost"), thief.url.clone()] {
        for wanted in [None, Some(base64("me")), Some(base64("x-access-token"))] {
            let front = GitServer::start_redirect(&to, wanted.as_deref());
            let url = format!("{}/shop/.git", front.url.replace("http://", &format!("http://me:{CANARY}@")));
            let error = test.fetch_as(&url, "main", &[("GIT_TOKEN", CANARY)]).unwrap_err();
            assert!(!full_message(&error).contains(CANARY), "{}", full_message(&error));
            assert!(
                matches!(error, SourceError::Redirected { .. }) && error.exit_kind().code() == 5,
                "{}",
                full_message(&error)
            );
        }
    }
    let seen = thief.requests();
    assert!(!seen.is_empty() && seen.iter().all(|request| request.authorization.is_none()), "{seen:?}");
}

#[test]
fn a_redirect_to_an_open_repository_is_followed() {
    let test = SourceTest::new();
    test.repo("shop");
    let server = GitServer::start(test.dir.path());
    let front = GitServer::start_redirect(&server.url, None);
    let fetched = test.fetch(&format!("{}/shop/.git", front.url), "v1").unwrap();
    assert_eq!(test.tree(&fetched, "tree").len(), 4);
    assert!(server.requests().iter().any(|request| request.line.starts_with("POST ")));
}

#[test]
fn a_server_with_an_untrusted_certificate_is_refused() {
    let test = SourceTest::new();
    let (key, cert) = (test.path("key.pem"), test.path("cert.pem"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=127.0.0.1"]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]).arg(&key).arg("-out").arg(&cert);
    assert!(command.stderr(Stdio::null()).status().unwrap().success());
    let port = crate::harness::free_port();
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}"), "-key"]).arg(&key);
    let server =
        server.arg("-cert").arg(&cert).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut server = server.unwrap();
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let fetched = test.fetch_as(&format!("https://127.0.0.1:{port}/x"), "main", &[("GIT_TOKEN", CANARY)]);
    server.kill().unwrap();
    server.wait().unwrap();
    let error = fetched.unwrap_err();
    assert!(
        matches!(error, SourceError::Untrusted { .. }) && error.exit_kind().code() == 5,
        "{}",
        full_message(&error)
    );
    assert!(error.hint().unwrap().contains("SSL_CERT_FILE"), "{}", full_message(&error));
}

#[test]
fn a_server_that_the_caller_has_not_named_gets_no_credential_of_any_kind() {
    let test = SourceTest::new();
    test.repo("shop");
    let asked = test.path("asked");
    let home = test.path("home");
    let helper = format!(
        "[credential]\nhelper = \"!f() {{ touch {}; echo username=me; echo password={CANARY}; }}; f\"\n",
        asked.display()
    );
    write(&home, ".gitconfig", &helper);
    let path = Host::read().var("PATH").unwrap().to_owned();
    let env = [
        ("GIT_TOKEN", CANARY),
        ("CI_JOB_TOKEN", CANARY),
        ("CI_SERVER_HOST", "127.0.0.1"),
        ("PATH", &path),
        ("HOME", home.to_str().unwrap()),
    ];
    let server = GitServer::start_private(test.dir.path(), &base64("x-access-token"));
    let location: Location = format!("{}/shop/.git", server.url).parse().unwrap();
    let port = server.url.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let fetch_for = |named: &[String]| {
        let hosts: Vec<GitHost> = named.iter().map(|host| host.parse().unwrap()).collect();
        let access = Access::of(
            &Host { env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), ..Host::read() },
            &hosts,
        );
        fetch(&location, "main", &SourceTest::new().path("mirrors"), &access, &discard)
    };
    for named in
        [vec![], vec!["localhost".to_owned()], vec![format!("127.0.0.1:{}", port ^ 1), "example.org".to_owned()]]
    {
        let error = fetch_for(&named).unwrap_err();
        assert_eq!(error.exit_kind().code(), 5, "{}", full_message(&error));
        assert_eq!(error.hint().unwrap(), format!("if it may have them, say `--git-host 127.0.0.1:{port}`"));
    }
    assert!(server.requests().iter().all(|request| request.authorization.is_none()), "{:?}", server.requests());
    assert!(!asked.exists(), "a credential helper was asked");
    for named in ["127.0.0.1".to_owned(), format!("127.0.0.1:{port}")] {
        fetch_for(&[named]).map_err(|error| full_message(&error)).unwrap();
    }
}

#[test]
fn a_git_host_is_a_name_with_or_without_a_port() {
    for (text, is_good) in [
        ("git.example", true),
        ("GIT.example:8443", true),
        ("[::1]:80", true),
        ("", false),
        ("-x", false),
        ("https://git.example", false),
        ("git.example/team", false),
        ("me@git.example", false),
        ("git.example:port", false),
        ("*", false),
    ] {
        assert_eq!(text.parse::<GitHost>().is_ok(), is_good, "{text}");
    }
}
