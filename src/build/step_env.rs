//! The determinism shims of a step. What the toolchain of a base image needs is found out once for each base.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use walkdir::WalkDir;

use super::step_runner::{StepEnv, StepRunner};
use crate::config::Clock;
use crate::determinism::shims::{self, FixedClock, Shims, Toolchain};
use crate::error::{Error, IoError};
use crate::recipe::{APP, FORMAT, Step};
use crate::runtime::ResolvedImage;
use crate::sandbox::{Bind, Spec};
use crate::store::{Key, Lookup, Tree};

/// Where the script leaves what it takes from the base, in the writable layer of its call.
const OUT: &str = "opt/phial-toolchain";

impl StepRunner<'_> {
    /// What the base has of Erlang and Elixir. The trees of the base are unpacked for it.
    pub(super) fn toolchain(&self, base: &ResolvedImage) -> Result<Toolchain, Error> {
        let digest = base.image.manifest_digest.as_str();
        let key = Key::new("circumstances")
            .with("format", FORMAT.to_string())
            .with("base", digest)
            .with("of", Toolchain::made_by().as_str());
        let vacant = match self.context.store.result::<Toolchain>(&key)? {
            Lookup::Hit(toolchain) => return Ok(toolchain),
            Lookup::Miss(vacant) => vacant,
        };
        let trees = base.trees(self.context)?;
        let found = if has_erlang(&trees)? { self.take(&trees)? } else { Toolchain::default() };
        vacant.keep(&found)?;
        Ok(found)
    }

    fn take(&self, trees: &[Tree]) -> Result<Toolchain, Error> {
        let scratch = self.context.store.scratch()?;
        let argv = ["/bin/sh", "-c", shims::TOOLCHAIN, "toolchain", shims::COUNTER, &format!("/{OUT}")];
        let step = Step { name: "toolchain".into(), argv: argv.map(String::from).to_vec(), env: None };
        let start = self.context.step_started("toolchain");
        let changes = self.run(
            &step,
            trees,
            &scratch.path().join("toolchain"),
            &StepEnv { cwd: "/", mtime: 0, seed: None, given: &[] },
        )?;
        let roots = trees.iter().map(|tree| tree.root.as_path());
        let toolchain =
            Toolchain::read(&changes.tree.root.join(OUT), roots).map_err(IoError::at("read", Path::new(OUT)))?;
        if toolchain.boot.is_some() && toolchain.module.is_none() {
            self.context.notice(
                "the base's Elixir keeps its own counter of macros' variables: its compiler has no debug information",
            );
        }
        self.context.step_finished("toolchain", &format!("{} atoms", toolchain.atoms.len()), Some(start));
        Ok(toolchain)
    }

    /// Adds the shims of a step to its sandbox spec; their files go to the new directory `dir`.
    pub(super) fn add_shims(&self, spec: &mut Spec, step: &Step, env: &StepEnv<'_>, dir: &Path) -> Result<(), Error> {
        let shims = self.shims(step, env, dir).map_err(IoError::at("write in", dir))?;
        for (name, value) in shims.env {
            let between = if name == "ERL_AFLAGS" { " " } else { ":" };
            let own = spec.env.get(name).filter(|own| !own.is_empty());
            let both = own.map_or_else(|| value.clone(), |own| format!("{own}{between}{value}"));
            spec.env.insert(name.into(), both);
        }
        spec.binds.extend(shims.files.into_iter().map(|file| Bind {
            source: file.source,
            target: file.target,
            read_only: true,
        }));
        Ok(())
    }

    fn shims(&self, step: &Step, env: &StepEnv<'_>, dir: &Path) -> io::Result<Shims> {
        fs::create_dir(dir)?;
        let mut shims = Shims::new();
        // What is fetched is fetched in real time: certificates are checked against it.
        if step.env.is_some() && self.plan.clock == Clock::Fixed {
            let standing = FixedClock { then: env.mtime, began: self.context.host.unix_time() };
            shims = shims.with_clock(standing, dir)?;
        }
        if let Some((toolchain, atoms)) = env.seed {
            let (seeded, over) = shims.with_atoms(toolchain, atoms, dir)?;
            shims = seeded;
            if over > 0 {
                self.context.notice(format!("{over} words of the sources are too many to be made atoms in one order"));
            }
        }
        Ok(shims)
    }
}

/// The atoms of the app's sources in these trees; none without Erlang, which alone asks for them.
pub(super) fn source_atoms(toolchain: &Toolchain, roots: &[&Path]) -> Result<BTreeSet<String>, Error> {
    let mut atoms = BTreeSet::new();
    if toolchain.boot.is_none() {
        return Ok(atoms);
    }
    for root in roots {
        let app = root.join(APP);
        shims::atoms_below(&app, &mut atoms).map_err(IoError::at("read", &app))?;
    }
    Ok(atoms)
}

fn has_erlang(trees: &[Tree]) -> Result<bool, Error> {
    for tree in trees {
        for entry in WalkDir::new(&tree.root) {
            let entry = entry.map_err(|error| IoError::at("read", &tree.root)(error.into()))?;
            if entry.file_name() == "start.boot" {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
