//! The dependencies of a finished image compiled for the environment `test`: a tree that `phial test` puts on top of the
//! image's trees, and that is in no image.
//! They are made as the image's own dependencies are, by the steps of `build`, so they stand here and not in `app_test`.

use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Mutex;

use phial_layers::{DiffId, Digest, EntryPath, Sha256Writer};

use super::layers::copy_input;
use super::lazy_isolation::LazyIsolation;
use super::step_env::StepEnv;
use super::step_runner::StepRunner;
use crate::config::{BuildFlags, FileConfig, PreparePlan, SettingsOrigin};
use crate::context::Context;
use crate::determinism::normalize::{NormalizeOptions, Part};
use crate::determinism::shims;
use crate::error::{Error, IoError};
use crate::image::PackedLayer;
use crate::recipe::{APP, EPOCH, FORMAT, Recipe, Script, SourceFile, SourceKind, Step};
use crate::remote_cache::RemoteCache;
use crate::runtime::{IsolationChoice, ResolvedImage, environment, layer_made_by};
use crate::store::{CacheKey, Scratch, Tree};
use crate::tree::{Enter, FileKind, TreeDir};

/// The largest `mix.lock` that is read, in bytes.
const MAX_LOCK: u64 = 16 << 20;

/// What is compiled, and how.
pub(crate) struct TestDeps<'a> {
    /// The finished image.
    pub(crate) image: &'a ResolvedImage,
    /// The trees of its layers, topmost first.
    pub(crate) trees: &'a [Tree],
    /// The settings that it was built with.
    pub(crate) settings: &'a FileConfig,
    /// Who wrote them.
    pub(crate) origin: SettingsOrigin,
    /// Names of the caller's variables that the step may see besides those of the settings.
    pub(crate) pass: &'a [String],
    /// The environment: `test`.
    pub(crate) env: &'a str,
    /// The isolation of the step.
    pub(crate) isolation: IsolationChoice,
    /// Ignores cached results.
    pub(crate) no_cache: bool,
}

/// One file of the app's source in the image.
struct TestDepsInput {
    name: EntryPath,
    file: SourceFile,
    /// Its kind and digest, for the cache key: `DIGEST`, `executable DIGEST` or `link DIGEST`.
    content: String,
}

impl TestDeps<'_> {
    /// The tree with the compiled dependencies. `None` for an image that Phial did not build or that has no dependencies.
    /// The step sees no files of the app except those that the deps step sees, so a change to others does not repeat it.
    pub(crate) fn tree(self, context: &Context<'_>) -> Result<Option<Tree>, Error> {
        let Self { image, trees, .. } = self;
        let at = |name: &str| layer_made_by(&image.image, name).map(|number| trees.len() - 1 - number);
        let (Some(deps), Some(app)) = (at("phial deps"), at("phial app")) else { return Ok(None) };
        let flags = BuildFlags { envs: vec![self.env.to_owned()], pass: self.pass.to_vec(), ..BuildFlags::default() };
        let plan = PreparePlan::new(self.settings, &flags, self.origin)?;
        super::check_consent(&plan, context)?;
        let recipe = &plan.recipe;
        let sources = image_files(&trees[app])?;
        let files: Vec<SourceFile> = sources.iter().map(|source| source.file.clone()).collect();
        if recipe.check(&files).is_err() {
            return Ok(None); // these are not the settings that it was built with
        }
        let mut base_env = environment(&image.image);
        base_env.remove("MIX_ENV");
        let remote_cache = RemoteCache::off(context, "", "");
        let steps = StepRunner {
            context,
            plan: &plan,
            isolation: LazyIsolation::new(self.isolation),
            base_env,
            base_user: "",
            libc: image.libc(context)?,
            no_cache: self.no_cache,
            remote_cache: &remote_cache,
            unknown_manifests: Mutex::default(),
            downloads: Mutex::default(),
        };
        let inputs = recipe.deps_inputs(&files).visible;
        let visible: Vec<&TestDepsInput> = sources.iter().filter(|source| inputs.contains(&source.file.path)).collect();
        let mtime = mtime(&trees[deps])?;
        let step = compile_step(recipe);
        let key = key(&steps, &image.image.config.rootfs.diff_ids[..trees.len() - deps], &visible, mtime);
        let outcome = steps.cached(&format!("deps {}", self.env), &key, |scratch| {
            let inputs = scratch.dir("inputs")?;
            let (from, to) = (trees[app].root.open()?, TreeDir::open(&inputs)?);
            for source in &visible {
                copy_input(&from, &to, &source.name, mtime)?;
            }
            let lowers = [&[Tree::bare(&inputs)], &trees[deps..]].concat();
            Ok(vec![compile(&steps, &step, &lowers, mtime, scratch)?])
        })?;
        let layer = outcome.layers.into_iter().next().flatten();
        layer.map(|layer| steps.tree(&layer)).transpose()
    }
}

