//! The layers of a build in the order of their dependencies: the source, the compiled dependencies, the app compiled for each
//! environment.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use phial_layers::{EntryPath, Metadata};

use super::commit::CommitFiles;
use super::hex_reuse::{self, HexReuse};
use super::step_env::{AtomSeed, StepEnv};
use super::step_key::list;
use super::step_runner::{Changes, StepOutcome, StepRunner};
use super::toolchain::{VersionCheck, source_atoms, toolchain};
use super::unfinished_deps::UnfinishedDeps;
use super::{BuildError, BuiltLayer};
use crate::determinism::normalize::{self, NormalizeOptions, Part};
use crate::determinism::shims::{self, Toolchain};
use crate::error::{Error, IoError};
use crate::image::PackedLayer;
use crate::recipe::{APP, BUILT_IN_PATH, FORMAT, WORKDIR};
use crate::rootfs::{self, DiffSource};
use crate::runtime::ResolvedImage;
use crate::source::{self, CommitEntry, EntryMode, Filter};
use crate::store::{CacheKey, Scratch, Tree, TreeCheck};
use crate::tree::TreeDir;

/// What the layers of a build are made from.
pub(super) struct LayerBuilder<'a> {
    pub(super) steps: StepRunner<'a>,
    pub(super) base: &'a ResolvedImage,
    pub(super) commit: &'a CommitFiles<'a>,
    /// Modification time of all files in the deps layer, in seconds since 1970.
    pub(super) deps_time: i64,
    /// Modification time of all files in the other layers.
    pub(super) app_time: i64,
    /// How exactly the base image must have the versions that the commit asks for.
    pub(super) versions: VersionCheck,
}

