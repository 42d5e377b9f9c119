//! `registries.conf` (containers-registries.conf(5), version 2): mirrors, locations and blocked names, and credential helpers.
//! Other settings in the file are ignored. No Rust library reads it.
//!
//! The file is `$CONTAINERS_REGISTRIES_CONF`, or the user's own, or `/etc/containers/registries.conf`. The files of the
//! directories `registries.conf.d` follow in the order of their names; an entry replaces an earlier one with the same prefix.
//! With a user's own file, the system's directory is not read (containers/image, `pkg/sysregistriesv2`).

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use super::error::RegistryError;
use super::url::Tls;
use crate::host::Host;
use crate::image::{RegistryRef, shown};

const SYSTEM: &str = "/etc/containers/registries.conf";

/// The settings of the files, which are read when the first registry is used.
#[derive(Clone, Default)]
pub(super) struct Registries {
    /// The main file.
    file: Option<ConfFile>,
    /// The directories `registries.conf.d`.
    dirs: Vec<PathBuf>,
    settings: OnceLock<RegistriesSettings>,
}

#[derive(Clone)]
struct ConfFile {
    path: PathBuf,
    /// Whether it is an error if the file does not exist.
    required: bool,
}

/// The settings of all files together.
#[derive(Clone, Default)]
struct RegistriesSettings {
    /// By prefix.
    entries: BTreeMap<String, RegistryEntry>,
    /// Credential helpers, in their order.
    helpers: Vec<String>,
}

/// The settings for names with a prefix.
#[derive(Clone, Debug)]
pub(super) struct RegistryEntry {
    /// `host[:port][/path]`, or `*.domain[/path]`.
    pub(super) prefix: String,
    /// The file that has the entry.
    pub(super) file: PathBuf,
    /// What replaces the prefix in a name.
    location: Option<String>,
    /// Whether any certificate is accepted, and plain http if there is no TLS.
    pub(super) insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

/// A registry or repository with copies.
#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    insecure: bool,
    pulls: PullFromMirror,
}

/// Which names a mirror is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFromMirror {
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

/// How the user named an image: some mirrors are for one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedBy {
    Tag,
    Digest,
}

/// A mirror or location to read an image from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PullSource {
    /// The image's name there.
    pub(super) name: RegistryRef,
    pub(super) tls: Tls,
}

/// A file as TOML.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfToml {
    registry: Vec<RegistryTable>,
    #[serde(rename = "credential-helpers")]
    helpers: Vec<String>,
    registries: BTreeMap<String, VersionOneTable>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RegistryTable {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror: Vec<MirrorTable>,
    mirror_by_digest_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<PullFromMirror>,
}

/// A table of version 1 of the format.
#[derive(Default, Deserialize)]
#[serde(default)]
struct VersionOneTable {
    registries: Vec<String>,
}

impl Registries {
    pub(super) fn from_host(host: &Host) -> Self {
        let own = host.config_dir().join("containers/registries.conf");
        let dirs = |files: &[&Path]| files.iter().map(|file| file.with_extension("conf.d")).collect();
        let (path, required, dirs) = match host.var("CONTAINERS_REGISTRIES_CONF") {
            Some(named) => (host.cwd.join(named), true, dirs(&[SYSTEM.as_ref(), &own])),
            None if own.exists() => (own.clone(), true, dirs(&[&own])),
            None => (SYSTEM.into(), false, dirs(&[SYSTEM.as_ref(), &own])),
        };
        Self { file: Some(ConfFile { path, required }), dirs, settings: OnceLock::new() }
    }

    /// The settings in the text of one file.
    pub(super) fn of_text(file: &Path, text: &str) -> Result<Self, RegistryError> {
        Ok(Self { settings: OnceLock::from(parse(file, text)?), ..Self::default() })
    }

