//! The location of a repository: a local path, or a URL of an allowed scheme. `Display` and `Debug` omit user
//! information.
//!
//! git's forms of URLs (`user@host:path`) and rules are not those of the crate `url`, so the parser is ours.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::{SourceError, shown};
use super::git_host::GitHost;
use crate::secret::Secret;

/// The location of a repository, such as the argument SOURCE.
#[derive(Clone, PartialEq, Eq)]
pub struct Location(pub(super) LocationKind);

/// A path, which is read in place, or a URL, which is fetched.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum LocationKind {
    /// A directory: a worktree, something below one, or a bare repository.
    Local(PathBuf),
    /// A repository on a server.
    Remote(Url),
}

/// A URL whose parts are safe to pass to a transport.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: Scheme,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    /// In lower case, an IPv6 address in brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Begins with `/`, except in the scp form.
    pub(super) path: String,
}

/// How a URL was written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
    Ssh,
    /// `user@host:path`, the path relative to the user's home.
    Scp,
}

impl Location {
    /// The path of a local repository, as given.
    pub fn local(&self) -> Option<&Path> {
        match &self.0 {
            LocationKind::Local(path) => Some(path),
            LocationKind::Remote(_) => None,
        }
    }

    /// The address of the repository on the web, `https://host/path`, the same for all URLs that it can be cloned from.
    /// `None` for a repository on this machine, which has no meaning elsewhere.
    pub fn web_address(&self) -> Option<String> {
        match &self.0 {
            LocationKind::Local(_) => None,
            LocationKind::Remote(url) => url.web_address(),
        }
    }

    /// The server of a URL; `None` for a repository on this machine.
    pub fn git_host(&self) -> Option<GitHost> {
        match &self.0 {
            LocationKind::Local(_) => None,
            LocationKind::Remote(url) => Some(url.git_host()),
        }
    }

    /// The location that `url`, which begins with `./` or `../`, stands for beside this one (git-submodule(1)); `None` if it leads
    /// out of the server.
    pub(super) fn relative(&self, url: &str) -> Option<Self> {
        let LocationKind::Remote(base) = &self.0 else { return None };
        let mut path = base.path.trim_end_matches('/');
        let mut rest = url.trim_end_matches('/');
        loop {
            if let Some(after) = rest.strip_prefix("./") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix("../") {
                let (above, _) = path.rsplit_once('/').or((!path.is_empty()).then_some(("", "")))?;
                (path, rest) = (above, after);
            } else {
                break;
            }
        }
        let is_below_home = path.is_empty() && base.scheme == Scheme::Scp;
        base.beside(&if is_below_home { rest.to_owned() } else { format!("{path}/{rest}") })
    }

    /// The same, with the user and password of `other` if it has none and is on the same server.
    pub(super) fn with_login_of(&self, other: &Self) -> Self {
        let (LocationKind::Remote(url), LocationKind::Remote(other)) = (&self.0, &other.0) else { return self.clone() };
        let is_bare = url.user.is_none() && url.password.is_none();
        if !is_bare || !url.same_server(&other.identity()) {
            return self.clone();
        }
        let (user, password) = (other.user.clone(), other.password.clone());
        Self(LocationKind::Remote(Url { user, password, ..url.clone() }))
    }

    /// The last component of the path without `.git`; `app` if there is none.
    pub(super) fn name(&self) -> String {
        let text = match &self.0 {
            LocationKind::Local(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            LocationKind::Remote(url) => url.path.clone(),
        };
        let text = text.trim_end_matches('/');
        let last = text.strip_suffix("/.git").unwrap_or(text).rsplit('/').next().unwrap_or_default();
        let name = last.strip_suffix(".git").unwrap_or(last);
        if name.is_empty() { "app".to_owned() } else { name.to_owned() }
    }
}

impl FromStr for Location {
    type Err = SourceError;

    /// The rules of git-clone(1), GIT URLS, without what runs programs or is not encrypted (`ext::`, `git://`,
    /// `http://` except to loopback), and without what could be taken for an option (CVE-2017-1000117).
    fn from_str(text: &str) -> Result<Self, SourceError> {
        let refuse = |why| Err(SourceError::Location { text: without_user(text), why });
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.starts_with('-') {
            return refuse("it begins with `-`");
        }
        if text.chars().any(char::is_control) {
            return refuse("it has control characters");
        }
        if text.split_once("::").is_some_and(|(helper, _)| helper.bytes().all(|b| b.is_ascii_alphanumeric())) {
            return refuse("remote helpers are not supported");
        }
        let parsed = match text.split_once("://") {
            Some(("file", rest)) => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                return if path.starts_with('/') {
                    Ok(Self(LocationKind::Local(path.into())))
                } else {
                    refuse("`file` has no host")
                };
            }
            Some((scheme, rest)) => Url::parse(scheme, rest),
            None => match text.split_once(':') {
                Some((host, path)) if !host.contains('/') && !host.starts_with('.') => Url::scp(host, path),
                _ => return Ok(Self(LocationKind::Local(text.into()))),
            },
        };
        match parsed {
            Ok(url) => Ok(Self(LocationKind::Remote(url))),
            Err(why) => refuse(why),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            LocationKind::Local(path) => path.display().fmt(f),
            LocationKind::Remote(url) => f.write_str(&url.identity()),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Url {
    fn parse(scheme: &str, rest: &str) -> Result<Self, &'static str> {
        let scheme = match scheme {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "ssh" | "git+ssh" | "ssh+git" => Scheme::Ssh,
            _ => return Err("the scheme must be `https`, `ssh` or `file`"),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, password, address) = split_user(authority);
        let (host, port) = match address.rfind(':') {
            Some(colon) if !address[colon..].contains(']') => (&address[..colon], Some(&address[colon + 1..])),
            _ => (address, None),
        };
        let port = match port {
            None | Some("") => None,
            Some(digits) => Some(digits.parse().map_err(|_| "the port is not a number")?),
        };
        let url = Self { scheme, user, password, host: host.to_ascii_lowercase(), port, path: path.to_owned() };
        if path.len() < 2 {
            return Err("it names no repository");
        }
        if scheme == Scheme::Http && !url.is_loopback() {
            return Err("`http` is allowed for loopback only, because it is not encrypted");
        }
        url.checked()
    }

    fn scp(address: &str, path: &str) -> Result<Self, &'static str> {
        let (user, password, host) = split_user(address);
        if path.is_empty() {
            return Err("it names no repository");
        }
        let host = host.to_ascii_lowercase();
        Self { scheme: Scheme::Scp, user, password, host, port: None, path: path.to_owned() }.checked()
    }

