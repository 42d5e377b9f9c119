//! Runs this program with other arguments in a user namespace: to change owners of files, and to read files, that
//! belong to the ids mapped there.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::thread;

use super::error::SandboxError;
use super::protocol::Job;
use super::run::{Running, start};
use super::spec::Ids;

/// The most of the helper's stderr that is shown, in characters.
const MAX_STDERR: usize = 2000;

/// Runs `exe` (this program) with `args` as user 0 of a user namespace with the ids of a sandbox, writes `input` to its
/// stdin and returns its stdout.
///
/// Files of ids that are not mapped appear to belong to `nobody` (65534). The environment is empty and the working
/// directory is `/`. An exit code other than 0 is an error.
pub fn run_in_user_namespace(exe: &Path, ids: Ids, args: &[&str], input: &[u8]) -> Result<Vec<u8>, SandboxError> {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    let stdio = [Stdio::piped(), Stdio::piped(), Stdio::piped()];
    let mut running = Running::launch(exe, Job::ExecInUserNamespace { ids, args }, stdio)?;
    let streams = (running.child.stdin.take(), running.child.stdout.take(), running.child.stderr.take());
    running.wait_for_exec()?;
    let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) = streams else {
        return Err(SandboxError::Fault("no pipes"));
    };
    let (mut result, mut output) = (Vec::new(), Vec::new());
    let read = thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input))); // a helper that does not read it fails by its exit code
        scope.spawn(|| drop(stderr.read_to_end(&mut output)));
        stdout.read_to_end(&mut result)
    });
    read.map_err(start("read the helper's output"))?;
    let status = running.child.wait().map_err(start("wait for the helper"))?;
    if status.success() {
        return Ok(result);
    }
    let output = String::from_utf8_lossy(&output);
    let output: Vec<char> = output.trim().chars().rev().take(MAX_STDERR).collect();
    Err(SandboxError::Helper { code: status.code().unwrap_or(-1), output: output.into_iter().rev().collect() })
}
