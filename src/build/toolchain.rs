//! Erlang and Elixir of a base image, read once for each base image, and the atoms of an app's sources.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::BuildError;
use super::step_env::StepEnv;
use super::step_runner::StepRunner;
use crate::context::Context;
use crate::determinism::shims::{self, Toolchain};
use crate::error::Error;
use crate::image::shown;
use crate::recipe::{APP, Agreement, FORMAT, Step, Tool, WantedVersion, agrees};
use crate::runtime::ResolvedImage;
use crate::store::{CacheKey, Lookup, Tree, TreeCheck};
use crate::tree::{Enter, TreeDir};

/// Where the step writes what it reads from the base image, in its upper directory.
const OUT: &str = "opt/phial-toolchain";

/// The toolchain of a base image; empty for one without Erlang. The base image's layers are unpacked for it.
pub(super) fn toolchain(steps: &StepRunner<'_>, base: &ResolvedImage) -> Result<Toolchain, Error> {
    let key = CacheKey::new("circumstances") // a name in cache keys; another one would make all results unknown
        .with("format", FORMAT.to_string())
        .with("base", base.image.manifest_digest.as_str())
        .with("of", Toolchain::version().as_str());
    let vacant = match steps.context.store.result::<Toolchain>(&key)? {
        Lookup::Hit(toolchain) => return Ok(toolchain),
        Lookup::Miss(vacant) => vacant,
    };
    let trees = base.trees(steps.context, TreeCheck::Entries)?;
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
    let env = StepEnv { lowers: trees, cwd: "/", mtime: 0, atoms: None, preset: &[], commit: None };
    let changes = steps.run(&step, &env, &scratch.path().join("toolchain"))?;
    let output = changes.tree.root.open()?.dir(OUT)?;
    let trees = trees.iter().map(|tree| tree.root.open()).collect::<Result<Vec<TreeDir>, _>>()?;
    let toolchain = Toolchain::read(output.as_ref(), &trees)?;
    if toolchain.boot.is_some() && toolchain.module.is_none() {
        context.notice(
            "the base image's Elixir keeps its own counter of macro variables: its compiler has no debug information",
        );
    }
    context.step_finished("toolchain", &format!("{} atoms", toolchain.atoms.len()), Some(start));
    Ok(toolchain)
}

/// The words of the app's sources in these trees that can become atoms; none without Erlang.
pub(super) fn source_atoms(toolchain: &Toolchain, trees: &[&Tree]) -> Result<BTreeSet<String>, Error> {
    let mut atoms = BTreeSet::new();
    if toolchain.boot.is_none() {
        return Ok(atoms);
    }
    for tree in trees {
        if let Some(app) = tree.root.open()?.dir(APP)? {
            shims::add_atoms(&app, &mut atoms)?;
        }
    }
    Ok(atoms)
}

/// Compares the versions of a base image with those that a commit asks for.
pub(super) struct VersionCheck {
    agreement: Agreement,
    /// Whether it was done; another step of the same build does not repeat what was reported.
    is_done: AtomicBool,
}

impl VersionCheck {
    pub(super) fn new(agreement: Agreement) -> Self {
        Self { agreement, is_done: AtomicBool::new(false) }
    }

    /// Whether another version is an error.
    pub(super) fn is_strict(&self) -> bool {
        self.agreement == Agreement::Exact
    }

    pub(super) fn check(
        &self,
        wanted: &[WantedVersion],
        toolchain: &Toolchain,
        context: &Context<'_>,
    ) -> Result<(), BuildError> {
        if self.is_done.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        for wanted in wanted {
            let present = match wanted.tool {
                Tool::Elixir => &toolchain.elixir,
                Tool::Erlang => &toolchain.erlang,
            };
            let Some(present) = present.as_ref().filter(|present| !agrees(wanted, present, self.agreement)) else {
                continue;
            };
            let WantedVersion { tool, file, .. } = *wanted;
            let error = BuildError::Version { file, tool, wanted: shown(&wanted.version), present: shown(present) };
            if self.is_strict() {
                return Err(error);
            }
            context.notice(error.to_string());
        }
        Ok(())
    }
}

fn has_erlang(trees: &[Tree]) -> Result<bool, Error> {
    let mut found = false;
    for tree in trees {
        tree.root.open()?.walk(|entry| {
            found = found || entry.path.file_name().is_some_and(|name| name == "start.boot");
            Ok::<_, Error>(if found { Enter::No } else { Enter::Yes })
        })?;
    }
    Ok(found)
}
