//! The circumstances that steps run in: what the base's toolchain has for them, found out once for a base.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use walkdir::WalkDir;

use super::BuildError;
use super::base::Base;
use super::steps::{Around, Steps};
use crate::config::Clock;
use crate::event::Event;
use crate::prepare::{APP, FORMAT, Step};
use crate::sandbox::{Bind, Order};
use crate::steady::{self, Circumstances, Standing, Toolchain};
use crate::store::{Key, Recall, Tree};

/// Where the script leaves what it takes from the base, in the writable layer of its call.
const OUT: &str = "opt/phial-toolchain";

impl Steps<'_> {
    /// What the base has of Erlang and Elixir. The trees of the base are unpacked for it.
    pub(super) fn toolchain(&self, base: &Base) -> Result<Toolchain, BuildError> {
        let digest = base.image.manifest_digest.as_str();
        let key = Key::new("circumstances")
            .with("format", FORMAT.to_string())
            .with("base", digest)
            .with("of", Toolchain::made_by().as_str());
        let slot = match self.world.store.recall::<Toolchain>(&key)? {
            Recall::Hit(toolchain) => return Ok(toolchain),
            Recall::Miss(slot) => slot,
        };
        let trees = base.trees(self.world)?;
        let found = if has_erlang(&trees)? { self.take(&trees)? } else { Toolchain::default() };
        slot.keep(&found)?;
        Ok(found)
    }

    fn take(&self, trees: &[Tree]) -> Result<Toolchain, BuildError> {
        let scratch = self.world.store.scratch()?;
        let argv = ["/bin/sh", "-c", steady::TOOLCHAIN, "toolchain", steady::COUNTER, &format!("/{OUT}")];
        let step = Step { name: "toolchain".into(), argv: argv.map(String::from).to_vec(), env: None };
        let start = self.world.began("toolchain");
        let draft = self.call(
            &step,
            trees,
            &scratch.path().join("toolchain"),
            &Around { cwd: "/", mtime: 0, seed: None, given: &[] },
        )?;
        let roots = trees.iter().map(|tree| tree.root.as_path());
        let toolchain =
            Toolchain::read(&draft.tree.root.join(OUT), roots).map_err(BuildError::io("read", Path::new(OUT)))?;
        if toolchain.boot.is_some() && toolchain.module.is_none() {
            let text =
                "the base's Elixir keeps its own counter of macros' variables: its compiler has no debug information";
            (self.world.watch)(Event::Notice { text: text.into() });
        }
        self.world.ended("toolchain", &format!("{} atoms", toolchain.atoms.len()), Some(start));
        Ok(toolchain)
    }

    /// Adds to an order what its step is given; files go to the new directory `dir`.
    pub(super) fn surround(
        &self,
        order: &mut Order,
        step: &Step,
        around: &Around<'_>,
        dir: &Path,
    ) -> Result<(), BuildError> {
        let given = self.given(step, around, dir).map_err(BuildError::io("write in", dir))?;
        for (name, value) in given.env {
            let between = if name == "ERL_AFLAGS" { " " } else { ":" };
            let own = order.env.get(name).filter(|own| !own.is_empty());
            let both = own.map_or_else(|| value.clone(), |own| format!("{own}{between}{value}"));
            order.env.insert(name.into(), both);
        }
        order.binds.extend(given.files.into_iter().map(|file| Bind {
            source: file.source,
            target: file.target,
            read_only: true,
        }));
        Ok(())
    }

    fn given(&self, step: &Step, around: &Around<'_>, dir: &Path) -> io::Result<Circumstances> {
        fs::create_dir(dir)?;
        let mut given = Circumstances::new();
        // What is fetched is fetched in real time: certificates are checked against it.
        if step.env.is_some() && self.plan.clock == Clock::Fixed {
            let standing = Standing { then: around.mtime, began: self.world.host.clock() };
            given = given.with_clock(standing, dir)?;
        }
        if let Some((toolchain, atoms)) = around.seed {
            let (seeded, over) = given.with_atoms(toolchain, atoms, dir)?;
            given = seeded;
            if over > 0 {
                let text = format!("{over} words of the sources are too many to be made atoms in one order");
                (self.world.watch)(Event::Notice { text });
            }
        }
        Ok(given)
    }
}

/// The atoms of the app's sources in these trees; none without Erlang, which alone asks for them.
pub(super) fn atoms(toolchain: &Toolchain, roots: &[&Path]) -> Result<BTreeSet<String>, BuildError> {
    let mut atoms = BTreeSet::new();
    if toolchain.boot.is_none() {
        return Ok(atoms);
    }
    for root in roots {
        let app = root.join(APP);
        steady::atoms_below(&app, &mut atoms).map_err(BuildError::io("read", &app))?;
    }
    Ok(atoms)
}

fn has_erlang(trees: &[Tree]) -> Result<bool, BuildError> {
    for tree in trees {
        for entry in WalkDir::new(&tree.root) {
            let entry = entry.map_err(|error| BuildError::io("read", &tree.root)(error.into()))?;
            if entry.file_name() == "start.boot" {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
