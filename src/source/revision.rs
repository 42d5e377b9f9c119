//! A revision, parsed once: `HEAD`, a full SHA, or the name of a tag or branch; never an expression.

use std::fmt;

use super::error::{SourceError, is_hex, shown};

/// What to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rev {
    /// What the repository has checked out, or the server's default branch.
    Head,
    /// 40 lower-case hex digits.
    Sha(String),
    /// A tag, a branch, a whole reference, or (locally) the beginning of a SHA.
    Name(String),
}

impl Rev {
    /// `text` as a revision, by the rules of `git-check-ref-format(1)`: so `..`, `@{`, `~`, `^`, `:` and control characters
    /// are refused, and a leading `-` too (CVE-2018-17456).
    pub(super) fn parse(text: &str) -> Result<Self, SourceError> {
        let refuse = |why| Err(SourceError::Rev { rev: shown(text), why });
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
            return refuse("not a SHA, and not the name of a tag or branch");
        }
        Ok(Self::Name(text.to_owned()))
    }

    /// The references a name may mean, the first that exists wins: `gitrevisions(7)`.
    pub(super) fn candidates(name: &str) -> Vec<String> {
        if name.starts_with("refs/") {
            return vec![name.to_owned()];
        }
        ["refs/tags/", "refs/heads/", "refs/", "refs/remotes/"].iter().map(|prefix| format!("{prefix}{name}")).collect()
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("HEAD"),
            Self::Sha(text) | Self::Name(text) => f.write_str(text),
        }
    }
}
