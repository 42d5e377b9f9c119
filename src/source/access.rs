//! Credentials for a git server: each one that is found is tried once, in a fixed order. Their values are never shown.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use git2::{Cred, CredentialType};

use super::error::{SSH_AGENT, SourceError};
use super::git_host::GitHost;
use super::location::{Location, Url};
use crate::host::Host;
use crate::secret::Secret;

/// Where a fetch may find credentials, and its limits.
#[derive(Clone)]
pub struct Access {
    env: BTreeMap<String, String>,
    /// The servers that get them.
    hosts: Vec<GitHost>,
    timeout: Duration,
    max_bytes: u64,
    max_list: u64,
}

/// The most bytes that a server may send for one commit.
const MAX_BYTES: u64 = 32 << 30;
/// The most memory for a server's list of branches and tags: room for millions.
const MAX_LIST: u64 = 1 << 30;

/// The credentials for one URL, and which were tried.
pub(super) struct CredentialQueue {
    url: Url,
    access: Access,
    untried: VecDeque<CredentialSource>,
    /// The one that was tried last.
    current: Option<CredentialSource>,
    tried: Vec<&'static str>,
    /// Whether the server asked when all were tried.
    pub(super) exhausted: bool,
    /// The URL of another server, without user information, if that asked after a redirect.
    pub(super) redirected_to: Option<String>,
}

const USER_INFO: &str = "the URL's user information";

