//! What is mounted over the root, in order: a list that tests can read. `mounts` carries it out.

use super::spec::{Bind, Root, Spec};

/// One mount or link in the root. Paths are absolute inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mount<'a> {
    /// A new tmpfs of at most `size` bytes and half of the machine's memory; `mode` is that of its root.
    Tmpfs { at: &'a str, mode: &'static str, size: Option<u64> },
    /// A directory of the root; created with this mode if it does not exist.
    Dir { at: &'static str, mode: u32 },
    /// A device node of the host, in `/dev`.
    Device(&'static str),
    /// A new devpts on `/dev/pts`.
    Devpts,
    /// A symbolic link in `/dev`: name and target.
    Link(&'static str, &'static str),
    /// A new proc on `/proc`.
    Proc,
    /// Covers an entry of `/proc` with `/dev/null` or an empty directory, if it exists.
    Mask(&'static str),
    /// Makes an entry of `/proc` read-only, if it exists.
    ReadOnly(&'static str),
    /// A read-only file with this content.
    Content { at: &'a str, content: &'a str },
    /// A file or directory of the host.
    Bind(&'a Bind),
}

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

pub(super) const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// containerd's `maskedPaths` and `readonlyPaths`, below `/proc`.
const MASKED: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// The mounts of a spec. `/proc` comes after everything that symbolic links of an image could redirect onto it; the
/// caller's binds come last and may cover anything.
pub(super) fn plan(spec: &Spec) -> Vec<Mount<'_>> {
    // Files that are bind-mounted elsewhere are copied into the root of a chroot, below `/run`.
    let size = spec.limits.memory;
    let is_chroot = matches!(spec.root, Root::Chroot { .. });
    let mut list = if is_chroot {
        vec![Mount::Dir { at: "/tmp", mode: 0o1777 }, Mount::Dir { at: "/run", mode: 0o755 }]
    } else {
        vec![Mount::Tmpfs { at: "/tmp", mode: "1777", size }, Mount::Tmpfs { at: "/run", mode: "755", size }]
    };
    list.push(Mount::Tmpfs { at: "/dev", mode: "755", size: Some(64 << 20) });
    list.extend(DEVICES.map(Mount::Device));
    list.push(Mount::Devpts);
    list.push(Mount::Tmpfs { at: "/dev/shm", mode: "1777", size: Some(64 << 20) });
    list.extend(LINKS.map(|(name, target)| Mount::Link(name, target)));
    list.push(Mount::Proc);
    list.extend(MASKED.map(Mount::Mask));
    list.extend(READ_ONLY.map(Mount::ReadOnly));
    list.extend(contents(spec).map(|(at, content)| Mount::Content { at, content }));
    list.extend(spec.tmpfs.iter().map(|at| Mount::Tmpfs { at, mode: "755", size }));
    list.extend(spec.binds.iter().map(Mount::Bind));
    list
}

/// The files that the sandbox provides: path and content.
pub(super) fn contents(spec: &Spec) -> impl Iterator<Item = (&'static str, &str)> {
    let resolv = spec.resolv.as_deref().map(|content| ("/etc/resolv.conf", content));
    [("/etc/hosts", spec.hosts.as_str())].into_iter().chain(resolv)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::spec::Network;
    use super::*;

    fn spec(resolv: Option<&str>) -> Spec {
        Spec {
            env: BTreeMap::from([("TOKEN".to_owned(), "hidden".to_owned())]),
            network: Network::None,
            binds: vec![Bind { source: "/a".into(), target: "/proc/x".to_owned(), read_only: true }],
            tmpfs: vec!["/data".to_owned()],
            hosts: "h".to_owned(),
            resolv: resolv.map(str::to_owned),
            ..Spec::new(Root::Plain { dir: "/r".into() }, vec!["true".to_owned()])
        }
    }

    #[test]
    fn proc_is_mounted_after_what_could_hide_it_and_masked_at_once() {
        let spec = spec(None);
        let list = plan(&spec);
        let at = |wanted: &Mount<'_>| list.iter().position(|mount| mount == wanted).unwrap();
        let is_own_tmpfs = |mount: &Mount<'_>| matches!(mount, Mount::Tmpfs { at, .. } if *at != "/data");
        let last_tmpfs = list.iter().rposition(is_own_tmpfs).unwrap();
        assert!(at(&Mount::Proc) > last_tmpfs);
        assert!(at(&Mount::Mask("kcore")) > at(&Mount::Proc));
        assert!(at(&Mount::ReadOnly("sys")) > at(&Mount::Proc));
        assert_eq!(list.last(), Some(&Mount::Bind(&spec.binds[0])));
    }

    #[test]
    fn what_is_copied_into_a_chroot_is_not_hidden() {
        let spec = Spec { root: Root::Chroot { dir: "/r".into() }, ..spec(None) };
        assert!(!plan(&spec).iter().any(|mount| matches!(mount, Mount::Tmpfs { at: "/run" | "/tmp", .. })));
    }

    #[test]
    fn the_resolver_of_the_image_is_covered_only_if_there_is_another() {
        let covered = |spec: &Spec| plan(spec).iter().filter(|mount| matches!(mount, Mount::Content { .. })).count();
        assert_eq!(covered(&spec(None)), 1);
        assert_eq!(covered(&spec(Some("r"))), 2);
    }

    #[test]
    fn the_debug_output_of_a_spec_has_no_values_of_variables() {
        let shown = format!("{:?}", spec(None));
        assert!(shown.contains("TOKEN") && !shown.contains("hidden"), "{shown}");
    }
}
