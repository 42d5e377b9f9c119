//! Where the images of a name really are: `registries.conf` as containers-registries.conf(5) has it, version 2, as far as that
//! is about full names and logins. Everything else in the file is for other programs.
//!
//! `$CONTAINERS_REGISTRIES_CONF`, or the user's own file, or else `/etc/containers/registries.conf`; then the files of the folders
//! `registries.conf.d` in the order of their names, of which a later entry stands in for an earlier one of the same prefix. A
//! user's own file does away with the system's folder, too (containers/image, `pkg/sysregistriesv2`).

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use super::error::RegistryError;
use super::network::quoted;
use crate::host::Host;
use crate::image::{RegistryRef, shown};

const SYSTEM: &str = "/etc/containers/registries.conf";

/// The files, read when a registry is first spoken to.
#[derive(Clone, Default)]
pub(super) struct Registries {
    /// The file that others add to, and whether it must be there.
    file: Option<(PathBuf, bool)>,
    folders: Vec<PathBuf>,
    read: OnceLock<Settings>,
}

/// What the files say together.
#[derive(Clone, Default)]
struct Settings {
    /// By prefix.
    entries: BTreeMap<String, Entry>,
    helpers: Vec<String>,
}

/// What is said about the names that begin so.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// `host[:port][/path]`, or `*.domain[/path]`.
    pub(super) prefix: String,
    /// The file that says it.
    pub(super) file: PathBuf,
    /// What stands in for the prefix.
    location: Option<String>,
    /// Whether TLS need not be right, nor be there at all.
    pub(super) insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

/// A place that may have copies.
#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    insecure: bool,
    pulls: Pulls,
}

/// Which names a mirror is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pulls {
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

/// A place to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) at: RegistryRef,
    /// As [`Entry::insecure`].
    pub(super) insecure: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Text {
    registry: Vec<Registry>,
    #[serde(rename = "credential-helpers")]
    helpers: Vec<String>,
    registries: BTreeMap<String, Old>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror: Vec<Copies>,
    mirror_by_digest_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Copies {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Pulls>,
}

/// A list of version 1.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Old {
    registries: Vec<String>,
}

impl Registries {
    pub(super) fn from_host(host: &Host) -> Self {
        let config = host.var("XDG_CONFIG_HOME").map_or_else(|| host.home.join(".config"), PathBuf::from);
        let own = config.join("containers/registries.conf");
        let folders = |files: &[&Path]| files.iter().map(|file| file.with_extension("conf.d")).collect();
        let (file, folders) = match host.var("CONTAINERS_REGISTRIES_CONF") {
            Some(told) => ((host.cwd.join(told), true), folders(&[SYSTEM.as_ref(), &own])),
            None if own.exists() => ((own.clone(), true), folders(&[&own])),
            None => ((SYSTEM.into(), false), folders(&[SYSTEM.as_ref(), &own])),
        };
        Self { file: Some(file), folders, read: OnceLock::new() }
    }

    /// The entry with the longest prefix that a name begins with; an error if it lets nobody use the name. Of one image alone it
    /// can say that it is blocked and nothing else: its blobs are asked for without its tag.
    pub(super) fn entry(&self, of: &RegistryRef) -> Result<Option<&Entry>, RegistryError> {
        let name = of.name();
        let fits = |prefix: &str| beyond(prefix, &name).is_some() || is_image(prefix, &name, of);
        let fitting = self.settings()?.entries.values().filter(|entry| fits(&entry.prefix));
        match fitting.max_by_key(|entry| entry.prefix.len()) {
            Some(Entry { blocked: true, file, .. }) => Err(RegistryError::Blocked { name, file: file.clone() }),
            Some(Entry { prefix, file, .. }) if is_image(prefix, &name, of) => {
                let why = "has a tag or digest, and is not `blocked`: Phial knows places for names alone";
                Err(bad(file, format!("the prefix `{}` {why}", shown(prefix))))
            }
            entry => Ok(entry),
        }
    }

    /// Credential helpers that know of logins to all registries, in their order; `containers-auth.json` stands for the files.
    pub(super) fn helpers(&self) -> Result<&[String], RegistryError> {
        Ok(&self.settings()?.helpers)
    }

    fn settings(&self) -> Result<&Settings, RegistryError> {
        if self.read.get().is_none() {
            let _ = self.read.set(self.load()?); // another thread may have read the same
        }
        Ok(self.read.get_or_init(Settings::default))
    }

    fn load(&self) -> Result<Settings, RegistryError> {
        let mut all = Settings::default();
        if let Some((file, must)) = &self.file {
            match fs::read_to_string(file) {
                Ok(text) => all.add(parse(file, &text)?),
                Err(error) if !must && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => return Err(bad(file, error.to_string())),
            }
        }
        for folder in &self.folders {
            let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
            let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
            files.sort();
            for file in files {
                let text = fs::read_to_string(&file).map_err(|error| bad(&file, error.to_string()))?;
                all.add(parse(&file, &text)?);
            }
        }
        Ok(all)
    }
}

impl Settings {
    /// What a later file says: its entries stand in for those of the same prefix, its helpers for all that were named.
    fn add(&mut self, later: Self) {
        self.entries.extend(later.entries);
        if !later.helpers.is_empty() {
            self.helpers = later.helpers;
        }
    }
}