impl LayerBuilder<'_> {
    /// All layers, lowest first.
    pub(super) fn layers(&self) -> Result<Vec<BuiltLayer>, Error> {
        if self.versions.is_strict() {
            self.toolchain()?; // also if nothing is compiled
        }
        let app = self.app()?;
        let mut deps = self.deps(&app)?;
        let builds = if let Some(builds) = self.cached_builds(&app, &deps)? {
            builds
        } else {
            // The builds need the files of the dependencies, which only the remote cache may have.
            let is_in_store = deps.layer.as_ref().is_none_or(|layer| self.steps.fetch_from_remote(layer));
            if !is_in_store {
                deps = self.deps(&app)?; // the remote cache is off from here on: they are compiled
            }
            self.builds(&app, &deps)?
        };
        Ok([vec![deps, app], builds].concat())
    }

    /// The toolchain of the base image, whose versions are compared with those that the commit asks for.
    fn toolchain(&self) -> Result<Toolchain, Error> {
        let toolchain = toolchain(&self.steps, self.base)?;
        self.versions.check(&self.commit.wanted, &toolchain, self.steps.context)?;
        Ok(toolchain)
    }

    fn key(&self, step: &str) -> CacheKey {
        let compression = self.steps.plan.compression.as_str();
        CacheKey::new(step).with("format", FORMAT.to_string()).with("compression", compression)
    }

    /// The key of a step that runs the script: everything that it depends on except files.
    fn script_key(&self, step: &str, mtime: i64) -> CacheKey {
        self.steps
            .with_settings(self.key(step))
            .with("base", self.base.image.manifest_digest.as_str())
            .with("strict", self.steps.plan.strict.to_string())
            .with("mtime", mtime.to_string())
    }

    fn app(&self) -> Result<BuiltLayer, Error> {
        let commit = &self.commit.fetched.commit.sha;
        let mut key = self.key("app").with("commit", commit).with("mtime", self.app_time.to_string());
        if !self.commit.vendored.is_empty() {
            key = key.with("without", "committed dependencies");
        }
        if self.commit.entries.iter().any(|entry| entry.filter == Filter::Lfs) {
            key = key.with("lfs", "objects");
        }
        if self.commit.fetched.has_submodules() {
            key = key.with("submodules", "fetched");
        }
        let recipe = &self.steps.plan.recipe;
        if !recipe.app.is_root() {
            key = key.with("root", recipe.app.path()).with("include", list(&recipe.include));
        }
        let outcome = self.steps.cached("app", &key, |scratch| {
            let root = scratch.dir("layer")?;
            let app = root.join(APP);
            let is_wanted = |entry: &CommitEntry| self.commit.is_of_app(entry) && !self.commit.is_vendored(entry);
            source::checkout_only(self.commit.fetched, &is_wanted, &app, self.app_time)?;
            Ok(vec![self.steps.keep(&Changes::new(&root, Metadata::default(), 1), self.app_time)?])
        })?;
        Ok(outcome.single("app", key))
    }

    fn deps(&self, app: &BuiltLayer) -> Result<BuiltLayer, Error> {
        let mut key = self.script_key("deps", self.deps_time);
        let visible = || self.commit.entries.iter().filter(|entry| self.commit.is_visible(entry));
        for entry in visible() {
            let kind = match entry.mode {
                EntryMode::Executable => "executable ",
                EntryMode::Symlink => "link ",
                _ => "",
            };
            let encoding = match entry.filter {
                Filter::Encoding(encoding) => format!("{encoding} "),
                Filter::Lfs => "lfs ".to_owned(),
                Filter::None | Filter::Unknown(_) => String::new(),
            };
            key = key.with(&format!("{}{}", CacheKey::FILE, entry.name), format!("{kind}{encoding}{}", entry.id));
        }
        let outcome = self.steps.cached("deps", &key, |scratch| {
            let app = self.steps.tree(app.layer.as_ref().ok_or_else(|| BuildError::Missing(WORKDIR.into()))?)?;
            let inputs = scratch.dir("inputs")?;
            let (from, to) = (app.root.open()?, TreeDir::open(&inputs)?);
            for entry in visible().filter(|entry| !self.commit.is_vendored(entry)) {
                copy_input(&from, &to, &entry.name, self.deps_time)?;
            }
            let sources = DepsSources { inputs: Tree::bare(&inputs), vendored: self.vendored(scratch)? };
            Ok(vec![self.make_deps(scratch, &sources, &key)?])
        })?;
        Ok(outcome.single("deps", key))
    }

    /// The committed dependencies, if there are any.
    fn vendored(&self, scratch: &Scratch) -> Result<Option<Tree>, Error> {
        let commit = self.commit;
        let is_wanted = |entry: &CommitEntry| commit.is_vendored(entry) && commit.is_visible(entry);
        if !commit.entries.iter().any(is_wanted) {
            return Ok(None);
        }
        let root = scratch.dir("vendored")?;
        source::checkout_only(commit.fetched, &is_wanted, &root.join(APP), self.deps_time)?;
        Ok(Some(Tree::bare(&root)))
    }

    /// Fetches and compiles the dependencies.
    fn make_deps(
        &self,
        scratch: &Scratch,
        sources: &DepsSources,
        key: &CacheKey,
    ) -> Result<Option<PackedLayer>, Error> {
        let start = self.steps.context.host.unix_time();
        let below = [vec![sources.inputs.clone()], self.base.trees(self.steps.context, TreeCheck::Entries)?].concat();
        let lowers = [sources.trees(), below[1..].to_vec()].concat();
        let steps = self.steps.plan.recipe.deps_steps();
        let (fetch, compile) = steps.split_first().ok_or_else(|| BuildError::Missing("deps".into()))?;
        let toolchain = self.toolchain()?;

        let workdir = self.steps.plan.recipe.app.workdir();
        let source_trees: Vec<&Tree> = lowers[..sources.trees().len()].iter().collect();
        let atoms = source_atoms(&toolchain, &source_trees)?;
        let seed = AtomSeed { toolchain: &toolchain, atoms: &atoms };
        let env = StepEnv {
            lowers: &lowers,
            cwd: &workdir,
            mtime: self.deps_time,
            atoms: Some(seed),
            preset: &[],
            commit: None,
        };
        let reuse = HexReuse { steps: &self.steps, mix_lock: self.commit.mix_lock(), scratch, env: &env };
        let fetched = reuse.fetch(fetch, key)?;
        if let Some(vendored) = &sources.vendored {
            check_overwritten(vendored, &fetched.tree)?;
        }
        self.steps.note_downloads(&fetched.tree, &below)?;

        // Sources have their final time before anything is compiled from them.
        normalize::set_times(&fetched.tree.root.open()?, self.deps_time)?;
        let above = [vec![fetched.tree.clone()], lowers.clone()].concat();
        let atoms = source_atoms(&toolchain, &[source_trees, vec![&fetched.tree]].concat())?;
        let seed = AtomSeed { toolchain: &toolchain, atoms: &atoms };
        let env = StepEnv { lowers: &above, atoms: Some(seed), ..env };
        let mut changes = if self.steps.plan.strict {
            self.compile(compile, scratch, &env)?
        } else {
            self.compile_missing(compile, &env, UnfinishedDeps::find(&self.steps, key, scratch)?, start)?
        };
        // A committed package may have been changed by hand: it is not the package that Hex has.
        let app = &self.steps.plan.recipe.app;
        let mut untouched = hex_reuse::untouched(app, &fetched, &changes)?;
        untouched.retain(|name| !self.commit.has_below(&app.file(&format!("{}/{name}", hex_reuse::DEPS))));

        changes.insert(0, fetched);
        let uppers = changes.into_iter().rev().map(|changes| changes.tree).chain(sources.vendored.clone());
        let uppers = DiffSource::UpperDirs(uppers.collect());
        let merged = self.steps.diff(&uppers, &below, &scratch.path().join("merged"))?;
        let options = self.normalize_options(self.deps_time, start, Part::Deps);
        let merged = self.steps.normalize(merged, &options)?;
        let layer = self.steps.keep(&merged, self.deps_time)?;
        if let Some(layer) = &layer {
            self.steps.remote_cache.remember(key, layer, untouched)?;
        }
        Ok(layer)
    }

    fn builds_key(&self, app: &BuiltLayer, deps: &BuiltLayer) -> CacheKey {
        let diff_id = |built: &BuiltLayer| match &built.layer {
            Some(layer) => layer.diff_id.to_string(),
            None => "none".into(),
        };
        let key = self.script_key("build", self.app_time).with("commit", &self.commit.fetched.commit.sha);
        key.with("app", diff_id(app)).with("deps", diff_id(deps))
    }

    fn builds_label(&self) -> String {
        format!("build {}", self.steps.plan.recipe.envs.join(", "))
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
            if let [app, deps] = &lowers[..] {
                check_overwritten(app, deps)?;
            }
            if self.commit.leaves_assets_out {
                self.steps.context.notice(format!(
                    "the image has no assets: mix.exs has the alias `assets.deploy`, which is not run; a script of the \
                     repository (`prepare.script`) can run it after `sh {BUILT_IN_PATH} \"$@\"`"
                ));
            }
            let toolchain = self.toolchain()?;
            let atoms = source_atoms(&toolchain, &lowers.iter().collect::<Vec<_>>())?;
            lowers.extend(self.base.trees(self.steps.context, TreeCheck::Entries)?);
            let seed = AtomSeed { toolchain: &toolchain, atoms: &atoms };
            let workdir = self.steps.plan.recipe.app.workdir();
            let env = StepEnv {
                lowers: &lowers,
                cwd: &workdir,
                mtime: self.app_time,
                atoms: Some(seed),
                preset: &[],
                commit: Some(&self.commit.fetched.commit),
            };
            self.make_builds(scratch, &env)
        })?;
        Ok(self.builds_of(outcome, &key))
    }

    fn builds_of(&self, outcome: StepOutcome, key: &CacheKey) -> Vec<BuiltLayer> {
        let StepOutcome { layers, cached, millis } = outcome;
        let names = self.steps.plan.recipe.build_steps().into_iter().map(|step| step.name);
        names.zip(layers).map(|(name, layer)| BuiltLayer { name, layer, cached, key: key.clone(), millis }).collect()
    }

    /// Compiles the app for each environment. Each has a layer, which leaves out what a lower one of them has.
    fn make_builds(&self, scratch: &Scratch, env: &StepEnv<'_>) -> Result<Vec<Option<PackedLayer>>, Error> {
        let start = self.steps.context.host.unix_time();
        let compiled = self.compile(&self.steps.plan.recipe.build_steps(), scratch, env)?;
        let options = self.normalize_options(self.app_time, start, Part::Build);
        let compiled: Vec<Changes> =
            compiled.into_iter().map(|changes| self.steps.normalize(changes, &options)).collect::<Result<_, _>>()?;
        self.note_disagreements(&compiled, env.lowers)?;
        let mut above_lowers: Vec<Changes> = vec![];
        for (nth, changes) in compiled.into_iter().enumerate() {
            let earlier = above_lowers.iter().rev().map(|changes| changes.tree.clone());
            let below: Vec<Tree> = earlier.chain(env.lowers.iter().cloned()).collect();
            let dest = scratch.path().join(format!("layer-{nth}"));
            let layer = self.steps.diff(&DiffSource::UpperDirs(vec![changes.tree]), &below, &dest)?;
            above_lowers.push(self.steps.normalize(layer, &options)?);
        }
        above_lowers.iter().map(|changes| self.steps.keep(changes, self.app_time)).collect()
    }

    /// `start` is the time at which the first step began: its outputs hold times since then.
    pub(super) fn normalize_options(&self, mtime: i64, start: i64, part: Part) -> NormalizeOptions<'_> {
        NormalizeOptions {
            mtime,
            windows: [(start - 1, self.steps.context.host.unix_time() + 1), (mtime, mtime + 2 * shims::CLOCK_AHEAD)],
            part,
            lock: self.commit.mix_lock(),
        }
    }
}