#[derive(Clone)]
enum CredentialSource {
    Password { kind: &'static str, user: String, secret: Secret },
    Helper,
    Agent,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Access {
    /// From the environment: `GIT_TOKEN` (with `GIT_USERNAME`) for any host, `GITHUB_TOKEN` for github.com,
    /// `CI_JOB_TOKEN` for `CI_SERVER_HOST`, the ssh agent, and `git credential fill` if git is on the `PATH`. Only `hosts`, the
    /// servers that the caller named, get any of them.
    pub fn of(host: &Host, hosts: &[GitHost]) -> Self {
        Self {
            env: host.env.clone(),
            hosts: hosts.to_vec(),
            timeout: Duration::from_secs(120),
            max_bytes: MAX_BYTES,
            max_list: MAX_LIST,
        }
    }

    /// The same, for one more server.
    pub(super) fn and(&self, host: Option<GitHost>) -> Self {
        let mut access = self.clone();
        access.hosts.extend(host);
        access
    }

    /// Whether the caller has named the server of `url`.
    fn names(&self, url: &Url) -> bool {
        self.hosts.iter().any(|host| url.is_on(host))
    }

    /// Sets how long a server may send nothing before the fetch fails; the default is 120 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many bytes a server may send for one commit before the fetch fails; the default is 32 GiB.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets how many bytes of memory a server's list of branches and tags may take before the fetch fails; the default is 1 GiB.
    #[must_use]
    pub fn with_max_list(mut self, max_list: u64) -> Self {
        self.max_list = max_list;
        self
    }

    pub(super) fn max_list(&self) -> u64 {
        self.max_list
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn git(&self) -> Option<PathBuf> {
        self.var("PATH")?
            .split(':')
            .filter(|dir| dir.starts_with('/'))
            .map(|dir| PathBuf::from(dir).join("git"))
            .find(|git| git.is_file())
    }

    fn sources(&self, url: &Url) -> VecDeque<CredentialSource> {
        if url.is_ssh() && !self.names(url) {
            return VecDeque::new();
        }
        if url.is_ssh() {
            return self.var("SSH_AUTH_SOCK").map(|_| CredentialSource::Agent).into_iter().collect();
        }
        let mut sources = VecDeque::new();
        let mut pair = |kind, user: &str, secret: &str| {
            sources.push_back(CredentialSource::Password {
                kind,
                user: user.to_owned(),
                secret: Secret::new(secret.to_owned()),
            });
        };
        match (&url.user, &url.password) {
            (Some(user), Some(password)) => pair(USER_INFO, user, password.expose()),
            (None, Some(password)) => pair(USER_INFO, "x-access-token", password.expose()),
            (_, None) => {}
        }
        if !self.names(url) {
            return sources;
        }
        if let Some(token) = self.var("GIT_TOKEN") {
            pair("`GIT_TOKEN`", self.var("GIT_USERNAME").unwrap_or("x-access-token"), token);
        }
        if let Some(token) = self.var("GITHUB_TOKEN").filter(|_| url.host == "github.com") {
            pair("`GITHUB_TOKEN`", "x-access-token", token);
        }
        let is_ci_server = self.var("CI_SERVER_HOST").is_some_and(|host| host.eq_ignore_ascii_case(&url.host));
        if let Some(token) = self.var("CI_JOB_TOKEN").filter(|_| is_ci_server) {
            pair("`CI_JOB_TOKEN`", "gitlab-ci-token", token);
        }
        if self.git().is_some() {
            sources.push_back(CredentialSource::Helper);
        }
        // A user without a password is a login for the helper, or a token, as on GitHub. Tried last: a wrong login may
        // lock an account.
        if let (Some(user), None) = (&url.user, &url.password) {
            let (user, secret) = (user.clone(), Secret::new("x-oauth-basic".to_owned()));
            sources.push_back(CredentialSource::Password { kind: USER_INFO, user, secret });
        }
        sources
    }

    /// Asks git's credential helpers, without prompts. `None` if they have no credential.
    fn helper(&self, url: &Url) -> Option<(String, Secret)> {
        let mut command = Command::new(self.git()?);
        command.args(["-c", "core.askPass=", "credential", "fill"]).env_clear().envs(&self.env);
        for name in ["GIT_ASKPASS", "SSH_ASKPASS", "GIT_DIR", "GIT_WORK_TREE", "GIT_TRACE", "GIT_TRACE_CURL"] {
            command.env_remove(name);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("GCM_INTERACTIVE", "never").current_dir("/");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut request =
            format!("protocol={}\nhost={}\npath={}\n", url.scheme(), url.authority(), url.path.trim_start_matches('/'));
        if let Some(user) = &url.user {
            request.push_str("username=");
            request.push_str(user);
            request.push('\n');
        }
        request.push('\n');
        child.stdin.take()?.write_all(request.as_bytes()).ok()?;
        let output = child.wait_with_output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        Some((value("username=")?, Secret::new(value("password=")?)))
    }
}

impl CredentialQueue {
    pub(super) fn new(url: &Url, access: &Access) -> Self {
        let untried = access.sources(url);
        Self {
            url: url.clone(),
            access: access.clone(),
            untried,
            current: None,
            tried: Vec::new(),
            exhausted: false,
            redirected_to: None,
        }
    }

    /// The next credential of a type in `allowed`, or an authentication error when all were tried: the callback for
    /// libgit2.
    ///
    /// libgit2 follows a first redirect to any server, and then asks for credentials for that one (`asker` is its URL):
    /// it gets none.
    pub(super) fn next(&mut self, asker: &str, allowed: CredentialType) -> Result<Cred, git2::Error> {
        if !self.url.is_ssh() && !self.url.same_server(asker) {
            self.redirected_to =
                Some(asker.parse::<Location>().map_or_else(|_| "another server".to_owned(), |p| p.to_string()));
            return Err(all_tried());
        }
        let login = self.url.user.clone().unwrap_or_else(|| "git".to_owned());
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(&login);
        }
        while let Some(source) = self.untried.pop_front() {
            let cred = match &source {
                CredentialSource::Agent if allowed.contains(CredentialType::SSH_KEY) => {
                    self.tried.push(SSH_AGENT);
                    Cred::ssh_key_from_agent(&login)
                }
                CredentialSource::Password { kind, user, secret }
                    if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) =>
                {
                    self.tried.push(kind);
                    Cred::userpass_plaintext(user, secret.expose())
                }
                CredentialSource::Helper if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) => {
                    let Some((user, secret)) = self.access.helper(&self.url) else { continue };
                    self.untried.push_front(CredentialSource::Password { kind: "`git credential`", user, secret });
                    continue;
                }
                _ => continue,
            };
            self.current = Some(source);
            return cred;
        }
        self.exhausted = true;
        Err(all_tried())
    }

    /// Records that the current credential was accepted: the next request gets it again.
    pub(super) fn accepted(&mut self) {
        if let Some(source) = self.current.take() {
            self.tried.pop();
            self.untried.push_front(source);
        }
    }

    /// The error of a server that requires other credentials than those that were tried.
    pub(super) fn refusal(&self, location: String) -> SourceError {
        if self.access.names(&self.url) {
            return SourceError::Auth { location, tried: self.tried.clone() };
        }
        SourceError::Withheld { location, host: self.url.authority() }
    }
}

fn all_tried() -> git2::Error {
    git2::Error::new(git2::ErrorCode::Auth, git2::ErrorClass::Callback, "no credentials left to try")
}
