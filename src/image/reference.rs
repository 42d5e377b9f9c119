//! Names of images, parsed once: in a registry, in an OCI layout directory, in an archive.
//!
//! The type `Reference` of the crate `oci-spec` knows registries only, and has the tag `latest` where none is written.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use phial_layers::Digest;

use super::error::{ImageError, shown};

/// A repository in a registry, or a manifest in it: `host/repository[:tag][@digest]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryRef {
    /// Host and port, lower case: `registry.example`, `localhost:5000`, `[::1]:5000`, `docker.io`.
    pub host: String,
    /// `team/app`; `library/debian` for Docker Hub's short names.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest; it wins over the tag.
    pub digest: Option<Digest>,
}

/// Where an image can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `host/repository[:tag][@digest]`, or Docker's short names.
    Registry(RegistryRef),
    /// `oci:DIR[:tag][@digest]`.
    Layout {
        /// The layout directory.
        dir: PathBuf,
        /// `org.opencontainers.image.ref.name` in its `index.json`.
        tag: Option<String>,
        /// The manifest's digest; wins over the tag.
        digest: Option<Digest>,
    },
    /// `oci-archive:FILE[:tag][@digest]`.
    OciArchive {
        /// A tar of a layout.
        file: PathBuf,
        /// As for `Layout`.
        tag: Option<String>,
        /// As for `Layout`.
        digest: Option<Digest>,
    },
}

/// Where an image is written. A digest in it is a condition: an image with another digest is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `host/repository[:tag][@digest]`.
    Registry(RegistryRef),
    /// `oci:DIR[:tag][@digest]`.
    Layout {
        /// The layout directory, made if it is not there.
        dir: PathBuf,
        /// Its name in `index.json`.
        tag: Option<String>,
        /// The only digest that may be written.
        digest: Option<Digest>,
    },
    /// `oci-archive:FILE[:tag][@digest]`.
    OciArchive {
        /// The tar to write.
        file: PathBuf,
        /// Its name in `index.json`.
        tag: Option<String>,
        /// The only digest that may be written.
        digest: Option<Digest>,
    },
    /// `docker-archive:FILE[:tag][@digest]`, for `docker load`.
    DockerArchive {
        /// The tar to write.
        file: PathBuf,
        /// The tag, without the name before it.
        tag: Option<String>,
        /// The only digest that may be written.
        digest: Option<Digest>,
    },
}

/// Why a text is not a reference.
struct Rejection {
    /// The bad part and the rule that it breaks.
    why: String,
    /// What to write instead, if that is known.
    remedy: Option<String>,
}

impl Rejection {
    fn with_remedy(why: impl Into<String>, remedy: String) -> Self {
        Self { why: why.into(), remedy: Some(remedy) }
    }
}

fn reject<T>(why: String) -> Result<T, Rejection> {
    Err(Rejection { why, remedy: None })
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let parsed = match split_transport(text) {
            Some(("oci", rest)) => split_path(rest).map(|(dir, tag, digest)| Self::Layout { dir, tag, digest }),
            Some(("oci-archive", rest)) => {
                split_path(rest).map(|(file, tag, digest)| Self::OciArchive { file, tag, digest })
            }
            Some((_, rest)) => {
                let remedy = format!("load it elsewhere and write it as `oci-archive:{rest}`");
                Err(Rejection::with_remedy("`docker-archive` can be written, not read", remedy))
            }
            None => split_registry(text).map(Self::Registry),
        };
        parsed.map_err(|rejection| refused(text, rejection))
    }
}

impl Reference {
    /// The registry; `None` for an image on this machine.
    pub fn registry_host(&self) -> Option<&str> {
        if let Self::Registry(name) = self { Some(&name.host) } else { None }
    }

    /// The same reference with a digest, so that it does not follow its tag.
    #[must_use]
    pub fn pinned(&self, to: &Digest) -> Self {
        let mut pinned = self.clone();
        let (Self::Registry(RegistryRef { digest, .. })
        | Self::Layout { digest, .. }
        | Self::OciArchive { digest, .. }) = &mut pinned;
        *digest = Some(to.clone());
        pinned
    }
}

