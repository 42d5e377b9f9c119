//! Who one is to a registry: the files of Docker and of containers(5), and their helpers, in one search list.
//!
//! `DOCKER_AUTH_CONFIG`, then `REGISTRY_AUTH_FILE` and no other file, or else `$DOCKER_CONFIG/config.json`, the runtime's and
//! the user's `containers/auth.json`, `~/.docker/config.json`, `~/.dockercfg`. The first that knows wins; in a file the most
//! specific key does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};

use super::error::RegistryError;
use super::helper::{Helpers, Reply};
use super::secret::Secret;
use crate::host::Host;

/// No file of logins is larger.
const MAX_FILE: u64 = 4 << 20;
/// What Docker calls its Hub in its files and to its helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What one can show a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A user and a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An identity token, to be exchanged for others.
    Identity(Secret),
    /// A token for the registry itself.
    Bearer(Secret),
}

/// Where to look for logins. Nothing is read before a registry asks.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    inline: Option<Secret>,
    files: Vec<PathBuf>,
    helpers: Helpers,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    #[serde(deserialize_with = "null_is_empty")]
    auths: BTreeMap<String, Option<Entry>>,
    #[serde(deserialize_with = "null_is_empty")]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

impl Credentials {
    /// No logins at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// As [`Credentials::from_host`]; a file that is named by a flag is the only place.
    pub fn told(host: &Host, authfile: Option<&Path>) -> Self {
        match authfile {
            Some(path) => Self { inline: None, files: vec![path.into()], helpers: Helpers::from_host(host) },
            None => Self::from_host(host),
        }
    }

    /// The search list that this environment names.
    pub fn from_host(host: &Host) -> Self {
        let inline = host.var("DOCKER_AUTH_CONFIG").map(Secret::new);
        let files = if let Some(only) = host.var("REGISTRY_AUTH_FILE") {
            vec![host.cwd.join(only)]
        } else {
            let docker = host.var("DOCKER_CONFIG").map(|dir| host.cwd.join(dir).join("config.json"));
            let runtime = host.var("XDG_RUNTIME_DIR").map_or_else(
                || format!("/run/containers/{}", host.uid).into(),
                |dir| Path::new(dir).join("containers"),
            );
            let config = host.var("XDG_CONFIG_HOME").map_or_else(|| host.home.join(".config"), PathBuf::from);
            docker
                .into_iter()
                .chain([runtime.join("auth.json"), config.join("containers/auth.json")])
                .chain([host.home.join(".docker/config.json"), host.home.join(".dockercfg")])
                .collect()
        };
        Self { inline, files, helpers: Helpers::from_host(host) }
    }

    /// The login for a repository, or `None`. A file that is broken or a helper that fails is an error, not an absence.
    pub fn find(&self, host: &str, repository: &str) -> Result<Option<Login>, RegistryError> {
        if let Some(text) = &self.inline {
            let file = parse("`DOCKER_AUTH_CONFIG`", text.expose().as_bytes(), false)?;
            if let Some(login) = self.in_file(&file, "`DOCKER_AUTH_CONFIG`", host, repository)? {
                return Ok(Some(login));
            }
        }
        for path in &self.files {
            let place = format!("`{}`", path.display());
            let Some(bytes) = read(path, &place)? else { continue };
            let file = parse(&place, &bytes, path.ends_with(".dockercfg"))?;
            if let Some(login) = self.in_file(&file, &place, host, repository)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    fn in_file(
        &self,
        file: &AuthFile,
        place: &str,
        host: &str,
        repository: &str,
    ) -> Result<Option<Login>, RegistryError> {
        let own = file.cred_helpers.iter().find(|(key, _)| normal(key) == host);
        if let Some((key, helper)) = own
            && let Reply::Login(login) = self.helpers.get(helper, key)?
        {
            return Ok(Some(login));
        }
        let full = format!("{host}/{repository}");
        let mut wanted = full.as_str();
        loop {
            let fitting = file.auths.iter().filter(|(key, _)| normal(key) == wanted);
            for (_, entry) in fitting {
                let Some(entry) = entry else { continue };
                if let Some(login) = entry.login(place, wanted)? {
                    return Ok(Some(login));
                }
            }
            let Some((shorter, _)) = wanted.rsplit_once('/') else { break };
            wanted = shorter;
        }
        if let Some(store) = file.creds_store.as_ref().filter(|name| !name.is_empty()) {
            let key = if host == "docker.io" { HUB_KEY } else { host };
            if let Reply::Login(login) = self.helpers.get(store, key)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

impl Entry {
    /// `None` for `{}`, which says that a helper has it.
    fn login(&self, place: &str, key: &str) -> Result<Option<Login>, RegistryError> {
        let some = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = some(&self.registrytoken) {
            return Ok(Some(Login::Bearer(Secret::new(token))));
        }
        if let Some(token) = some(&self.identitytoken) {
            return Ok(Some(Login::Identity(Secret::new(token))));
        }
        if let Some(auth) = some(&self.auth) {
            let pair = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let Some((user, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else {
                let why = format!("`auth` of `{key}` is not `user:password` in base64");
                return Err(RegistryError::Credentials { place: place.to_owned(), why });
            };
            let password = Secret::new(password.trim_end_matches('\0'));
            return Ok(Some(Login::Basic { user: user.to_owned(), password }));
        }
        let pair = some(&self.username).zip(some(&self.password));
        Ok(pair.map(|(user, password)| Login::Basic { user, password: Secret::new(password) }))
    }
}

/// A key as `host` or `host/path`; keys that are URLs name their host alone, and Docker Hub's names are one.
fn normal(key: &str) -> String {
    let url = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let text = match url {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    };
    let (host, path) = text.split_once('/').map_or((text, None), |(host, path)| (host, Some(path)));
    let host = match host.to_ascii_lowercase() {
        hub if hub == "index.docker.io" || hub == "registry-1.docker.io" => "docker.io".into(),
        other => other,
    };
    path.map_or_else(|| host.clone(), |path| format!("{host}/{path}"))
}

fn read(path: &Path, place: &str) -> Result<Option<Vec<u8>>, RegistryError> {
    let broken = |why: String| RegistryError::Credentials { place: place.to_owned(), why };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(broken(error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| broken(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(broken(format!("more than {MAX_FILE} bytes")));
    }
    Ok(Some(bytes))
}

/// The parser's own message may quote a password: only where it stopped is said.
fn parse(place: &str, bytes: &[u8], is_old: bool) -> Result<AuthFile, RegistryError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(AuthFile::default());
    }
    let parsed = if is_old {
        serde_json::from_slice(bytes).map(|auths| AuthFile { auths, ..AuthFile::default() })
    } else {
        serde_json::from_slice(bytes)
    };
    parsed.map_err(|error| {
        let why = format!("not the JSON it should be, at line {}, column {}", error.line(), error.column());
        RegistryError::Credentials { place: place.to_owned(), why }
    })
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
