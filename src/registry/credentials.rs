//! Where logins are looked for: files of Docker and Podman, credential helpers, variables of CI systems.
//!
//! With `--authfile`, that file alone. Otherwise, in this order: `PHIAL_REGISTRY_AUTH` (the path or the text of such a file);
//! `DOCKER_AUTH_CONFIG` (its text); `REGISTRY_AUTH_FILE`, or else `$DOCKER_CONFIG/config.json`, `containers/auth.json` of the
//! runtime directory and of the user's configuration, `~/.docker/config.json` and `~/.dockercfg`, with the
//! `credential-helpers` of `registries.conf` before or after these files; GitLab's variables and Amazon's programs, each for
//! its own hosts. The first source with a login wins; in a file, the most specific key wins.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::auth_file::{AuthFile, AuthFileFormat, normalized};
use super::ecr::ecr_region;
use super::error::RegistryError;
use super::helper::{CredentialHelpers, HelperReply};
use super::login::Login;
use super::registries::Registries;
use crate::host::Host;
use crate::secret::Secret;

/// Docker Hub in Docker's files and for credential helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The entry that stands for the files among the helpers of `registries.conf`.
const FILES: &str = "containers-auth.json";

/// The sources of logins, in order. Nothing is read before a registry asks for a login.
#[derive(Clone, Default)]
pub struct Credentials {
    sources: Vec<LoginSource>,
    helpers: CredentialHelpers,
}

#[derive(Clone)]
enum LoginSource {
    /// The text of a file of logins, in a variable.
    Inline { variable: &'static str, text: Secret },
    /// A file of logins; it is an error if a required one does not exist.
    File { path: PathBuf, required: bool },
    /// The helpers that `registries.conf` names before the files, or after them.
    Helpers { registries: Arc<Registries>, before_files: bool },
    /// A login for one host, in variables.
    Variables { names: &'static str, host: String, user: String, password: Secret },
    /// Amazon's programs, for its own hosts.
    Amazon,
}

/// One source of logins and what it had, for `phial doctor`. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupStep {
    /// The file, variable or program.
    pub place: String,
    /// What it had.
    pub result: LookupResult,
}

/// What a source of logins had for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// The source does not exist.
    Absent,
    /// It has no login for the registry.
    NoLogin,
    /// It names a helper, which has no login.
    HelperWithoutLogin {
        /// The program.
        helper: String,
    },
    /// A login.
    Login {
        /// The key that matched, as written in the source.
        key: String,
        /// The helper that has it, if it is not in the source itself.
        helper: Option<String>,
        /// What kind of login it is.
        kind: &'static str,
    },
}

/// A login that was found.
struct FoundLogin {
    login: Login,
    /// The key that matched, as written in the source.
    key: String,
    /// The helper that has it.
    helper: Option<String>,
}

/// One search for a login.
struct LoginSearch<'a> {
    host: &'a str,
    repository: &'a str,
    /// Gets each source that was looked at.
    report: &'a mut dyn FnMut(LookupStep),
}

impl Credentials {
    /// No logins at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// As [`Credentials::from_host`]. A file that the command line names is the only source.
    pub fn from_options(host: &Host, authfile: Option<&Path>) -> Self {
        match authfile {
            Some(path) => {
                let source = LoginSource::File { path: path.into(), required: true };
                Self { sources: vec![source], helpers: CredentialHelpers::from_host(host) }
            }
            None => Self::from_host(host),
        }
    }

