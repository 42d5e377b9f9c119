//! Errors of registries. No text here holds a secret: URLs are shown without user information and query, texts of registries
//! are escaped and cut.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use phial_layers::Digest;

use super::ecr::ecr_region;
use crate::error::{ExitKind, UserError};
use crate::image::{BlobError, BlobSourceError, ImageError};

/// Why a request to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No response: there is no connection, or no TLS, or it broke.
    #[error("cannot reach the registry for `{request}`{}", proxy.as_ref().map(|proxy| format!(" through {proxy}")).unwrap_or_default())]
    Reach {
        /// Method and URL.
        request: String,
        /// The proxy and the variable that names it, if one was used.
        proxy: Option<String>,
        /// The error of the HTTP client, without the URL.
        #[source]
        source: reqwest::Error,
    },
    /// The transfer stood still.
    #[error("timed out: no data for {} seconds during `{request}`", after.as_secs_f32())]
    Stalled {
        /// Method and URL.
        request: String,
        /// How long no data moved.
        after: Duration,
    },
    /// A response that ended early.
    #[error("the response to `{request}` broke off")]
    BrokeOff {
        /// Method and URL.
        request: String,
        /// How, if that is known.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The thread for connections did not start.
    #[error("cannot start the thread for requests to registries")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No trusted certificates, or another part of the HTTP client cannot be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A response with another status than expected.
    #[error("`{request}` returned status {status}{}{text}", if text.is_empty() { "" } else { ": " })]
    Status {
        /// Method and URL.
        request: String,
        /// HTTP status.
        status: u16,
        /// The registry's own text, escaped and cut.
        text: String,
        /// The pause that the registry asks for.
        retry_after: Option<Duration>,
    },
    /// No such manifest.
    #[error("`{reference}` is not in the registry")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// The response is not one of a registry, but a login page, for example.
    #[error("`{place}` does not respond like a registry: {why}")]
    NotARegistry {
        /// Host and path.
        place: String,
        /// What is unexpected.
        why: String,
    },
    /// A redirect or upload location that must not be followed.
    #[error("`{request}` is redirected to `{to}`, which is refused: {why}")]
    Redirect {
        /// Method and URL.
        request: String,
        /// Its target, without query.
        to: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A response that is too large.
    #[error("the response to `{request}` has more than {limit} bytes")]
    TooLarge {
        /// Method and URL.
        request: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A manifest or config is refused.
    #[error("`{reference}` is refused")]
    Image {
        /// What was asked for.
        reference: String,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// The bytes do not have the digest.
    #[error("`{reference}` does not match its digest")]
    Blob {
        /// What was asked for.
        reference: String,
        /// Expected and found.
        #[source]
        source: BlobError,
    },
    /// A name does not name what was just put there.
    #[error("`{reference}` should now be `{expected}`, but the registry reports {found}")]
    Verify {
        /// Tag or digest.
        reference: String,
        /// What was pushed.
        expected: Digest,
        /// What it names now.
        found: String,
    },
    /// A tag that cannot be moved.
    #[error("the tag `{reference}` is immutable and names `{found}`")]
    Immutable {
        /// The tag.
        reference: String,
        /// What it names.
        found: Digest,
    },
    /// A blob to be pushed is not available.
    #[error("cannot get the blob `{digest}` to push it")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: BlobSourceError,
    },
    /// A name that `registries.conf` blocks.
    #[error("`{name}` is blocked by `{}`", file.display())]
    Blocked {
        /// Host and repository.
        name: String,
        /// The file with that entry.
        file: PathBuf,
    },
    /// A flag, variable or settings file that cannot be used.
    #[error("cannot use {place}: {why}")]
    Setting {
        /// The file, variable or flag.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// No access with the credentials that were found, or without any.
    #[error("`{name}` refuses access{}{text}", if text.is_empty() { "" } else { ": " })]
    Denied {
        /// Host and repository.
        name: String,
        /// The registry's own text, escaped and cut.
        text: String,
        /// Which credentials it was asked with.
        login: LoginUse,
    },
    /// The registry asks for credentials in a way that Phial does not support.
    #[error("`{host}`: unsupported auth challenge: {why}")]
    Challenge {
        /// The registry.
        host: String,
        /// What is missing or wrong.
        why: String,
    },
    /// A token server that must not get credentials.
    #[error("`{host}` names the token server `{realm}`, which is refused: {why}")]
    Realm {
        /// The registry.
        host: String,
        /// The token server, escaped, without its query.
        realm: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// No token from the token server.
    #[error("the token server `{realm}` returned no token: {why}")]
    Token {
        /// Host and path.
        realm: String,
        /// What it returned.
        why: String,
    },
    /// A file or variable with credentials that cannot be used.
    #[error("cannot use the credentials in {place}: {why}")]
    Credentials {
        /// The file or variable.
        place: String,
        /// What is wrong, without any part of its content.
        why: String,
    },
    /// A credential helper that fails.
    #[error("`{helper}` returned no credentials for `{host}`: {why}")]
    Helper {
        /// The program.
        helper: String,
        /// The registry.
        host: String,
        /// Its error.
        why: String,
    },
}

/// Which credentials a registry was asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginUse {
    /// Those that were found.
    Used,
    /// None, since none were found.
    NotFound,
    /// None, since the caller did not name the registry.
    Withheld,
}

impl LoginUse {
    pub(super) fn of(is_found: bool) -> Self {
        if is_found { Self::Used } else { Self::NotFound }
    }
}

impl RegistryError {
    /// The error of a settings file.
    pub(super) fn setting(file: &Path, why: impl Into<String>) -> Self {
        Self::Setting { place: format!("`{}`", file.display()), why: why.into() }
    }

    /// For `map_err`: the error of a refused document.
    pub(super) fn image(reference: &impl ToString) -> impl FnOnce(ImageError) -> Self {
        let reference = reference.to_string();
        move |source| Self::Image { reference, source }
    }

    /// For `map_err`: the error of bytes without the expected digest.
    pub(super) fn blob(reference: &impl ToString) -> impl FnOnce(BlobError) -> Self {
        let reference = reference.to_string();
        move |source| Self::Blob { reference, source }
    }

    /// Whether the same request may succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Reach { source, .. } => !source.is_builder() && !is_about_tls(source),
            Self::Status { status, .. } => is_retryable(*status),
            Self::Stalled { .. } | Self::BrokeOff { .. } => true,
            _ => false,
        }
    }

    /// Whether a manifest was refused because a blob or manifest that it names is missing.
    pub(super) fn is_missing_content(&self) -> bool {
        matches!(self, Self::Status { status: 400 | 404, text, .. }
            if text.contains("BLOB_UNKNOWN") || text.contains("MANIFEST_UNKNOWN"))
    }

    /// Whether no connection was made.
    pub(super) fn is_connect_error(&self) -> bool {
        matches!(self, Self::Reach { source, .. } if source.is_connect())
    }
}

/// Whether a later try may get another status.
pub(super) fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 429 | 499 | 500 | 502 | 503 | 504 | 522)
}