impl FromStr for Target {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let parsed = match split_transport(text) {
            Some((transport, rest)) => split_path(rest).map(|(path, tag, digest)| match transport {
                "oci" => Self::Layout { dir: path, tag, digest },
                "oci-archive" => Self::OciArchive { file: path, tag, digest },
                _ => Self::DockerArchive { file: path, tag, digest },
            }),
            None => split_registry(text).map(Self::Registry),
        };
        parsed.map_err(|rejection| refused(text, rejection))
    }
}

impl Target {
    /// The only digest that may be written, if one is named.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Registry(reference) => reference.digest.as_ref(),
            Self::Layout { digest, .. } | Self::OciArchive { digest, .. } | Self::DockerArchive { digest, .. } => {
                digest.as_ref()
            }
        }
    }

    /// The target without a digest.
    pub fn without_digest(&self) -> String {
        let text = self.to_string();
        match self.digest() {
            Some(digest) => text.trim_end_matches(&format!("@{digest}")).to_owned(),
            None => text,
        }
    }
}

impl FromStr for RegistryRef {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        split_registry(text).map_err(|rejection| refused(text, rejection))
    }
}

fn refused(text: &str, rejection: Rejection) -> ImageError {
    ImageError::Reference { text: shown(text), why: rejection.why, remedy: rejection.remedy }
}

fn split_transport(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(transport, _)| matches!(*transport, "oci" | "oci-archive" | "docker-archive"))
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), Rejection> {
    let Some((rest, digest)) = text.rsplit_once('@') else { return Ok((text, None)) };
    match digest.parse() {
        Ok(digest) => Ok((rest, Some(digest))),
        Err(error) => reject(shown(&format!("{error}"))),
    }
}

/// The tag follows the last colon, if no slash follows it.
fn split_tag(text: &str) -> Result<(&str, Option<String>), Rejection> {
    match text.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => Ok((rest, Some(checked_tag(tag)?))),
        _ => Ok((text, None)),
    }
}

fn split_path(text: &str) -> Result<(PathBuf, Option<String>, Option<Digest>), Rejection> {
    let has_digest = text.rsplit_once('@').is_some_and(|(_, d)| d.starts_with("sha256:") || d.starts_with("sha512:"));
    let (rest, digest) = if has_digest { split_digest(text)? } else { (text, None) };
    let (path, tag) = split_tag(rest)?;
    if path.is_empty() || path.contains('\0') {
        return reject("the path is empty or holds a NUL".into());
    }
    Ok((path.into(), tag, digest))
}

fn split_registry(text: &str) -> Result<RegistryRef, Rejection> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let why = format!("`{}://` does not belong to it", shown(scheme));
        return Err(Rejection::with_remedy(why, format!("write `{}`", shown(rest))));
    }
    if text.starts_with(['.', '/']) {
        let remedy = format!("write `oci:{0}` for a layout directory, `oci-archive:{0}` for an archive", shown(text));
        return Err(Rejection::with_remedy("it looks like a path", remedy));
    }
    let (rest, digest) = split_digest(text)?;
    let (name, tag) = split_tag(rest)?;
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if is_host(host) => (host, path),
        None if name.starts_with('[') => (name, ""),
        _ => ("docker.io", name),
    };
    let host = checked_host(host)?;
    let repository = if host == "docker.io" && !path.contains('/') && !path.is_empty() {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    check_repository(&repository, path)?;
    if host.len() + repository.len() > 254 {
        return reject("host and repository have more than 255 characters".into());
    }
    Ok(RegistryRef { host, repository, tag, digest })
}

/// Docker's rule (`distribution/reference`, `splitDockerDomain`): a dot, a port, or `localhost`.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':', '[']) || first == "localhost"
}