    /// The sources of this machine and its environment variables.
    pub fn from_host(host: &Host) -> Self {
        let mut sources = Vec::new();
        if let Some(text) = host.var("PHIAL_REGISTRY_AUTH") {
            sources.push(if text.trim_start().starts_with('{') {
                LoginSource::Inline { variable: "PHIAL_REGISTRY_AUTH", text: Secret::new(text) }
            } else {
                LoginSource::File { path: host.cwd.join(text), required: true }
            });
        }
        if let Some(text) = host.var("DOCKER_AUTH_CONFIG") {
            sources.push(LoginSource::Inline { variable: "DOCKER_AUTH_CONFIG", text: Secret::new(text) });
        }
        let registries = Arc::new(Registries::from_host(host));
        sources.push(LoginSource::Helpers { registries: Arc::clone(&registries), before_files: true });
        sources.extend(files(host).into_iter().map(|path| LoginSource::File { path, required: false }));
        sources.push(LoginSource::Helpers { registries, before_files: false });
        sources.extend(gitlab(host));
        sources.push(LoginSource::Amazon);
        Self { sources, helpers: CredentialHelpers::from_host(host) }
    }

    /// The login for a repository. A broken file or a helper that fails is an error.
    pub fn find(&self, host: &str, repository: &str) -> Result<Option<Login>, RegistryError> {
        self.search(host, repository, &mut |_| {})
    }

