//! A small HTTP/1.1 server on loopback: a thread for each connection, keep-alive, and everything that can go wrong
//! with an answer on its way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use phial::image::RegistryRef;

use super::fault::Fault;

/// How long a stalled connection is held, unless the client hangs up.
const STALL: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to its end.
    pub(crate) whole: bool,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The path without its query.
    pub(crate) fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, with its escapes undone.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        self.queries(name).into_iter().next()
    }

    /// All parameters of that name.
    pub(crate) fn queries(&self, name: &str) -> Vec<String> {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        pairs(query).into_iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    }
}

/// The pairs of a query or form.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescaped(name), unescaped(value))
    };
    text.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An answer; `Content-Length` is added unless it is set.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Arc<Vec<u8>>,
    /// What of the body is sent.
    pub(crate) part: Range<usize>,
}

pub(crate) fn respond(status: u16) -> Response {
    Response { status, headers: Vec::new(), body: Arc::default(), part: 0..0 }
}

impl Response {
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let part = 0..body.len();
        self.shared(Arc::new(body), part)
    }

    /// A part of bytes that are kept elsewhere.
    pub(crate) fn shared(mut self, body: Arc<Vec<u8>>, part: Range<usize>) -> Self {
        (self.body, self.part) = (body, part);
        self
    }
}

/// What the wire does to one request and its answer; see [`Fault`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ConnectionFault {
    #[default]
    Good,
    /// A reset as soon as the head is read.
    ResetBefore,
    /// A reset in the middle of the request's body; of the answer if the request has none.
    ResetMid,
    /// Silence in the middle of the same.
    Stall,
    /// The answer ends in the middle.
    Truncated,
    /// No answer.
    Lost,
}

/// What makes the responses.
pub(crate) trait Service: Send + Sync + 'static {
    /// The fault of a request, called before its body is read.
    fn fault(&self, _head: &Request) -> Option<Fault> {
        None
    }

    /// Called with the number of bytes of a body as they arrive.
    fn bytes_received(&self, _bytes: usize) {}

    /// Called when the body was read, or broke off.
    fn answer(&self, request: Request, fault: Option<Fault>) -> Response;
}

/// A server on a free port of loopback. It ends with its last handle: those of all tests together are more than
/// a process may have descriptors for.
#[derive(Clone)]
pub(crate) struct Listener(Arc<Held>);

struct Held {
    host: String,
    over: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Listener {
    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.0.host.clone()
    }

    /// Waits until the end of every connection was read, which is a while after a client was killed.
    pub(crate) fn wait_until_idle(&self) {
        let start = Instant::now();
        while self.0.connections.load(Ordering::Acquire) > 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "a client is still connected");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host); // who waits for a connection sees it
    }
}

pub(crate) fn start(service: Arc<dyn Service>) -> Listener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let host = listener.local_addr().expect("its address").to_string();
    let over = Arc::new(AtomicBool::new(false));
    let connections = Arc::new(AtomicUsize::new(0));
    let held = Held { host, over: Arc::clone(&over), connections: Arc::clone(&connections) };
    std::thread::spawn(move || {
        for stream in listener.incoming().take_while(|_| !over.load(Ordering::Relaxed)).flatten() {
            let (service, open) = (Arc::clone(&service), Arc::clone(&connections));
            open.fetch_add(1, Ordering::Release);
            std::thread::spawn(move || {
                serve(&stream, &*service);
                open.fetch_sub(1, Ordering::Release);
            });
        }
    });
    Listener(Arc::new(held))
}

struct Counted<'a, R> {
    inner: R,
    service: &'a dyn Service,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.service.bytes_received(n);
        Ok(n)
    }
}

