//! Debian's `docker-registry` as companies have it: behind nginx with TLS from a CA of their own, with passwords or with a
//! token server, reached through a proxy. `registry.example` and `auth.example` are names that only that proxy knows.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::docker_registry::Registry;
use super::sample_images::run;
use super::scripted::{Request, Response, Server, respond};
use crate::harness::nginx::{Nginx, authority, certificate, openssl};

/// A registry, nginx before it, and a proxy that leads every name to nginx.
pub(super) struct NginxFront {
    nginx: Nginx,
    proxy: Proxy,
    _registry: Registry,
    /// The token server, if there is one.
    pub(super) tokens: Option<Server>,
}

impl NginxFront {
    /// For `user` with `password`.
    pub(super) fn with_htpasswd(more: &str) -> Self {
        let dir = certificates();
        Self::before(Registry::locked(), None, dir, more)
    }

    /// With a token server at `auth.example`, for the same user.
    pub(super) fn with_tokens() -> Self {
        let dir = certificates();
        let at = dir.path().to_path_buf();
        let tokens = Server::start(move |request| token(&at, request));
        let bundle = dir.path().join("tokens.pem");
        let registry = Registry::start(&format!(
            "auth: {{token: {{realm: 'https://auth.example/token', service: reg, issuer: phial, rootcertbundle: {}}}}}\n",
            bundle.display()
        ));
        Self::before(registry, Some(tokens), dir, "")
    }

    fn before(registry: Registry, tokens: Option<Server>, dir: TempDir, more: &str) -> Self {
        let nginx = Nginx::start(dir, |tls| {
            let auth = tokens.as_ref().map_or(String::new(), |tokens| {
                let to = format!("location / {{ proxy_pass http://{}; }}", tokens.host);
                format!("server {{ {tls} server_name auth.example; {to} }}\n")
            });
            format!(
                "server {{ {tls} server_name registry.example; {more}\n\
                 location / {{ proxy_pass http://{}; proxy_set_header Host $http_host;\n\
                 proxy_set_header X-Forwarded-Proto $scheme; proxy_request_buffering off; }} }}\n{auth}",
                registry.host
            )
        });
        Self { proxy: Proxy::start(nginx.port), nginx, _registry: registry, tokens }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.nginx.path(name)
    }

    /// The certificate of its CA.
    pub(super) fn ca(&self) -> String {
        self.path("ca.pem").display().to_string()
    }

    /// The proxy's URL.
    pub(super) fn proxy(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy.port)
    }

    /// Where the proxy was asked to lead to, with the proxy's login if one was sent.
    pub(super) fn led(&self) -> Vec<String> {
        self.proxy.led.lock().unwrap().clone()
    }

    /// The access log of nginx, a line for each request.
    pub(super) fn log(&self) -> String {
        self.nginx.log()
    }
}

/// A proxy that knows CONNECT alone, and one place for all names.
struct Proxy {
    port: u16,
    led: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let led = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&led);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || lead(client, to, &heard));
            }
        });
        Self { port, led }
    }
}

fn lead(mut client: TcpStream, to: u16, heard: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?;
    let login = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| format!("proxy-authorization:{value}"))
    });
    heard.lock().unwrap().push(format!("{target} {}", login.unwrap_or_default()).trim().to_owned());
    let mut server = TcpStream::connect(("127.0.0.1", to)).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    server.write_all(reader.buffer()).ok()?;
    let (mut from, mut back) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut from, &mut server);
    let _ = server.shutdown(std::net::Shutdown::Write);
    Some(())
}

/// A folder with a CA, a certificate of it for both names, one for a client, and one that signs tokens.
fn certificates() -> TempDir {
    let dir = authority();
    certificate(dir.path(), "server", "subjectAltName=DNS:registry.example,DNS:auth.example");
    certificate(dir.path(), "client", "extendedKeyUsage=clientAuth");
    let files = "-keyout tokens.key -out tokens.pem";
    openssl(dir.path(), &format!("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens {files}"));
    dir
}

/// What the token server gives: to the user what is asked for, to others nothing (distribution, `spec/auth/jwt.md`).
fn token(dir: &Path, request: &Request) -> Response {
    if request.header("authorization") != Some(&format!("Basic {}", STANDARD.encode("user:password"))) {
        return respond(401).body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#);
    }
    let scopes = request.queries("scope");
    let access: Vec<Value> = scopes
        .iter()
        .flat_map(|scope| scope.split(' '))
        .filter_map(|scope| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
        })
        .collect();
    let pem = fs::read_to_string(dir.join("tokens.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
    let now = phial::host::Host::read().unix_time();
    let body = json!({"iss": "phial", "sub": "user", "aud": "reg", "jti": "1", "iat": now, "nbf": now - 5, "exp": now + 60, "access": access});
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(body.to_string()));
    let (text, key, out) =
        (tempfile::NamedTempFile::new().unwrap(), dir.join("tokens.key"), tempfile::NamedTempFile::new().unwrap());
    fs::write(text.path(), &signed).unwrap();
    let show = |path: &Path| path.display().to_string();
    run("openssl", &["dgst", "-sha256", "-sign", &show(&key), "-out", &show(out.path()), &show(text.path())]);
    let signature = URL_SAFE_NO_PAD.encode(fs::read(out.path()).unwrap());
    respond(200).body(json!({"token": format!("{signed}.{signature}"), "expires_in": 60}).to_string())
}
