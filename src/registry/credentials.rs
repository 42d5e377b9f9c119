//! Who one is to a registry: the files of Docker and of containers-auth.json(5), their helpers, and what CI engines say, in
//! one search list.
//!
//! `--authfile` and no other place; or else `PHIAL_REGISTRY_AUTH` (such a file's path or its text), `DOCKER_AUTH_CONFIG`, then
//! `REGISTRY_AUTH_FILE` and no other file, or else `$DOCKER_CONFIG/config.json`, the runtime's and the user's
//! `containers/auth.json`, `~/.docker/config.json`, `~/.dockercfg`, and before or after these files the `credential-helpers` of
//! `registries.conf`; at last GitLab's variables and Amazon's programs, each for its own hosts. The first that knows wins; in a file
//! the most specific key does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::auth_file::{AuthFile, normal};
use super::error::RegistryError;
use super::helper::{Helpers, Reply};
use super::registries::Registries;
use super::secret::Secret;
use crate::host::Host;

/// What Docker calls its Hub in its files and to its helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// What stands for the files among the helpers of `registries.conf`.
const FILES: &str = "containers-auth.json";

/// What one can show a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user and a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An identity token, to be exchanged for others.
    Identity {
        /// The token.
        token: Secret,
        /// A user and a password beside it, for token servers that know no exchange.
        beside: Option<(String, Secret)>,
    },
    /// A token for the registry itself.
    Bearer(Secret),
}

/// Where to look for logins. Nothing is read before a registry asks.
#[derive(Clone, Default)]
pub struct Credentials {
    places: Vec<Source>,
    helpers: Helpers,
}

#[derive(Clone)]
enum Source {
    /// A file's text in a variable.
    Inline { variable: &'static str, text: Secret },
    /// A file; one that was named must be there.
    File { path: PathBuf, must: bool },
    /// The helpers of `registries.conf` that it names before the files, or else the others.
    Listed { registries: Arc<Registries>, before: bool },
    /// A login for one host in variables.
    Variables { names: &'static str, host: String, user: String, password: Secret },
    /// Amazon's own programs, for its hosts.
    Amazon,
}

/// One place that was looked at, and what it had: for `phial doctor`. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupStep {
    /// The file, variable or program.
    pub place: String,
    /// What was there.
    pub sight: LookupResult,
}

/// What a place had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// The place is not there.
    Absent,
    /// It knows nothing of the registry.
    Nothing,
    /// A helper was asked and has nothing.
    Silent {
        /// The helper.
        helper: String,
    },
    /// A login.
    Login {
        /// The key that fits, as it is written there.
        key: String,
        /// The helper that has it, if it is not in the place itself.
        helper: Option<String>,
        /// What it is.
        kind: &'static str,
    },
}

/// A login, the key and the helper that has it.
type Hit = (Login, String, Option<String>);

impl Credentials {
    /// No logins at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// As [`Credentials::from_host`]; a file that is named by a flag is the only place.
    pub fn told(host: &Host, authfile: Option<&Path>) -> Self {
        match authfile {
            Some(path) => {
                let place = Source::File { path: path.into(), must: true };
                Self { places: vec![place], helpers: Helpers::from_host(host) }
            }
            None => Self::from_host(host),
        }
    }

    /// The search list that this environment names.
    pub fn from_host(host: &Host) -> Self {
        let mut places = Vec::new();
        if let Some(text) = host.var("PHIAL_REGISTRY_AUTH") {
            places.push(if text.trim_start().starts_with('{') {
                Source::Inline { variable: "PHIAL_REGISTRY_AUTH", text: Secret::new(text) }
            } else {
                Source::File { path: host.cwd.join(text), must: true }
            });
        }
        if let Some(text) = host.var("DOCKER_AUTH_CONFIG") {
            places.push(Source::Inline { variable: "DOCKER_AUTH_CONFIG", text: Secret::new(text) });
        }
        let registries = Arc::new(Registries::from_host(host));
        places.push(Source::Listed { registries: Arc::clone(&registries), before: true });
        places.extend(files(host).into_iter().map(|path| Source::File { path, must: false }));
        places.push(Source::Listed { registries, before: false });
        places.extend(gitlab(host));
        places.push(Source::Amazon);
        Self { places, helpers: Helpers::from_host(host) }
    }

