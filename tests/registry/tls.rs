//! https: certificates are checked, and `SSL_CERT_FILE` and `SSL_CERT_DIR` name other ones than the system's.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use phial::error::UserError as _;
use phial::host::Host;
use phial::image::{Descriptor, OCI_LAYER};
use phial::registry::{Client, NetworkOptions, RegistryError};

use super::sample_images::{chain, run};
use super::scripted::{Server, respond};

struct Tls(Child);

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(host: &str, env: &[(&str, &str)]) -> Result<Vec<u8>, RegistryError> {
    let repository = format!("{host}/app").parse().unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let host = Host { env, home: "/nonexistent".into(), ..Host::read() };
    let client = Client::from_host(&host, &NetworkOptions::default())?;
    let mut bytes = Vec::new();
    client.blob(&repository, &Descriptor::of(OCI_LAYER, b"hello"))?.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

#[test]
fn https_needs_a_trusted_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    run(
        "openssl",
        &[
            &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"][..],
            &["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
            &["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &path("key"), "-out", &path("cert")],
        ]
        .concat(),
    );
    fs::write(path("blob"), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").unwrap();
    let port = crate::harness::free_port();
    let at = format!("127.0.0.1:{port}");
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-HTTP", "-accept", &at, "-cert", &path("cert"), "-key", &path("key")])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Tls(server);
    for _ in 0..3000 {
        if TcpStream::connect(&at).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let redirects = Server::start(move |_| respond(307).with("Location", format!("https://localhost:{port}/blob")));
    let error = get(&redirects.host, &[]).unwrap_err();
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));
    assert_eq!(redirects.requests().len(), 1, "a certificate does not get better");
    fs::create_dir(path("dir")).unwrap();
    let wrong = |name: &str, value: &str, expected: &str| {
        let error = get(&redirects.host, &[(name, value)]).unwrap_err();
        assert_eq!(
            (error.exit_kind().code(), error.to_string()),
            (2, format!("cannot use `{value}` of `{name}`: {expected}"))
        );
    };
    wrong("SSL_CERT_FILE", &path("gone"), "No such file or directory (os error 2)");
    wrong("SSL_CERT_FILE", &path("blob"), "it has no certificate in PEM form");
    wrong("SSL_CERT_DIR", &path("dir"), "no file there is a certificate in PEM form");
    wrong("SSL_CERT_DIR", &path("gone"), "no file there is a certificate in PEM form");
    fs::copy(path("cert"), path("dir/own.pem")).unwrap();
    let odd = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    fs::write(path("odd"), odd).unwrap();
    wrong("SSL_CERT_FILE", &path("odd"), "it has no certificate in PEM form");
    fs::write(path("bundle"), [odd.as_bytes(), &fs::read(path("cert")).unwrap()].concat()).unwrap();
    fs::copy(path("blob"), path("dir/other")).unwrap();
    let dirs = format!("{}:{}", path("gone"), path("dir"));
    for (name, value) in [("SSL_CERT_FILE", path("cert")), ("SSL_CERT_FILE", path("bundle")), ("SSL_CERT_DIR", dirs)] {
        assert_eq!(get(&redirects.host, &[(name, &value)]).map_err(|error| chain(&error)).unwrap(), b"hello", "{name}");
    }
}
