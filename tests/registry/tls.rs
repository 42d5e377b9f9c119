//! https: certificates are checked, and `SSL_CERT_FILE` names further ones.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use phial::host::Host;
use phial::image::{Descriptor, OCI_LAYER};
use phial::registry::{Client, Credentials};

use super::images::{chain, run};
use super::scripted::{Server, answer};

/// How the child finds the server that redirects to https.
const AT: &str = "PHIAL_TEST_REDIRECTS_TO_HTTPS";

struct Tls(Child);

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(host: &str) -> Result<Vec<u8>, String> {
    let repository = format!("{host}/app").parse().unwrap();
    let client = Client::new(Credentials::none()).map_err(|e| chain(&e))?;
    let blob = client.blob(&repository, &Descriptor::of(OCI_LAYER, b"hello"));
    let mut bytes = Vec::new();
    blob.map_err(|e| chain(&e))?.read_to_end(&mut bytes).map_err(|e| chain(&e))?;
    Ok(bytes)
}

#[test]
fn https_is_spoken_with_a_known_certificate_only() {
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
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
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
    for _ in 0..200 {
        if TcpStream::connect(&at).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let redirects = Server::start(move |_| answer(307).with("Location", format!("https://localhost:{port}/blob")));
    let start = Instant::now();
    let error = get(&redirects.host).unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    assert!(redirects.asked().len() == 1, "a certificate does not get better: {:?}", start.elapsed());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["registry::tls::a_child_trusts_the_named_certificate", "--exact", "--ignored"])
        .env("SSL_CERT_FILE", path("cert"))
        .env(AT, &redirects.host)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "started by the test above, with its environment"]
fn a_child_trusts_the_named_certificate() {
    assert_eq!(get(Host::read().var(AT).unwrap()).unwrap(), b"hello");
}
