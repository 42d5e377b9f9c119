//! Servers on free loopback ports, stopped when they are dropped: static files, and Debian's `docker-registry`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

use super::{run, search_path};

/// A directory over plain HTTP: enough for Hex, and for git's dumb protocol.
pub(crate) struct Static {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Static {
    /// Serves what is below `root` until it is dropped.
    pub(crate) fn start(root: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (root, heard, stopped) = (root.to_path_buf(), Arc::clone(&requests), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (root, heard) = (root.clone(), Arc::clone(&heard));
                thread::spawn(move || stream.map(|stream| answer(&stream, &root, &heard)));
            }
        });
        Self { port, requests, stop, thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The paths that were asked for so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic before").clone()
    }
}

impl Drop for Static {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request, one answer, and the connection is closed. A client that hangs up early is no concern of ours.
fn answer(mut stream: &TcpStream, root: &Path, log: &Mutex<Vec<String>>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    lines.find(String::is_empty);
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default().trim_start_matches('/');
    log.lock().expect("no panic before").push(format!("/{path}"));

    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let (status, body) = match fs::read(root.join(path)) {
        Ok(body) if inside => ("200 OK", body),
        _ => ("404 Not Found", b"not found\n".to_vec()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes());
    if method != "HEAD" {
        let _ = stream.write_all(&body);
    }
}

/// Debian's `docker-registry` with an empty store.
pub(crate) struct Registry {
    dir: TempDir,
    port: u16,
    child: Child,
}

impl Registry {
    /// The one user of a registry with a password.
    pub(crate) const USER: &str = "ann";
    /// Her password.
    pub(crate) const PASSWORD: &str = "an elixir in a phial";

    /// Open to everyone.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::over(false)
    }

    /// Open to [`Self::USER`] with [`Self::PASSWORD`], by basic authentication.
    #[track_caller]
    pub(crate) fn with_htpasswd() -> Self {
        Self::over(true)
    }

    #[track_caller]
    fn over(password: bool) -> Self {
        let dir = tempfile::tempdir_in(super::fixtures_dir()).expect("a directory for the registry");
        let auth = if password { htpasswd(dir.path()) } else { String::new() };
        for _ in 0..5 {
            let port = free_port();
            let config = dir.path().join("config.yml");
            let text = format!(
                "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: false\nstorage:\n  delete:\n    enabled: true\n  \
                 filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}",
                dir.path().join("store").display()
            );
            fs::write(&config, text).expect("the registry's configuration");
            let log = File::create(dir.path().join("log")).expect("the registry's log");
            let mut serve = Command::new("docker-registry");
            serve.arg("serve").arg(&config).env_clear().env("PATH", search_path()).stdin(Stdio::null());
            serve.stdout(log.try_clone().expect("its log again")).stderr(log);
            let mut child = serve.spawn().expect("`docker-registry`: run testdata/setup test");
            if answers(port, &mut child) {
                return Self { dir, port, child };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("the registry does not start:\n{}", fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    /// `127.0.0.1:PORT`, as references have it.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A reference to a repository in it, such as `127.0.0.1:PORT/team/app:tag`.
    pub(crate) fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host())
    }

    /// All it logged so far, access log included.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("the registry's log")
    }

    /// The requests so far, each as `METHOD PATH`, in order; the first is the test's own look whether it is up.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = self.log();
        log.lines().filter_map(|line| line.split('"').find(|part| part.contains(" /v2/"))).map(request).collect()
    }

    /// Where it keeps its blobs: to look at, or to break.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(quoted: &str) -> String {
    quoted.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn htpasswd(dir: &Path) -> String {
    let mut make = Command::new("htpasswd");
    make.args(["-Bbn", Registry::USER, Registry::PASSWORD]);
    let file = dir.join("htpasswd");
    fs::write(&file, run(make).ok().trim()).expect("the registry's users");
    format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Waits until it speaks HTTP; false when it ended instead or stays silent.
fn answers(port: u16, child: &mut Child) -> bool {
    for _ in 0..200 {
        if child.try_wait().ok().flatten().is_some() {
            return false;
        }
        if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let asked = stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let mut line = String::new();
            if asked.is_ok() && BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("HTTP/1.1 ") {
                return true;
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}
