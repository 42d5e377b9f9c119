//! Debian's `docker-registry` on a free loopback port, with its log.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use phial::image::RegistryRef;

use super::sample_images::run;

/// A running registry; it ends with this value.
pub(super) struct Registry {
    child: Child,
    dir: tempfile::TempDir,
    /// `127.0.0.1:PORT`.
    pub(super) host: String,
}

impl Registry {
    /// A registry that lets anyone do anything.
    pub(super) fn open() -> Self {
        Self::start("")
    }

    /// A registry for `user` with `password`.
    pub(super) fn locked() -> Self {
        Self::start("auth: {htpasswd: {realm: test, path: DIR/htpasswd}}\n")
    }

    /// A registry with this in its configuration; `DIR` is its own folder.
    pub(super) fn start(auth: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        fs::write(dir.path().join("htpasswd"), run("htpasswd", &["-Bbn", "user", "password"])).unwrap();
        let port = crate::harness::free_port();
        let host = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
             http: {{addr: {host}, secret: x}}\n{}",
            auth.replace("DIR", &root)
        );
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let log = || Stdio::from(fs::File::options().append(true).create(true).open(dir.path().join("log")).unwrap());
        let child = Command::new("docker-registry")
            .args(["serve", &format!("{root}/config.yml")])
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap();
        let registry = Self { child, dir, host };
        for _ in 0..500 {
            if TcpStream::connect(&registry.host).is_ok() {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("docker-registry does not start: {}", fs::read_to_string(registry.log_file()).unwrap());
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// A repository here, with an optional tag or digest: `team/app:v1`.
    pub(super) fn reference(&self, rest: &str) -> RegistryRef {
        format!("{}/{rest}", self.host).parse().unwrap()
    }

    /// The requests since `mark`, as `METHOD /path`; the next mark is their number.
    pub(super) fn requests(&self, mark: usize) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(50)); // lines are written after the answers
        let log = fs::read_to_string(self.log_file()).unwrap();
        log.lines()
            .filter_map(|line| Some(line.split('"').nth(1)?.rsplit_once(" HTTP/")?.0.to_owned()))
            .skip(mark)
            .collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
