//! A file of logins: Docker's `config.json`, containers-auth.json(5), and the older `~/.dockercfg`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};

use super::error::RegistryError;
use super::login::Login;
use crate::image::shown;
use crate::secret::Secret;

/// Bytes of the largest file of logins that is read.
const MAX_FILE: u64 = 4 << 20;

/// The settings of a file of logins.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct AuthFile {
    #[serde(deserialize_with = "null_is_empty")]
    auths: BTreeMap<String, Option<AuthEntry>>,
    #[serde(deserialize_with = "null_is_empty")]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

/// The login for one registry or repository, as JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// How a file of logins is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthFileFormat {
    /// `config.json` and `auth.json`: logins under `auths`.
    Config,
    /// `~/.dockercfg`: logins at the top.
    Dockercfg,
}

impl AuthFile {
    /// The file at `path`; `None` if it does not exist. Errors name it as `place`.
    pub(super) fn read(path: &Path, place: &str) -> Result<Option<Self>, RegistryError> {
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
        let format = if path.ends_with(".dockercfg") { AuthFileFormat::Dockercfg } else { AuthFileFormat::Config };
        Self::parse(place, &bytes, format).map(Some)
    }

    /// The settings in the text of a file. A syntax error is reported by line and column only: the parser's own message may
    /// quote a password.
    pub(super) fn parse(place: &str, bytes: &[u8], format: AuthFileFormat) -> Result<Self, RegistryError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let parsed = if format == AuthFileFormat::Dockercfg {
            serde_json::from_slice(bytes).map(|auths| Self { auths, ..Self::default() })
        } else {
            serde_json::from_slice(bytes)
        };
        parsed.map_err(|error| {
            let why = format!("not JSON of the expected form, at line {}, column {}", error.line(), error.column());
            RegistryError::Credentials { place: place.to_owned(), why }
        })
    }

    /// The credential helper for a registry, and its key as written in the file.
    pub(super) fn helper(&self, host: &str) -> Option<(&str, &str)> {
        let own = self.cred_helpers.iter().filter(|(key, _)| normalized(key) == host);
        own.min_by_key(|(key, _)| *key != host).map(|(key, helper)| (key.as_str(), helper.as_str()))
    }

    /// The credential helper for all registries.
    pub(super) fn store(&self) -> Option<&str> {
        self.creds_store.as_deref().filter(|name| !name.is_empty())
    }

    /// The login with the most specific key, and that key as written in the file.
    pub(super) fn login(
        &self,
        place: &str,
        host: &str,
        repository: &str,
    ) -> Result<Option<(Login, String)>, RegistryError> {
        let full = format!("{host}/{repository}");
        let mut wanted = full.as_str();
        loop {
            let mut fitting: Vec<_> = self.auths.iter().filter(|(key, _)| normalized(key) == wanted).collect();
            fitting.sort_by_key(|(key, _)| *key != wanted);
            for (key, entry) in fitting {
                let Some(entry) = entry else { continue };
                if let Some(login) = entry.login(place, wanted)? {
                    return Ok(Some((login, key.clone())));
                }
            }
            let Some((shorter, _)) = wanted.rsplit_once('/') else { return Ok(None) };
            wanted = shorter;
        }
    }
}

impl AuthEntry {
    /// `None` for `{}`, which Docker writes if a credential helper has the login.
    fn login(&self, place: &str, key: &str) -> Result<Option<Login>, RegistryError> {
        let some = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = some(&self.registrytoken) {
            return Ok(Some(Login::Bearer(Secret::new(token))));
        }
        let pair = match some(&self.auth) {
            Some(auth) => {
                let pair = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let Some((user, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else {
                    let why = format!("`auth` of `{}` is not `user:password` in base64", shown(key));
                    return Err(RegistryError::Credentials { place: place.to_owned(), why });
                };
                Some((user.to_owned(), Secret::new(password.trim_end_matches('\0'))))
            }
            None => some(&self.username).zip(some(&self.password).map(Secret::new)),
        };
        if let Some(token) = some(&self.identitytoken) {
            let fallback = pair.filter(|(_, password)| !password.expose().is_empty());
            return Ok(Some(Login::Identity { token: Secret::new(token), fallback }));
        }
        Ok(pair.map(|(user, password)| Login::from_pair(user, password)))
    }
}

/// A key as `host` or `host/path`. Of a URL only the host counts, and all names of Docker Hub are `docker.io`.
pub(super) fn normalized(key: &str) -> String {
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
