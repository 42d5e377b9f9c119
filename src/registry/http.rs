//! One request and its answer: which scheme, which redirects, how much of a body.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, DATE, HeaderName, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use super::auth::Access;
use super::body_stream::{Pipe, Progress};
use super::client_pool::Clients;
use super::error::RegistryError;
pub(super) use super::http_runtime::Response;
use super::http_runtime::{Load, TransferError, Wire};
use super::network::{Network, authority};
use super::retry::RetryPolicy;
use super::secret::Secret;
use super::warnings::Warnings;
use crate::image::{BlobReader, from_rfc3339, shown};

/// Redirects that are followed in a row.
const MAX_REDIRECTS: usize = 5;
/// Bytes of an error's body that are read.
const MAX_ERROR_BODY: u64 = 64 << 10;
/// The rule for plain http.
const PLAIN: &str = "plain http is for loopback and hosts named with `--plain-http`";

/// Where a redirect may lead; an error names what is broken.
pub(super) type Rule<'a> = &'a dyn Fn(&Url) -> Result<(), &'static str>;

/// What is sent.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, &'a str)>,
    pub(super) body: Body<'a>,
    /// A rule for redirects beyond the general one.
    pub(super) rule: Option<Rule<'a>>,
}

/// The body of a request, such that it can be sent again.
pub(super) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    Shared(bytes::Bytes),
    /// Bytes that are held anyway.
    Stream {
        size: u64,
        open: &'a dyn Fn() -> Result<BlobReader, RegistryError>,
    },
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: Vec::new(), body: Body::None, rule: None }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// The way to registries, for any number of threads.
#[derive(Clone)]
pub(super) struct Transport {
    clients: Arc<Clients>,
    wire: Arc<Wire>,
    pub(super) patience: RetryPolicy,
    pub(super) teller: Warnings,
    /// A host whose TLS need not be right, nor be there at all.
    lax: Option<String>,
    /// Where such hosts were found to be.
    found: Arc<Mutex<BTreeMap<String, Url>>>,
}

impl Transport {
    pub(super) fn new(network: Network) -> Result<Self, RegistryError> {
        let wire = Wire::start().map_err(|source| RegistryError::Thread { source })?;
        Ok(Self {
            clients: Arc::new(Clients::new(network)),
            wire: Arc::new(wire),
            patience: RetryPolicy::USUAL,
            teller: Warnings::default(),
            lax: None,
            found: Arc::default(),
        })
    }

    pub(super) fn network(&self) -> &Network {
        self.clients.network()
    }

    /// The same for requests to one registry: what it may do, others may not.
    pub(super) fn toward(&self, access: &Access<'_>) -> Self {
        Self { lax: access.is_lax.then(|| authority(access.base)), ..self.clone() }
    }

    fn is_lax(&self, url: &Url) -> bool {
        self.lax.as_ref().is_some_and(|lax| *lax == authority(url))
    }

    /// Where a registry is spoken to that `registries.conf` calls insecure: by TLS with whatever certificate if it answers so,
    /// else in plain http (containers/image, `docker_client.go`). Asked once.
    pub(super) fn insecure_base(&self, base: Url) -> Url {
        let name = authority(&base);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = found.entry(name.clone()).or_insert_with(|| {
            let lax = Self { lax: Some(name), ..self.clone() };
            let ping = base.join("/v2/").map(|url| Call::new(Method::GET, url));
            let answer = ping.map(|ping| lax.follow(&ping, None));
            let mut base = base;
            if matches!(answer, Ok(Err(RegistryError::Reach { .. } | RegistryError::Stalled { .. }))) {
                let _ = base.set_scheme("http"); // a URL with a host takes it
            }
            base
        });
        asked.clone()
    }