    /// As [`Credentials::find`]; `report` gets each source that was looked at.
    pub fn search(
        &self,
        host: &str,
        repository: &str,
        report: &mut dyn FnMut(LookupStep),
    ) -> Result<Option<Login>, RegistryError> {
        let mut search = LoginSearch { host, repository, report };
        for source in &self.sources {
            let name = source.name();
            if let Some(FoundLogin { login, key, helper }) = self.look_in(source, &name, &mut search)? {
                let kind = login.kind();
                search.report(&name, LookupResult::Login { key, helper, kind });
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    /// The login of one source. A source without one is reported here.
    fn look_in(
        &self,
        source: &LoginSource,
        name: &str,
        search: &mut LoginSearch<'_>,
    ) -> Result<Option<FoundLogin>, RegistryError> {
        let file = match source {
            LoginSource::Inline { text, .. } => {
                AuthFile::parse(name, text.expose().as_bytes(), AuthFileFormat::Config)?
            }
            LoginSource::File { path, required } => match AuthFile::read(path, name)? {
                Some(file) => file,
                None if *required => {
                    let why = "there is no such file".into();
                    return Err(RegistryError::Credentials { place: name.to_owned(), why });
                }
                None => {
                    search.report(name, LookupResult::Absent);
                    return Ok(None);
                }
            },
            LoginSource::Helpers { registries, before_files } => {
                let all = registries.helpers()?;
                let at = all.iter().position(|helper| helper == FILES).unwrap_or(all.len());
                let helpers = if *before_files { &all[..at] } else { all.get(at + 1..).unwrap_or_default() };
                for helper in helpers {
                    let key = search.host;
                    if let Some(found) = self.run_helper(helper, key, name, search)? {
                        return Ok(Some(found));
                    }
                }
                return Ok(None);
            }
            LoginSource::Variables { host, user, password, .. } if host == without_default_port(search.host) => {
                let login = Login::Basic { user: user.clone(), password: password.clone() };
                return Ok(Some(FoundLogin { login, key: host.clone(), helper: None }));
            }
            LoginSource::Variables { .. } => {
                search.report(name, LookupResult::NoLogin);
                return Ok(None);
            }
            LoginSource::Amazon => return self.ask_amazon(name, search),
        };
        let found = self.look_in_file(&file, name, search)?;
        if found.is_none() {
            search.report(name, LookupResult::NoLogin);
        }
        Ok(found)
    }

    fn look_in_file(
        &self,
        file: &AuthFile,
        name: &str,
        search: &mut LoginSearch<'_>,
    ) -> Result<Option<FoundLogin>, RegistryError> {
        let host = search.host;
        if let Some((key, helper)) = file.helper(host)
            && let Some(found) = self.run_helper(helper, key, name, search)?
        {
            return Ok(Some(found));
        }
        if let Some((login, key)) = file.login(name, host, search.repository)? {
            return Ok(Some(FoundLogin { login, key, helper: None }));
        }
        match file.store() {
            Some(store) => self.run_helper(store, if host == "docker.io" { HUB_KEY } else { host }, name, search),
            None => Ok(None),
        }
    }

    /// The login of a credential helper that the source `name` names.
    fn run_helper(
        &self,
        helper: &str,
        key: &str,
        name: &str,
        search: &mut LoginSearch<'_>,
    ) -> Result<Option<FoundLogin>, RegistryError> {
        let program = format!("docker-credential-{helper}");
        match self.helpers.get(helper, key)? {
            HelperReply::Login(login) => Ok(Some(FoundLogin { login, key: key.to_owned(), helper: Some(program) })),
            HelperReply::Nothing => {
                search.report(name, LookupResult::HelperWithoutLogin { helper: program });
                Ok(None)
            }
        }
    }

    fn ask_amazon(&self, name: &str, search: &mut LoginSearch<'_>) -> Result<Option<FoundLogin>, RegistryError> {
        let Some(region) = ecr_region(search.host) else { return Ok(None) };
        let result = match self.helpers.amazon(search.host, region)? {
            Some((helper, HelperReply::Login(login))) => {
                return Ok(Some(FoundLogin { login, key: search.host.into(), helper: Some(helper) }));
            }
            Some((helper, HelperReply::Nothing)) => LookupResult::HelperWithoutLogin { helper },
            None => LookupResult::Absent,
        };
        search.report(name, result);
        Ok(None)
    }
}

impl LoginSearch<'_> {
    fn report(&mut self, place: &str, result: LookupResult) {
        (self.report)(LookupStep { place: place.to_owned(), result });
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
    docker
        .into_iter()
        .chain([runtime.join("auth.json"), host.config_dir().join("containers/auth.json")])
        .chain([host.home.join(".docker/config.json"), host.home.join(".dockercfg")])
        .collect()
}

/// The logins in the variables of a GitLab job: for GitLab's registry, and for its dependency proxy (docs.gitlab.com,
/// "authenticate with the container registry", "dependency proxy").
fn gitlab(host: &Host) -> impl Iterator<Item = LoginSource> {
    let source = |names, server: &str, pair: Option<(&str, &str)>| {
        let (user, password) = pair?;
        let own = without_default_port(&normalized(server)).to_owned();
        Some(LoginSource::Variables { names, host: own, user: user.into(), password: Secret::new(password) })
    };
    let pair = |user: &str, password: &str| host.var(user).zip(host.var(password));
    let registry = host.var("CI_REGISTRY").and_then(|server| {
        let names = "`CI_REGISTRY_USER` and `CI_REGISTRY_PASSWORD`";
        let token = || Some(("gitlab-ci-token", host.var("CI_JOB_TOKEN")?));
        let own = source(names, server, pair("CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"));
        own.or_else(|| source("`CI_JOB_TOKEN`", server, token()))
    });
    let proxy = host.var("CI_DEPENDENCY_PROXY_SERVER").and_then(|server| {
        let names = "`CI_DEPENDENCY_PROXY_USER` and `CI_DEPENDENCY_PROXY_PASSWORD`";
        source(names, server, pair("CI_DEPENDENCY_PROXY_USER", "CI_DEPENDENCY_PROXY_PASSWORD"))
    });
    registry.into_iter().chain(proxy)
}

/// GitLab writes the host of its dependency proxy with the port of https.
fn without_default_port(host: &str) -> &str {
    host.strip_suffix(":443").unwrap_or(host)
}

impl LoginSource {
    /// The source in messages.
    fn name(&self) -> String {
        match self {
            Self::Inline { variable, .. } => format!("`{variable}`"),
            Self::File { path, .. } => format!("`{}`", path.display()),
            Self::Helpers { .. } => "`credential-helpers` of `registries.conf`".into(),
            Self::Variables { names, .. } => (*names).to_owned(),
            Self::Amazon => "`docker-credential-ecr-login` or `aws`".into(),
        }
    }
}

#[cfg(test)]
mod tests;
