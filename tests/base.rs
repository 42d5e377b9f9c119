//! Debian bases, made by the real `mmdebstrap` from this machine's own mirror.

use std::fs;
use std::path::Path;
use std::process::Command;

use phial::base_image::debian::{Debian, EPOCH, debian};
use phial::event::discard;
use phial::host::Host;

/// The names of this machine's own package lists.
fn lists() -> Vec<String> {
    let read = fs::read_dir("/var/lib/apt/lists").expect("apt's lists");
    let mut names: Vec<_> =
        read.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn listing(tar: &Path) -> Vec<String> {
    let output = Command::new("tar").arg("--list").arg("--file").arg(tar).output().expect("tar");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn the_same_packages_make_the_same_bytes_and_name_nothing_of_the_machine() {
    let order =
        Debian { suite: "trixie".into(), packages: vec!["busybox-static".into()], mirrors: vec![], epoch: EPOCH };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let host = Host::read();
    let before = lists();
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| debian(&order, &host, one.path(), &discard).expect("a base"));
        let second = debian(&order, &host, two.path(), &discard).expect("a base again");
        (first.join().expect("no panic"), second)
    });
    assert!(fs::read(&first.tar).unwrap() == fs::read(&second.tar).unwrap(), "two runs, two tars");
    assert_eq!(lists(), before, "this machine's own lists are not ours to change");

    let names = listing(&first.tar);
    for expected in ["./dev/", "./etc/hosts", "./bin", "./usr/bin/busybox"] {
        assert!(names.iter().any(|name| name == expected), "{expected} is missing");
    }
    for unwanted in
        ["./etc/resolv.conf", "./etc/hostname", "./etc/apt/sources.list", "./dev/null", "./var/log/dpkg.log"]
    {
        assert!(!names.iter().any(|name| name == unwanted), "{unwanted} is there");
    }
}
