//! Reuse of fetched Hex packages: those that the previous deps layer has in the version that `mix.lock` names are put into
//! `deps/` before Mix fetches the others.
//!
//! The layer must be the same bytes with and without reuse. So only sources are reused, of a layer whose key differs in the
//! lock alone, and only of packages in which compiling changed no file. A step that changes a reused package, as an alias of
//! `deps.get` can, does so in what it fetched itself: all are fetched. Everything is compiled again: compilers write what they saw before (a manifest lists the modules
//! of one run, the order of atoms is that of one VM), so a reused `_build` would change the result. A package that only a
//! stale line of the lock names would not be fetched by Mix; Mix is asked which packages it uses, and the others are left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::BuildError;
use super::step_env::{PresetDir, StepEnv};
use super::step_runner::{Changes, StepRunner};
use crate::elixir::hex_marker;
use crate::elixir::mix_lock::{self, HexPackage};
use crate::error::{Error, ExitKind, IoError};
use crate::recipe::{AppDir, Script, Step};
use crate::rootfs::{self, ImageFiles};
use crate::store::{CacheKey, Scratch};
use crate::tree::{Enter, TreeDir};

/// Where Mix keeps sources, relative to the app.
pub(super) const DEPS: &str = "deps";
/// Where the list of the packages that Mix uses is written, in the upper directory of the step that asks.
const USED: &str = "opt/phial-used";
/// The largest such list, in bytes.
const MAX_USED: u64 = 4 << 20;

/// The step that fetches dependencies, and what it needs for reuse.
pub(super) struct HexReuse<'a> {
    pub(super) steps: &'a StepRunner<'a>,
    /// The text of `mix.lock`.
    pub(super) mix_lock: &'a str,
    pub(super) scratch: &'a Scratch,
    /// What the step runs in.
    pub(super) env: &'a StepEnv<'a>,
}

impl HexReuse<'_> {
    /// Runs the step that fetches, with the packages that can be reused. `key` is the cache key of the deps layer.
    pub(super) fn fetch(&self, step: &Step, key: &CacheKey) -> Result<Changes, Error> {
        let mut reusable = self.reusable(key)?;
        while !reusable.is_empty() {
            let packages = reusable.len();
            let seeded = self.run(step, &format!("seeded-{packages}"), &reusable).and_then(|changes| {
                if !is_unchanged(&reusable, &changes)? {
                    return Ok(None);
                }
                let used = self.used(&changes, &format!("used-{packages}"))?;
                Ok(Some((changes, used)))
            });
            let why = match seeded {
                Ok(None) => "the step changes them when it fetches".to_owned(),
                Ok(Some((changes, used))) => {
                    reusable.retain(|package| used.contains(name(package)));
                    if reusable.len() < packages {
                        continue;
                    }
                    if self.has_more(packages, &changes)? {
                        return Ok(changes);
                    }
                    "they are all, so Mix was not asked to fetch".to_owned()
                }
                Err(error) if error.exit_kind() == ExitKind::Interrupted => return Err(error),
                Err(error) => error.to_string(),
            };
            self.steps.context.notice(format!("no packages are reused, all are fetched: {why}"));
            break;
        }
        self.run(step, "fetch", &[])
    }

    fn run(&self, step: &Step, dir: &str, preset: &[PresetDir]) -> Result<Changes, Error> {
        self.steps.run(step, &StepEnv { preset, ..*self.env }, &self.scratch.path().join(dir))
    }

    /// The packages that need not be fetched; none if there is no previous deps layer or it is not available.
    fn reusable(&self, key: &CacheKey) -> Result<Vec<PresetDir>, Error> {
        let context = self.steps.context;
        let locked = mix_lock::hex_packages(self.mix_lock);
        let deps = deps_dir(&self.steps.plan.recipe.app);
        let is_possible =
            !locked.is_empty() && !self.steps.no_cache && self.steps.plan.recipe.script == Script::BuiltIn;
        if !is_possible {
            return Ok(vec![]);
        }
        let Some((previous, origin)) = self.steps.remote_cache.previous_deps(key) else { return Ok(vec![]) };
        let tree = match self.steps.tree(&previous.layer) {
            Ok(tree) => tree,
            Err(error) => {
                context.notice(format!("the dependencies of {origin} are not available: {error}"));
                return Ok(vec![]);
            }
        };
        let root = tree.root.open()?;
        let files = ImageFiles::open(self.env.lowers)?;
        let reusable = |(app, package): (&String, &HexPackage)| -> Option<Result<PresetDir, IoError>> {
            let path = deps.join(app);
            match files.entry(&path) {
                Ok(None) if previous.untouched.contains(app) => {}
                Ok(_) => return None, // one that the commit has is not fetched
                Err(error) => return Some(Err(error)),
            }
            let dir = root.dir(&path).transpose()?;
            let preset = |dir| {
                let is_same = hex_marker::read(&dir).as_ref() == Some(package);
                is_same.then(|| PresetDir { path, tree: tree.root.clone() })
            };
            dir.map(preset).transpose()
        };
        let packages: Vec<PresetDir> = locked.iter().filter_map(reusable).collect::<Result<_, _>>()?;
        let (some, all) = (packages.len(), locked.len());
        context.notice(format!("{some} of {all} packages of `mix.lock` are reused from {origin}"));
        Ok(packages)
    }

    /// Whether a step left more in `deps/` than the packages that it was given. Else the script had nothing to fetch, and an
    /// alias of `deps.get` did not run.
    fn has_more(&self, given: usize, changes: &Changes) -> Result<bool, Error> {
        let deps = changes.tree.root.open()?.dir(deps_dir(&self.steps.plan.recipe.app))?;
        Ok(deps.map(|deps| deps.names()).transpose()?.is_some_and(|names| names.len() > given))
    }

    /// The Hex packages that Mix uses in this app, in any environment. `dir` is the directory of the step that asks.
    fn used(&self, fetched: &Changes, dir: &str) -> Result<BTreeSet<String>, Error> {
        let list = format!("mkdir -p /opt; MIX_ENV=${{MIX_ENV:-prod}} exec mix deps --all >/{USED}");
        let argv = ["/bin/sh", "-c", &list].map(String::from).to_vec();
        let step = Step { name: "deps used".into(), argv, env: None };
        let lowers = [std::slice::from_ref(&fetched.tree), self.env.lowers].concat();
        let env = StepEnv { lowers: &lowers, ..*self.env };
        let changes = self.steps.run(&step, &env, &self.scratch.path().join(dir))?;
        let text = changes.tree.root.open()?.read_text(USED, MAX_USED)?;
        text.map(|text| hex_packages(&text)).ok_or_else(|| BuildError::Missing(format!("/{USED}")).into())
    }
}