    /// Sends `call` and follows its redirects. The credentials go to the origin of `call.url` alone, and are gone for good
    /// once a redirect leaves it (distribution specification, "pulling blobs"; CVE-2020-15157).
    pub(super) fn follow(&self, call: &Call<'_>, authorization: Option<&Secret>) -> Result<Response, RegistryError> {
        let mut authorization = authorization;
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(call, &url, authorization)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let refused = |to: &Url, why| RegistryError::Redirect { request: request(call), to: place(to), why };
            let Some(next) = location(&response) else { return Err(refused(&url, "it names no new place")) };
            let own_rule = |()| call.rule.map_or(Ok(()), |rule| rule(&next));
            may_redirect(&url, &next).and_then(own_rule).map_err(|why| refused(&next, why))?;
            let moved = url.origin() != next.origin();
            let is_read = matches!(call.method, Method::GET | Method::HEAD);
            if !is_read && (moved || !matches!(response.status().as_u16(), 307 | 308)) {
                return Err(refused(&next, "a request that writes is not sent elsewhere"));
            }
            if moved {
                authorization = None;
            }
            url = next;
        }
        Err(RegistryError::Redirect { request: request(call), to: place(&url), why: "more than 5 redirects in a row" })
    }

    fn once(&self, call: &Call<'_>, url: &Url, authorization: Option<&Secret>) -> Result<Response, RegistryError> {
        if url.scheme() != "https" && !self.network().may_be_plain(url) && !self.is_lax(url) {
            let why = PLAIN;
            return Err(RegistryError::Redirect { request: request(call), to: place(url), why });
        }
        let client = self.clients.of(url, self.is_lax(url))?;
        let mut builder = client.request(call.method.clone(), url.clone());
        for (name, value) in &call.headers {
            builder = builder.header(name, *value);
        }
        if let Some(secret) = authorization {
            let mut value = reqwest::header::HeaderValue::from_str(secret.expose()).map_err(|_| {
                let why = "they hold characters that no header can carry".into();
                RegistryError::Credentials { place: "a login".into(), why }
            })?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        let mut load = None;
        builder = match &call.body {
            Body::None if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) => builder.body(Vec::new()),
            Body::None => builder,
            Body::Bytes(bytes) => builder.body(bytes.to_vec()),
            Body::Shared(bytes) => builder.body(bytes.clone()),
            Body::Stream { size, open } => {
                let progress = Arc::new(Progress::default());
                load = Some(Load { size: *size, progress: Arc::clone(&progress) });
                builder.body(reqwest::Body::wrap(Pipe::from(open()?, *size, progress)))
            }
        };
        let unreachable = |source: reqwest::Error| RegistryError::Reach { request: request(call), proxy: None, source };
        let built = builder.build().map_err(|error| unreachable(error.without_url()))?;
        let sent = self.wire.send(&client, built, load, self.patience);
        let proxy = || self.network().proxy_for(url).map(|(at, name)| format!("the proxy `{at}` of `{name}`"));
        let response = sent.map_err(|error| error.during_request(request(call), proxy()))?;
        self.teller.warnings(&authority(url), response.headers());
        Ok(response)
    }
}

/// Method and place, for errors.
pub(super) fn request(call: &Call<'_>) -> String {
    format!("{} {}", call.method, place(&call.url))
}

/// A URL as it may be shown: no user information, no query, no fragment.
pub(super) fn place(url: &Url) -> String {
    let mut bare = url.clone();
    let _ = (bare.set_username(""), bare.set_password(None)); // URLs without a host have none
    bare.set_query(None);
    bare.set_fragment(None);
    shown(bare.as_str())
}

/// Where the answer sends to, resolved against where it came from (RFC 3986, 5).
pub(super) fn location(response: &Response) -> Option<Url> {
    let text = response.headers().get(LOCATION)?.to_str().ok().filter(|text| !text.is_empty())?;
    response.url().join(text).ok()
}

/// `localhost`, 127.0.0.0/8, `::1`.
pub(super) fn is_loopback(url: &Url) -> bool {
    match address(url) {
        Some(address) => address.is_loopback(),
        None => url.host_str() == Some("localhost"),
    }
}

pub(super) fn address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    let address: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(address.to_canonical())
}

/// Addresses that only make sense within this machine or its link, where metadata services live.
pub(super) fn is_inside(url: &Url) -> bool {
    is_loopback(url)
        || match address(url) {
            Some(IpAddr::V4(v4)) => v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast(),
            Some(IpAddr::V6(v6)) => v6.is_unicast_link_local() || v6.is_unspecified() || v6.segments()[0] == 0xfd00,
            None => false,
        }
}

/// Those, and the private networks.
pub(super) fn is_private(url: &Url) -> bool {
    is_inside(url)
        || match address(url) {
            Some(IpAddr::V4(v4)) => v4.is_private(),
            Some(IpAddr::V6(v6)) => v6.is_unique_local(),
            None => false,
        }
}

/// Whether a read may go on from `from` to `to`.
fn may_redirect(from: &Url, to: &Url) -> Result<(), &'static str> {
    match to.scheme() {
        "https" => {}
        "http" if from.scheme() == "https" => return Err("it leaves https"),
        // From plain http to plain http: whether that host may be spoken to so is seen when it is.
        "http" if is_loopback(to) || (from.scheme() == "http" && !is_loopback(from)) => {}
        "http" => return Err(PLAIN),
        _ => return Err("its scheme is neither http nor https"),
    }
    if from.host() != to.host() && !is_loopback(from) && is_inside(to) {
        return Err("it leads to an address inside this machine or link");
    }
    Ok(())
}

