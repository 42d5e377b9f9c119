//! The layers of one build, in the order in which they depend on each other: the source, its dependencies, the app
//! compiled for each environment.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use phial_layers::{EntryPath, Metadata};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::commit::CommitFiles;
use super::step_env::source_atoms;
use super::step_runner::{Changes, StepEnv, StepOutcome, StepRunner};
use super::{BuildError, BuiltLayer, hex_reuse};
use crate::determinism::normalize::{self, NormalizeOptions, Part};
use crate::determinism::shims;
use crate::error::{Error, IoError};
use crate::image::PackedLayer;
use crate::recipe::{APP, FORMAT, Step, WORKDIR};
use crate::rootfs::{DiffSource, Isolation};
use crate::runtime::ResolvedImage;
use crate::source::{self, Entry, Mode};
use crate::store::{Key, Scratch, Tree};

/// Everything that the layers of a build depend on.
pub(super) struct LayerBuilder<'a> {
    pub(super) steps: StepRunner<'a>,
    pub(super) base: &'a ResolvedImage,
    pub(super) commit: &'a CommitFiles<'a>,
    /// Modification time of everything in the deps layer, in seconds since 1970.
    pub(super) deps_time: i64,
    /// Modification time of everything in the layers above.
    pub(super) app_time: i64,
}

