//! What a cold deps step is spared: packages of Hex that an earlier deps layer has in the very version that `mix.lock` names are in
//! `deps/` before Mix fetches the others.
//!
//! The layer must be byte for byte what it is without. So only sources are taken, and of those only packages in which compiling
//! changed nothing, not one file. Everything is compiled afresh: compilers write what else they know (a manifest lists
//! the modules of one run, an order of atoms those of one VM), so a `_build` to begin with would show in the result. And what
//! Mix would not have fetched, because only a stale line of the lock names it, is found out by asking Mix, and left out.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::layers::LayerBuilder;
use super::step_runner::{Changes, StepEnv};
use crate::determinism::normalize;
use crate::error::{Error, ExitKind, IoError};
use crate::recipe::{APP, Script, Step};
use crate::store::{Key, Scratch, Tree};

/// Where Mix keeps sources, in the app.
const DEPS: &str = "deps";
/// Where the list of what Mix uses goes, in the writable layer of the call that asks.
const USED: &str = "opt/phial-used";

/// A directory to give to a call: the path in its root, and where it is.
type Given = (PathBuf, PathBuf);

impl LayerBuilder<'_> {
    /// What fetching leaves: the same with and without packages that are at hand.
    pub(super) fn fetched(
        &self,
        (fetch, key): (&Step, &Key),
        lowers: &[Tree],
        scratch: &Scratch,
        env: &StepEnv<'_>,
    ) -> Result<Changes, Error> {
        let seeds = self.seeds(key, lowers);
        let call = |dir: &str, given: &[Given]| {
            self.steps.run(fetch, lowers, &scratch.path().join(dir), &StepEnv { given, ..*env })
        };
        if seeds.is_empty() {
            return call("fetch", &[]);
        }
        let seeded = call("seeded", &seeds).and_then(|changes| {
            let used = self.used(&changes, lowers, scratch, env)?;
            Ok((changes, used))
        });
        match seeded {
            Ok((changes, used)) if seeds.iter().all(|seed| used.contains(name(seed))) => Ok(changes),
            Ok((_, used)) => {
                let seeds: Vec<Given> = seeds.into_iter().filter(|seed| used.contains(name(seed))).collect();
                call("fetch", &seeds)
            }
            Err(error) if error.exit_kind() == ExitKind::Interrupted => Err(error),
            Err(error) => {
                self.steps.context.notice(format!("dependencies are fetched without those at hand: {error}"));
                call("fetch", &[])
            }
        }
    }

    /// The packages that need not be fetched; none if nothing like it is kept, or whatever goes wrong.
    fn seeds(&self, key: &Key, lowers: &[Tree]) -> Vec<Given> {
        let locked = normalize::locked(self.commit.mix_lock());
        let is_there = |tree: &Tree| fs::symlink_metadata(tree.root.join(below_app(DEPS))).is_ok();
        if self.steps.no_cache || self.steps.recipe.script != Script::BuiltIn || lowers.iter().any(is_there) {
            return vec![];
        }
        let found = if locked.is_empty() { None } else { self.steps.remote_cache.earlier(key) };
        let Some((earlier, from)) = found else { return vec![] };
        let tree = match self.steps.tree(&earlier.layer) {
            Ok(tree) => tree,
            Err(error) => {
                self.steps.context.notice(format!("the dependencies of {from} cannot be had: {error}"));
                return vec![];
            }
        };
        let at_hand = |(app, package): (&String, &normalize::Package)| {
            let (path, from) = (below_app(DEPS).join(app), tree.root.join(below_app(DEPS)).join(app));
            let is_same = earlier.untouched.contains(app) && normalize::fetched(&from).as_ref() == Some(package);
            is_same.then_some((path, from))
        };
        let seeds: Vec<Given> = locked.iter().filter_map(at_hand).collect();
        let (some, all) = (seeds.len(), locked.len());
        self.steps.context.notice(format!("{some} of {all} packages of `mix.lock` are taken from {from}"));
        seeds
    }

    /// The packages of Hex that Mix uses in this app, in whatever environment.
    fn used(
        &self,
        fetched: &Changes,
        lowers: &[Tree],
        scratch: &Scratch,
        env: &StepEnv<'_>,
    ) -> Result<BTreeSet<String>, Error> {
        let ask = format!("mkdir -p /opt; MIX_ENV=${{MIX_ENV:-prod}} exec mix deps --all >/{USED}");
        let argv = ["/bin/sh", "-c", &ask].map(String::from).to_vec();
        let step = Step { name: "deps used".into(), argv, env: None };
        let above = [std::slice::from_ref(&fetched.tree), lowers].concat();
        let changes = self.steps.run(&step, &above, &scratch.path().join("used"), env)?;
        let path = changes.tree.root.join(USED);
        let text = fs::read_to_string(&path).map_err(IoError::at("read", &path))?;
        Ok(listed(&text))
    }
}

/// `* jason 1.4.4 (Hex package) (mix)`
fn listed(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("* ")).filter(|line| line.contains(" (Hex package)"));
    lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The packages that are in `fetched` and in which no later call changed anything that their normal form does not take away.
pub(super) fn untouched(fetched: &Changes, later: &[Changes]) -> BTreeSet<String> {
    let folder = fetched.tree.root.join(below_app(DEPS));
    let Ok(entries) = fs::read_dir(&folder) else { return BTreeSet::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| {
            let (own, path) = (folder.join(name), below_app(DEPS).join(name));
            let is_touched = later.iter().any(|changes| is_changed(&changes.tree.root.join(&path)));
            !is_touched && normalize::fetched(&own).is_some() && !has_builds(&own)
        })
        .collect()
}

/// Whether what a call did in a package is more than the `_build` that rebar3 leaves, which is in no layer.
fn is_changed(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => !entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "_build")),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Whether a package brings a directory of builds along, which the normal form changes.
fn has_builds(dir: &Path) -> bool {
    let entries = walkdir::WalkDir::new(dir).into_iter();
    entries.filter_map(Result::ok).any(|entry| entry.file_name() == "_build")
}

fn below_app(path: &str) -> PathBuf {
    Path::new(APP).join(path)
}

fn name((path, _): &Given) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn what_mix_lists_as_a_package_of_hex_is_used() {
        let text = "* stamp (http://localhost/stamp.git - v1.0.0) (mix)\n  locked at 0123 (v1.0.0)\n  ok\n\
                    * idna 6.1.1 (Hex package) (rebar3)\n  locked at 6.1.1 (idna) 92376eb7\n  ok\n\
                    * near (near) (mix)\n  ok\n* makeup (Hex package) (mix)\n  the dependency is not available\n";
        assert_eq!(listed(text).into_iter().collect::<Vec<_>>(), ["idna", "makeup"]);
    }
}
