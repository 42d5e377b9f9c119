//! Which rungs of isolation work on this machine, found out by trying each with an empty root.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::error::SandboxError;
use super::run::{run, start};
use super::spec::{Root, Spec};

/// Tries rungs of isolation: each works, or there is an error that says why not (with a hint).
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// This program ([`OURSELVES`](super::OURSELVES)).
    pub exe: &'a Path,
    /// A directory on the file system of the roots to come. What is made in it is removed.
    pub scratch: &'a Path,
}

impl Probe<'_> {
    /// [`Root::Overlay`].
    pub fn overlay(&self) -> Result<(), SandboxError> {
        self.attempt(|dir| Root::Overlay {
            lowers: vec![dir.join("lower")],
            upper: dir.join("upper"),
            work: dir.join("work"),
        })
    }

    /// [`Root::Plain`].
    pub fn namespaces(&self) -> Result<(), SandboxError> {
        self.attempt(|dir| Root::Plain { dir: dir.join("lower") })
    }

    /// [`Root::Chroot`].
    pub fn chroot(&self) -> Result<(), SandboxError> {
        self.attempt(|dir| Root::Chroot { dir: dir.join("lower") })
    }

    /// Sets everything up. There is no command in an empty root, so that it is missing means that all the rest worked.
    fn attempt(&self, root: impl Fn(&Path) -> Root) -> Result<(), SandboxError> {
        let dir =
            tempfile::Builder::new().prefix("probe-").tempdir_in(self.scratch).map_err(start("make a directory"))?;
        for name in ["lower", "upper", "work"] {
            fs::create_dir(dir.path().join(name)).map_err(start("make a directory"))?;
        }
        let order = Spec::new(root(dir.path()), vec!["/nothing".to_owned()]);
        match run(self.exe, &order, &AtomicBool::new(false), &mut |_| {}) {
            Err(SandboxError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(SandboxError::Spec("an empty root has a command")),
        }
    }
}
