//! User and group id maps of user namespaces (`user_namespaces(7)`): of the caller's own id, and of its ranges in
//! `/etc/subuid` and `/etc/subgid` (subuid(5)).

use std::fs;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User};

use super::error::SandboxError;
use super::protocol::{At, StageError, Step};

/// One id in a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MappedId {
    pub(super) inside: u32,
    pub(super) outside: u32,
}

/// Maps one user id and one group id, for this process's own new user namespace.
pub(super) fn map_self(uid: MappedId, gid: MappedId) -> Result<(), StageError> {
    let line = |id: MappedId| format!("{} {} 1", id.inside, id.outside);
    fs::write("/proc/self/setgroups", "deny").at(Step::MapIds, "/proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", line(uid)).at(Step::MapIds, "/proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", line(gid)).at(Step::MapIds, "/proc/self/gid_map")
}

/// Maps 0 to the caller's id and 1.. to its largest range, for the process `pid`, which waits in a new user namespace.
pub(super) fn map_ranges(pid: u32) -> Result<(), SandboxError> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let user = User::from_uid(uid).ok().flatten().map(|user| user.name);
    for (program, file, own) in [("newuidmap", "/etc/subuid", uid.as_raw()), ("newgidmap", "/etc/subgid", gid.as_raw())]
    {
        let text = fs::read_to_string(file).unwrap_or_default();
        let (first, count) =
            largest_range(&text, user.as_deref(), uid.as_raw()).ok_or(SandboxError::NoRanges { file })?;
        let map = [pid, 0, own, 1, 1, first, count].map(|number| number.to_string());
        let output = Command::new(program).args(map).stdin(Stdio::null()).output();
        let output = match output {
            Ok(output) if output.status.success() => continue,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(SandboxError::Mapper { program, output });
    }
    Ok(())
}

/// The first id and the count of the largest range of a user, who is given by name or number.
fn largest_range(text: &str, user: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_own = user == Some(owner) || owner.parse() == Ok(uid);
        (is_own && fields.next().is_none()).then_some(range)
    });
    ranges.filter(|(_, count)| *count > 0).max_by_key(|(first, count)| (*count, std::cmp::Reverse(*first)))
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
            assert_eq!(largest_range(text, Some("ann"), 1000), expected, "{text:?}");
        }
    }
}