/// What the deps step sees of the commit.
struct DepsSources {
    inputs: Tree,
    /// Committed dependencies.
    vendored: Option<Tree>,
}

impl DepsSources {
    fn trees(&self) -> Vec<Tree> {
        [vec![self.inputs.clone()], self.vendored.iter().cloned().collect()].concat()
    }
}

/// Refuses changes of the deps step to files of the commit: the image would have other files than those that were compiled.
fn check_overwritten(commit: &Tree, changes: &Tree) -> Result<(), Error> {
    match rootfs::overwritten(commit, changes)? {
        Some(path) => Err(BuildError::Overwritten(path).into()),
        None => Ok(()),
    }
}

/// Copies one file of the app's tree into the tree of the files that the deps step sees.
pub(super) fn copy_input(app: &TreeDir, inputs: &TreeDir, name: &EntryPath, mtime: i64) -> Result<(), IoError> {
    let path = Path::new(APP).join(OsStr::from_bytes(name.as_bytes()));
    inputs.create_dirs(path.parent().unwrap_or(Path::new("")))?;
    if let Some(target) = app.read_link(&path)? {
        inputs.create_symlink(&path, &target)?;
    } else if let (Some(mut file), Some(stat)) = (app.file(&path)?, app.stat(&path)?) {
        inputs.copy_file(&mut file, &path, stat.mode())?;
    }
    inputs.set_times(&path, (mtime, 0))
}