    /// The entry with the longest prefix of a name; an error if it blocks the name. An entry for one image with its tag or digest
    /// can only block it: blobs are requested without a tag.
    pub(super) fn entry(&self, of: &RegistryRef) -> Result<Option<&RegistryEntry>, RegistryError> {
        let name = of.name();
        let fits = |prefix: &str| rest_after(prefix, &name).is_some() || is_image(prefix, &name, of);
        let fitting = self.settings()?.entries.values().filter(|entry| fits(&entry.prefix));
        match fitting.max_by_key(|entry| entry.prefix.len()) {
            Some(RegistryEntry { blocked: true, file, .. }) => Err(RegistryError::Blocked { name, file: file.clone() }),
            Some(RegistryEntry { prefix, file, .. }) if is_image(prefix, &name, of) => {
                let why = "has a tag or digest, and is not `blocked`: only a name without them can have a location or mirrors";
                Err(RegistryError::setting(file, format!("the prefix `{}` {why}", shown(prefix))))
            }
            entry => Ok(entry),
        }
    }

    /// The credential helpers for all registries, in their order; `containers-auth.json` stands for the files of logins.
    pub(super) fn helpers(&self) -> Result<&[String], RegistryError> {
        Ok(&self.settings()?.helpers)
    }

    fn settings(&self) -> Result<&RegistriesSettings, RegistryError> {
        if self.settings.get().is_none() {
            let _ = self.settings.set(self.load()?); // another thread may have read the same files
        }
        Ok(self.settings.get_or_init(RegistriesSettings::default))
    }

    fn load(&self) -> Result<RegistriesSettings, RegistryError> {
        let mut all = RegistriesSettings::default();
        if let Some(ConfFile { path, required }) = &self.file {
            match fs::read_to_string(path) {
                Ok(text) => all.add(parse(path, &text)?),
                Err(error) if !required && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => return Err(RegistryError::setting(path, error.to_string())),
            }
        }
        for dir in &self.dirs {
            let files = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
            let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
            files.sort();
            for file in files {
                let text =
                    fs::read_to_string(&file).map_err(|error| RegistryError::setting(&file, error.to_string()))?;
                all.add(parse(&file, &text)?);
            }
        }
        Ok(all)
    }
}

impl RegistriesSettings {
    /// Adds a later file: its entries replace those with the same prefix, its helpers replace all earlier ones.
    fn add(&mut self, later: Self) {
        self.entries.extend(later.entries);
        if !later.helpers.is_empty() {
            self.helpers = later.helpers;
        }
    }
}