/// Runs the step over `lowers`, the first of which has the files that it sees, and packs its changes.
fn compile(
    steps: &StepRunner<'_>,
    step: &Step,
    lowers: &[Tree],
    mtime: i64,
    scratch: &Scratch,
) -> Result<Option<PackedLayer>, Error> {
    let start = steps.context.host.unix_time();
    let env = StepEnv { lowers, cwd: &steps.plan.recipe.app.workdir(), mtime, atoms: None, preset: &[], commit: None };
    let changes = steps.run(step, &env, &scratch.path().join("step"))?;
    let lock = Path::new(APP).join(steps.plan.recipe.lock_path());
    let lock = lowers[0].root.open()?.read_text(lock, MAX_LOCK)?.unwrap_or_default();
    let windows = [(start - 1, steps.context.host.unix_time() + 1), (mtime, mtime + 2 * shims::CLOCK_AHEAD)];
    let options = NormalizeOptions { mtime, windows, part: Part::Deps, lock: &lock };
    let changes = steps.normalize(changes, &options)?;
    steps.keep(&changes, mtime)
}

/// The step that compiles. The built-in script fetches in another step, which is not needed: the image has the sources.
fn compile_step(recipe: &Recipe) -> Step {
    let mut steps = recipe.deps_steps();
    let last = steps.len() - 1;
    let nth = if recipe.script == Script::BuiltIn { last } else { 0 };
    steps.swap_remove(nth)
}

/// The cache key of the tree. `below` are the layers up to the one with the dependencies.
fn key(steps: &StepRunner<'_>, below: &[DiffId], visible: &[&TestDepsInput], mtime: i64) -> CacheKey {
    let below: Vec<&str> = below.iter().map(|diff_id| diff_id.0.as_str()).collect();
    let mut key = steps
        .with_settings(CacheKey::new("more deps")) // a name in cache keys; another one would make all results unknown
        .with("format", FORMAT.to_string())
        .with("layers", below.join(" "))
        .with("mtime", mtime.to_string());
    for (name, value) in &steps.base_env {
        key = key.with(&format!("image's {name}"), value);
    }
    for source in visible {
        key = key.with(&format!("{}{}", CacheKey::FILE, source.name), &source.content);
    }
    key
}

/// The files of the app in a tree, by path.
fn image_files(tree: &Tree) -> Result<Vec<TestDepsInput>, Error> {
    let mut files = Vec::new();
    let Some(app) = tree.root.open()?.dir(APP)? else { return Ok(files) };
    app.walk(|entry| {
        let path = entry.path.as_os_str().as_bytes().to_vec();
        let found = match entry.stat.kind() {
            FileKind::File if entry.stat.mode() & 0o100 != 0 => {
                file_content(&app, &entry.path)?.map(|digest| (format!("executable {digest}"), SourceKind::Executable))
            }
            FileKind::File => file_content(&app, &entry.path)?.map(|digest| (digest.to_string(), SourceKind::File)),
            FileKind::Symlink => app.read_link(&entry.path)?.map(|target| {
                let target = target.into_vec();
                (format!("link {}", Digest::of(&target)), SourceKind::Link(target))
            }),
            _ => None,
        };
        if let Some((content, kind)) = found {
            files.push(TestDepsInput { name: EntryPath::new(&path), file: SourceFile { path, kind }, content });
        }
        Ok::<_, Error>(Enter::Yes)
    })?;
    Ok(files)
}

/// The digest of a regular file's bytes.
fn file_content(app: &TreeDir, path: &Path) -> Result<Option<Digest>, IoError> {
    let Some(mut file) = app.file(path)? else { return Ok(None) };
    let mut writer = Sha256Writer::new(io::sink());
    io::copy(&mut file, &mut writer).map_err(IoError::at("read", path))?;
    Ok(Some(writer.finish().1))
}

/// The modification time of the files in the layer with the dependencies, in seconds since 1970.
fn mtime(deps: &Tree) -> Result<i64, Error> {
    let root = deps.root.open()?;
    let stat = match root.stat(APP)? {
        Some(stat) => Some(stat),
        None => root.stat("")?,
    };
    Ok(stat.map_or(EPOCH, |stat| stat.mtime().0.max(EPOCH)))
}
