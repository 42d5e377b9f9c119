//! What can go wrong with a registry, and what to do about it. No text here holds a secret: URLs are shown without their
//! user information and query, answers of registries escaped and cut.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use phial_layers::Digest;

use super::credentials::ecr_region;
use crate::error::{ExitKind, UserError};
use crate::image::{BlobError, BlobSourceError, ImageError};

/// Why a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer: no connection, no TLS, or it broke.
    #[error("cannot reach the registry for `{request}`{}", proxy.as_ref().map(|proxy| format!(" through {proxy}")).unwrap_or_default())]
    Reach {
        /// Method and place.
        request: String,
        /// The proxy, if it went through one, and the variable that names it.
        proxy: Option<String>,
        /// The network's answer, without the URL.
        #[source]
        source: reqwest::Error,
    },
    /// The connection stood still.
    #[error("the registry keeps silent: nothing moved for {} seconds during `{request}`", after.as_secs_f32())]
    Stalled {
        /// Method and place.
        request: String,
        /// How long was waited.
        after: Duration,
    },
    /// An answer that ended before its end.
    #[error("the answer to `{request}` broke off")]
    BrokeOff {
        /// Method and place.
        request: String,
        /// How, if that is known.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// This machine gives no thread for the connections.
    #[error("cannot start the thread that speaks to registries")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This machine has no usable TLS roots, or another part of the client could not be made.
    #[error("cannot set up TLS")]
    Tls {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// An answer that is not the one hoped for.
    #[error("`{request}` was answered {status}{}{text}", if text.is_empty() { "" } else { ": " })]
    Status {
        /// Method and place.
        request: String,
        /// HTTP status.
        status: u16,
        /// What the registry said, escaped and cut.
        text: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// No such manifest.
    #[error("`{reference}` is not in the registry")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// The answer comes from something else, such as a login page.
    #[error("`{place}` does not answer as a registry does: {why}")]
    NotARegistry {
        /// Host and path.
        place: String,
        /// What is odd.
        why: String,
    },
    /// A redirect or upload location that must not be followed.
    #[error("`{request}` is redirected to `{to}`, which is refused: {why}")]
    Redirect {
        /// Method and place.
        request: String,
        /// Where it leads, without its query.
        to: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// An answer longer than is read.
    #[error("the answer to `{request}` has more than {limit} bytes")]
    TooLarge {
        /// Method and place.
        request: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// What came is refused.
    #[error("`{reference}` is refused")]
    Image {
        /// What was asked for.
        reference: String,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// Other bytes came than the digest says.
    #[error("`{reference}` is not what its digest says")]
    Blob {
        /// What was asked for.
        reference: String,
        /// Expected and found.
        #[source]
        source: BlobError,
    },
    /// A name in the registry does not hold what was just put there.
    #[error("`{reference}` should now be `{expected}` but the registry says {found}")]
    Verify {
        /// Tag or digest.
        reference: String,
        /// What was pushed.
        expected: Digest,
        /// What it says now.
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
    /// A blob to be pushed could not be had.
    #[error("cannot get the blob `{digest}` to push it")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: BlobSourceError,
    },
    /// A name that `registries.conf` lets nobody use.
    #[error("`{name}` is blocked by `{}`", file.display())]
    Blocked {
        /// Host and repository.
        name: String,
        /// The file that says so.
        file: PathBuf,
    },
    /// A setting of this machine, a flag or a file, that cannot be used.
    #[error("cannot use {place}: {why}")]
    Setting {
        /// The file, variable or flag.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// Refused, with the best credentials there were.
    #[error("`{name}` refuses access{}{text}", if text.is_empty() { "" } else { ": " })]
    Denied {
        /// Host and repository.
        name: String,
        /// What the registry said, escaped and cut.
        text: String,
        /// Whether there were credentials to send.
        had_login: bool,
    },
    /// The registry wants credentials in a way that is not known.
    #[error("`{host}` asks for credentials in no way that is known: {why}")]
    Challenge {
        /// The registry.
        host: String,
        /// What is missing or wrong.
        why: String,
    },
    /// A token server that must not get credentials.
    #[error("`{host}` sends to the token server `{realm}`, which is refused: {why}")]
    Realm {
        /// The registry.
        host: String,
        /// The token server, escaped, without its query.
        realm: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// No token from the token server.
    #[error("the token server `{realm}` gives no token: {why}")]
    Token {
        /// Host and path.
        realm: String,
        /// What it answered.
        why: String,
    },
    /// A file or variable with credentials that cannot be used.
    #[error("cannot use the credentials in {place}: {why}")]
    Credentials {
        /// The file or variable.
        place: String,
        /// What is wrong; never what it holds.
        why: String,
    },
    /// A credential helper that fails.
    #[error("`{helper}` gives no credentials for `{host}`: {why}")]
    Helper {
        /// The program.
        helper: String,
        /// The registry.
        host: String,
        /// What it said or did.
        why: String,
    },
}

impl RegistryError {
    pub(super) fn image(reference: &impl ToString) -> impl FnOnce(ImageError) -> Self {
        let reference = reference.to_string();
        move |source| Self::Image { reference, source }
    }

    pub(super) fn blob(reference: &impl ToString) -> impl FnOnce(BlobError) -> Self {
        let reference = reference.to_string();
        move |source| Self::Blob { reference, source }
    }

    /// Whether the same request may do better a little later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Reach { source, .. } => !source.is_builder() && !is_about_tls(source),
            Self::Status { status, .. } => matches!(status, 408 | 429 | 499 | 500 | 502 | 503 | 504 | 522),
            Self::Stalled { .. } | Self::BrokeOff { .. } => true,
            _ => false,
        }
    }

    /// Whether a manifest was refused for something it names that is not there.
    pub(super) fn is_about_content(&self) -> bool {
        matches!(self, Self::Status { status: 400 | 404, text, .. }
            if text.contains("BLOB_UNKNOWN") || text.contains("MANIFEST_UNKNOWN"))
    }

    /// Whether no connection came about.
    pub(super) fn is_about_connecting(&self) -> bool {
        matches!(self, Self::Reach { source, .. } if source.is_connect())
    }
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
            Self::Denied { name, had_login, .. } if ecr_region(name.split('/').next().unwrap_or_default()).is_some() => {
                Some(if *had_login {
                    "a login of ECR ends after 12 hours; or it lacks rights on this repository".into()
                } else {
                    "`docker-credential-ecr-login`, which writes why it has nothing to `~/.ecr/log`, or else `aws` is asked if it is in `PATH`"
                        .into()
                })
            }
            Self::Denied { name, had_login, .. } => {
                let host = name.split('/').next().unwrap_or_default();
                Some(if *had_login {
                    format!(
                        "the credentials for `{host}` may be wrong or expired, or lack rights on this repository; `phial doctor --registry {name}` says which they are"
                    )
                } else {
                    format!(
                        "no credentials for `{host}` were found: log in with `docker login {host}`, or set `DOCKER_AUTH_CONFIG`; `phial doctor --registry` says where was looked"
                    )
                })
            }
            Self::Status { status: 404, text, .. } if text.contains("NAME_UNKNOWN") => {
                Some("some registries want a repository to be created before the first push".into())
            }
            Self::Status { request, status: 400 | 405, .. } if request.starts_with("DELETE") => {
                Some("the registry removes nothing when asked: give it a rule of its own for such tags".into())
            }
            Self::Status { status: 413, .. } => {
                Some("the registry or a proxy before it limits the size of a request".into())
            }
            Self::Status { status: 429 | 503, retry_after: Some(after), .. } => {
                Some(format!("the registry asks to wait {} seconds", after.as_secs()))
            }
            Self::Status { status: 429, .. } => {
                Some("the registry limits how often it is asked: wait, log in, or name a mirror of it in `registries.conf`".into())
            }
            Self::Reach { source, .. } if is_about_tls(source) => {
                Some("name the file of certificates to trust with `--ca-file`, or with `SSL_CERT_FILE` instead of the system's".into())
            }
            Self::Reach { source, proxy: Some(_), .. } if source.is_connect() => {
                Some("the proxy may be down, want a login (`http://user:password@host:port`), or not lead there; `NO_PROXY` names hosts that are reached without it".into())
            }
            Self::Status { status: 407, .. } => {
                Some("the proxy wants a login, as `http://user:password@host:port` in its variable".into())
            }
            Self::Reach { source, .. } if source.is_connect() => {
                Some("the host and port may be wrong; plain http is spoken to loopback and to hosts named with `--plain-http` only".into())
            }
            Self::Tls { .. } => {
                Some("install `ca-certificates`, or name a file of certificates in `SSL_CERT_FILE`".into())
            }
            Self::Image { source, .. } => source.hint(),
            Self::Source { source, .. } => source.hint(),
            Self::Immutable { reference, .. } if reference.contains(":sha256-") => {
                Some("what refers to an image is listed there: exclude `sha256-*` from the immutable tags".into())
            }
            Self::Immutable { .. } => Some("choose another tag".into()),
            _ => None,
        }
    }
}

/// Whether the other side's certificate or way of TLS is the trouble: no later try changes that.
fn is_about_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    // An `io::Error` hides what it wraps from `source`.
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>()
        || inner.is_some_and(|inner| is_about_tls(inner))
        || error.source().is_some_and(is_about_tls)
}
