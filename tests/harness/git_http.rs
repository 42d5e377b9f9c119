//! A real git server on loopback: `git http-backend` behind just enough HTTP, with basic authentication if asked for.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What a client asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Method and target.
    pub(crate) line: String,
    /// The header's value.
    pub(crate) authorization: Option<String>,
}

/// What the server does with a request.
#[derive(Clone)]
enum Conduct {
    /// Serves the repositories below a directory, to anyone or to who sends this `Authorization`.
    Serve { root: PathBuf, authorization: Option<String> },
    /// Sends everyone, or who sends this `Authorization`, to another base URL.
    Redirect { base: String, authorization: Option<String> },
    /// Lists references until it has sent so many bytes, and hangs up.
    List { bytes: usize },
}

/// A server that runs until it is dropped.
pub(crate) struct GitServer {
    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
}

impl GitServer {
    /// Serves every repository below `root` to anyone.
    pub(crate) fn start(root: &Path) -> Self {
        Self::run(Conduct::Serve { root: root.to_owned(), authorization: None })
    }

    /// Serves them to who sends `authorization`, such as `Basic dTpw`; answers 401 to all others.
    pub(crate) fn start_private(root: &Path, authorization: &str) -> Self {
        Self::run(Conduct::Serve { root: root.to_owned(), authorization: Some(authorization.to_owned()) })
    }

    /// Redirects every request to the same target below `base`, after `authorization` if one is wanted.
    pub(crate) fn start_redirect(base: &str, authorization: Option<&str>) -> Self {
        Self::run(Conduct::Redirect { base: base.to_owned(), authorization: authorization.map(str::to_owned) })
    }

    /// Answers every request with `bytes` bytes of references, and no end of the list.
    pub(crate) fn start_list(bytes: usize) -> Self {
        Self::run(Conduct::List { bytes })
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic").clone()
    }

    fn run(conduct: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (seen, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, end) = (Arc::clone(&seen), Arc::clone(&over));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (conduct, log) = (conduct.clone(), Arc::clone(&log));
                std::thread::spawn(move || answer(stream, &conduct, &log)); // a client that hangs up is its own affair
            }
        });
        Self { url, seen, over }
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

fn answer(mut stream: TcpStream, conduct: &Conduct, log: &Mutex<Vec<Request>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let mut words = first.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let request = Request { line: format!("{method} {target}"), authorization: header("authorization") };
    log.lock().expect("no panic").push(request.clone());
    let body = if header("transfer-encoding").is_some() {
        chunks(&mut reader)?
    } else {
        let mut body = vec![0; header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        body
    };
    let wanted = match conduct {
        Conduct::Serve { authorization, .. } | Conduct::Redirect { authorization, .. } => authorization.as_ref(),
        Conduct::List { .. } => None,
    };
    let reply = match conduct {
        _ if wanted.is_some() && request.authorization.as_ref() != wanted => {
            empty("401 Unauthorized", "WWW-Authenticate: Basic realm=\"git\"")
        }
        Conduct::List { bytes } => return list(&mut stream, *bytes),
        Conduct::Redirect { base, .. } => empty("302 Found", &format!("Location: {base}{target}")),
        Conduct::Serve { root, .. } => backend(root, (&method, &target), &headers, &body)?,
    };
    stream.write_all(&reply).ok()
}

fn empty(status: &str, header: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The references of a server (gitprotocol-http(5)), without their end.
fn list(stream: &mut TcpStream, bytes: usize) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).ok()?;
    let mut packets = "001e# service=git-upload-pack\n0000".to_owned();
    let mut sent = 0;
    for number in 0.. {
        let capabilities = if number == 0 { "\0ofs-delta shallow" } else { "" };
        let line = format!("{:040x} refs/heads/{number:0>200}{capabilities}\n", 1);
        let _ = write!(packets, "{:04x}{line}", line.len() + 4);
        if packets.len() > 1 << 16 {
            sent += packets.len();
            stream.write_all(format!("{:x}\r\n{packets}\r\n", packets.len()).as_bytes()).ok()?;
            packets.clear();
        }
        if sent > bytes {
            break;
        }
    }
    Some(())
}

fn chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// RFC 3875: the request in the environment, the body on stdin, headers and body back.
fn backend(root: &Path, (method, target): (&str, &str), headers: &[(String, String)], body: &[u8]) -> Option<Vec<u8>> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = Command::new("git");
    command.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    command.env("REQUEST_METHOD", method).env("PATH_INFO", path).env("QUERY_STRING", query);
    command.env("CONTENT_LENGTH", body.len().to_string());
    for (name, value) in headers {
        match name.as_str() {
            "content-type" => command.env("CONTENT_TYPE", value),
            "content-encoding" => command.env("HTTP_CONTENT_ENCODING", value),
            "git-protocol" => command.env("GIT_PROTOCOL", value),
            _ => &mut command,
        };
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("git http-backend");
    let mut stdin = child.stdin.take().expect("piped");
    let sent = body.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().ok()?.stdout;
    let _ = feeder.join();
    let end = output.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let kept: Vec<&str> = head.lines().filter(|line| !line.starts_with("Status: ")).collect();
    let kept = kept.join("\r\n");
    let length = output.len() - end - 4;
    let mut reply =
        format!("HTTP/1.1 {status}\r\n{kept}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").into_bytes();
    reply.extend_from_slice(&output[end + 4..]);
    Some(reply)
}