impl UserError for RegistryError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Image { .. }
            | Self::Blob { .. }
            | Self::NotFound { .. }
            | Self::Immutable { .. }
            | Self::Status { status: 404, .. } => ExitKind::Refused,
            Self::Source { source, .. } => source.exit_kind(),
            Self::Setting { .. } | Self::Blocked { .. } => ExitKind::Usage,
            Self::Tls { .. } | Self::Thread { .. } => ExitKind::Machine,
            Self::Denied { .. }
            | Self::Challenge { .. }
            | Self::Realm { .. }
            | Self::Token { .. }
            | Self::Credentials { .. }
            | Self::Helper { .. }
            | Self::Status { status: 401 | 403, .. } => ExitKind::Unauthorized,
            _ => ExitKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { name, login, .. } => Some(hint_for_denied(name, *login)),
            Self::Status { status: 404, text, .. } if text.contains("NAME_UNKNOWN") => {
                Some("create the repository: some registries do not create it at the first push".into())
            }
            Self::Status { request, status: 400 | 405, .. } if request.starts_with("DELETE") => {
                Some("the registry does not delete on request: set up a cleanup rule there".into())
            }
            Self::Status { status: 413, .. } => {
                Some("the registry or a proxy before it limits the size of a request".into())
            }
            Self::Status { status: 429 | 503, retry_after: Some(after), .. } => {
                Some(format!("the registry asks to wait {} seconds", after.as_secs()))
            }
            Self::Status { status: 429, .. } => {
                Some("the registry limits the rate of requests: wait, log in, or name a mirror of it in `registries.conf`".into())
            }
            Self::Reach { source, .. } if is_about_tls(source) => {
                Some("name a file of certificates to trust with `--ca-file`, or with `SSL_CERT_FILE` in place of the system's".into())
            }
            Self::Reach { source, proxy: Some(_), .. } if source.is_connect() => {
                Some("the proxy may be down, require a login (`http://user:password@host:port`), or not reach that host; `NO_PROXY` lists hosts that are reached without it".into())
            }
            Self::Status { status: 407, .. } => {
                Some("the proxy requires a login: write `http://user:password@host:port` in its variable".into())
            }
            Self::Reach { source, .. } if source.is_connect() => {
                Some("check host and port; plain http is used for loopback and for hosts named with `--plain-http` only".into())
            }
            Self::Tls { .. } => {
                Some("install `ca-certificates`, or name a file of certificates in `SSL_CERT_FILE`".into())
            }
            Self::Image { source, .. } => source.hint(),
            Self::Source { source, .. } => source.hint(),
            Self::Immutable { reference, .. } if reference.contains(":sha256-") => {
                Some("referrers are listed under that tag: exclude `sha256-*` from the immutable tags".into())
            }
            Self::Immutable { .. } => Some("choose another tag".into()),
            Self::NotFound { .. } => {
                Some("check the name and the tag; without a login, some registries say this of private repositories".into())
            }
            Self::Blocked { .. } => Some("that file has `blocked = true` for it".into()),
            Self::Blob { .. } => Some("copy or push the image again".into()),
            // They are tried again, or their texts say what is wrong at the other end.
            Self::Reach { .. } | Self::Stalled { .. } | Self::BrokeOff { .. } | Self::Status { .. }
            | Self::NotARegistry { .. } | Self::Redirect { .. } | Self::TooLarge { .. } | Self::Verify { .. }
            | Self::Challenge { .. } | Self::Realm { .. } | Self::Token { .. }
            | Self::Credentials { .. } | Self::Helper { .. } | Self::Setting { .. } | Self::Thread { .. } => None,
        }
    }
}

