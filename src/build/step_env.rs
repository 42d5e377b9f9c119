//! What a step runs in: the trees it sees, and the determinism shims that are bound into its sandbox.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::ClockSetting;
use crate::context::Context;
use crate::determinism::shims::{FixedClock, Libc, ShimFile, Shims, Toolchain};
use crate::error::{Error, IoError};
use crate::recipe::Step;
use crate::sandbox::{Bind, Spec};
use crate::source::Commit;
use crate::store::Tree;
use crate::tree::TreeRoot;

/// What a step runs in.
#[derive(Clone, Copy)]
pub(super) struct StepEnv<'a> {
    /// The trees that its root filesystem is assembled from, topmost first.
    pub(super) lowers: &'a [Tree],
    /// The working directory; one of the trees must have it.
    pub(super) cwd: &'a str,
    /// The modification time of all files of the app that the step sees, in seconds since 1970.
    pub(super) mtime: i64,
    /// The atoms that Erlang VMs start with; `None` for a step that compiles nothing.
    pub(super) atoms: Option<AtomSeed<'a>>,
    /// Directories that the upper directory has from the start.
    pub(super) preset: &'a [PresetDir],
    /// The commit, for steps that compile the app: its SHA is in their key. `None` for others, which do not depend on it.
    pub(super) commit: Option<&'a Commit>,
}

/// Atoms that Erlang VMs create in one order before they do anything else: maps with atoms as keys are iterated in the order
/// in which the atoms were created.
#[derive(Clone, Copy)]
pub(super) struct AtomSeed<'a> {
    /// Erlang and Elixir of the base image.
    pub(super) toolchain: &'a Toolchain,
    /// The words of the sources that can become atoms.
    pub(super) atoms: &'a BTreeSet<String>,
}

/// A directory that is copied into the upper directory before a step runs, as if the step had made it.
pub(super) struct PresetDir {
    /// The path below the root, in `tree` and in the upper directory.
    pub(super) path: PathBuf,
    /// The tree that it is copied from.
    pub(super) tree: TreeRoot,
}

impl StepEnv<'_> {
    /// What a step may know of the commit: an image has no `.git`. Branches and tags move, so no step sees them.
    pub(super) fn commit_variables(&self) -> impl Iterator<Item = (String, String)> {
        let variables = self
            .commit
            .map(|commit| [("PHIAL_COMMIT", commit.sha.clone()), ("PHIAL_COMMIT_TIME", commit.time.to_string())]);
        variables.into_iter().flatten().map(|(name, value)| (name.to_owned(), value))
    }

    /// The clock that `step` sees, if it stands still. Steps that fetch see the real time: certificates are checked against
    /// it.
    pub(super) fn clock(&self, step: &Step, clock: ClockSetting, context: &Context<'_>) -> Option<FixedClock> {
        let is_fixed = step.env.is_some() && clock == ClockSetting::Fixed;
        is_fixed.then(|| FixedClock { sources_mtime: self.mtime, step_start: context.host.unix_time() })
    }

    /// The shims of a step whose programs have this C library. Their files are written to the new directory `dir`.
    pub(super) fn shims(
        &self,
        libc: Libc,
        clock: Option<FixedClock>,
        dir: &Path,
        context: &Context<'_>,
    ) -> Result<Shims, Error> {
        let made = || -> io::Result<Shims> {
            fs::create_dir(dir)?;
            let mut shims = Shims::new();
            if let Some(clock) = clock {
                shims = shims.with_clock(clock, dir)?;
            }
            shims = shims.with_cleared_memory(libc, dir)?;
            if let Some(AtomSeed { toolchain, atoms }) = self.atoms {
                shims = shims.with_atoms(toolchain, atoms, dir)?;
            }
            Ok(shims)
        };
        let shims = made().map_err(IoError::at("write in", dir))?;
        if shims.dropped_atoms > 0 {
            context.notice(format!("the sources have {} words too many for the list of atoms", shims.dropped_atoms));
        }
        Ok(shims)
    }
}

/// Adds shims to a sandbox spec.
pub(super) fn add(shims: Shims, spec: &mut Spec) {
    for (name, value) in shims.env {
        let separator = if name == "ERL_AFLAGS" { " " } else { ":" };
        let present = spec.env.get(name).filter(|present| !present.is_empty());
        let both = present.map_or_else(|| value.clone(), |present| format!("{present}{separator}{value}"));
        spec.env.insert(name.into(), both);
    }
    let bind = |file: ShimFile| Bind { source: file.source, target: file.target, read_only: true };
    spec.binds.extend(shims.files.into_iter().map(bind));
}
