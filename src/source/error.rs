//! Errors of fetching, reading and checking out a commit. No message holds the user information of a URL or a
//! credential.

use std::path::PathBuf;

use super::encoding::Encoding;
use crate::error::{ExitKind, IoError, UserError};

/// Why a source could not be fetched, read or checked out.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// SOURCE is neither a path nor a URL that is allowed. Nothing was opened.
    #[error("`{text}` is not a source: {why}")]
    Location {
        /// The text, without user information, shortened.
        text: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// The text is no valid revision. Nothing was opened.
    #[error("`{rev}` is not a revision: {why}")]
    Revision {
        /// The text, shortened.
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
        /// The error of libgit2.
        source: git2::Error,
    },
    /// Opening it waits for something.
    #[error("the repository `{}` cannot be opened within 20 s", path.display())]
    Unanswered {
        /// Its git directory.
        path: PathBuf,
    },
    /// Whoever opens a file of it waits for ever, or reads without end.
    #[error("`{}` in a git repository is not a file but a FIFO or a device", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// A commit or tag whose object is not read.
    #[error("the object `{id}` of `{location}` is a commit or tag of more than {limit_mib} MiB, which is not read")]
    LargeCommit {
        /// Path or URL.
        location: String,
        /// Its SHA.
        id: String,
        /// The limit.
        limit_mib: usize,
    },
    /// The server has no such repository, or hides it.
    #[error("there is no repository at `{location}`")]
    NoRemote {
        /// The URL.
        location: String,
    },
    /// A repository without a commit.
    #[error("`{location}` has no commit to build")]
    Empty {
        /// Path or URL.
        location: String,
    },
    /// No such revision.
    #[error("`{location}` has no revision `{rev}` (searched {})", tried.join(", "))]
    RevUnknown {
        /// Path or URL.
        location: String,
        /// The revision.
        rev: String,
        /// Where it was searched for, in order.
        tried: Vec<String>,
    },
    /// More than one object has a SHA that begins so.
    #[error("more than one object of `{location}` begins with `{rev}`")]
    Ambiguous {
        /// The path.
        location: String,
        /// The abbreviated SHA.
        rev: String,
    },
    /// The revision is not a commit and does not point to one.
    #[error("`{rev}` of `{location}` is not a commit")]
    NotACommit {
        /// Path or URL.
        location: String,
        /// The revision.
        rev: String,
    },
    /// The server cannot be reached or closed the connection.
    #[error("cannot fetch from `{location}`")]
    Network {
        /// The URL.
        location: String,
        /// The error of libgit2.
        source: git2::Error,
    },
    /// The server sent nothing for too long.
    #[error("timed out: no data from `{location}` for {seconds} s")]
    Stalled {
        /// The URL.
        location: String,
        /// The timeout.
        seconds: u64,
    },
    /// The server sends without end, or a repository that is too large.
    #[error("`{location}` sends more than {limit_mib} MiB")]
    TooMuch {
        /// The URL.
        location: String,
        /// The limit.
        limit_mib: u64,
    },
    /// The server sends branches and tags without end, or there are too many.
    #[error("the list of branches and tags of `{location}` takes more than {limit_mib} MiB of memory")]
    LongList {
        /// The URL.
        location: String,
        /// The limit.
        limit_mib: u64,
    },
    /// The server requires credentials, and all that were found are refused.
    #[error("`{location}` requires credentials: {}", if tried.is_empty() { "none were found".to_owned() } else { format!("{} refused", tried.join(", ")) })]
    Auth {
        /// The URL.
        location: String,
        /// The kinds of credentials that were tried, without values.
        tried: Vec<&'static str>,
    },
    /// The server requires credentials, and the caller has not named it.
    #[error("`{location}` requires credentials, and gets none of yours: others name this server, not you")]
    Withheld {
        /// The URL.
        location: String,
        /// Host and port of the server.
        host: String,
    },
    /// The server redirects to another one, which requires credentials and gets none.
    #[error("`{location}` redirects to `{to}`, which requires credentials")]
    Redirected {
        /// The URL.
        location: String,
        /// Where it redirects to, without user information.
        to: String,
    },
    /// The host key or the certificate of the server is not trusted.
    #[error("cannot verify the identity of `{location}`")]
    Untrusted {
        /// The URL.
        location: String,
        /// The error of libgit2.
        source: git2::Error,
    },
    /// An object is missing or does not hash to its name.
    #[error("cannot read {what} of `{location}`")]
    Object {
        /// Path or URL.
        location: String,
        /// Which object.
        what: String,
        /// The error of libgit2.
        source: git2::Error,
    },
    /// The mirror in the cache is broken. It was moved away, and the next run fetches it again.
    #[error("the mirror of `{location}` in the cache is broken: {what}")]
    Mirror {
        /// The URL.
        location: String,
        /// What is wrong with it.
        what: String,
    },
    /// What `.gitmodules` says of a submodule is not allowed, or not enough.
    #[error("cannot fetch the submodule `{path}`{}: {why}", if url.is_empty() { String::new() } else { format!(" from `{url}`") })]
    SubmoduleUrl {
        /// Its path, escaped.
        path: String,
        /// The URL, without user information, shortened; empty if there is none.
        url: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The commit of a submodule cannot be fetched.
    #[error("cannot fetch the submodule `{path}`")]
    Submodule {
        /// Its path, escaped.
        path: String,
        /// Why.
        source: Box<SourceError>,
    },
    /// The commit has an entry that must not be written to disk.
    #[error("the commit has an entry `{path}` that is not allowed: {why}")]
    Entry {
        /// Its path, escaped.
        path: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A file that Phial reads itself is not a regular file, or is too large.
    #[error("cannot read `{path}` of the app: {why}")]
    File {
        /// Its path in the repository.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// The clone lacks objects of Git LFS, or they are damaged; of a URL they are not fetched.
    #[error("the commit has files of Git LFS whose objects are not on this machine: {files}")]
    LfsObjects {
        /// Their paths, as far as they are shown.
        files: String,
    },
    /// A file cannot have the encoding that the commit's attributes give it.
    #[error(
        "`{path}` cannot be written in {encoding}, its `working-tree-encoding`: it is not UTF-8 in the commit, or has other characters"
    )]
    Encoding {
        /// Its path.
        path: String,
        /// The encoding.
        encoding: Encoding,
    },
    /// The operating system refused an action on a path.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl UserError for SourceError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::Location { .. } | Self::Revision { .. } => ExitKind::Usage,
            Self::NoRepository { .. }
            | Self::Unanswered { .. }
            | Self::Open { .. }
            | Self::NotAFile { .. }
            | Self::LargeCommit { .. }
            | Self::NoRemote { .. }
            | Self::Empty { .. }
            | Self::RevUnknown { .. }
            | Self::Ambiguous { .. }
            | Self::NotACommit { .. }
            | Self::Object { .. }
            | Self::Encoding { .. }
            | Self::LfsObjects { .. }
            | Self::SubmoduleUrl { .. }
            | Self::File { .. }
            | Self::Entry { .. } => ExitKind::Refused,
            Self::Network { .. }
            | Self::Stalled { .. }
            | Self::TooMuch { .. }
            | Self::LongList { .. }
            | Self::Mirror { .. } => ExitKind::Unavailable,
            Self::Auth { .. } | Self::Withheld { .. } | Self::Redirected { .. } | Self::Untrusted { .. } => {
                ExitKind::Unauthorized
            }
            Self::Submodule { source, .. } => source.exit_kind(),
            Self::Io(error) => error.exit_kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Location { .. } => "a source is a path, `https://host/path`, `ssh://host/path` or `git@host:path`",
            Self::Revision { .. } => "a revision is a full SHA, a tag, a branch, `refs/...` or `HEAD`",
            Self::NoRepository { .. } => "name a directory inside a git repository, or a URL",
            Self::Open { source, .. }
                if source.message().contains("extension") || source.message().contains("object") =>
            {
                "a repository of this kind (SHA-256, reftable) cannot be read in place: give its URL instead"
            }
            Self::Open { .. } => "check it with `git fsck`; this user must be able to read its files",
            Self::Unanswered { .. } => "a file that its config includes is a FIFO, or on a disk that does not answer",
            Self::NoRemote { .. } => "if it is private: set `GIT_TOKEN` or configure a git credential helper",
            Self::Empty { .. } => "create a commit first",
            Self::RevUnknown { rev, .. } if is_hex(rev) && rev.len() < 40 => {
                "abbreviated SHAs work for local repositories only: give all 40 digits"
            }
            Self::RevUnknown { rev, .. } if is_hex(rev) => {
                "a server may refuse to give a commit by its SHA when no branch or tag leads to it: \
                 push the commit, name its branch or tag, or set `uploadpack.allowAnySHA1InWant` on the server"
            }
            Self::RevUnknown { .. } => "push it first; `git ls-remote` lists the branches and tags of the server",
            Self::Ambiguous { .. } => "give more digits of the SHA",
            Self::NotACommit { .. } => "name a commit, or a tag of one",
            Self::Network { source, .. } if source.class() == git2::ErrorClass::Ssl => {
                "TLS failed: check that the certificate of the server is for this host"
            }
            Self::Network { .. } | Self::Stalled { .. } => {
                "check the address and the network, then run the command again"
            }
            Self::Auth { tried, .. } if tried.contains(&SSH_AGENT) => {
                "the server must accept a key of the ssh agent: `ssh-add -l` lists them"
            }
            Self::Auth { .. } => {
                "set `GIT_TOKEN` (and `GIT_USERNAME`), configure a git credential helper, or start an ssh agent with a key"
            }
            Self::Withheld { host, .. } => return Some(format!("if it may have them, say `--git-host {host}`")),
            Self::Redirected { .. } => "credentials are not sent after a redirect: give the URL that it redirects to",
            Self::Untrusted { source, .. } if source.class() == git2::ErrorClass::Ssh => {
                "the host key is unknown or has changed: verify it, and add it to `~/.ssh/known_hosts`"
            }
            Self::Untrusted { .. } => {
                "the certificate must be valid for the host; set `SSL_CERT_FILE` to the certificate of a private authority"
            }
            Self::Object { .. } => {
                "check the repository with `git fsck`; a shallow or partial clone may lack the object"
            }
            Self::Mirror { .. } => "run the command again: the mirror was moved away and is fetched again",
            Self::LfsObjects { .. }
            | Self::Encoding { .. }
            | Self::SubmoduleUrl { .. }
            | Self::Submodule { .. }
            | Self::File { .. }
            | Self::NotAFile { .. }
            | Self::LargeCommit { .. }
            | Self::TooMuch { .. }
            | Self::LongList { .. }
            | Self::Entry { .. } => return Some(self.content_hint()),
            Self::Io(error) => return error.hint(),
        };
        Some(text.to_owned())
    }
}

