//! Which rungs of isolation work on this machine, found out by trying each with an empty root.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::error::SandboxError;
use super::order::{Ids, Network, Order, Root, Stdio};
use super::run::{run, start};

/// Each rung of isolation: whether it works, or why it does not (with a hint).
#[derive(Debug)]
pub struct Probe {
    /// [`Root::Overlay`] on the file system of the scratch directory.
    pub overlay: Result<(), SandboxError>,
    /// [`Root::Plain`].
    pub namespaces: Result<(), SandboxError>,
    /// [`Root::Chroot`].
    pub chroot: Result<(), SandboxError>,
}

/// Tries every rung in a directory under `scratch`, which is on the file system of the roots to come. What it made is
/// removed.
pub fn probe(exe: &Path, scratch: &Path) -> Probe {
    Probe {
        overlay: attempt(exe, scratch, |dir| Root::Overlay {
            lowers: vec![dir.join("lower")],
            upper: dir.join("upper"),
            work: dir.join("work"),
        }),
        namespaces: attempt(exe, scratch, |dir| Root::Plain { dir: dir.join("lower") }),
        chroot: attempt(exe, scratch, |dir| Root::Chroot { dir: dir.join("lower") }),
    }
}

/// Sets everything up. There is no command in an empty root, so that it is missing means that all the rest worked.
fn attempt(exe: &Path, scratch: &Path, root: impl Fn(&Path) -> Root) -> Result<(), SandboxError> {
    let dir = tempfile::Builder::new().prefix("probe-").tempdir_in(scratch).map_err(start("make a directory"))?;
    for name in ["lower", "upper", "work"] {
        fs::create_dir(dir.path().join(name)).map_err(start("make a directory"))?;
    }
    let order = Order {
        root: root(dir.path()),
        argv: vec!["/nothing".to_owned()],
        env: BTreeMap::new(),
        cwd: "/".to_owned(),
        user: (0, 0),
        network: Network::Host,
        ids: Ids::Single,
        binds: Vec::new(),
        tmpfs: Vec::new(),
        ready: None,
        hosts: String::new(),
        resolv: None,
        stdio: Stdio::Stream,
        read_only: false,
    };
    match run(exe, &order, &AtomicBool::new(false), &mut |_| {}) {
        Err(SandboxError::Missing { .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(SandboxError::Order("an empty root has a command")),
    }
}
