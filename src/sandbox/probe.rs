//! Finds out which kinds of isolation work on this machine, by trying each with an empty root.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::error::SandboxError;
use super::run::{run, start};
use super::spec::{Root, Spec};

/// Tries kinds of isolation. Each method returns the error that prevents that kind.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// This program ([`OURSELVES`](super::OURSELVES)).
    pub exe: &'a Path,
    /// A directory on the file system that root filesystems will be on. What is created in it is removed.
    pub scratch: &'a Path,
}

impl Probe<'_> {
    /// Tries [`Root::Overlay`].
    pub fn overlay(&self) -> Result<(), SandboxError> {
        self.attempt(|dir| Root::Overlay {
            lowers: vec![dir.join("lower")],
            upper: dir.join("upper"),
            work: dir.join("work"),
        })
    }

    /// Tries [`Root::Plain`].
    pub fn namespaces(&self) -> Result<(), SandboxError> {
        self.attempt(|dir| Root::Plain { dir: dir.join("lower") })
    }

    /// Tries [`Root::Chroot`].
    pub fn chroot(&self) -> Result<(), SandboxError> {
        self.attempt(|dir| Root::Chroot { dir: dir.join("lower") })
    }

    /// Sets up a sandbox whose root is empty: that its command does not exist means that everything else works.
    fn attempt(&self, root: impl Fn(&Path) -> Root) -> Result<(), SandboxError> {
        let dir =
            tempfile::Builder::new().prefix("probe-").tempdir_in(self.scratch).map_err(start("make a directory"))?;
        for name in ["lower", "upper", "work"] {
            fs::create_dir(dir.path().join(name)).map_err(start("make a directory"))?;
        }
        let spec = Spec::new(root(dir.path()), vec!["/nothing".to_owned()]);
        match run(self.exe, &spec, &AtomicBool::new(false), &mut |_| {}) {
            Err(SandboxError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(SandboxError::Fault("an empty root has a command")),
        }
    }
}