impl SourceError {
    /// What to do about what the repository holds.
    fn content_hint(&self) -> String {
        let text = match self {
            Self::LfsObjects { .. } => {
                "build a clone that has them (`git lfs fetch`); `lfs = false` under `[source]` leaves the pointers in the image"
            }
            Self::NotAFile { .. } => {
                "check where the repository comes from; `git clone` of its origin makes one without"
            }
            Self::TooMuch { .. } | Self::LongList { .. } => "fetch it with git, and build that clone",
            Self::LargeCommit { .. } => "name another commit: its message or signature is this large",
            Self::File { .. } => "replace it by a regular file with text in UTF-8",
            Self::Encoding { .. } => "commit it again after `git add --renormalize`, or correct `.gitattributes`",
            Self::SubmoduleUrl { .. } => {
                return format!(
                    "build a clone that has it (`git submodule update --init --recursive`), or correct `.gitmodules` and commit it; \
                     {WITHOUT_SUBMODULES}"
                );
            }
            Self::Submodule { source, .. } => {
                return [source.hint().as_slice(), &[WITHOUT_SUBMODULES.to_owned()]].concat().join("; ");
            }
            _ => "remove the entry from the repository",
        };
        text.to_owned()
    }
}

/// What to do without submodules.
const WITHOUT_SUBMODULES: &str = "`submodules = false` under `[source]` leaves the directories of submodules empty";

/// The name of the ssh agent among the kinds of credentials.
pub(super) const SSH_AGENT: &str = "ssh agent";

/// Whether `text` can be a SHA or the beginning of one.
pub(super) fn is_hex(text: &str) -> bool {
    text.len() >= 4 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `text` for a message: escaped, and shortened to 100 characters.
pub(super) fn shown(text: &str) -> String {
    let mut escaped: String = text.chars().take(100).flat_map(char::escape_debug).collect();
    if text.chars().nth(100).is_some() {
        escaped.push_str("...");
    }
    escaped
}