/// Whether a step left packages as it was given them.
fn is_unchanged(packages: &[PresetDir], changes: &Changes) -> Result<bool, Error> {
    let left = changes.tree.root.open()?;
    for PresetDir { path, tree } in packages {
        let (Some(given), Some(left)) = (tree.open()?.dir(path)?, left.dir(path)?) else { return Ok(false) };
        if !rootfs::are_same(&given, &left)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The Hex packages in the output of `mix deps`, whose lines are `* jason 1.4.4 (Hex package) (mix)`.
fn hex_packages(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("* ")).filter(|line| line.contains(" (Hex package)"));
    lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The packages in `fetched` in which no `later` step changed a file that is in the layer.
pub(super) fn untouched(app: &AppDir, fetched: &Changes, later: &[Changes]) -> Result<BTreeSet<String>, IoError> {
    let mut untouched = BTreeSet::new();
    let path = deps_dir(app);
    let Some(deps) = fetched.tree.root.open()?.dir(&path)? else { return Ok(untouched) };
    let later = later.iter().map(|changes| changes.tree.root.open()).collect::<Result<Vec<TreeDir>, _>>()?;
    for name in deps.names()?.into_iter().filter_map(|name| name.into_string().ok()) {
        let Some(package) = deps.dir(&name)? else { continue };
        let mut is_touched = false;
        for tree in &later {
            is_touched |= is_changed(tree, &path.join(&name))?;
        }
        if !is_touched && hex_marker::read(&package).is_some() && !has_build_dir(&package)? {
            untouched.insert(name);
        }
    }
    Ok(untouched)
}

/// Whether a step changed anything in the package at `path` besides the `_build` of rebar3, which is in no layer.
fn is_changed(changes: &TreeDir, path: &Path) -> Result<bool, IoError> {
    match changes.dir(path)? {
        Some(dir) => Ok(dir.names()?.iter().any(|name| name != "_build")),
        None => Ok(changes.stat(path)?.is_some()),
    }
}

/// Whether a package has a directory `_build`, which normalizing removes.
fn has_build_dir(package: &TreeDir) -> Result<bool, IoError> {
    let mut found = false;
    package.walk(|entry| {
        found |= entry.path.file_name().is_some_and(|name| name == "_build");
        Ok::<_, IoError>(Enter::Yes)
    })?;
    Ok(found)
}

fn deps_dir(app: &AppDir) -> PathBuf {
    Path::new(&app.in_tree()).join(DEPS)
}

fn name(package: &PresetDir) -> &str {
    package.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::hex_packages;

    #[test]
    fn hex_packages_are_read_from_the_list_of_mix() {
        let text = "* stamp (http://localhost/stamp.git - v1.0.0) (mix)\n  locked at 0123 (v1.0.0)\n  ok\n\
                    * idna 6.1.1 (Hex package) (rebar3)\n  locked at 6.1.1 (idna) 92376eb7\n  ok\n\
                    * near (near) (mix)\n  ok\n* makeup (Hex package) (mix)\n  the dependency is not available\n";
        assert_eq!(hex_packages(text).into_iter().collect::<Vec<_>>(), ["idna", "makeup"]);
    }
}
