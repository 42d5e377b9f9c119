//! Reuse of fetched Hex packages: those that the previous deps layer has in the version that `mix.lock` names are put into
//! `deps/` before Mix fetches the others.
//!
//! The layer must be the same bytes with and without reuse. So only sources are reused, and only of packages in which
//! compiling changed no file. Everything is compiled again: compilers write what they saw before (a manifest lists the modules
//! of one run, the order of atoms is that of one VM), so a reused `_build` would change the result. A package that only a
//! stale line of the lock names would not be fetched by Mix; Mix is asked which packages it uses, and the others are left out.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::step_env::{PresetDir, StepEnv};
use super::step_runner::{Changes, StepRunner};
use crate::elixir::hex_marker;
use crate::elixir::mix_lock::{self, HexPackage};
use crate::error::{Error, ExitKind, IoError};
use crate::recipe::{APP, Script, Step};
use crate::store::{Key, Scratch};

/// Where Mix keeps sources, relative to the app.
const DEPS: &str = "deps";
/// Where the list of the packages that Mix uses is written, in the upper directory of the step that asks.
const USED: &str = "opt/phial-used";

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
    pub(super) fn fetch(&self, step: &Step, key: &Key) -> Result<Changes, Error> {
        let reusable = self.reusable(key);
        if reusable.is_empty() {
            return self.run(step, "fetch", &[]);
        }
        let fetched = self.run(step, "seeded", &reusable).and_then(|changes| {
            let used = self.used(&changes)?;
            Ok((changes, used))
        });
        match fetched {
            Ok((changes, used)) if reusable.iter().all(|package| used.contains(name(package))) => Ok(changes),
            Ok((_, used)) => {
                let reusable: Vec<PresetDir> =
                    reusable.into_iter().filter(|package| used.contains(name(package))).collect();
                self.run(step, "fetch", &reusable)
            }
            Err(error) if error.exit_kind() == ExitKind::Interrupted => Err(error),
            Err(error) => {
                self.steps.context.notice(format!("no packages are reused, all are fetched: {error}"));
                self.run(step, "fetch", &[])
            }
        }
    }

    fn run(&self, step: &Step, dir: &str, preset: &[PresetDir]) -> Result<Changes, Error> {
        self.steps.run(step, &StepEnv { preset, ..*self.env }, &self.scratch.path().join(dir))
    }

    /// The packages that need not be fetched; none if there is no previous deps layer or it is not available.
    fn reusable(&self, key: &Key) -> Vec<PresetDir> {
        let context = self.steps.context;
        let locked = mix_lock::hex_packages(self.mix_lock);
        let deps = below_app(DEPS);
        let has_deps = self.env.lowers.iter().any(|tree| fs::symlink_metadata(tree.root.join(&deps)).is_ok());
        if locked.is_empty() || has_deps || self.steps.no_cache || self.steps.plan.recipe.script != Script::BuiltIn {
            return vec![];
        }
        let Some((previous, origin)) = self.steps.remote_cache.previous_deps(key) else { return vec![] };
        let tree = match self.steps.tree(&previous.layer) {
            Ok(tree) => tree,
            Err(error) => {
                context.notice(format!("the dependencies of {origin} are not available: {error}"));
                return vec![];
            }
        };
        let reusable = |(app, package): (&String, &HexPackage)| {
            let path = deps.join(app);
            let source = tree.root.join(&path);
            let is_same = previous.untouched.contains(app) && hex_marker::read(&source).as_ref() == Some(package);
            is_same.then_some(PresetDir { path, source })
        };
        let packages: Vec<PresetDir> = locked.iter().filter_map(reusable).collect();
        let (some, all) = (packages.len(), locked.len());
        context.notice(format!("{some} of {all} packages of `mix.lock` are reused from {origin}"));
        packages
    }

    /// The Hex packages that Mix uses in this app, in any environment.
    fn used(&self, fetched: &Changes) -> Result<BTreeSet<String>, Error> {
        let list = format!("mkdir -p /opt; MIX_ENV=${{MIX_ENV:-prod}} exec mix deps --all >/{USED}");
        let argv = ["/bin/sh", "-c", &list].map(String::from).to_vec();
        let step = Step { name: "deps used".into(), argv, env: None };
        let lowers = [std::slice::from_ref(&fetched.tree), self.env.lowers].concat();
        let env = StepEnv { lowers: &lowers, ..*self.env };
        let changes = self.steps.run(&step, &env, &self.scratch.path().join("used"))?;
        let path = changes.tree.root.join(USED);
        let text = fs::read_to_string(&path).map_err(IoError::at("read", &path))?;
        Ok(hex_packages(&text))
    }
}

/// The Hex packages in the output of `mix deps`, whose lines are `* jason 1.4.4 (Hex package) (mix)`.
fn hex_packages(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("* ")).filter(|line| line.contains(" (Hex package)"));
    lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The packages in `fetched` in which no `later` step changed a file that is in the layer.
pub(super) fn untouched(fetched: &Changes, later: &[Changes]) -> BTreeSet<String> {
    let deps = fetched.tree.root.join(below_app(DEPS));
    let Ok(entries) = fs::read_dir(&deps) else { return BTreeSet::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| {
            let (package, path) = (deps.join(name), below_app(DEPS).join(name));
            let is_touched = later.iter().any(|changes| is_changed(&changes.tree.root.join(&path)));
            !is_touched && hex_marker::read(&package).is_some() && !has_build_dir(&package)
        })
        .collect()
}

/// Whether a step changed anything in a package besides the `_build` of rebar3, which is in no layer.
fn is_changed(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => !entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "_build")),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Whether a package has a directory `_build`, which normalizing removes.
fn has_build_dir(dir: &Path) -> bool {
    let entries = walkdir::WalkDir::new(dir).into_iter();
    entries.filter_map(Result::ok).any(|entry| entry.file_name() == "_build")
}

fn below_app(path: &str) -> PathBuf {
    Path::new(APP).join(path)
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
