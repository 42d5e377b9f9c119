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

use super::BuildError;
use super::steps::{Around, Draft};
use super::work::Work;
use crate::event::Event;
use crate::normal;
use crate::prepare::{APP, Script, Step};
use crate::store::{Key, Scratch, Tree};

/// Where Mix keeps sources, in the app.
const DEPS: &str = "deps";
/// Where the list of what Mix uses goes, in the writable layer of the call that asks.
const USED: &str = "opt/phial-used";

/// A directory to give to a call: the path in its root, and where it is.
type Given = (PathBuf, PathBuf);

impl Work<'_> {
    /// What fetching leaves: the same with and without packages that are at hand.
    pub(super) fn fetched(
        &self,
        (fetch, key): (&Step, &Key),
        lowers: &[Tree],
        scratch: &Scratch,
        around: &Around<'_>,
    ) -> Result<Draft, BuildError> {
        let seeds = self.seeds(key, lowers);
        let call = |dir: &str, given: &[Given]| {
            self.steps.call(fetch, lowers, &scratch.path().join(dir), &Around { given, ..*around })
        };
        if seeds.is_empty() {
            return call("fetch", &[]);
        }
        let seeded = call("seeded", &seeds).and_then(|draft| {
            let used = self.used(&draft, lowers, scratch, around)?;
            Ok((draft, used))
        });
        match seeded {
            Ok((draft, used)) if seeds.iter().all(|seed| used.contains(name(seed))) => Ok(draft),
            Ok((_, used)) => {
                let seeds: Vec<Given> = seeds.into_iter().filter(|seed| used.contains(name(seed))).collect();
                call("fetch", &seeds)
            }
            Err(error) if error.exit_code() == 130 => Err(error),
            Err(error) => {
                self.say(format!("dependencies are fetched without those at hand: {error}"));
                call("fetch", &[])
            }
        }
    }

    /// The packages that need not be fetched; none if nothing like it is kept, or whatever goes wrong.
    fn seeds(&self, key: &Key, lowers: &[Tree]) -> Vec<Given> {
        let locked = normal::locked(self.commit.mix_lock);
        let is_there = |tree: &Tree| fs::symlink_metadata(tree.root.join(below_app(DEPS))).is_ok();
        if self.steps.fresh || self.steps.recipe.script != Script::BuiltIn || lowers.iter().any(is_there) {
            return vec![];
        }
        let found = if locked.is_empty() { None } else { self.steps.shared.earlier(key) };
        let Some((earlier, whence)) = found else { return vec![] };
        let tree = match self.steps.tree(&earlier.layer) {
            Ok(tree) => tree,
            Err(error) => {
                self.say(format!("the dependencies of {whence} cannot be had: {error}"));
                return vec![];
            }
        };
        let at_hand = |(app, package): (&String, &normal::Package)| {
            let (path, from) = (below_app(DEPS).join(app), tree.root.join(below_app(DEPS)).join(app));
            let is_same = earlier.untouched.contains(app) && normal::fetched(&from).as_ref() == Some(package);
            is_same.then_some((path, from))
        };
        let seeds: Vec<Given> = locked.iter().filter_map(at_hand).collect();
        let (some, all) = (seeds.len(), locked.len());
        self.say(format!("{some} of {all} packages of `mix.lock` are taken from {whence}"));
        seeds
    }

    /// The packages of Hex that Mix uses in this app, in whatever environment.
    fn used(
        &self,
        fetched: &Draft,
        lowers: &[Tree],
        scratch: &Scratch,
        around: &Around<'_>,
    ) -> Result<BTreeSet<String>, BuildError> {
        let ask = format!("mkdir -p /opt; MIX_ENV=${{MIX_ENV:-prod}} exec mix deps --all >/{USED}");
        let argv = ["/bin/sh", "-c", &ask].map(String::from).to_vec();
        let step = Step { name: "deps used".into(), argv, env: None };
        let above = [std::slice::from_ref(&fetched.tree), lowers].concat();
        let draft = self.steps.call(&step, &above, &scratch.path().join("used"), around)?;
        let path = draft.tree.root.join(USED);
        let text = fs::read_to_string(&path).map_err(BuildError::io("read", &path))?;
        Ok(listed(&text))
    }

    fn say(&self, text: String) {
        (self.steps.world.watch)(Event::Notice { text });
    }
}

/// `* jason 1.4.4 (Hex package) (mix)`
fn listed(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("* ")).filter(|line| line.contains(" (Hex package)"));
    lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The packages that are in `fetched` and in which no later call changed anything that their normal form does not take away.
pub(super) fn untouched(fetched: &Draft, later: &[Draft]) -> BTreeSet<String> {
    let folder = fetched.tree.root.join(below_app(DEPS));
    let Ok(entries) = fs::read_dir(&folder) else { return BTreeSet::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| {
            let (own, path) = (folder.join(name), below_app(DEPS).join(name));
            let is_touched = later.iter().any(|draft| is_changed(&draft.tree.root.join(&path)));
            !is_touched && normal::fetched(&own).is_some() && !has_builds(&own)
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
