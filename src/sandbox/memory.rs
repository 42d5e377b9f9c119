//! How much memory the processes of a sandbox have, as the caller sees it in `/proc`.
//!
//! A control group would be exact, but its memory controller is only for who was given a group without other processes (cgroups(7),
//! "no internal processes"), which neither a user's shell nor a container gives. Limits of single processes count addresses
//! (`RLIMIT_AS`, `RLIMIT_DATA`), of which the Erlang VM reserves far more than it uses.

use std::fs;
use std::time::{Duration, Instant};

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks at the memory of a process and all below it, from time to time.
pub(super) struct MemoryWatch {
    next: Instant,
}

impl MemoryWatch {
    pub(super) fn new() -> Self {
        Self { next: Instant::now() + INTERVAL }
    }

    /// Whether the process `pid` and those below it have more than `limit` bytes. False between two looks.
    pub(super) fn is_beyond(&mut self, pid: u32, limit: u64) -> bool {
        if Instant::now() < self.next {
            return false;
        }
        let is_beyond = anonymous_below(pid) > limit;
        self.next = Instant::now() + INTERVAL;
        is_beyond
    }
}

/// The bytes in memory that the process `pid` and those below it do not share with files (proc(5), `RssAnon`). What a process has in
/// common with one that it forked counts twice.
fn anonymous_below(pid: u32) -> u64 {
    let (mut sum, mut pids) = (0_u64, vec![pid]);
    while let Some(pid) = pids.pop() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        sum = sum.saturating_add(kib.unwrap_or(0) << 10);
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_memory_of_children_counts_and_addresses_do_not() {
        // The shell keeps 64 MB in a variable of its child.
        let script = "sh -c 'x=$(head -c 64000000 /dev/zero | tr \"\\\\0\" x); echo up; read _'; true";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut line).expect("a line");
        let used = anonymous_below(child.id());
        drop(child.stdin.take());
        child.wait().expect("it ends");
        assert!((64_000_000..1_000_000_000).contains(&used), "{used}");
        assert_eq!(anonymous_below(u32::MAX), 0);
    }
}
