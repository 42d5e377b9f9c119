//! Ranges of ids from `/etc/subuid` and `/etc/subgid` (subuid(5)), and work on files with those ids.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use nix::unistd::{Uid, User};

use super::error::SandboxError;
use super::protocol::Job;
use super::run::{Running, start};
use super::spec::Ids;

/// Runs this program with other arguments as 0 of a user namespace with the same ids as a sandbox has, `input` on its
/// stdin, and gives its stdout: to change owners of files, and to read files, that belong to mapped ids.
///
/// Files of ids that are not mapped look as if `nobody` (65534) had them. The environment is empty and the working directory `/`. An exit code other than 0 is an error.
pub fn inside_ids(exe: &Path, ids: Ids, hidden: &[&str], input: &[u8]) -> Result<Vec<u8>, SandboxError> {
    let hidden = hidden.iter().map(|&word| word.to_owned()).collect();
    let mut running = Running::launch(exe, Job::Ids { ids, hidden }, [Stdio::piped(), Stdio::piped(), Stdio::piped()])?;
    let streams = (running.child.stdin.take(), running.child.stdout.take(), running.child.stderr.take());
    running.settle()?;
    let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) = streams else {
        return Err(SandboxError::Spec("no pipes"));
    };
    let (mut result, mut said) = (Vec::new(), Vec::new());
    let read = thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input))); // whoever does not read it says so by its exit code
        scope.spawn(|| drop(stderr.read_to_end(&mut said)));
        stdout.read_to_end(&mut result)
    });
    read.map_err(start("read the helper's output"))?;
    let status = running.child.wait().map_err(start("wait for the helper"))?;
    if status.success() {
        return Ok(result);
    }
    let said = String::from_utf8_lossy(&said).trim().chars().rev().take(2000).collect::<Vec<_>>();
    Err(SandboxError::Helper { code: status.code().unwrap_or(-1), said: said.into_iter().rev().collect() })
}

/// Maps 0 to the caller and 1.. to its ranges, for a process that waits in a new user namespace.
pub(super) fn map_ranges(pid: u32) -> Result<(), SandboxError> {
    let (uid, gid) = (Uid::effective(), nix::unistd::Gid::effective());
    let user = User::from_uid(uid).ok().flatten().map(|user| user.name);
    for (program, file, own) in [("newuidmap", "/etc/subuid", uid.as_raw()), ("newgidmap", "/etc/subgid", gid.as_raw())]
    {
        let text = fs::read_to_string(file).unwrap_or_default();
        let (first, count) = largest(&text, user.as_deref(), uid.as_raw()).ok_or(SandboxError::NoRanges { file })?;
        let map = [pid, 0, own, 1, 1, first, count].map(|number| number.to_string());
        let output = Command::new(program).args(map).stdin(Stdio::null()).output();
        let said = match output {
            Ok(output) if output.status.success() => continue,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(SandboxError::Mapper { program, said });
    }
    Ok(())
}

/// The largest range of a user, given by name or number: first id and count.
fn largest(text: &str, user: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    let entries = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let ours = user == Some(owner) || owner.parse() == Ok(uid);
        (ours && fields.next().is_none()).then_some(range)
    });
    entries.filter(|(_, count)| *count > 0).max_by_key(|(first, count)| (*count, std::cmp::Reverse(*first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_range_of_a_user_is_taken_by_name_or_number() {
        for (text, expected) in [
            ("ann:100000:65536\n", Some((100_000, 65536))),
            ("1000:200000:10\nann:100000:65536\n", Some((100_000, 65536))),
            ("1000:200000:70000\nann:100000:65536\n", Some((200_000, 70000))),
            ("bob:100000:65536\n", None),
            ("ann:100000\nann:x:1\nann:1:2:3\n# ann\n\n", None),
            ("ann:5:0\n", None),
            ("ann:300:10\nann:200:10\n", Some((200, 10))),
        ] {
            assert_eq!(largest(text, Some("ann"), 1000), expected, "{text:?}");
        }
    }
}