fn bad(file: &Path, why: String) -> RegistryError {
    RegistryError::Setting { place: quoted(file), why }
}

fn parse(file: &Path, text: &str) -> Result<Settings, RegistryError> {
    let parsed: Text = toml::from_str(text).map_err(|error| {
        let line =
            error.span().map_or(1, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
        bad(file, format!("line {line}: {}", shown(error.message())))
    })?;
    // The search list of version 1 is about short names; its other lists would be missed.
    for list in ["insecure", "block"] {
        if parsed.registries.get(list).is_some_and(|old| !old.registries.is_empty()) {
            return Err(bad(file, format!("`[registries.{list}]` is of version 1: write it as `[[registry]]`")));
        }
    }
    let mut entries = BTreeMap::new();
    for registry in parsed.registry {
        let entry = entry(file, registry)?;
        entries.entry(entry.prefix.clone()).or_insert(entry);
    }
    Ok(Settings { entries, helpers: parsed.helpers })
}

fn entry(file: &Path, of: Registry) -> Result<Entry, RegistryError> {
    // Whether it is a host is seen when it is needed: a file for all of a company may name what only others use.
    let place = |text: &str| {
        let place = text.trim_end_matches('/');
        let why = || format!("the location `{}` is not `host[:port][/path]`", shown(text));
        if place.is_empty() || place.contains("://") { Err(bad(file, why())) } else { Ok(place.to_owned()) }
    };
    let location = (!of.location.is_empty()).then(|| place(&of.location)).transpose()?;
    let prefix = match (of.prefix.trim_end_matches('/'), &location) {
        ("", Some(location)) => location.clone(),
        (prefix, None) if !prefix.starts_with("*.") => {
            return Err(bad(file, format!("the entry `{}` of `[[registry]]` has no `location`", shown(prefix))));
        }
        (prefix, _) => prefix.to_owned(),
    };
    let mut mirrors = Vec::new();
    for mirror in of.mirror {
        let pulls = match (of.mirror_by_digest_only, mirror.pull_from_mirror) {
            (true, Some(_)) => {
                let both = "has `mirror-by-digest-only`, and a mirror with `pull-from-mirror`";
                return Err(bad(file, format!("the entry `{}` {both}: one of them is enough", shown(&prefix))));
            }
            (true, None) => Pulls::DigestOnly,
            (false, pulls) => pulls.unwrap_or(Pulls::All),
        };
        mirrors.push(Mirror { location: place(&mirror.location)?, insecure: mirror.insecure, pulls });
    }
    let (insecure, blocked) = (of.insecure, of.blocked);
    Ok(Entry { prefix, file: file.into(), location, insecure, blocked, mirrors })
}

impl Entry {
    /// Where a name is read from, one place after the other: its mirrors, then the location. `by_digest` is whether it was named
    /// by its digest.
    pub(super) fn sources(&self, of: &RegistryRef, by_digest: bool) -> Result<Vec<Source>, RegistryError> {
        let unwanted = if by_digest { Pulls::TagOnly } else { Pulls::DigestOnly };
        let mirrors = self.mirrors.iter().filter(|mirror| mirror.pulls != unwanted);
        let mirrors = mirrors.map(|mirror| (Some(&mirror.location), mirror.insecure));
        mirrors
            .chain([(self.location.as_ref(), self.insecure)])
            .map(|(location, insecure)| Ok(Source { at: self.moved(of, location)?, insecure }))
            .collect()
    }

    /// The name with the location in place of the prefix.
    fn moved(&self, of: &RegistryRef, location: Option<&String>) -> Result<RegistryRef, RegistryError> {
        let name = of.name();
        let Some((location, rest)) = location.zip(beyond(&self.prefix, &name)) else { return Ok(of.clone()) };
        let text = format!("{location}{rest}");
        let is_whole = |moved: &RegistryRef| moved.tag.is_none() && text.split('/').next() == Some(&moved.host);
        let moved = text.parse::<RegistryRef>().ok().filter(is_whole);
        let why = || format!("for `{name}` it leads to `{}`, which is no name of a repository", shown(&text));
        let moved = moved.ok_or_else(|| bad(&self.file, why()))?;
        Ok(RegistryRef { tag: of.tag.clone(), digest: of.digest.clone(), ..moved })
    }
}

/// What of a name follows a prefix: nothing, a port, or a path. `None` if the name does not begin so.
fn beyond<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    let Some(domain) = prefix.strip_prefix('*') else {
        return name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    };
    let (sub, rest) = name.split_once(domain)?;
    let ends = rest.is_empty() || rest.starts_with(['/', ':']);
    (ends && !sub.contains('/')).then_some(rest)
}

/// Whether a prefix is this very image: a name with its tag, its digest, or both.
fn is_image(prefix: &str, name: &str, of: &RegistryRef) -> bool {
    let Some(rest) = prefix.strip_prefix(name).filter(|rest| !rest.is_empty()) else { return false };
    let digest = of.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
    let tag = of.tag.as_deref().or(digest.is_empty().then_some("latest"));
    let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
    rest == tag || rest == digest || rest == tag + &digest
}

#[cfg(test)]
#[path = "registries_tests.rs"]
mod tests;
