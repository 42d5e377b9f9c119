//! The requests in order.

use phial_layers::Digest;

use super::fault::{Fault, Kind};
use super::http::Request;

/// One request. It holds no credentials, only a short hash of them.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) method: String,
    pub(crate) path: String,
    /// As the client calls us.
    pub(crate) host: String,
    /// Scheme and short hash, such as `Bearer 5feceb66`.
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) content_range: Option<String>,
    pub(crate) content_type: Option<String>,
    /// Bytes of the body that arrived.
    pub(crate) received: u64,
    /// Whether the body came to its end.
    pub(crate) whole: bool,
    /// The answer; 0 if there was none.
    pub(crate) status: u16,
    pub(crate) fault: Option<Fault>,
}

impl Entry {
    pub(super) fn of(request: &Request, fault: Option<Fault>) -> Self {
        let hashed = |text: &str| {
            let (scheme, secret) = text.split_once(' ').unwrap_or(("", text));
            format!("{scheme} {}", &Digest::of(secret.as_bytes()).hex()[..8])
        };
        let kept = |name: &str| request.header(name).map(str::to_owned);
        Self {
            kind: Kind::of(request),
            method: request.method.clone(),
            path: request.path.clone(),
            host: kept("host").unwrap_or_default(),
            authorization: request.header("authorization").map(hashed),
            range: kept("range"),
            content_range: kept("content-range"),
            content_type: kept("content-type"),
            received: request.body.len() as u64,
            whole: request.whole,
            status: 0,
            fault,
        }
    }

    /// Method and path, for assertions that print well.
    pub(crate) fn line(&self) -> String {
        format!("{} {} -> {}", self.method, self.path, self.status)
    }
}
