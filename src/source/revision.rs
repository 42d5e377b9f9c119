//! A revision: `HEAD`, a full SHA, or the name of a tag or branch; no expression such as `HEAD~1`.

use std::fmt;

use super::error::{SourceError, is_hex, shown};

/// A revision to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Revision {
    /// The commit that is checked out, or the default branch of the server.
    Head,
    /// 40 lower-case hex digits.
    Sha(String),
    /// A tag, a branch, a whole reference, or (locally) the beginning of a SHA.
    Name(String),
}

impl Revision {
    /// Parses a revision by the rules of git-check-ref-format(1), which exclude `..`, `@{`, `~`, `^`, `:` and control
    /// characters. A leading `-` is an error too (CVE-2018-17456).
    pub(super) fn parse(text: &str) -> Result<Self, SourceError> {
        let refuse = |why| Err(SourceError::Revision { rev: shown(text), why });
        match text {
            "" => return refuse("it is empty"),
            "HEAD" => return Ok(Self::Head),
            _ if text.starts_with('-') => return refuse("it begins with `-`"),
            _ if text.len() > 1024 => return refuse("it is longer than 1024 bytes"),
            _ if is_hex(text) && text.len() == 64 => return refuse("SHA-256 repositories are not supported"),
            _ if is_hex(text) && text.len() == 40 => return Ok(Self::Sha(text.to_ascii_lowercase())),
            _ => {}
        }
        if text == "@" || !git2::Reference::is_valid_name(&format!("refs/heads/{text}")) {
            return refuse("it is not a SHA or a valid name of a tag or branch");
        }
        Ok(Self::Name(text.to_owned()))
    }

    /// The references that a name may mean; the first that exists counts (gitrevisions(7)).
    pub(super) fn candidates(name: &str) -> Vec<String> {
        if name.starts_with("refs/") {
            return vec![name.to_owned()];
        }
        ["refs/tags/", "refs/heads/", "refs/", "refs/remotes/"].iter().map(|prefix| format!("{prefix}{name}")).collect()
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("HEAD"),
            Self::Sha(text) | Self::Name(text) => f.write_str(text),
        }
    }
}
