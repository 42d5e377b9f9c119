//! What can go wrong between a SOURCE and a tree, said once. No message holds user information of a URL or a credential.

use std::io;
use std::path::PathBuf;

use crate::error::{ExitKind, UserError};

/// Why a source could not be fetched, read or checked out.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// What was given as SOURCE is neither a path nor a URL that may be used; refused before anything is opened.
    #[error("`{text}` is not a source: {why}")]
    Location {
        /// What was given, without user information, shortened.
        text: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// What was given as revision cannot be one; refused before anything is opened.
    #[error("`{rev}` is not a revision: {why}")]
    Rev {
        /// What was given, shortened.
        rev: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Neither the path nor a directory above it is a repository.
    #[error("`{}` is not in a git repository", path.display())]
    NoRepository {
        /// The path that was given.
        path: PathBuf,
    },
    /// There is a repository, but it cannot be opened.
    #[error("cannot open the repository `{}`", path.display())]
    Open {
        /// Its git directory.
        path: PathBuf,
        /// What libgit2 says.
        source: git2::Error,
    },
    /// The server knows no such repository, or hides it.
    #[error("there is no repository at `{place}`")]
    NoRemote {
        /// The URL.
        place: String,
    },
    /// A repository without a commit.
    #[error("`{place}` has no commit to build")]
    Empty {
        /// Path or URL.
        place: String,
    },
    /// No such revision.
    #[error("`{place}` has no revision `{rev}` (looked for {})", tried.join(", "))]
    RevUnknown {
        /// Path or URL.
        place: String,
        /// The revision.
        rev: String,
        /// What was looked for, in order.
        tried: Vec<String>,
    },
    /// More than one object begins like that.
    #[error("more than one object of `{place}` begins with `{rev}`")]
    Ambiguous {
        /// The path.
        place: String,
        /// The abbreviated SHA.
        rev: String,
    },
    /// The revision names something that is not, and does not point to, a commit.
    #[error("`{rev}` of `{place}` is not a commit")]
    NotACommit {
        /// Path or URL.
        place: String,
        /// The revision.
        rev: String,
    },
    /// The server cannot be reached or broke off.
    #[error("cannot fetch from `{place}`")]
    Network {
        /// The URL.
        place: String,
        /// What libgit2 says.
        source: git2::Error,
    },
    /// The server said nothing for too long.
    #[error("`{place}` said nothing for {seconds} s")]
    Stalled {
        /// The URL.
        place: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The server wants credentials, and there are no more to try.
    #[error("`{place}` wants credentials: {}", if tried.is_empty() { "none were found".to_owned() } else { format!("{} refused", tried.join(", ")) })]
    Auth {
        /// The URL.
        place: String,
        /// Kinds of credentials that were tried; never a value.
        tried: Vec<&'static str>,
    },
    /// The server redirects to another one, and that wants credentials, which it does not get.
    #[error("`{place}` redirects to `{to}`, which wants credentials")]
    Redirected {
        /// The URL.
        place: String,
        /// Where it redirects to, without user information.
        to: String,
    },
    /// The host key or the certificate of the server is not trusted.
    #[error("the identity of `{place}` is not proven")]
    Untrusted {
        /// The URL.
        place: String,
        /// What libgit2 says.
        source: git2::Error,
    },
    /// An object is missing or does not hash to its name.
    #[error("cannot read {what} of `{place}`")]
    Object {
        /// Path or URL.
        place: String,
        /// Which object.
        what: String,
        /// What libgit2 says.
        source: git2::Error,
    },
    /// The mirror in the cache was broken; it was set aside, and the next run makes it again.
    #[error("the mirror of `{place}` in the cache is broken: {what}")]
    Mirror {
        /// The URL.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// The commit holds an entry that must not reach a disk.
    #[error("the commit holds `{path}`, which is refused: {why}")]
    Entry {
        /// Its path, escaped.
        path: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// The disk, or this process's rights on it.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried, such as `write`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

impl UserError for SourceError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Location { .. } | Self::Rev { .. } => ExitKind::Usage,
            Self::NoRepository { .. }
            | Self::Open { .. }
            | Self::NoRemote { .. }
            | Self::Empty { .. }
            | Self::RevUnknown { .. }
            | Self::Ambiguous { .. }
            | Self::NotACommit { .. }
            | Self::Object { .. }
            | Self::Entry { .. } => ExitKind::Refused,
            Self::Network { .. } | Self::Stalled { .. } | Self::Mirror { .. } => ExitKind::Unavailable,
            Self::Auth { .. } | Self::Redirected { .. } | Self::Untrusted { .. } => ExitKind::Unauthorized,
            Self::Io { .. } => ExitKind::Machine,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Location { .. } => "a source is a path, `https://host/path`, `ssh://host/path` or `git@host:path`",
            Self::Rev { .. } => "a revision is a full SHA, a tag, a branch, `refs/...` or `HEAD`",
            Self::NoRepository { .. } => "name a directory inside a git repository, or a URL",
            Self::Open { source, .. }
                if source.message().contains("extension") || source.message().contains("object") =>
            {
                "this form of repository (SHA-256, reftable) cannot be read in place: name its URL instead"
            }
            Self::Open { .. } => "look at it with `git fsck`; its files must be readable by this user",
            Self::NoRemote { .. } => {
                "a private repository also looks like this without credentials: set `GIT_TOKEN` or a git credential helper"
            }
            Self::Empty { .. } => "commit something first",
            Self::RevUnknown { rev, .. } if is_hex(rev) && rev.len() < 40 => {
                "an abbreviated SHA is looked up in local repositories only: give all 40 digits"
            }
            Self::RevUnknown { rev, .. } if is_hex(rev) => {
                "a server may refuse to give a commit by its SHA when no branch or tag leads to it: \
                 push the commit, name its branch or tag, or set `uploadpack.allowAnySHA1InWant` on the server"
            }
            Self::RevUnknown { .. } => "is it pushed? `git ls-remote` lists what the server has",
            Self::Ambiguous { .. } => "give more digits of the SHA",
            Self::NotACommit { .. } => "name a commit, or a tag of one",
            Self::Network { source, .. } if source.class() == git2::ErrorClass::Ssl => {
                "the connection is not secure or broke off: is the certificate made out for this host?"
            }
            Self::Network { .. } | Self::Stalled { .. } => "look at the address and the network, then run it again",
            Self::Auth { tried, .. } if tried.contains(&SSH_AGENT) => {
                "the ssh agent's keys must be known to the server: look at `ssh-add -l`"
            }
            Self::Auth { .. } => {
                "set `GIT_TOKEN` (and `GIT_USERNAME`), configure a git credential helper, or for ssh start an agent with a key"
            }
            Self::Redirected { .. } => "credentials do not follow a redirect: name the repository by its own URL",
            Self::Untrusted { source, .. } if source.class() == git2::ErrorClass::Ssh => {
                "an unknown or changed host key is never accepted: check it, and add it to `~/.ssh/known_hosts`"
            }
            Self::Untrusted { .. } => {
                "the certificate must be valid for the host; a private authority goes into `SSL_CERT_FILE`"
            }
            Self::Object { .. } => {
                "look at the repository with `git fsck`; a shallow or partial clone may lack the object"
            }
            Self::Mirror { .. } => "the broken mirror was set aside: run it again, and it is fetched anew",
            Self::Entry { .. } => "remove the entry from the repository",
            Self::Io { .. } => return None,
        };
        Some(text.to_owned())
    }
}

/// How the ssh agent is named among the credentials that were tried.
pub(super) const SSH_AGENT: &str = "ssh agent";

/// Whether `text` could be a SHA or the beginning of one.
pub(super) fn is_hex(text: &str) -> bool {
    text.len() >= 4 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `text` fit for a message: escaped, and not longer than a line.
pub(super) fn shown(text: &str) -> String {
    let mut escaped: String = text.chars().take(100).flat_map(char::escape_debug).collect();
    if text.chars().nth(100).is_some() {
        escaped.push_str("...");
    }
    escaped
}
