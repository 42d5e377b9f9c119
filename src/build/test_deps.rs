//! The dependencies of a finished image compiled for one more environment: a tree beside the image, never in it.

use std::fs::{self, File as Disk};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::OnceLock;

use phial_layers::{Digest, EntryPath};
use walkdir::WalkDir;

use super::layers::show;
use super::recipe;
use super::step_runner::{StepEnv, StepRunner};
use crate::config::{FileConfig, Flags, Plan};
use crate::context::Context;
use crate::determinism::normalize::{NormalizeOptions, Part};
use crate::determinism::shims;
use crate::error::{Error, IoError};
use crate::image::PackedLayer;
use crate::recipe::{APP, EPOCH, FORMAT, File, Recipe, Script, Step, WORKDIR};
use crate::remote_cache::RemoteCache;
use crate::runtime::{IsolationChoice, ResolvedImage, environment, layer_made_by};
use crate::store::{Key, Scratch, Tree};

/// What is compiled, and how.
pub(crate) struct TestDeps<'a> {
    /// The finished image and its trees, topmost first.
    pub(crate) image: (&'a ResolvedImage, &'a [Tree]),
    /// The settings that it was built with, and its name.
    pub(crate) settings: (FileConfig, &'a str),
    /// The environment: `test`.
    pub(crate) env: &'a str,
    /// How the step is isolated.
    pub(crate) isolation: IsolationChoice,
    /// Ignores cached results.
    pub(crate) no_cache: bool,
}

/// One file of the app's source.
struct Source {
    name: EntryPath,
    file: File,
    /// What it is, for a key: kind and digest.
    what: String,
}

impl TestDeps<'_> {
    /// The tree, to be laid over those of the image. `None` for an image that Phial has not built or that has no
    /// dependencies. Only app sources may change without the step being done again: it sees no others.
    pub(crate) fn deps(self, context: &Context<'_>) -> Result<Option<Tree>, Error> {
        let (base, trees) = self.image;
        let at = |name: &str| layer_made_by(&base.image, name).map(|number| trees.len() - 1 - number);
        let (Some(deps), Some(app)) = (at("phial deps"), at("phial app")) else { return Ok(None) };
        let (settings, name) = self.settings;
        let flags = Flags {
            base: Some(name.to_owned()),
            to: vec!["oci:none".into()],
            envs: vec![self.env.to_owned()],
            ..Flags::default()
        };
        let plan = Plan::new(settings, None, &flags, "none")?;
        let recipe = recipe(&plan);
        let sources = sources(&trees[app])?;
        let files: Vec<File> = sources.iter().map(|source| source.file.clone()).collect();
        if recipe.check(&files).is_err() {
            return Ok(None); // settings other than those it was built with
        }
        let mut env = environment(&base.image);
        env.remove("MIX_ENV");
        let remote_cache = RemoteCache::off(context, "");
        let steps = StepRunner {
            context,
            plan: &plan,
            recipe: &recipe,
            choice: self.isolation,
            isolation: OnceLock::new(),
            ids: OnceLock::new(),
            base_env: env,
            no_cache: self.no_cache,
            remote_cache: &remote_cache,
        };
        let seen: Vec<&Source> = sources.iter().filter(|source| recipe.shows(&files, &source.file.path)).collect();
        let mtime = mtime(&trees[deps])?;
        let step = step(&recipe);
        let key = key(&steps, &base.image.config.rootfs.diff_ids[..trees.len() - deps], &seen, mtime);
        let outcome = steps.cached(&format!("deps {}", self.env), &key, |scratch| {
            let inputs = scratch.dir("inputs")?;
            for source in &seen {
                show(&trees[app].root, &inputs, &source.name, mtime).map_err(IoError::at("write in", &inputs))?;
            }
            let lowers = [&[Tree::bare(&inputs)], &trees[deps..]].concat();
            Ok(vec![make(&steps, &step, &lowers, mtime, scratch)?])
        })?;
        let layer = outcome.layers.into_iter().next().flatten();
        layer.map(|layer| steps.tree(&layer)).transpose()
    }
}

