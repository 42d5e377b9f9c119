//! Credential helpers: `docker-credential-NAME get`, the registry on stdin, a login on stdout
//! (docker/docker-credential-helpers, `client/client.go`); and Amazon's programs, which nobody needs to configure.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::credentials::Login;
use super::error::RegistryError;
use super::secret::Secret;
use crate::host::Host;
use crate::image::shown;

const LIMIT: Duration = Duration::from_secs(10);
const MAX_OUTPUT: u64 = 64 << 10;
/// Said on stdout, with exit code 1, by a helper that works but has nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The environment that helpers run in.
#[derive(Clone, Debug, Default)]
pub(super) struct Helpers {
    env: Env,
}

/// Not shown: it may hold secrets.
#[derive(Clone, Default)]
struct Env(BTreeMap<String, String>);

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Env({} variables)", self.0.len())
    }
}

/// What a helper answers.
pub(super) enum Reply {
    Login(Login),
    Nothing,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Helpers {
    pub(super) fn from_host(host: &Host) -> Self {
        Self { env: Env(host.env.clone()) }
    }

    /// Asks one helper. `key` is the registry as the configuration writes it.
    pub(super) fn get(&self, name: &str, key: &str) -> Result<Reply, RegistryError> {
        let helper = format!("docker-credential-{}", shown(name));
        let failed = |why: String| RegistryError::Helper { helper: helper.clone(), host: shown(key), why };
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(failed("its name may have lower-case letters, digits and hyphens only".into()));
        }
        let program = self.find(&helper).ok_or_else(|| failed("it is not in `PATH`".into()))?;
        let (success, stdout, stderr) = self.run(&program, &["get"], key).map_err(failed)?;
        let said = String::from_utf8_lossy(&stdout);
        if !success {
            if said.trim() == NOT_FOUND {
                return Ok(Reply::Nothing);
            }
            let stderr = String::from_utf8_lossy(&stderr);
            let text = if said.trim().is_empty() { stderr.trim() } else { said.trim() };
            // A helper that prints a secret and then fails is not to be quoted.
            let why = if text.to_ascii_lowercase().contains("\"secret\"") { "it failed".into() } else { shown(text) };
            return Err(failed(why));
        }
        let answer: Answer =
            serde_json::from_slice(&stdout).map_err(|_| failed("its answer is not the JSON it should be".into()))?;
        let secret = Secret::new(answer.secret);
        Ok(Reply::Login(Login::from_pair(answer.username, secret)))
    }

    /// Asks what this machine has for a registry of Amazon: its credential helper, or else its command line. The program
    /// and its reply; `None` if there is neither. The token of either is the password of the user `AWS`, for 12 hours.
    pub(super) fn amazon(&self, host: &str, region: &str) -> Result<Option<(String, Reply)>, RegistryError> {
        if self.find("docker-credential-ecr-login").is_some() {
            return Ok(Some(("docker-credential-ecr-login".into(), self.get("ecr-login", host)?)));
        }
        let helper = "aws ecr get-login-password".to_owned();
        let Some(program) = self.find("aws") else { return Ok(None) };
        let failed = |why: String| RegistryError::Helper { helper: helper.clone(), host: shown(host), why };
        let args = ["ecr", "get-login-password", "--region", region];
        let (success, stdout, stderr) = self.run(&program, &args, "").map_err(failed)?;
        let password = String::from_utf8_lossy(&stdout).trim().to_owned();
        if !success || password.is_empty() || password.contains(char::is_whitespace) {
            // What it printed to stdout may be the secret; why it failed is on stderr.
            let why = String::from_utf8_lossy(&stderr).trim().to_owned();
            return Err(failed(if why.is_empty() { "it gave no password".into() } else { shown(&why) }));
        }
        let login = Login::Basic { user: "AWS".into(), password: Secret::new(password) };
        Ok(Some((helper, Reply::Login(login))))
    }

    fn find(&self, helper: &str) -> Option<PathBuf> {
        let path = self.env.0.get("PATH")?;
        let is_program =
            |path: &Path| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        path.split(':')
            .filter(|dir| dir.starts_with('/'))
            .map(|dir| Path::new(dir).join(helper))
            .find(|p| is_program(p))
    }

    /// Success, stdout and stderr. A helper that takes too long is ended with all its children.
    fn run(&self, program: &Path, args: &[&str], key: &str) -> Result<(bool, Vec<u8>, Vec<u8>), String> {
        let mut child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(&self.env.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("it does not start: {error}"))?;
        let deadline = Instant::now() + LIMIT;
        let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(key.as_bytes()); // one that does not read has its own reasons
        }
        let outcome = finish(&mut child, deadline, &out, &err);
        if outcome.is_err() {
            end(&mut child);
        }
        outcome
    }
}

type Output = mpsc::Receiver<Vec<u8>>;

fn finish(
    child: &mut Child,
    deadline: Instant,
    out: &Output,
    err: &Output,
) -> Result<(bool, Vec<u8>, Vec<u8>), String> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let late = |_| format!("no answer within {} seconds", LIMIT.as_secs());
    let stdout = out.recv_timeout(left()).map_err(late)?;
    if stdout.len() as u64 > MAX_OUTPUT {
        return Err(format!("its answer has more than {MAX_OUTPUT} bytes"));
    }
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let stderr = err.recv_timeout(left().min(Duration::from_millis(200))).unwrap_or_default();
                return Ok((status.success(), stdout, stderr));
            }
            Ok(None) if left().is_zero() => return Err(late(mpsc::RecvTimeoutError::Timeout)),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Reads in a thread of its own, so that a pipe which stays open holds up nobody.
fn collect(from: Option<impl Read + Send + 'static>) -> Output {
    let (to, output) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            let _ = from.take(MAX_OUTPUT + 1).read_to_end(&mut bytes); // what came before an error is judged as it is
        }
        let _ = to.send(bytes); // nobody waits after the limit
    });
    output
}

fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL); // it may be gone already
    }
    let _ = child.wait();
}