/// What to do if a repository, `name` with its host, refuses access.
fn hint_for_denied(name: &str, login: LoginUse) -> String {
    let host = name.split('/').next().unwrap_or_default();
    let doctor = format!("`phial doctor --registry {name}`");
    match (login, ecr_region(host).is_some()) {
        (LoginUse::Withheld, _) => format!(
            "`{host}` gets no login of yours, since a commit or an image names it and you do not: if it may have it, name the image with \
             `--base`, or the settings with `--config`"
        ),
        (LoginUse::Used, true) => {
            "a login for ECR expires after 12 hours; or it lacks rights on this repository".into()
        }
        (LoginUse::NotFound, true) => {
            "install `docker-credential-ecr-login`, which logs its failures to `~/.ecr/log`, or `aws`".into()
        }
        (LoginUse::Used, false) => format!(
            "the credentials for `{host}` may be wrong or expired, or lack rights on this repository; {doctor} shows which ones are used"
        ),
        (LoginUse::NotFound, false) => format!(
            "no credentials for `{host}` were found: log in with `docker login {host}`, or set `DOCKER_AUTH_CONFIG`; {doctor} shows where \
             Phial looked"
        ),
    }
}

/// Whether TLS failed, for example because of a certificate: no later try changes that.
fn is_about_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    // `source` of an `io::Error` skips the error that it wraps; the HTTP client wraps those of TLS so.
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>()
        || inner.is_some_and(|inner| is_about_tls(inner))
        || error.source().is_some_and(is_about_tls)
}