fn make(
    steps: &StepRunner<'_>,
    step: &Step,
    lowers: &[Tree],
    mtime: i64,
    scratch: &Scratch,
) -> Result<Option<PackedLayer>, Error> {
    let began = steps.context.host.unix_time();
    let env = StepEnv { cwd: WORKDIR, mtime, seed: None, given: &[] };
    let changes = steps.run(step, lowers, &scratch.path().join("call"), &env)?;
    let lock = lowers[0].root.join(APP).join("mix.lock");
    let lock = fs::read_to_string(lock).unwrap_or_default();
    let windows = [(began - 1, steps.context.host.unix_time() + 1), (mtime, mtime + 2 * shims::AHEAD)];
    let options = NormalizeOptions { mtime, windows, part: Part::Deps, lock: &lock };
    let changes = steps.normalize(changes, &options)?;
    steps.keep(&changes, mtime)
}

/// The call that compiles: what the image has fetched need not be fetched again by the built-in script.
fn step(recipe: &Recipe) -> Step {
    let mut calls = recipe.deps_steps();
    let last = calls.len() - 1;
    let nth = if recipe.script == Script::BuiltIn { last } else { 0 };
    calls.swap_remove(nth)
}

fn key(steps: &StepRunner<'_>, below: &[phial_layers::DiffId], seen: &[&Source], mtime: i64) -> Key {
    let below: Vec<&str> = below.iter().map(|diff_id| diff_id.0.as_str()).collect();
    let mut key = Key::new("more deps")
        .with("format", FORMAT.to_string())
        .with("layers", below.join(" "))
        .with("script", steps.recipe.script_digest())
        .with("envs", steps.plan.envs.join(" "))
        .with("network", steps.plan.network.as_str())
        .with("clock", steps.plan.clock.as_str())
        .with("mtime", mtime.to_string());
    for (name, value) in &steps.base_env {
        key = key.with(&format!("image's {name}"), value);
    }
    for (name, value) in &steps.plan.env {
        key = key.with(&format!("{}{name}", Key::VARIABLE), value);
    }
    for source in seen {
        key = key.with(&format!("file {}", source.name), &source.what);
    }
    key
}

/// All files of the layer's source, sorted.
fn sources(tree: &Tree) -> Result<Vec<Source>, Error> {
    let app = tree.root.join(APP);
    let mut found = Vec::new();
    for entry in WalkDir::new(&app).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|error| IoError::at("read", &app)(error.into()))?;
        let kind = entry.file_type();
        if !kind.is_file() && !kind.is_symlink() {
            continue;
        }
        let path = entry.path().strip_prefix(&app).unwrap_or(entry.path()).as_os_str().as_bytes().to_vec();
        let (what, executable) = describe(entry.path()).map_err(IoError::at("read", entry.path()))?;
        found.push(Source { name: EntryPath::new(&path), file: File { path, executable }, what });
    }
    Ok(found)
}

fn describe(path: &Path) -> std::io::Result<(String, bool)> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        let target = fs::read_link(path)?;
        return Ok((format!("link {}", Digest::of(target.as_os_str().as_bytes())), false));
    }
    let executable = meta.permissions().mode() & 0o100 != 0;
    let mut bytes = Vec::new();
    Disk::open(path)?.read_to_end(&mut bytes)?;
    Ok((format!("{}{}", if executable { "executable " } else { "" }, Digest::of(&bytes)), executable))
}

/// The modification time of all that is in the layer.
fn mtime(deps: &Tree) -> Result<i64, Error> {
    let app = deps.root.join(APP);
    let path = if app.exists() { &app } else { &deps.root };
    Ok(fs::metadata(path).map_err(IoError::at("look at", path))?.mtime().max(EPOCH))
}