/// Where an upload is to be sent. Proxies that end TLS often announce http for their own host: that is read as https.
pub(super) fn upload_location(response: &Response, method: &Method) -> Result<Url, RegistryError> {
    let from = response.url();
    let refused = |to: String, why| RegistryError::Redirect { request: format!("{method} {}", place(from)), to, why };
    let Some(mut to) = location(response) else {
        return Err(refused(place(from), "no `Location` for the upload"));
    };
    if from.scheme() == "https" && to.scheme() == "http" && from.host() == to.host() {
        let port = from.port();
        let _ = (to.set_scheme("https"), to.set_port(port)); // a URL with a host takes both
    }
    may_redirect(from, &to).map_err(|why| refused(place(&to), why))?;
    if to.origin() != from.origin() && is_private(&to) {
        return Err(refused(place(&to), "an upload does not go to a private address on another host"));
    }
    Ok(to)
}

/// The whole body, if it is not longer than `limit`.
pub(super) fn bounded(mut response: Response, what: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge { request: what.to_owned(), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match response.read_up_to(limit + 1) {
        (_, Some(error)) => Err(error.during_body(what)),
        (bytes, None) if bytes.len() as u64 > limit => Err(too_large()),
        (bytes, None) => Ok(bytes),
    }
}

impl TransferError {
    /// The error of a request that got no answer.
    fn during_request(self, request: String, proxy: Option<String>) -> RegistryError {
        match self {
            Self::Http(source) => RegistryError::Reach { request, proxy, source },
            other => other.during_body(&request),
        }
    }

    /// The error of an answer that broke off while its body was read.
    pub(super) fn during_body(self, request: &str) -> RegistryError {
        let request = request.to_owned();
        match self {
            Self::Http(source) => RegistryError::BrokeOff { request, source: Some(source) },
            Self::Stalled(after) => RegistryError::Stalled { request, after },
            Self::Ended => RegistryError::BrokeOff { request, source: None },
        }
    }
}

/// An answer that was not hoped for, with what the registry says about it (distribution specification, "error codes").
pub(super) fn refusal(call: &Call<'_>, response: Response) -> RegistryError {
    let status = response.status();
    let retry_after = retry_after(&response);
    let text = if call.method == Method::HEAD { String::new() } else { error_text(response) };
    RegistryError::Status { request: request(call), status: status.as_u16(), text, retry_after }
}

pub(super) fn error_text(mut response: Response) -> String {
    let (bytes, _) = response.read_up_to(MAX_ERROR_BODY); // half a reason is better than none
    let said: Option<Value> = serde_json::from_slice(&bytes).ok();
    let errors = said.as_ref().and_then(|said| said["errors"].as_array());
    let Some(errors) = errors else {
        let text = String::from_utf8_lossy(&bytes);
        let is_page = text.trim_start().starts_with('<');
        return if is_page { "an HTML page".into() } else { shown(text.trim()) };
    };
    let lines: Vec<String> = errors
        .iter()
        .map(|error| {
            let parts = [error["code"].as_str(), error["message"].as_str()];
            parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        })
        .collect();
    shown(&lines.join("; "))
}

/// Seconds, or a date to be compared with the answer's own (RFC 9110, 10.2.3); anything else is no wish.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = |name| response.headers().get(name)?.to_str().ok().map(str::trim);
    let wish = text(RETRY_AFTER)?;
    if let Ok(seconds) = wish.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let millis = http_date(wish)?.saturating_sub(http_date(text(DATE)?)?);
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as milliseconds since 1970; older forms are no date.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<&str> = text.strip_suffix(" GMT")?.split(' ').collect();
    let [_, day, month, year, clock] = words[..] else { return None };
    let month = MONTHS.find(month).filter(|at| month.len() == 3 && at % 3 == 0)? / 3 + 1;
    from_rfc3339(&format!("{year}-{month:02}-{day}T{clock}Z"))
}

/// Whether the answer is one that a later try may change; see `retry`.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 499 | 500 | 502 | 503 | 504 | 522)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_in_its_one_form() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        for text in
            ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "soon", "", "Sun, 06 nNo 1994 08:49:37 GMT"]
        {
            assert_eq!(http_date(text), None, "{text}");
        }
    }
}
