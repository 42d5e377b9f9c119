//! Credential helpers: `docker-credential-NAME get` reads the registry from stdin and writes a login to stdout
//! (docker/docker-credential-helpers, `client/client.go`). Amazon's programs are used without being configured.
//! Ours, for the time limit and for errors that name the helper and what it wrote.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::error::RegistryError;
use super::login::Login;
use crate::host::Host;
use crate::image::shown;
use crate::secret::Secret;

/// How long a helper may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of output that are read.
const MAX_OUTPUT: u64 = 64 << 10;
/// What a helper without a login for the registry writes to stdout; it exits with 1.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Runs credential helpers in the environment of the command.
#[derive(Clone, Debug, Default)]
pub(super) struct CredentialHelpers {
    env: Env,
}

/// Environment variables. `Debug` does not show them: they may hold secrets.
#[derive(Clone, Default)]
struct Env(BTreeMap<String, String>);

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Env({} variables)", self.0.len())
    }
}

/// What a helper returns.
pub(super) enum HelperReply {
    Login(Login),
    Nothing,
}

/// A helper's output, as JSON.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperOutput {
    username: String,
    secret: String,
}

impl CredentialHelpers {
    pub(super) fn from_host(host: &Host) -> Self {
        Self { env: Env(host.env.clone()) }
    }

    /// Runs a helper. `key` is the registry as written in the configuration.
    pub(super) fn get(&self, name: &str, key: &str) -> Result<HelperReply, RegistryError> {
        let helper = format!("docker-credential-{}", shown(name));
        let failed = |why: String| RegistryError::Helper { helper: helper.clone(), host: shown(key), why };
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(failed("its name may have lower-case letters, digits and hyphens only".into()));
        }
        let program = self.find(&helper).ok_or_else(|| failed("it is not in `PATH`".into()))?;
        let HelperExit { success, stdout, stderr } = self.run(&program, &["get"], key).map_err(failed)?;
        let output = String::from_utf8_lossy(&stdout);
        if !success {
            if output.trim() == NOT_FOUND {
                return Ok(HelperReply::Nothing);
            }
            let stderr = String::from_utf8_lossy(&stderr);
            let text = if output.trim().is_empty() { stderr.trim() } else { output.trim() };
            // The output of a helper that prints a secret and then fails is not shown.
            let why = if text.to_ascii_lowercase().contains("\"secret\"") { "it failed".into() } else { shown(text) };
            return Err(failed(why));
        }
        let answer: HelperOutput =
            serde_json::from_slice(&stdout).map_err(|_| failed("its output is not a login in JSON".into()))?;
        let secret = Secret::new(answer.secret);
        Ok(HelperReply::Login(Login::from_pair(answer.username, secret)))
    }

    /// The login for a registry of Amazon, from its credential helper or from `aws`: the program and its reply; `None` if
    /// neither is installed. The password of the user `AWS` is valid for 12 hours.
    pub(super) fn amazon(&self, host: &str, region: &str) -> Result<Option<(String, HelperReply)>, RegistryError> {
        if self.find("docker-credential-ecr-login").is_some() {
            return Ok(Some(("docker-credential-ecr-login".into(), self.get("ecr-login", host)?)));
        }
        let helper = "aws ecr get-login-password".to_owned();
        let Some(program) = self.find("aws") else { return Ok(None) };
        let failed = |why: String| RegistryError::Helper { helper: helper.clone(), host: shown(host), why };
        let args = ["ecr", "get-login-password", "--region", region];
        let HelperExit { success, stdout, stderr } = self.run(&program, &args, "").map_err(failed)?;
        let password = String::from_utf8_lossy(&stdout).trim().to_owned();
        if !success || password.is_empty() || password.contains(char::is_whitespace) {
            // stdout may have the secret; the reason of a failure is on stderr.
            let why = String::from_utf8_lossy(&stderr).trim().to_owned();
            return Err(failed(if why.is_empty() { "it printed no password".into() } else { shown(&why) }));
        }
        let login = Login::Basic { user: "AWS".into(), password: Secret::new(password) };
        Ok(Some((helper, HelperReply::Login(login))))
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

    /// Runs a program with `key` on stdin. One that takes too long is killed with its children.
    fn run(&self, program: &Path, args: &[&str], key: &str) -> Result<HelperExit, String> {
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
        let deadline = Instant::now() + TIMEOUT;
        let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(key.as_bytes()); // a helper need not read it
        }
        let outcome = finish(&mut child, deadline, &out, &err);
        if outcome.is_err() {
            kill(&mut child);
        }
        outcome
    }
}

/// A program that has exited.
struct HelperExit {
    success: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

type Output = mpsc::Receiver<Vec<u8>>;

/// Waits until a program has closed its stdout and exited.
fn finish(child: &mut Child, deadline: Instant, out: &Output, err: &Output) -> Result<HelperExit, String> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let late = |_| format!("no output within {} seconds", TIMEOUT.as_secs());
    let stdout = out.recv_timeout(left()).map_err(late)?;
    if stdout.len() as u64 > MAX_OUTPUT {
        return Err(format!("its output has more than {MAX_OUTPUT} bytes"));
    }
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let stderr = err.recv_timeout(left().min(Duration::from_millis(200))).unwrap_or_default();
                return Ok(HelperExit { success: status.success(), stdout, stderr });
            }
            Ok(None) if left().is_zero() => return Err(late(mpsc::RecvTimeoutError::Timeout)),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Reads a pipe in a thread of its own: a pipe that stays open does not block the caller.
fn collect(from: Option<impl Read + Send + 'static>) -> Output {
    let (to, output) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            let _ = from.take(MAX_OUTPUT + 1).read_to_end(&mut bytes); // what came before an error is used as it is
        }
        let _ = to.send(bytes); // after the timeout nobody waits for it
    });
    output
}

fn kill(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL); // it may be gone already
    }
    let _ = child.wait();
}