    fn checked(self) -> Result<Self, &'static str> {
        let host = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        let good = match host {
            Some(v6) => matches!(v6.parse(), Ok(IpAddr::V6(_))),
            None => !self.host.is_empty() && plain(&self.host),
        };
        if !good {
            return Err("the host is not a host name");
        }
        let dashed = |text: &str| text.starts_with('-');
        if dashed(&self.host) || dashed(&self.path) || self.user.as_deref().is_some_and(dashed) {
            return Err("host, user or path begin with `-`");
        }
        // `git credential` takes a line for each, and an ssh URL is put together again from decoded parts.
        let user = self.user.as_deref().unwrap_or_default();
        if user.contains(char::is_control) || self.is_ssh() && user.contains(|c: char| "@:/?#\\ ".contains(c)) {
            return Err("the user has a character that no login has");
        }
        if self.path.contains(|c: char| c.is_whitespace() || "\\#'\"`".contains(c)) {
            return Err("the path holds a space, a quote, `#` or `\\`");
        }
        Ok(self)
    }

    /// Another repository of the same server; `None` if its path is not valid.
    fn beside(&self, path: &str) -> Option<Location> {
        let url = Self { path: path.to_owned(), ..self.clone() }.checked().ok()?;
        let is_plain = url.path.split('/').all(|part| !matches!(part, "." | "..") && !part.contains(char::is_control));
        (url.path.len() > 1 && is_plain).then_some(Location(LocationKind::Remote(url)))
    }

    /// See [`Location::web_address`].
    fn web_address(&self) -> Option<String> {
        if self.is_loopback() {
            return None;
        }
        let host = if self.is_ssh() { self.host.clone() } else { self.authority() };
        let path = self.path.trim_matches('/');
        Some(format!("https://{host}/{}", path.strip_suffix(".git").unwrap_or(path)))
    }

    fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// The port that it leads to.
    fn used_port(&self) -> u16 {
        let standard = match self.scheme {
            Scheme::Https => 443,
            Scheme::Http => 80,
            Scheme::Ssh | Scheme::Scp => 22,
        };
        self.port.unwrap_or(standard)
    }

    fn git_host(&self) -> GitHost {
        GitHost { host: self.host.clone(), port: Some(self.used_port()) }
    }

    /// Whether `server` is the one that it leads to.
    pub(super) fn is_on(&self, server: &GitHost) -> bool {
        server.host == self.host && server.port.is_none_or(|port| port == self.used_port())
    }

    /// Host and port as a credential helper wants them.
    pub(super) fn authority(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    /// The URL without user information: for messages, records and names of mirrors.
    pub(super) fn identity(&self) -> String {
        match self.scheme {
            Scheme::Scp => format!("{}:{}", self.host, self.path),
            _ => format!("{}://{}{}", self.scheme(), self.authority(), self.path),
        }
    }

    /// The URL for libgit2: for ssh with the user, never with a password, which libgit2 asks for by a callback.
    pub(super) fn libgit2_url(&self) -> String {
        let login = self.user.as_deref().unwrap_or("git");
        match self.scheme {
            Scheme::Scp => format!("{login}@{}:{}", self.host, self.path),
            Scheme::Ssh => format!("ssh://{login}@{}{}", self.authority(), self.path),
            Scheme::Https | Scheme::Http => self.identity(),
        }
    }

    /// Whether the URL `other` has the same scheme, host and port.
    pub(super) fn same_server(&self, other: &str) -> bool {
        let server = |url: &Self| (url.scheme(), url.host.clone(), url.used_port());
        let other = other.split_once("://").map(|(scheme, rest)| Self::parse(scheme, rest));
        matches!(other, Some(Ok(other)) if server(&other) == server(self))
    }

    /// The scheme as written in a URL.
    pub(super) fn scheme(&self) -> &'static str {
        match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
            Scheme::Ssh | Scheme::Scp => "ssh",
        }
    }

    /// Whether it is spoken over ssh.
    pub(super) fn is_ssh(&self) -> bool {
        matches!(self.scheme, Scheme::Ssh | Scheme::Scp)
    }
}

fn split_user(authority: &str) -> (Option<String>, Option<Secret>, &str) {
    let Some((info, host)) = authority.rsplit_once('@') else { return (None, None, authority) };
    let (user, password) = info.split_once(':').map_or((info, None), |(user, password)| (user, Some(password)));
    let user = Some(decoded(user)).filter(|user| !user.is_empty());
    (user, password.map(|password| Secret::new(decoded(password))), host)
}

/// Decodes percent-encoding (RFC 3986, 2.1). What is not an escape stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match hex {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// For messages about an invalid location: without what is before an `@`.
pub(super) fn without_user(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once('@') else { return shown(text) };
    let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    shown(&format!("{scheme}{after}"))
}

#[cfg(test)]
mod tests;
