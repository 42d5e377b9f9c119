//! The dependencies of a finished image compiled for one more environment: a tree beside the image, never in it.

use std::fs::{self, File as Disk};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::OnceLock;

use phial_layers::{Digest, EntryPath};
use walkdir::WalkDir;

use super::base::Base;
use super::far::Shared;
use super::settings::numbered;
use super::steps::{Around, Steps};
use super::work::{first, show};
use super::{BuildError, Isolation, World, environment, recipe};
use crate::config::{Flags, Network, Plan, Wish};
use crate::normal::{self, Part};
use crate::prepare::{APP, EPOCH, FORMAT, File, Recipe, Script, Step, WORKDIR};
use crate::rootfs::Rung;
use crate::steady;
use crate::store::{Key, Scratch, Tree};

/// What is compiled, and how.
pub(crate) struct More<'a> {
    /// The finished image and its trees, topmost first.
    pub(crate) image: (&'a Base, &'a [Tree]),
    /// The settings that it was built with, and its name.
    pub(crate) settings: (Wish, &'a str),
    /// The environment: `test`.
    pub(crate) env: &'a str,
    /// How the step is kept apart from the machine.
    pub(crate) isolation: Isolation,
    /// Whether the step is done, recalled or not.
    pub(crate) fresh: bool,
}

/// One file of the app's source.
struct Source {
    name: EntryPath,
    file: File,
    /// What it is, for a key: kind and digest.
    what: String,
}

impl More<'_> {
    /// The tree, to be laid over those of the image. `None` for an image that Phial has not built or that has no
    /// dependencies. Only app sources may change without the step being done again: it sees no others.
    pub(crate) fn deps(self, world: &World<'_>) -> Result<Option<Tree>, BuildError> {
        let (base, trees) = self.image;
        let at = |name: &str| numbered(&base.image, name).map(|number| trees.len() - 1 - number);
        let (Some(deps), Some(app)) = (at("phial deps"), at("phial app")) else { return Ok(None) };
        let (wish, name) = self.settings;
        let flags = Flags {
            base: Some(name.to_owned()),
            to: vec!["oci:none".into()],
            envs: vec![self.env.to_owned()],
            ..Flags::default()
        };
        let plan = Plan::new(wish, None, &flags, "none")?;
        let recipe = recipe(&plan);
        let sources = sources(&trees[app])?;
        let files: Vec<File> = sources.iter().map(|source| source.file.clone()).collect();
        if recipe.check(&files).is_err() {
            return Ok(None); // settings other than those it was built with
        }
        let mut env = environment(&base.image);
        env.remove("MIX_ENV");
        let shared = Shared::off(world);
        let steps = Steps {
            world,
            plan: &plan,
            recipe: &recipe,
            isolation: self.isolation,
            rung: OnceLock::<Rung>::new(),
            ids: OnceLock::new(),
            base_env: env,
            fresh: self.fresh,
            shared: &shared,
        };
        let seen: Vec<&Source> = sources.iter().filter(|source| recipe.shows(&files, &source.file.path)).collect();
        let mtime = mtime(&trees[deps])?;
        let step = step(&recipe);
        let key = key(&steps, &base.image.config.rootfs.diff_ids[..trees.len() - deps], &seen, mtime);
        let (made, _) = steps.recalled(&format!("deps {}", self.env), &key, |scratch| {
            let inputs = scratch.dir("inputs")?;
            for source in &seen {
                show(&trees[app].root, &inputs, &source.name, mtime).map_err(BuildError::io("write in", &inputs))?;
            }
            let lowers = [&[Tree::bare(&inputs)], &trees[deps..]].concat();
            Ok(vec![make(&steps, &step, &lowers, mtime, scratch)?])
        })?;
        first(made).map(|layer| steps.tree(&layer)).transpose()
    }
}

fn make(
    steps: &Steps<'_>,
    step: &Step,
    lowers: &[Tree],
    mtime: i64,
    scratch: &Scratch,
) -> Result<super::steps::Made, BuildError> {
    let began = steps.world.host.clock();
    let around = Around { cwd: WORKDIR, mtime, seed: None, given: &[] };
    let draft = steps.call(step, lowers, &scratch.path().join("call"), &around)?;
    let lock = lowers[0].root.join(APP).join("mix.lock");
    let lock = fs::read_to_string(lock).unwrap_or_default();
    let windows = [(began - 1, steps.world.host.clock() + 1), (mtime, mtime + 2 * steady::AHEAD)];
    let terms = normal::Terms { mtime, windows, part: Part::Deps, lock: &lock };
    let draft = steps.normalise(draft, &terms)?;
    steps.keep(&draft, mtime)
}

/// The call that compiles: what the image has fetched need not be fetched again by the built-in script.
fn step(recipe: &Recipe) -> Step {
    let mut calls = recipe.deps_steps();
    let last = calls.len() - 1;
    let nth = if recipe.script == Script::BuiltIn { last } else { 0 };
    calls.swap_remove(nth)
}

fn key(steps: &Steps<'_>, below: &[phial_layers::DiffId], seen: &[&Source], mtime: i64) -> Key {
    let below: Vec<&str> = below.iter().map(|diff_id| diff_id.0.as_str()).collect();
    let mut key = Key::new("more deps")
        .with("format", FORMAT.to_string())
        .with("layers", below.join(" "))
        .with("script", steps.recipe.script_digest())
        .with("envs", steps.plan.envs.join(" "))
        .with("network", if steps.plan.network == Network::Host { "host" } else { "none" })
        .with("clock", format!("{:?}", steps.plan.clock).to_lowercase())
        .with("mtime", mtime.to_string());
    for (name, value) in &steps.base_env {
        key = key.with(&format!("image's {name}"), value);
    }
    for (name, value) in &steps.plan.env {
        key = key.with(&format!("env {name}"), value);
    }
    for source in seen {
        key = key.with(&format!("file {:?}", source.name), &source.what);
    }
    key
}

/// All files of the layer's source, sorted.
fn sources(tree: &Tree) -> Result<Vec<Source>, BuildError> {
    let app = tree.root.join(APP);
    let mut found = Vec::new();
    for entry in WalkDir::new(&app).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|error| BuildError::io("read", &app)(error.into()))?;
        let kind = entry.file_type();
        if !kind.is_file() && !kind.is_symlink() {
            continue;
        }
        let path = entry.path().strip_prefix(&app).unwrap_or(entry.path()).as_os_str().as_bytes().to_vec();
        let (what, executable) = describe(entry.path()).map_err(BuildError::io("read", entry.path()))?;
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
fn mtime(deps: &Tree) -> Result<i64, BuildError> {
    let app = deps.root.join(APP);
    let path = if app.exists() { &app } else { &deps.root };
    Ok(fs::metadata(path).map_err(BuildError::io("look at", path))?.mtime().max(EPOCH))
}
