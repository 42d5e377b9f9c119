//! Who one is towards a git server: each credential that is at hand is tried once, in a fixed order, and never shown.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use git2::{Cred, CredentialType};

use super::error::SSH_AGENT;
use super::location::{Location, Url};
use crate::host::Host;

/// A string that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

/// What a fetch may use to prove who one is, and how long it waits for a silent server.
#[derive(Clone)]
pub struct Access {
    env: BTreeMap<String, String>,
    patience: Duration,
}

/// The credentials for one URL that were not tried yet, and the kinds of those that were.
pub(super) struct Ways {
    url: Url,
    access: Access,
    left: VecDeque<Way>,
    given: Option<Way>,
    tried: Vec<&'static str>,
    /// Nothing was left when the server asked.
    pub(super) exhausted: bool,
    /// Another server, to which the first one redirected, asked; without user information.
    pub(super) stranger: Option<String>,
}

const USER_INFO: &str = "the URL's user information";

#[derive(Clone)]
enum Way {
    Pair { kind: &'static str, user: String, secret: Secret },
    Helper,
    Agent,
}

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Access {
    /// What the process's environment offers: `GIT_TOKEN` (with `GIT_USERNAME`) for any host, `GITHUB_TOKEN` for github.com,
    /// `CI_JOB_TOKEN` for `CI_SERVER_HOST`, the ssh agent, and `git credential fill` if git is on the `PATH`.
    pub fn of(host: &Host) -> Self {
        Self { env: host.env.clone(), patience: Duration::from_secs(120) }
    }

    /// How long a server may say nothing before the fetch is given up; 120 s unless told.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
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

    fn ways(&self, url: &Url) -> VecDeque<Way> {
        if url.is_ssh() {
            return self.var("SSH_AUTH_SOCK").map(|_| Way::Agent).into_iter().collect();
        }
        let mut ways = VecDeque::new();
        let mut pair = |kind, user: &str, secret: &str| {
            ways.push_back(Way::Pair { kind, user: user.to_owned(), secret: Secret::new(secret.to_owned()) });
        };
        match (&url.user, &url.password) {
            (Some(user), Some(password)) => pair(USER_INFO, user, &password.0),
            (None, Some(password)) => pair(USER_INFO, "x-access-token", &password.0),
            (_, None) => {}
        }
        if let Some(token) = self.var("GIT_TOKEN") {
            pair("`GIT_TOKEN`", self.var("GIT_USERNAME").unwrap_or("x-access-token"), token);
        }
        if let Some(token) = self.var("GITHUB_TOKEN").filter(|_| url.host == "github.com") {
            pair("`GITHUB_TOKEN`", "x-access-token", token);
        }
        let ours = self.var("CI_SERVER_HOST").is_some_and(|host| host.eq_ignore_ascii_case(&url.host));
        if let Some(token) = self.var("CI_JOB_TOKEN").filter(|_| ours) {
            pair("`CI_JOB_TOKEN`", "gitlab-ci-token", token);
        }
        if self.git().is_some() {
            ways.push_back(Way::Helper);
        }
        // a lone name is a login for the helper, or a token, as GitHub has it: last, since a wrong login may lock an account
        if let (Some(user), None) = (&url.user, &url.password) {
            let (user, secret) = (user.clone(), Secret::new("x-oauth-basic".to_owned()));
            ways.push_back(Way::Pair { kind: USER_INFO, user, secret });
        }
        ways
    }

    /// Asks git's helpers, without a prompt of any kind. `None` if they do not know.
    fn helper(&self, url: &Url) -> Option<(String, Secret)> {
        let mut command = Command::new(self.git()?);
        command.args(["-c", "core.askPass=", "credential", "fill"]).env_clear().envs(&self.env);
        for name in ["GIT_ASKPASS", "SSH_ASKPASS", "GIT_DIR", "GIT_WORK_TREE", "GIT_TRACE", "GIT_TRACE_CURL"] {
            command.env_remove(name);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("GCM_INTERACTIVE", "never").current_dir("/");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut question =
            format!("protocol={}\nhost={}\npath={}\n", url.scheme(), url.authority(), url.path.trim_start_matches('/'));
        if let Some(user) = &url.user {
            question.push_str("username=");
            question.push_str(user);
            question.push('\n');
        }
        question.push('\n');
        child.stdin.take()?.write_all(question.as_bytes()).ok()?;
        let output = child.wait_with_output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        Some((value("username=")?, Secret::new(value("password=")?)))
    }
}

impl Ways {
    pub(super) fn new(url: &Url, access: &Access) -> Self {
        let left = access.ways(url);
        Self {
            url: url.clone(),
            access: access.clone(),
            left,
            given: None,
            tried: Vec::new(),
            exhausted: false,
            stranger: None,
        }
    }

    /// The next credential that fits `allowed`, or an authentication error when none is left. What libgit2 calls back.
    ///
    /// libgit2 follows the first redirect wherever it leads, and asks here for the credentials of that other server (`asker`
    /// is its URL): it gets none.
    pub(super) fn next(&mut self, asker: &str, allowed: CredentialType) -> Result<Cred, git2::Error> {
        if !self.url.is_ssh() && !self.url.same_server(asker) {
            self.stranger =
                Some(asker.parse::<Location>().map_or_else(|_| "another server".to_owned(), |p| p.to_string()));
            return Err(none_left());
        }
        let login = self.url.user.clone().unwrap_or_else(|| "git".to_owned());
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(&login);
        }
        while let Some(way) = self.left.pop_front() {
            let cred = match &way {
                Way::Agent if allowed.contains(CredentialType::SSH_KEY) => {
                    self.tried.push(SSH_AGENT);
                    Cred::ssh_key_from_agent(&login)
                }
                Way::Pair { kind, user, secret } if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) => {
                    self.tried.push(kind);
                    Cred::userpass_plaintext(user, &secret.0)
                }
                Way::Helper if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) => {
                    let Some((user, secret)) = self.access.helper(&self.url) else { continue };
                    self.left.push_front(Way::Pair { kind: "`git credential`", user, secret });
                    continue;
                }
                _ => continue,
            };
            self.given = Some(way);
            return cred;
        }
        self.exhausted = true;
        Err(none_left())
    }

    /// What was given last was accepted: give it again when the next request asks.
    pub(super) fn accepted(&mut self) {
        if let Some(way) = self.given.take() {
            self.tried.pop();
            self.left.push_front(way);
        }
    }

    /// The kinds that were tried.
    pub(super) fn tried(&self) -> Vec<&'static str> {
        self.tried.clone()
    }
}

fn none_left() -> git2::Error {
    git2::Error::new(git2::ErrorCode::Auth, git2::ErrorClass::Callback, "no credentials left to try")
}
