//! Debian's nginx with TLS by a CA of its own, on a free port of loopback, stopped when it is dropped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{free_port, run};

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// nginx, and the folder with its certificates and logs.
pub(crate) struct Nginx {
    child: Child,
    dir: TempDir,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Nginx {
    /// Starts it in a folder that has `server.pem` and `server.key`. `servers` are the `server` blocks of its configuration, each to begin
    /// with the text that is given: the port and the certificate.
    #[track_caller]
    pub(crate) fn start(dir: TempDir, servers: impl FnOnce(&str) -> String) -> Self {
        let at = dir.path().display().to_string();
        let port = free_port();
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .concat();
        let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
        let tls = format!(
            "listen 127.0.0.1:{port} ssl; ssl_certificate {at}/server.pem; ssl_certificate_key {at}/server.key;"
        );
        let config = format!(
            "{user}daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\nevents {{}}\nhttp {{\n{temp}\
             access_log {at}/access.log; client_max_body_size 0;\n{}}}\n",
            servers(&tls)
        );
        fs::write(dir.path().join("nginx.conf"), config).expect("nginx.conf");
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.args(["-e", &format!("{at}/error.log"), "-c", &format!("{at}/nginx.conf"), "-p", &at]);
        nginx
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("output")).expect("a file"));
        let child = nginx.spawn().expect("nginx: run testdata/setup test");
        let nginx = Self { child, dir, port };
        for _ in 0..2000 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return nginx;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nginx does not start: {}{}", nginx.read("output"), nginx.read("error.log"));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What it was asked, a line each.
    pub(crate) fn log(&self) -> String {
        std::thread::sleep(Duration::from_millis(100)); // lines are written after the answers
        self.read("access.log")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `openssl` in a folder.
#[track_caller]
pub(crate) fn openssl(dir: &Path, words: &str) {
    let mut command = Command::new("openssl");
    command.args(words.split(' ')).current_dir(dir);
    run(command).ok();
}

/// A folder with a CA: `ca.pem` and `ca.key`.
#[track_caller]
pub(crate) fn authority() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    openssl(dir.path(), &format!("req -x509 {KEY} -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"));
    dir
}

/// A certificate of the folder's CA with this extension: `NAME.pem` and `NAME.key`.
#[track_caller]
pub(crate) fn certificate(dir: &Path, name: &str, extension: &str) {
    fs::write(dir.join("ext"), extension).expect("a file");
    openssl(dir, &format!("req {KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
    let by = "-CA ca.pem -CAkey ca.key -CAcreateserial";
    openssl(dir, &format!("x509 -req -days 2 {by} -extfile ext -in {name}.csr -out {name}.pem"));
}
