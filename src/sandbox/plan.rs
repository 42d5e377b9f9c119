//! What is mounted over the root, in order: first a list that a test can read, then (in `place`) a short loop.

use super::spec::{Bind, Spec};

/// One thing to put into the root. Paths are absolute inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mount<'a> {
    /// A fresh tmpfs with this mode of its root.
    Tmpfs { at: &'a str, mode: &'static str, size: Option<&'static str> },
    /// A device node of the host, in `/dev`.
    Device(&'static str),
    /// A fresh devpts on `/dev/pts`.
    Devpts,
    /// A symbolic link in `/dev`: name and target.
    Link(&'static str, &'static str),
    /// A fresh proc on `/proc`.
    Proc,
    /// Hides something of `/proc` behind `/dev/null` or an empty directory, if it is there.
    Mask(&'static str),
    /// Makes a subtree of `/proc` read-only, if it is there.
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

/// The list for an order. `/proc` comes after what an image's symbolic links could lead onto it; the caller's binds
/// come last and may cover anything.
pub(super) fn plan(order: &Spec) -> Vec<Mount<'_>> {
    let mut list = vec![
        Mount::Tmpfs { at: "/tmp", mode: "1777", size: None },
        Mount::Tmpfs { at: "/run", mode: "755", size: None },
        Mount::Tmpfs { at: "/dev", mode: "755", size: Some("64m") },
    ];
    list.extend(DEVICES.map(Mount::Device));
    list.push(Mount::Devpts);
    list.push(Mount::Tmpfs { at: "/dev/shm", mode: "1777", size: Some("64m") });
    list.extend(LINKS.map(|(name, target)| Mount::Link(name, target)));
    list.push(Mount::Proc);
    list.extend(MASKED.map(Mount::Mask));
    list.extend(READ_ONLY.map(Mount::ReadOnly));
    list.extend(contents(order).map(|(at, content)| Mount::Content { at, content }));
    list.extend(order.tmpfs.iter().map(|at| Mount::Tmpfs { at, mode: "755", size: None }));
    list.extend(order.binds.iter().map(Mount::Bind));
    list
}

/// The files that we supply.
pub(super) fn contents(order: &Spec) -> impl Iterator<Item = (&'static str, &str)> {
    let resolv = order.resolv.as_deref().map(|content| ("/etc/resolv.conf", content));
    [("/etc/hosts", order.hosts.as_str())].into_iter().chain(resolv)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::spec::{Network, Root};
    use super::*;

    fn order(resolv: Option<&str>) -> Spec {
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
        let order = order(None);
        let list = plan(&order);
        let at = |wanted: &Mount<'_>| list.iter().position(|mount| mount == wanted).unwrap();
        let ours = |mount: &Mount<'_>| matches!(mount, Mount::Tmpfs { at, .. } if *at != "/data");
        let last_tmpfs = list.iter().rposition(ours).unwrap();
        assert!(at(&Mount::Proc) > last_tmpfs);
        assert!(at(&Mount::Mask("kcore")) > at(&Mount::Proc));
        assert!(at(&Mount::ReadOnly("sys")) > at(&Mount::Proc));
        assert_eq!(list.last(), Some(&Mount::Bind(&order.binds[0])));
    }

    #[test]
    fn the_resolver_of_the_image_is_covered_only_if_there_is_another() {
        let covered = |order: &Spec| plan(order).iter().filter(|mount| matches!(mount, Mount::Content { .. })).count();
        assert_eq!(covered(&order(None)), 1);
        assert_eq!(covered(&order(Some("r"))), 2);
    }

    #[test]
    fn an_order_shows_no_values_of_variables() {
        let shown = format!("{:?}", order(None));
        assert!(shown.contains("TOKEN") && !shown.contains("hidden"), "{shown}");
    }
}
