//! Which requests there are, what may happen to each, and when.

use super::http::{ConnectionFault, Request};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ping,
    Token,
    HeadManifest,
    HeadTag,
    GetManifest,
    GetTag,
    HeadBlob,
    GetBlob,
    /// A part of a blob, after its beginning came.
    GetRange,
    PostUpload,
    PostMount,
    Patch,
    /// How far an upload is.
    Status,
    PutBlob,
    PutManifest,
    PutTag,
    Referrers,
    Tags,
    Delete,
    Other,
}

impl Kind {
    /// What a push and a pull ask of a registry.
    pub(crate) const ALL: [Self; 16] = [
        Self::Ping,
        Self::Token,
        Self::HeadManifest,
        Self::HeadTag,
        Self::GetManifest,
        Self::GetTag,
        Self::HeadBlob,
        Self::GetBlob,
        Self::GetRange,
        Self::PostUpload,
        Self::PostMount,
        Self::Patch,
        Self::Status,
        Self::PutBlob,
        Self::PutManifest,
        Self::PutTag,
    ];

    pub(crate) fn of(request: &Request) -> Self {
        let path = request.bare_path();
        if path == "/token" {
            return Self::Token;
        }
        if path == "/v2/" || path == "/v2" {
            return Self::Ping;
        }
        let method = request.method.as_str();
        let by_digest = path.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let is_upload = path.contains("/blobs/uploads/") || path.starts_with("/artifacts-uploads/");
        match method {
            "DELETE" => Self::Delete,
            "POST" if request.query("mount").is_some() => Self::PostMount,
            "POST" => Self::PostUpload,
            "PATCH" => Self::Patch,
            "PUT" if is_upload => Self::PutBlob,
            "PUT" if by_digest => Self::PutManifest,
            "PUT" => Self::PutTag,
            "GET" if is_upload => Self::Status,
            _ if path.ends_with("/tags/list") => Self::Tags,
            _ if path.contains("/referrers/") => Self::Referrers,
            "HEAD" if path.contains("/blobs/") => Self::HeadBlob,
            "HEAD" if by_digest => Self::HeadManifest,
            "HEAD" => Self::HeadTag,
            "GET" if path.contains("/blobs/") && request.header("range").is_some() => Self::GetRange,
            "GET" if path.contains("/blobs/") => Self::GetBlob,
            "GET" if path.contains("/manifests/") && by_digest => Self::GetManifest,
            "GET" if path.contains("/manifests/") => Self::GetTag,
            _ => Self::Other,
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    ResetBefore,
    ResetMid,
    Stall,
    /// The answer ends in the middle without a reset.
    Truncated,
    /// The work is done, its answer lost.
    Lost,
    /// A status with an error that says nothing; 429 and 503 with a `Retry-After` of no time.
    Status(u16),
    /// 401, and all tokens are void.
    Expired,
    /// Other bytes, or another digest in the header.
    WrongDigest,
    /// 307 to another host, which has the same content.
    Redirect,
    /// 200 and a page of HTML.
    Garbage,
}

impl Fault {
    /// The columns of the matrix.
    pub(crate) const ALL: [Self; 13] = [
        Self::ResetBefore,
        Self::ResetMid,
        Self::Stall,
        Self::Truncated,
        Self::Lost,
        Self::Status(429),
        Self::Status(500),
        Self::Status(503),
        Self::Status(404),
        Self::Expired,
        Self::WrongDigest,
        Self::Redirect,
        Self::Garbage,
    ];

    pub(super) fn of_connection(self) -> ConnectionFault {
        match self {
            Self::ResetBefore => ConnectionFault::ResetBefore,
            Self::ResetMid => ConnectionFault::ResetMid,
            Self::Stall => ConnectionFault::Stall,
            Self::Truncated => ConnectionFault::Truncated,
            Self::Lost => ConnectionFault::Lost,
            _ => ConnectionFault::Good,
        }
    }
}

/// Which requests of a kind it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// The n-th from now on, counted from 1.
    Nth(usize),
    /// Each.
    Always,
}