/// Answers until the connection ends; `None` when it broke.
fn serve(stream: &TcpStream, service: &dyn Service) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone().ok()?);
    loop {
        let mut request = read_head(&mut reader)?;
        let fault = service.fault(&request);
        let connection = fault.map(Fault::of_connection).unwrap_or_default();
        if connection == ConnectionFault::ResetBefore {
            return reset(stream);
        }
        if request.header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue")) {
            let mut stream = stream;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        let breaks = matches!(connection, ConnectionFault::ResetMid | ConnectionFault::Stall);
        let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        request.whole = if request.header("transfer-encoding").is_some() {
            read_chunks(&mut reader, &mut request.body).is_some()
        } else {
            let wanted = if breaks { length / 2 } else { length };
            let mut counted = Counted { inner: (&mut reader).take(wanted), service };
            let read = counted.read_to_end(&mut request.body);
            read.is_ok_and(|read| read as u64 == length)
        };
        let (is_whole, is_head) = (request.whole, request.method == "HEAD");
        let has_body = !request.body.is_empty() || length > 0;
        let reply = service.answer(request, fault);
        match connection {
            ConnectionFault::Lost => return reset(stream),
            ConnectionFault::ResetMid if has_body => return reset(stream),
            ConnectionFault::Stall if has_body => return hold(stream),
            _ if !is_whole => return None, // the client is gone
            _ => {}
        }
        write(stream, &reply, is_head, connection)?;
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let mut request = Request { method: words.next()?, path: words.next()?, ..Request::default() };
    // As to a proxy (RFC 9112, 3.2.2): every name leads here.
    if let Some(rest) = request.path.strip_prefix("http://") {
        request.path = format!("/{}", rest.split_once('/')?.1);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Some(request) };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

/// A chunked body (RFC 9112, 7.1), without trailers.
fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = u64::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        let read = reader.take(size).read_to_end(body).ok()?;
        reader.read_line(&mut String::new()).ok()?;
        if size == 0 || read as u64 != size {
            return (size == 0).then_some(());
        }
    }
}

fn write(mut stream: &TcpStream, reply: &Response, is_head: bool, wire: ConnectionFault) -> Option<()> {
    let body = &reply.body[reply.part.clone()];
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    let has_length = reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !has_length && reply.status != 204 {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    for (name, value) in &reply.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let body = if is_head { &[][..] } else { body };
    // What breaks in the middle breaks in the head if there is no body.
    let middle = if body.is_empty() { head.len() / 2 } else { head.len() + 2 + body.len() / 2 };
    let mut bytes = [head.as_bytes(), b"\r\n"].concat();
    match wire {
        ConnectionFault::ResetMid | ConnectionFault::Stall | ConnectionFault::Truncated => {
            bytes.extend(body);
            stream.write_all(&bytes[..middle]).ok()?;
            match wire {
                ConnectionFault::ResetMid => {
                    // A reset overtakes bytes that are not read yet.
                    std::thread::sleep(Duration::from_millis(5));
                    reset(stream)
                }
                ConnectionFault::Stall => hold(stream),
                _ => None,
            }
        }
        _ => {
            stream.write_all(&bytes).and_then(|()| stream.write_all(body)).ok()?;
            let lies = has_length && !is_head;
            (!lies).then_some(())
        }
    }
}

/// Closes with a reset; always `None`, to end a connection with.
fn reset(stream: &TcpStream) -> Option<()> {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    None // the caller drops the last of its descriptors
}

/// Says nothing more until the client hangs up; always `None`. What it still sends is left where it is, so that it fills up.
fn hold(stream: &TcpStream) -> Option<()> {
    let hung_up = rustix::event::PollFlags::RDHUP | rustix::event::PollFlags::HUP;
    let _ = rustix::event::poll(&mut [rustix::event::PollFd::new(stream, hung_up)], Some(&STALL));
    None
}

type Script = dyn Fn(&Request) -> Response + Send + Sync;

/// A server whose responses a closure makes; it keeps the requests.
#[derive(Clone)]
pub(crate) struct Server {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<Request>>>,
    _held: Listener,
}

struct Closure {
    requests: Arc<Mutex<Vec<Request>>>,
    script: Box<Script>,
}

impl Service for Closure {
    fn answer(&self, request: Request, _fault: Option<Fault>) -> Response {
        let reply = (self.script)(&request);
        self.requests.lock().expect("no panic before").push(request);
        reply
    }
}

impl Server {
    pub(crate) fn start(script: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let requests = Arc::default();
        let service = Closure { requests: Arc::clone(&requests), script: Box::new(script) };
        let held = start(Arc::new(service));
        Self { host: held.host(), requests, _held: held }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic before").clone()
    }

    /// How many requests had this method and a path with this in it.
    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        self.requests().iter().filter(|request| request.method == method && request.path.contains(part)).count()
    }

    pub(crate) fn reference(&self, rest: &str) -> RegistryRef {
        format!("{}/{rest}", self.host).parse().expect("a reference")
    }
}