fn checked_host(host: &str) -> Result<String, Rejection> {
    let wrong = |why: &str| reject(format!("host `{}`: {why}", shown(host)));
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return wrong("the bracket is not closed") };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return wrong("not an IPv6 address");
        }
        (None, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("?")) })
    } else {
        host.split_once(':').map_or((Some(host), None), |(name, port)| (Some(name), Some(port)))
    };
    if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit()) || !port.parse().is_ok_and(|p: u16| p > 0)) {
        return wrong("the port is not a number from 1 to 65535");
    }
    let is_label = |label: &str| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.is_some_and(|name| !name.split('.').all(is_label)) {
        return wrong("letters, digits, hyphens and single dots are allowed");
    }
    Ok(match host.to_ascii_lowercase() {
        hub if hub == "index.docker.io" || hub == "registry-1.docker.io" => "docker.io".into(),
        other => other,
    })
}

/// `path` is what the user wrote, for the message.
fn check_repository(repository: &str, path: &str) -> Result<(), Rejection> {
    if path.is_empty() {
        return reject("the repository is missing".into());
    }
    for part in repository.split('/') {
        let wrong = |why: &str| format!("repository part `{}`: {why}", shown(part));
        if part.bytes().any(|b| b.is_ascii_uppercase()) {
            let remedy = format!("write `{}`", shown(&path.to_ascii_lowercase()));
            return Err(Rejection::with_remedy(wrong("upper case is not allowed"), remedy));
        }
        if part.is_empty() {
            return reject("repository: a part between slashes is empty".into());
        }
        if let Some(c) = part.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')) {
            return reject(wrong(&format!("`{}` is not allowed", shown(&c.to_string()))));
        }
        if !has_separators_inside_only(part) {
            return reject(wrong("`.`, `_`, `__` and hyphens are allowed between letters and digits only"));
        }
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, given that all characters are of these.
fn has_separators_inside_only(part: &str) -> bool {
    let is_separator = |c: char| matches!(c, '.' | '_' | '-');
    if part.starts_with(is_separator) || part.ends_with(is_separator) {
        return false;
    }
    let mut runs = part.split(|c: char| !is_separator(c)).filter(|run| !run.is_empty());
    runs.all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

fn checked_tag(tag: &str) -> Result<String, Rejection> {
    let wrong = |why: &str| reject(format!("tag `{}`: {why}", shown(tag)));
    if tag.is_empty() {
        return wrong("it is empty");
    }
    if tag.len() > 128 {
        return wrong("it has more than 128 characters");
    }
    if tag.starts_with(['.', '-']) {
        return wrong("it may not begin with `.` or `-`");
    }
    match tag.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(c) => wrong(&format!("`{}` is not allowed", shown(&c.to_string()))),
        None => Ok(tag.to_owned()),
    }
}

impl RegistryRef {
    /// The repository without tag and digest.
    #[must_use]
    pub fn repository_only(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// `host/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The last part of a manifest's URL: the digest, or else the tag, or else `latest`.
    pub fn selector(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or(self.tag.as_deref()).unwrap_or("latest")
    }
}

fn suffix(f: &mut fmt::Formatter<'_>, tag: Option<&String>, digest: Option<&Digest>) -> fmt::Result {
    tag.map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
    digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
}

impl fmt::Display for RegistryRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        suffix(f, self.tag.as_ref(), self.digest.as_ref())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag, digest) = match self {
            Self::Registry(reference) => return reference.fmt(f),
            Self::Layout { dir, tag, digest } => ("oci", dir, tag, digest),
            Self::OciArchive { file, tag, digest } => ("oci-archive", file, tag, digest),
        };
        write!(f, "{transport}:{}", path.display())?;
        suffix(f, tag.as_ref(), digest.as_ref())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag, digest) = match self {
            Self::Registry(reference) => return reference.fmt(f),
            Self::Layout { dir, tag, digest } => ("oci", dir, tag, digest),
            Self::OciArchive { file, tag, digest } => ("oci-archive", file, tag, digest),
            Self::DockerArchive { file, tag, digest } => ("docker-archive", file, tag, digest),
        };
        write!(f, "{transport}:{}", path.display())?;
        suffix(f, tag.as_ref(), digest.as_ref())
    }
}

#[cfg(test)]
mod tests;
