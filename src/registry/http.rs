//! HTTP requests and their responses: which redirects are followed, who gets credentials, how much of a body is read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, DATE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Url};
use serde_json::Value;

use super::body_stream::{BodyProgress, BodyStream};
use super::client_pool::ClientPool;
use super::error::RegistryError;
pub(super) use super::http_runtime::Response;
use super::http_runtime::{HttpRuntime, SentBody};
use super::network::NetworkSettings;
use super::retry::RetryPolicy;
use super::url::{Endpoint, PLAIN_HTTP_RULE, Tls, authority, check_redirect, display_url, is_private};
use super::warnings::Warnings;
use crate::image::{BlobReader, shown};
use crate::secret::Secret;

/// Redirects in a row that are followed.
const MAX_REDIRECTS: usize = 5;
/// Bytes of an error's body that are read.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// A check of a redirect's target; the error names the rule that it breaks.
pub(super) type RedirectRule<'a> = &'a dyn Fn(&Url) -> Result<(), &'static str>;

/// A request without its authorization.
pub(super) struct HttpRequest<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, &'a str)>,
    pub(super) body: RequestBody<'a>,
    /// A rule for redirects, besides those of [`check_redirect`].
    pub(super) redirect_rule: Option<RedirectRule<'a>>,
}

/// The body of a request; it can be sent more than once.
pub(super) enum RequestBody<'a> {
    None,
    Bytes(&'a [u8]),
    Shared(bytes::Bytes),
    /// `size` bytes of a blob, which is opened each time.
    Stream {
        size: u64,
        open: &'a dyn Fn() -> Result<BlobReader, RegistryError>,
    },
}

impl<'a> HttpRequest<'a> {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: Vec::new(), body: RequestBody::None, redirect_rule: None }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Method and URL, for errors.
    pub(super) fn describe(&self) -> String {
        format!("{} {}", self.method, display_url(&self.url))
    }
}

/// Sends requests from any number of threads.
#[derive(Clone)]
pub(super) struct Transport {
    clients: Arc<ClientPool>,
    runtime: Arc<HttpRuntime>,
    pub(super) retry_policy: RetryPolicy,
    pub(super) warnings: Warnings,
    /// `host[:port]` of the registry whose TLS is not verified, if the registry in question is one.
    unverified: Option<String>,
    /// The URLs of such registries, by `host[:port]`.
    unverified_urls: Arc<Mutex<BTreeMap<String, Url>>>,
}

impl Transport {
    pub(super) fn new(network: NetworkSettings) -> Result<Self, RegistryError> {
        let runtime = HttpRuntime::start().map_err(|source| RegistryError::Thread { source })?;
        Ok(Self {
            clients: Arc::new(ClientPool::new(network)),
            runtime: Arc::new(runtime),
            retry_policy: RetryPolicy::USUAL,
            warnings: Warnings::default(),
            unverified: None,
            unverified_urls: Arc::default(),
        })
    }

    pub(super) fn network(&self) -> &NetworkSettings {
        self.clients.network()
    }

    /// A transport for requests to one registry: unverified TLS is for its host and no other.
    pub(super) fn toward(&self, endpoint: &Endpoint) -> Self {
        let unverified = (endpoint.tls == Tls::Unverified).then(|| authority(&endpoint.url));
        Self { unverified, ..self.clone() }
    }

    fn tls(&self, url: &Url) -> Tls {
        if self.unverified.as_ref().is_some_and(|host| *host == authority(url)) {
            Tls::Unverified
        } else {
            Tls::Verified
        }
    }

    /// The endpoint of a registry that `registries.conf` calls insecure: https with any certificate if it responds, or else
    /// plain http (containers/image, `docker_client.go`). It is tried once.
    pub(super) fn unverified_endpoint(&self, url: Url) -> Endpoint {
        let name = authority(&url);
        let mut urls = self.unverified_urls.lock().unwrap_or_else(PoisonError::into_inner);
        let found = urls.entry(name.clone()).or_insert_with(|| {
            let unverified = Self { unverified: Some(name), ..self.clone() };
            let ping = url.join("/v2/").map(|ping| HttpRequest::new(Method::GET, ping));
            let response = ping.map(|ping| unverified.send(&ping, None));
            let mut url = url;
            if matches!(response, Ok(Err(RegistryError::Reach { .. } | RegistryError::Stalled { .. }))) {
                let _ = url.set_scheme("http"); // a URL with a host takes it
            }
            url
        });
        Endpoint { url: found.clone(), tls: Tls::Unverified }
    }