    /// The login for a repository, or `None`. A file that is broken or a helper that fails is an error, not an absence.
    pub fn find(&self, host: &str, repository: &str) -> Result<Option<Login>, RegistryError> {
        self.search(host, repository, &mut |_| {})
    }

    /// The same, telling what was looked at.
    pub fn search(
        &self,
        host: &str,
        repository: &str,
        tell: &mut dyn FnMut(LookupStep),
    ) -> Result<Option<Login>, RegistryError> {
        for place in &self.places {
            let name = place.name();
            if let Some((login, key, helper)) = self.look(place, &name, (host, repository), tell)? {
                let kind = login.kind();
                tell(LookupStep { place: name, sight: LookupResult::Login { key, helper, kind } });
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    /// What a place has; that it has nothing is told here.
    fn look(
        &self,
        place: &Source,
        name: &str,
        (host, repository): (&str, &str),
        tell: &mut dyn FnMut(LookupStep),
    ) -> Result<Option<Hit>, RegistryError> {
        let look = |sight| LookupStep { place: name.to_owned(), sight };
        let file = match place {
            Source::Inline { text, .. } => AuthFile::parse(name, text.expose().as_bytes(), false)?,
            Source::File { path, must } => match AuthFile::read(path, name)? {
                Some(file) => file,
                None if *must => {
                    let why = "there is no such file".into();
                    return Err(RegistryError::Credentials { place: name.to_owned(), why });
                }
                None => {
                    tell(look(LookupResult::Absent));
                    return Ok(None);
                }
            },
            Source::Listed { registries, before } => {
                let all = registries.helpers()?;
                let at = all.iter().position(|helper| helper == FILES).unwrap_or(all.len());
                let listed = if *before { &all[..at] } else { all.get(at + 1..).unwrap_or_default() };
                for helper in listed {
                    if let Some(hit) = self.ask(helper, host, name, tell)? {
                        return Ok(Some(hit));
                    }
                }
                return Ok(None);
            }
            Source::Variables { host: own, user, password, .. } if own == without_default_port(host) => {
                let login = Login::Basic { user: user.clone(), password: password.clone() };
                return Ok(Some((login, own.clone(), None)));
            }
            Source::Variables { .. } => {
                tell(look(LookupResult::Nothing));
                return Ok(None);
            }
            Source::Amazon => {
                let Some(region) = ecr_region(host) else { return Ok(None) };
                let sight = match self.helpers.amazon(host, region)? {
                    Some((helper, Reply::Login(login))) => return Ok(Some((login, host.into(), Some(helper)))),
                    Some((helper, Reply::Nothing)) => LookupResult::Silent { helper },
                    None => LookupResult::Absent,
                };
                tell(look(sight));
                return Ok(None);
            }
        };
        let hit = self.in_file(&file, name, (host, repository), tell)?;
        if hit.is_none() {
            tell(look(LookupResult::Nothing));
        }
        Ok(hit)
    }

    fn in_file(
        &self,
        file: &AuthFile,
        place: &str,
        (host, repository): (&str, &str),
        tell: &mut dyn FnMut(LookupStep),
    ) -> Result<Option<Hit>, RegistryError> {
        if let Some((key, helper)) = file.helper(host)
            && let Some(hit) = self.ask(helper, key, place, tell)?
        {
            return Ok(Some(hit));
        }
        if let Some((login, key)) = file.login(place, host, repository)? {
            return Ok(Some((login, key, None)));
        }
        match file.store() {
            Some(store) => self.ask(store, if host == "docker.io" { HUB_KEY } else { host }, place, tell),
            None => Ok(None),
        }
    }

    fn ask(
        &self,
        helper: &str,
        key: &str,
        place: &str,
        tell: &mut dyn FnMut(LookupStep),
    ) -> Result<Option<Hit>, RegistryError> {
        let name = format!("docker-credential-{helper}");
        match self.helpers.get(helper, key)? {
            Reply::Login(login) => Ok(Some((login, key.to_owned(), Some(name)))),
            Reply::Nothing => {
                tell(LookupStep { place: place.to_owned(), sight: LookupResult::Silent { helper: name } });
                Ok(None)
            }
        }
    }
}

/// The files of Docker and of containers-auth.json(5), in their order.
fn files(host: &Host) -> Vec<PathBuf> {
    if let Some(only) = host.var("REGISTRY_AUTH_FILE") {
        return vec![host.cwd.join(only)];
    }
    let docker = host.var("DOCKER_CONFIG").map(|dir| host.cwd.join(dir).join("config.json"));
    let runtime = host
        .var("XDG_RUNTIME_DIR")
        .map_or_else(|| format!("/run/containers/{}", host.uid).into(), |dir| Path::new(dir).join("containers"));
    let config = host.var("XDG_CONFIG_HOME").map_or_else(|| host.home.join(".config"), PathBuf::from);
    docker
        .into_iter()
        .chain([runtime.join("auth.json"), config.join("containers/auth.json")])
        .chain([host.home.join(".docker/config.json"), host.home.join(".dockercfg")])
        .collect()
}

/// What GitLab gives its jobs for its own registry, and for its proxy of others (docs.gitlab.com, "authenticate with the
/// container registry", "dependency proxy").
fn gitlab(host: &Host) -> impl Iterator<Item = Source> {
    let place = |names, server: &str, pair: Option<(&str, &str)>| {
        let (user, password) = pair?;
        let own = without_default_port(&normal(server)).to_owned();
        Some(Source::Variables { names, host: own, user: user.into(), password: Secret::new(password) })
    };
    let pair = |user: &str, password: &str| host.var(user).zip(host.var(password));
    let registry = host.var("CI_REGISTRY").and_then(|server| {
        let names = "`CI_REGISTRY_USER` and `CI_REGISTRY_PASSWORD`";
        let token = || Some(("gitlab-ci-token", host.var("CI_JOB_TOKEN")?));
        let own = place(names, server, pair("CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"));
        own.or_else(|| place("`CI_JOB_TOKEN`", server, token()))
    });
    let proxy = host.var("CI_DEPENDENCY_PROXY_SERVER").and_then(|server| {
        let names = "`CI_DEPENDENCY_PROXY_USER` and `CI_DEPENDENCY_PROXY_PASSWORD`";
        place(names, server, pair("CI_DEPENDENCY_PROXY_USER", "CI_DEPENDENCY_PROXY_PASSWORD"))
    });
    registry.into_iter().chain(proxy)
}

/// GitLab writes its proxy's host with the port of https.
fn without_default_port(host: &str) -> &str {
    host.strip_suffix(":443").unwrap_or(host)
}

/// The region of an ECR registry's host; `None` for all other hosts (amazon-ecr-credential-helper, `api/client.go`).
pub(super) fn ecr_region(host: &str) -> Option<&str> {
    let (account, rest) = host.split_once('.')?;
    let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let kinds = ["dkr.ecr.", "dkr.ecr-fips.", "dkr-ecr.", "dkr-ecr-fips."];
    let (region, domain) = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?.split_once('.')?;
    let domains = ["amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "on.aws", "on.amazonwebservices.com.cn"];
    let is_region = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (is_account && is_region && domains.contains(&domain)).then_some(region)
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::Inline { variable, .. } => format!("`{variable}`"),
            Self::File { path, .. } => format!("`{}`", path.display()),
            Self::Listed { .. } => "`credential-helpers` of `registries.conf`".into(),
            Self::Variables { names, .. } => (*names).to_owned(),
            Self::Amazon => "`docker-credential-ecr-login` or `aws`".into(),
        }
    }
}

impl Login {
    /// A user and a password, and what stands in for them.
    pub(super) fn from_pair(user: String, password: Secret) -> Self {
        // Docker's own sign for a token in place of a password.
        if user == "<token>" {
            Self::Identity { token: password, beside: None }
        } else {
            Self::Basic { user, password }
        }
    }

    /// The user and the password, if there are any.
    pub(super) fn pair(&self) -> Option<(&str, &Secret)> {
        match self {
            Self::Basic { user, password } => Some((user, password)),
            Self::Identity { beside, .. } => beside.as_ref().map(|(user, password)| (user.as_str(), password)),
            Self::Bearer(_) => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Basic { .. } => "user and password",
            Self::Identity { .. } => "identity token",
            Self::Bearer(_) => "registry token",
        }
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