impl LayerBuilder<'_> {
    /// All layers, lowest first.
    pub(super) fn layers(&self) -> Result<Vec<BuiltLayer>, Error> {
        let app = self.app()?;
        let mut deps = self.deps(&app)?;
        let builds = match self.cached_builds(&app, &deps)? {
            Some(builds) => builds,
            None => {
                // The builds need the files of the dependencies, which may be in the remote cache alone.
                let is_here = deps.layer.as_ref().is_none_or(|layer| self.steps.fetch_from_remote(layer));
                if !is_here {
                    deps = self.deps(&app)?; // the remote cache is off now: they are built here
                }
                self.builds(&app, &deps)?
            }
        };
        Ok([vec![deps, app], builds].concat())
    }

    fn key(&self, step: &str) -> Key {
        let compression = self.steps.plan.compression.as_str();
        Key::new(step).with("format", FORMAT.to_string()).with("compression", compression)
    }

    /// The key of a step that runs the script: everything it depends on besides files.
    fn script_key(&self, step: &str, mtime: i64) -> Key {
        let plan = self.steps.plan;
        let mut key = self
            .key(step)
            .with("base", self.base.image.manifest_digest.as_str())
            .with("script", self.steps.recipe.script_digest())
            .with("envs", plan.envs.join(" "))
            .with("network", plan.network.as_str())
            .with("strict", plan.strict.to_string())
            .with("clock", plan.clock.as_str())
            .with("mtime", mtime.to_string());
        for (name, value) in &plan.env {
            key = key.with(&format!("{}{name}", Key::VARIABLE), value);
        }
        key
    }

    fn app(&self) -> Result<BuiltLayer, Error> {
        let commit = &self.commit.fetched.commit.sha;
        let key = self.key("app").with("commit", commit).with("mtime", self.app_time.to_string());
        let outcome = self.steps.cached("app", &key, |scratch| {
            let root = scratch.dir("draft")?;
            let app = root.join(APP);
            source::checkout(self.commit.fetched, &app, self.app_time, self.steps.context.watch)?;
            Ok(vec![self.steps.keep(&Changes::new(&root, Metadata::default(), 1), self.app_time)?])
        })?;
        Ok(outcome.single("app", key))
    }

    fn deps(&self, app: &BuiltLayer) -> Result<BuiltLayer, Error> {
        let mut key = self.script_key("deps", self.deps_time);
        let visible = || self.commit.entries.iter().filter(|entry| self.sees(entry));
        for entry in visible() {
            let kind = match entry.mode {
                Mode::Executable => "executable ",
                Mode::Symlink => "link ",
                _ => "",
            };
            key = key.with(&format!("file {}", entry.name), format!("{kind}{}", entry.id));
        }
        let outcome = self.steps.cached("deps", &key, |scratch| {
            let app = self.steps.tree(app.layer.as_ref().ok_or_else(|| BuildError::Missing(WORKDIR.into()))?)?;
            let inputs = scratch.dir("inputs")?;
            for entry in visible() {
                show(&app.root, &inputs, &entry.name, self.deps_time).map_err(IoError::at("write in", &inputs))?;
            }
            Ok(vec![self.make_deps(scratch, Tree::bare(&inputs), &key)?])
        })?;
        Ok(outcome.single("deps", key))
    }

    fn sees(&self, entry: &Entry) -> bool {
        entry.mode != Mode::Submodule && self.steps.recipe.shows(&self.commit.files, entry.name.as_bytes())
    }

    fn make_deps(&self, scratch: &Scratch, inputs: Tree, key: &Key) -> Result<Option<PackedLayer>, Error> {
        let began = self.steps.context.host.unix_time();
        let mut lowers = vec![inputs];
        lowers.extend(self.base.trees(self.steps.context)?);
        let calls = self.steps.recipe.deps_steps();
        let (fetch, compile) = calls.split_first().ok_or_else(|| BuildError::Missing("deps".into()))?;
        let toolchain = self.steps.toolchain(self.base)?;
        let atoms = source_atoms(&toolchain, &[&lowers[0].root])?;
        let env = StepEnv { cwd: WORKDIR, mtime: self.deps_time, seed: Some((&toolchain, &atoms)), given: &[] };
        let fetched = self.fetched((fetch, key), &lowers, scratch, &env)?;
        // Sources have their final time before anything is compiled from them.
        normalize::set_times(&fetched.tree.root, self.deps_time)?;
        let above = [vec![fetched.tree.clone()], lowers.clone()].concat();
        let atoms = source_atoms(&toolchain, &[&lowers[0].root, &fetched.tree.root])?;
        let env = StepEnv { seed: Some((&toolchain, &atoms)), ..env };
        let mut own = self.compiled(compile, &above, scratch, &env)?;
        let untouched = hex_reuse::untouched(&fetched, &own);
        own.insert(0, fetched);
        let uppers = DiffSource::UpperDirs(own.into_iter().rev().map(|changes| changes.tree).collect());
        let sum = self.steps.diff(&uppers, &lowers, &scratch.path().join("sum"))?;
        let options = self.normalize_options(self.deps_time, began, Part::Deps);
        let sum = self.steps.normalize(sum, &options)?;
        let made = self.steps.keep(&sum, self.deps_time)?;
        if let Some(layer) = &made {
            self.steps.remote_cache.remember(key, layer, untouched)?;
        }
        Ok(made)
    }

    fn builds_key(&self, app: &BuiltLayer, deps: &BuiltLayer) -> Key {
        let diff_id = |built: &BuiltLayer| match &built.layer {
            Some(layer) => layer.diff_id.to_string(),
            None => "none".into(),
        };
        self.script_key("build", self.app_time).with("app", diff_id(app)).with("deps", diff_id(deps))
    }

    fn builds_label(&self) -> String {
        format!("build {}", self.steps.plan.envs.join(", "))
    }

    /// The builds of all environments, if they are cached.
    fn cached_builds(&self, app: &BuiltLayer, deps: &BuiltLayer) -> Result<Option<Vec<BuiltLayer>>, Error> {
        let key = self.builds_key(app, deps);
        let outcome = self.steps.find_cached(&self.builds_label(), &key)?;
        Ok(outcome.map(|outcome| self.builds_of(outcome, &key)))
    }

    fn builds(&self, app: &BuiltLayer, deps: &BuiltLayer) -> Result<Vec<BuiltLayer>, Error> {
        let key = self.builds_key(app, deps);
        let outcome = self.steps.cached(&self.builds_label(), &key, |scratch| {
            let mut lowers = vec![];
            for layer in [&app.layer, &deps.layer].into_iter().flatten() {
                lowers.push(self.steps.tree(layer)?);
            }
            let roots: Vec<&Path> = lowers.iter().map(|tree| tree.root.as_path()).collect();
            let toolchain = self.steps.toolchain(self.base)?;
            let atoms = source_atoms(&toolchain, &roots)?;
            lowers.extend(self.base.trees(self.steps.context)?);
            let env = StepEnv { cwd: WORKDIR, mtime: self.app_time, seed: Some((&toolchain, &atoms)), given: &[] };
            self.make_builds(scratch, &self.steps.recipe.build_steps(), &lowers, &env)
        })?;
        Ok(self.builds_of(outcome, &key))
    }

    fn builds_of(&self, outcome: StepOutcome, key: &Key) -> Vec<BuiltLayer> {
        let StepOutcome { layers, cached, millis } = outcome;
        let names = self.steps.recipe.build_steps().into_iter().map(|step| step.name);
        names.zip(layers).map(|(name, layer)| BuiltLayer { name, layer, cached, key: key.clone(), millis }).collect()
    }

    /// Each environment in a layer of its own, over the same trees; a later layer leaves out what an earlier one has.
    fn make_builds(
        &self,
        scratch: &Scratch,
        calls: &[Step],
        lowers: &[Tree],
        env: &StepEnv<'_>,
    ) -> Result<Vec<Option<PackedLayer>>, Error> {
        let began = self.steps.context.host.unix_time();
        let raw = self.compiled(calls, lowers, scratch, env)?;
        let options = self.normalize_options(self.app_time, began, Part::Build);
        let mut own: Vec<Changes> = vec![];
        for (nth, one) in raw.into_iter().enumerate() {
            let one = self.steps.normalize(one, &options)?;
            let earlier = own.iter().rev().map(|changes| changes.tree.clone());
            let below: Vec<Tree> = earlier.chain(lowers.iter().cloned()).collect();
            let dest = scratch.path().join(format!("own-{nth}"));
            let above = self.steps.diff(&DiffSource::UpperDirs(vec![one.tree]), &below, &dest)?;
            own.push(self.steps.normalize(above, &options)?);
        }
        own.iter().map(|changes| self.steps.keep(changes, self.app_time)).collect()
    }

    /// What calls leave that compile. With strict settings they are done again, knowing every name that the first time made
    /// up: then code that goes through a map with such a name finds the same order each time.
    fn compiled(
        &self,
        calls: &[Step],
        lowers: &[Tree],
        scratch: &Scratch,
        env: &StepEnv<'_>,
    ) -> Result<Vec<Changes>, Error> {
        let first = self.side_by_side(calls, lowers, &scratch.dir("first")?, env)?;
        let Some((toolchain, atoms)) = env.seed.filter(|_| self.steps.plan.strict) else { return Ok(first) };
        let mut atoms = atoms.clone();
        for changes in &first {
            let root = &changes.tree.root;
            shims::compiled_atoms_below(root, &mut atoms).map_err(IoError::at("read", root))?;
        }
        drop(first);
        let env = StepEnv { seed: Some((toolchain, &atoms)), ..*env };
        self.side_by_side(calls, lowers, &scratch.dir("second")?, &env)
    }

    /// Runs calls over the same trees: at once where cores and the isolation allow it, else in turn. The results are the same.
    fn side_by_side(
        &self,
        calls: &[Step],
        lowers: &[Tree],
        dir: &Path,
        env: &StepEnv<'_>,
    ) -> Result<Vec<Changes>, Error> {
        let one = |call: &Step| self.steps.run(call, lowers, &dir.join(call.name.replace(' ', "-")), env);
        let at_once = self.steps.context.host.cores.get() > 1 && self.steps.isolation()? == Isolation::Overlay;
        if !at_once {
            return calls.iter().map(one).collect();
        }
        std::thread::scope(|scope| {
            let running: Vec<_> = calls.iter().map(|call| scope.spawn(move || one(call))).collect();
            let ended = running.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(BuildError::Missing("result of a step".into()).into()))
            });
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn normalize_options(&self, mtime: i64, began: i64, part: Part) -> NormalizeOptions<'_> {
        NormalizeOptions {
            mtime,
            windows: [(began - 1, self.steps.context.host.unix_time() + 1), (mtime, mtime + 2 * shims::AHEAD)],
            part,
            lock: self.commit.mix_lock(),
        }
    }
}

/// Puts one file of the app's tree into the tree of what the deps step sees.
pub(super) fn show(app: &Path, inputs: &Path, name: &EntryPath, mtime: i64) -> io::Result<()> {
    let relative = Path::new(APP).join(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let (from, to) = (app.join(&relative), inputs.join(&relative));
    fs::create_dir_all(to.parent().unwrap_or(inputs))?;
    if fs::symlink_metadata(&from)?.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
    } else {
        fs::copy(&from, &to)?;
    }
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, &to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