    /// Sends a request and follows its redirects. The credentials go to the origin of the request's URL only; after the
    /// first redirect to another origin they are not sent any more (distribution specification, "pulling blobs";
    /// CVE-2020-15157).
    pub(super) fn send(
        &self,
        request: &HttpRequest<'_>,
        authorization: Option<&Secret>,
    ) -> Result<Response, RegistryError> {
        let mut authorization = authorization;
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_to(request, &url, authorization)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let refused = |to: &Url, why| redirect_error(request, to, why);
            let Some(next) = location(&response) else { return Err(refused(&url, "it names no new place")) };
            let own_rule = |()| request.redirect_rule.map_or(Ok(()), |rule| rule(&next));
            check_redirect(&url, &next).and_then(own_rule).map_err(|why| refused(&next, why))?;
            let other_origin = url.origin() != next.origin();
            let is_read = matches!(request.method, Method::GET | Method::HEAD);
            if !is_read && (other_origin || !matches!(response.status().as_u16(), 307 | 308)) {
                return Err(refused(&next, "a request that writes is not sent elsewhere"));
            }
            if other_origin {
                authorization = None;
            }
            url = next;
        }
        Err(redirect_error(request, &url, "more than 5 redirects in a row"))
    }

    fn send_to(
        &self,
        request: &HttpRequest<'_>,
        url: &Url,
        authorization: Option<&Secret>,
    ) -> Result<Response, RegistryError> {
        let tls = self.tls(url);
        if url.scheme() != "https" && !self.network().may_be_plain(url) && tls == Tls::Verified {
            return Err(redirect_error(request, url, PLAIN_HTTP_RULE));
        }
        let client = self.clients.client_for(url, tls)?;
        let mut builder = client.request(request.method.clone(), url.clone());
        for (name, value) in &request.headers {
            builder = builder.header(name, *value);
        }
        if let Some(secret) = authorization {
            builder = builder.header(AUTHORIZATION, sensitive(secret)?);
        }
        let mut sent_body = None;
        builder = match &request.body {
            RequestBody::None if matches!(request.method, Method::POST | Method::PUT | Method::PATCH) => {
                builder.body(Vec::new())
            }
            RequestBody::None => builder,
            RequestBody::Bytes(bytes) => builder.body(bytes.to_vec()),
            RequestBody::Shared(bytes) => builder.body(bytes.clone()),
            RequestBody::Stream { size, open } => {
                let progress = Arc::new(BodyProgress::default());
                sent_body = Some(SentBody { size: *size, progress: Arc::clone(&progress) });
                builder.body(reqwest::Body::wrap(BodyStream::new(open()?, *size, progress)))
            }
        };
        let built = builder.build().map_err(|error| RegistryError::Reach {
            request: request.describe(),
            proxy: None,
            source: error.without_url(),
        })?;
        let response = self.runtime.send(&client, built, sent_body, self.retry_policy);
        let proxy = || self.network().proxy_for(url).map(|(at, name)| format!("the proxy `{at}` of `{name}`"));
        let response = response.map_err(|error| error.during_request(request.describe(), proxy()))?;
        self.warnings.read(&authority(url), response.headers());
        Ok(response)
    }
}

fn sensitive(secret: &Secret) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| {
        let why = "they hold characters that no header can carry".into();
        RegistryError::Credentials { place: "a login".into(), why }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn redirect_error(request: &HttpRequest<'_>, to: &Url, why: &'static str) -> RegistryError {
    RegistryError::Redirect { request: request.describe(), to: display_url(to), why }
}

/// A header of a response, if it is there and is text.
pub(super) fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// The `Location` of a response, resolved against the response's own URL (RFC 3986, 5).
fn location(response: &Response) -> Option<Url> {
    let text = response.headers().get(LOCATION)?.to_str().ok().filter(|text| !text.is_empty())?;
    response.url().join(text).ok()
}

/// The URL at which an upload continues. Proxies that terminate TLS often announce http for their own host: that is read
/// as https.
pub(super) fn upload_location(response: &Response, method: &Method) -> Result<Url, RegistryError> {
    let from = response.url();
    let refused =
        |to: String, why| RegistryError::Redirect { request: format!("{method} {}", display_url(from)), to, why };
    let Some(mut to) = location(response) else {
        return Err(refused(display_url(from), "no `Location` for the upload"));
    };
    if from.scheme() == "https" && to.scheme() == "http" && from.host() == to.host() {
        let port = from.port();
        let _ = (to.set_scheme("https"), to.set_port(port)); // a URL with a host takes both
    }
    check_redirect(from, &to).map_err(|why| refused(display_url(&to), why))?;
    if to.origin() != from.origin() && is_private(&to) {
        return Err(refused(display_url(&to), "an upload does not go to a private address on another host"));
    }
    Ok(to)
}

/// The whole body, unless it has more than `limit` bytes. `request` is for the errors.
pub(super) fn read_bounded(mut response: Response, request: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge { request: request.to_owned(), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match response.read_up_to(limit + 1) {
        (_, Some(error)) => Err(error.during_body(request)),
        (bytes, None) if bytes.len() as u64 > limit => Err(too_large()),
        (bytes, None) => Ok(bytes),
    }
}

/// The error for a response with an unexpected status.
pub(super) fn refusal(request: &HttpRequest<'_>, response: Response) -> RegistryError {
    let status = response.status().as_u16();
    let retry_after = retry_after(&response);
    let text = if request.method == Method::HEAD { String::new() } else { error_text(response) };
    RegistryError::Status { request: request.describe(), status, text, retry_after }
}

/// What a registry states as the reason of an error (distribution specification, "error codes"), escaped and cut.
pub(super) fn error_text(mut response: Response) -> String {
    let (bytes, _) = response.read_up_to(MAX_ERROR_BODY); // half a reason is better than none
    stated_reason(&bytes)
}

/// The reason in the body of an error.
pub(super) fn stated_reason(bytes: &[u8]) -> String {
    let body: Option<Value> = serde_json::from_slice(bytes).ok();
    let errors = body.as_ref().and_then(|body| body["errors"].as_array());
    let Some(errors) = errors else {
        let text = String::from_utf8_lossy(bytes);
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

/// The pause that a registry asks for: seconds, or a date, compared with the response's own `Date` (RFC 9110, 10.2.3).
fn retry_after(response: &Response) -> Option<Duration> {
    let text = |name| response.headers().get(name)?.to_str().ok().map(str::trim);
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let now = httpdate::parse_http_date(text(DATE)?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}
