//! Erlang and Elixir of a base image, read once for each base image, and the atoms of an app's sources.

use std::collections::BTreeSet;
use std::path::Path;

use walkdir::WalkDir;

use super::step_env::StepEnv;
use super::step_runner::StepRunner;
use crate::determinism::shims::{self, Toolchain};
use crate::error::{Error, IoError};
use crate::recipe::{APP, FORMAT, Step};
use crate::runtime::ResolvedImage;
use crate::store::{Key, Lookup, Tree};

/// Where the step writes what it reads from the base image, in its upper directory.
const OUT: &str = "opt/phial-toolchain";

/// The toolchain of a base image; empty for one without Erlang. The base image's layers are unpacked for it.
pub(super) fn toolchain(steps: &StepRunner<'_>, base: &ResolvedImage) -> Result<Toolchain, Error> {
    let key = Key::new("circumstances") // a name in cache keys; another one would make all results unknown
        .with("format", FORMAT.to_string())
        .with("base", base.image.manifest_digest.as_str())
        .with("of", Toolchain::version().as_str());
    let vacant = match steps.context.store.result::<Toolchain>(&key)? {
        Lookup::Hit(toolchain) => return Ok(toolchain),
        Lookup::Miss(vacant) => vacant,
    };
    let trees = base.trees(steps.context)?;
    let toolchain = if has_erlang(&trees)? { read(steps, &trees)? } else { Toolchain::default() };
    vacant.keep(&toolchain)?;
    Ok(toolchain)
}

/// Runs the step that reads the toolchain, in the base image.
fn read(steps: &StepRunner<'_>, trees: &[Tree]) -> Result<Toolchain, Error> {
    let context = steps.context;
    let scratch = context.store.scratch()?;
    let argv = ["/bin/sh", "-c", shims::TOOLCHAIN, "toolchain", shims::COUNTER, &format!("/{OUT}")];
    let step = Step { name: "toolchain".into(), argv: argv.map(String::from).to_vec(), env: None };
    let start = context.step_started("toolchain");
    let env = StepEnv { lowers: trees, cwd: "/", mtime: 0, atoms: None, preset: &[] };
    let changes = steps.run(&step, &env, &scratch.path().join("toolchain"))?;
    let roots = trees.iter().map(|tree| tree.root.as_path());
    let toolchain =
        Toolchain::read(&changes.tree.root.join(OUT), roots).map_err(IoError::at("read", Path::new(OUT)))?;
    if toolchain.boot.is_some() && toolchain.module.is_none() {
        context.notice(
            "the base image's Elixir keeps its own counter of macro variables: its compiler has no debug information",
        );
    }
    context.step_finished("toolchain", &format!("{} atoms", toolchain.atoms.len()), Some(start));
    Ok(toolchain)
}

/// The words of the app's sources in these trees that can become atoms; none without Erlang.
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