fn parse(file: &Path, text: &str) -> Result<RegistriesSettings, RegistryError> {
    let parsed: ConfToml = toml::from_str(text).map_err(|error| {
        let line =
            error.span().map_or(1, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
        RegistryError::setting(file, format!("line {line}: {}", shown(error.message())))
    })?;
    // The search list of version 1 is about short names and can be ignored, unlike its other lists.
    for list in ["insecure", "block"] {
        if parsed.registries.get(list).is_some_and(|old| !old.registries.is_empty()) {
            return Err(RegistryError::setting(
                file,
                format!("`[registries.{list}]` is of version 1: write it as `[[registry]]`"),
            ));
        }
    }
    let mut entries = BTreeMap::new();
    for registry in parsed.registry {
        let entry = entry(file, registry)?;
        entries.entry(entry.prefix.clone()).or_insert(entry);
    }
    Ok(RegistriesSettings { entries, helpers: parsed.helpers })
}

fn entry(file: &Path, table: RegistryTable) -> Result<RegistryEntry, RegistryError> {
    // Whether it has a valid host is checked when it is used: a file for a whole company may name registries of others.
    let location = |text: &str| {
        let location = text.trim_end_matches('/');
        let why = || format!("the location `{}` is not `host[:port][/path]`", shown(text));
        if location.is_empty() || location.contains("://") {
            Err(RegistryError::setting(file, why()))
        } else {
            Ok(location.to_owned())
        }
    };
    let own_location = (!table.location.is_empty()).then(|| location(&table.location)).transpose()?;
    let prefix = match (table.prefix.trim_end_matches('/'), &own_location) {
        ("", Some(location)) => location.clone(),
        (prefix, None) if !prefix.starts_with("*.") => {
            return Err(RegistryError::setting(
                file,
                format!("the entry `{}` of `[[registry]]` has no `location`", shown(prefix)),
            ));
        }
        (prefix, _) => prefix.to_owned(),
    };
    let mut mirrors = Vec::new();
    for mirror in table.mirror {
        let pulls = match (table.mirror_by_digest_only, mirror.pull_from_mirror) {
            (true, Some(_)) => {
                let both = "has `mirror-by-digest-only`, and a mirror with `pull-from-mirror`";
                return Err(RegistryError::setting(
                    file,
                    format!("the entry `{}` {both}: one of them is enough", shown(&prefix)),
                ));
            }
            (true, None) => PullFromMirror::DigestOnly,
            (false, pulls) => pulls.unwrap_or(PullFromMirror::All),
        };
        mirrors.push(Mirror { location: location(&mirror.location)?, insecure: mirror.insecure, pulls });
    }
    let (insecure, blocked) = (table.insecure, table.blocked);
    Ok(RegistryEntry { prefix, file: file.into(), location: own_location, insecure, blocked, mirrors })
}

impl RegistryEntry {
    /// Where an image is read, in order: the mirrors for this way of naming it, then the location.
    pub(super) fn sources(&self, of: &RegistryRef, named_by: NamedBy) -> Result<Vec<PullSource>, RegistryError> {
        let unwanted = match named_by {
            NamedBy::Digest => PullFromMirror::TagOnly,
            NamedBy::Tag => PullFromMirror::DigestOnly,
        };
        let mirrors = self.mirrors.iter().filter(|mirror| mirror.pulls != unwanted);
        let mirrors = mirrors.map(|mirror| (Some(&mirror.location), mirror.insecure));
        mirrors
            .chain([(self.location.as_ref(), self.insecure)])
            .map(|(location, insecure)| {
                Ok(PullSource { name: self.relocated(of, location)?, tls: Tls::from_insecure(insecure) })
            })
            .collect()
    }

    /// The name with the location in place of the prefix.
    fn relocated(&self, of: &RegistryRef, location: Option<&String>) -> Result<RegistryRef, RegistryError> {
        let name = of.name();
        let Some((location, rest)) = location.zip(rest_after(&self.prefix, &name)) else { return Ok(of.clone()) };
        let text = format!("{location}{rest}");
        let is_name = |moved: &RegistryRef| moved.tag.is_none() && text.split('/').next() == Some(&moved.host);
        let moved = text.parse::<RegistryRef>().ok().filter(is_name);
        let why = || format!("for `{name}` it leads to `{}`, which is not the name of a repository", shown(&text));
        let moved = moved.ok_or_else(|| RegistryError::setting(&self.file, why()))?;
        Ok(RegistryRef { tag: of.tag.clone(), digest: of.digest.clone(), ..moved })
    }
}

/// What follows a prefix in a name: nothing, a port, or a path. `None` if the name does not have the prefix.
fn rest_after<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    let Some(domain) = prefix.strip_prefix('*') else {
        return name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    };
    let (sub, rest) = name.split_once(domain)?;
    let ends = rest.is_empty() || rest.starts_with(['/', ':']);
    (ends && !sub.contains('/')).then_some(rest)
}

/// Whether a prefix is the image itself: the name with its tag, its digest, or both.
fn is_image(prefix: &str, name: &str, of: &RegistryRef) -> bool {
    let Some(rest) = prefix.strip_prefix(name).filter(|rest| !rest.is_empty()) else { return false };
    let digest = of.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
    let tag = of.tag.as_deref().or(digest.is_empty().then_some("latest"));
    let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
    rest == tag || rest == digest || rest == tag + &digest
}

#[cfg(test)]
mod tests;
