//! User and group id maps of user namespaces (`user_namespaces(7)`): of the caller's own id, and of its ranges in
//! `/etc/subuid` and `/etc/subgid` (subuid(5)).

use std::fs;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User};

use super::error::SandboxError;
use super::protocol::{At, SetupStep, StageError};

/// One id in a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MappedId {
    pub(super) inside: u32,
    pub(super) outside: u32,
}

/// Ids that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IdRange {
    first: u32,
    count: u32,
}

/// Maps one user id and one group id, for this process's own new user namespace.
pub(super) fn map_self(uid: MappedId, gid: MappedId) -> Result<(), StageError> {
    let line = |id: MappedId| format!("{} {} 1", id.inside, id.outside);
    fs::write("/proc/self/setgroups", "deny").at(SetupStep::MapIds, "/proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", line(uid)).at(SetupStep::MapIds, "/proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", line(gid)).at(SetupStep::MapIds, "/proc/self/gid_map")
}

/// Maps 0 to the caller's id and 1.. to its largest range, for the process `pid`, which waits in a new user namespace. Root
/// needs no range of its own, and no helper.
pub(super) fn map_ranges(pid: u32) -> Result<(), SandboxError> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let user = User::from_uid(uid).ok().flatten().map(|user| user.name);
    for (kind, own) in [(&UIDS, uid.as_raw()), (&GIDS, gid.as_raw())] {
        let text = fs::read_to_string(kind.file).unwrap_or_default();
        let range = largest_range(&text, user.as_deref(), uid.as_raw());
        if uid.is_root() {
            let available = fs::read_to_string(format!("/proc/self/{}", kind.map)).unwrap_or_default();
            let range =
                range.or_else(|| range_of_root(&available)).ok_or(SandboxError::NoRanges { file: kind.file })?;
            let failed = |source| SandboxError::Start { what: "map a range of ids", source };
            write_map(pid, kind, own, range).map_err(failed)?;
        } else {
            call_mapper(pid, kind, own, range.ok_or(SandboxError::NoRanges { file: kind.file })?)?;
        }
    }
    Ok(())
}

/// User ids or group ids.
struct IdKind {
    /// The program that maps ranges for ordinary users.
    program: &'static str,
    /// The file with the ranges of users.
    file: &'static str,
    /// The map of a process, in its directory in `/proc`.
    map: &'static str,
}

const UIDS: IdKind = IdKind { program: "newuidmap", file: "/etc/subuid", map: "uid_map" };
const GIDS: IdKind = IdKind { program: "newgidmap", file: "/etc/subgid", map: "gid_map" };

/// The count of ids that are mapped for root, as `useradd` gives to a user.
const COUNT: u32 = 65536;
/// The first id that root maps where it has all ids: above those of users and of systemd's containers
/// (systemd, UIDS-GIDS.md).
const UNUSED: u32 = 0x7000_0000;

/// A range for root, which may map any id of its own user namespace. `available` is the map of that namespace.
fn range_of_root(available: &str) -> Option<IdRange> {
    let extents = available.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(IdRange { first, count })
    });
    let without_root = extents.map(|range| match range {
        IdRange { first: 0, count } => IdRange { first: 1, count: count.saturating_sub(1) },
        range => range,
    });
    let IdRange { first, count } = without_root.filter(|range| range.count > 0).max_by_key(|range| range.count)?;
    let has_unused = first <= UNUSED && UNUSED - first < count.saturating_sub(COUNT);
    Some(IdRange { first: if has_unused { UNUSED } else { first }, count: count.min(COUNT) })
}

fn write_map(pid: u32, kind: &IdKind, own: u32, range: IdRange) -> std::io::Result<()> {
    let IdRange { first, count } = range;
    fs::write(format!("/proc/{pid}/{}", kind.map), format!("0 {own} 1\n1 {first} {count}\n"))
}

fn call_mapper(pid: u32, kind: &IdKind, own: u32, range: IdRange) -> Result<(), SandboxError> {
    let program = kind.program;
    let map = [pid, 0, own, 1, 1, range.first, range.count].map(|number| number.to_string());
    let output = match Command::new(program).args(map).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(SandboxError::Mapper { program, output })
}

/// The first id and the count of the largest range of a user, who is given by name or number.
fn largest_range(text: &str, user: Option<&str>, uid: u32) -> Option<IdRange> {
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = IdRange { first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? };
        let is_own = user == Some(owner) || owner.parse() == Ok(uid);
        (is_own && fields.next().is_none()).then_some(range)
    });
    ranges.filter(|range| range.count > 0).max_by_key(|range| (range.count, std::cmp::Reverse(range.first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_takes_ids_that_nobody_has_or_what_its_namespace_has() {
        for (available, expected) in [
            ("         0          0 4294967295\n", Some((UNUSED, 65536))),
            ("0 100000 65536\n", Some((1, 65535))),
            ("0 1000 1\n1 100000 65536\n", Some((1, 65536))),
            ("0 1000 1\n", None),
            ("", None),
        ] {
            let expected = expected.map(|(first, count)| IdRange { first, count });
            assert_eq!(range_of_root(available), expected, "{available:?}");
        }
    }

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
            let expected = expected.map(|(first, count)| IdRange { first, count });
            assert_eq!(largest_range(text, Some("ann"), 1000), expected, "{text:?}");
        }
    }
}
