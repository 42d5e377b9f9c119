//! Running one step: looking for a cached result, running the command in a sandbox, taking its changes, packing them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use phial_layers::{EntryPath, Limits, Metadata, PackOptions, pack, unpack};

use super::base_home::{BASE_HOME, home_of_base};
use super::git_trace::GitTrace;
use super::lazy_isolation::LazyIsolation;
use super::step_env::{self, StepEnv};
use super::{BuildError, BuiltLayer, chroot_binds};
use crate::config::{ConfigError, NetworkAccess, PreparePlan};
use crate::context::Context;
use crate::determinism::normalize::{self, NormalizeOptions};
use crate::determinism::shims::{CLOCK_AHEAD, Libc};
use crate::error::{Error, IoError};
use crate::event::Event;
use crate::image::{DEFAULT_PATH, PackedLayer};
use crate::recipe::{BUILT_IN, BUILT_IN_PATH, Diagnosis, Script, Step, StepIds, is_below};
use crate::remote_cache::RemoteCache;
use crate::rootfs::{self, DiffSource, ImageFiles, Isolation};
use crate::runtime::{HOSTS, OutputTail, resolv_conf, userns_helper};
use crate::sandbox::{self, Bind, Exit, Ids, OURSELVES, SandboxError, Spec};
use crate::store::{CacheKey, Lookup, Scratch, StoreError, Tree, TreeCheck, TreeInfo, TreeLookup};
use crate::tree::TreeRoot;

/// The changes of a step: a tree in a scratch directory, not in the store yet.
pub(super) struct Changes {
    pub(super) tree: Tree,
    /// Number of entries; 0 if the step changed nothing.
    pub(super) entries: u64,
    /// Files that steps of several environments wrote with different bytes.
    conflicts: Vec<EntryPath>,
}

/// The layers of a step.
pub(super) struct StepOutcome {
    /// One for each environment, or a single one; `None` for a layer without changes.
    pub(super) layers: Vec<Option<PackedLayer>>,
    /// Whether they were cached.
    pub(super) cached: bool,
    /// Wall clock in milliseconds.
    pub(super) millis: u64,
}

impl StepOutcome {
    /// The layer of a step that has a single one.
    pub(super) fn single(self, name: &str, key: CacheKey) -> BuiltLayer {
        let layer = self.layers.into_iter().next().flatten();
        BuiltLayer { name: name.into(), layer, cached: self.cached, key, millis: self.millis }
    }
}

/// What all steps of a build share.
pub(super) struct StepRunner<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) plan: &'a PreparePlan,
    pub(super) isolation: LazyIsolation,
    /// Environment variables of the base image.
    pub(super) base_env: BTreeMap<String, String>,
    /// The user of the base image, as its config has it.
    pub(super) base_user: &'a str,
    /// The C library of the base image.
    pub(super) libc: Libc,
    pub(super) no_cache: bool,
    pub(super) remote_cache: &'a RemoteCache<'a>,
    /// Manifests of Mix whose version is not known, with the version, in the steps that ran.
    pub(super) unknown_manifests: Mutex<BTreeSet<(String, i64)>>,
    /// Hex's version and rebar3's digest, if a step that ran downloaded them.
    pub(super) downloads: Mutex<BTreeMap<&'static str, String>>,
}

impl StepRunner<'_> {
    /// The result of `key` in the store; `None` if it is not there or its blobs are not.
    pub(super) fn find_cached(&self, name: &str, key: &CacheKey) -> Result<Option<StepOutcome>, Error> {
        let start = Instant::now();
        let Lookup::Hit(layers) = self.context.store.result::<Vec<Option<PackedLayer>>>(key)? else { return Ok(None) };
        if self.no_cache || !layers.iter().flatten().all(|layer| self.is_here(layer)) {
            return Ok(None);
        }
        self.context.step_finished(name, "cached", None);
        Ok(Some(StepOutcome { layers, cached: true, millis: millis_since(start) }))
    }

    /// The result of `key` from the store or the remote cache, else the result of `make`, which the store keeps. Of several
    /// processes that need the same key one calls `make`, and the others wait for it.
    pub(super) fn cached(
        &self,
        name: &str,
        key: &CacheKey,
        make: impl FnOnce(&Scratch) -> Result<Vec<Option<PackedLayer>>, Error>,
    ) -> Result<StepOutcome, Error> {
        let started = Instant::now();
        let _lock = self.context.store.lock(&key.hex())?;
        if let Some(outcome) = self.find_cached(name, key)? {
            return Ok(outcome);
        }
        let vacant = self.context.store.vacant(key);
        let remote = if self.no_cache { None } else { self.remote_cache.find(key) };
        let (layers, cached) = if let Some((layer, from)) = remote {
            self.context.step_finished(name, &format!("cached in {from}"), None);
            (vec![Some(layer)], true)
        } else {
            let start = self.context.step_started(name);
            let layers = make(&self.context.store.scratch()?)?;
            let files: u64 = layers.iter().flatten().filter_map(|layer| layer.entries).sum();
            self.context.step_finished(name, &format!("{files} files"), Some(start));
            (layers, false)
        };
        vacant.keep(&layers)?;
        Ok(StepOutcome { layers, cached, millis: millis_since(started) })
    }

    fn is_here(&self, layer: &PackedLayer) -> bool {
        self.context.store.has_blob(&layer.digest, layer.size)
    }

    /// Copies the blob of a layer that only the remote cache has into the store. False if the remote cache fails, which turns
    /// it off.
    pub(super) fn fetch_from_remote(&self, layer: &PackedLayer) -> bool {
        self.is_here(layer) || !self.remote_cache.has(layer) || self.remote_cache.fetch(layer)
    }

    /// Packs changes to a layer, and moves the tree and the blob into the store. `None` if there are no changes.
    pub(super) fn keep(&self, changes: &Changes, mtime: i64) -> Result<Option<PackedLayer>, Error> {
        let layer = self.pack(changes, mtime)?;
        if let Some(layer) = &layer {
            self.context.store.keep_tree(changes.tree.root.as_path(), &layer.diff_id, &changes.tree.metadata)?;
        }
        Ok(layer)
    }

    /// Packs changes to a layer, whose blob goes to the store. `None` if there are no changes.
    pub(super) fn pack(&self, changes: &Changes, mtime: i64) -> Result<Option<PackedLayer>, Error> {
        if changes.entries == 0 {
            return Ok(None);
        }
        let compression = self.plan.compression;
        let options = PackOptions { compression, mtime, workers: self.context.host.cores };
        let mut blob = self.context.store.blob_writer()?;
        let packed = pack(changes.tree.root.as_path(), &changes.tree.metadata, &options, &mut blob)?;
        blob.keep(Some(&packed.digest))?;
        Ok(Some(PackedLayer::new(packed, compression)))
    }

    /// The tree of a layer; unpacked from the layer's blob if the store does not have it.
    pub(super) fn tree(&self, layer: &PackedLayer) -> Result<Tree, Error> {
        let vacant = match self.context.store.tree(&layer.diff_id, TreeCheck::Entries)? {
            TreeLookup::Hit(tree) => return Ok(tree),
            TreeLookup::Miss(vacant) => vacant,
        };
        let lost = || StoreError::LayerLost(layer.digest.clone());
        if !self.fetch_from_remote(layer) {
            return Err(lost().into());
        }
        let blob = self.context.store.blob(&layer.digest, layer.size)?.ok_or_else(lost)?;
        match unpack(blob, layer.compression, &vacant.root, &Limits::GENEROUS) {
            Ok(unpacked) if unpacked.diff_id == layer.diff_id => Ok(vacant.keep(&unpacked.metadata, 0)?),
            _ => {
                self.context.store.quarantine(&layer.digest)?;
                Err(lost().into())
            }
        }
    }

    /// Runs one step and returns its changes. `dir`, which must not exist, is its directory in a scratch directory.
    pub(super) fn run(&self, step: &Step, env: &StepEnv<'_>, dir: &Path) -> Result<Changes, Error> {
        fs::create_dir(dir).map_err(IoError::at("create", dir))?;
        let isolation = self.isolation.get(self.context)?;
        let rootfs_dir = dir.join("rootfs");
        fs::create_dir(&rootfs_dir).map_err(IoError::at("create", &rootfs_dir))?;
        let rootfs = rootfs::assemble(isolation, env.lowers, &rootfs_dir)?;
        for preset in env.preset {
            if let Some(dir) = preset.tree.open()?.dir(&preset.path)? {
                rootfs::copy_into(&rootfs, dir, &preset.path)?;
            }
        }
        let mut spec = self.spec(step, rootfs.root.clone(), env)?;
        if step.env.is_none() {
            let home = home_of_base(&self.base_env, self.base_user, env.lowers)?;
            spec.env.extend(home.map(|home| (BASE_HOME.to_owned(), home)));
        }
        let clock = env.clock(step, self.plan.clock, self.context);
        step_env::add(env.shims(self.libc, clock, &dir.join("shims"), self.context)?, &mut spec);
        if self.plan.recipe.script != Script::BuiltIn {
            let source = dir.join("prepare_code");
            fs::write(&source, BUILT_IN).map_err(IoError::at("write", &source))?;
            spec.binds.push(Bind { source, target: BUILT_IN_PATH.into(), read_only: true });
        }
        // Steps that do not compile the app know no commit to say in place of git.
        let trace = env.commit.map(|_| GitTrace::add(&mut spec, &dir.join("git"))).transpose()?.flatten();
        if isolation == Isolation::Chroot {
            chroot_binds::copy_binds(&mut spec)?;
        }
        let mut tail = OutputTail::default();
        let stands_at = clock.map(|clock| clock.sources_mtime.saturating_add(CLOCK_AHEAD));
        let mut diagnosis = Diagnosis::new(&self.plan.recipe, step, stands_at, self.step_ids(isolation));
        let exit = sandbox::run(OURSELVES.as_ref(), &spec, self.context.cancel, &mut |bytes: &[u8]| {
            tail.push(bytes);
            diagnosis.push(bytes);
            (self.context.watch)(Event::StepOutput { step: step.name.clone(), bytes: bytes.to_vec() });
        });
        if !matches!(exit, Ok(Exit::Code(0))) {
            userns_helper::clear(self.ids(), &rootfs_dir);
            if let Err(
                source @ (SandboxError::TimeLimit(_) | SandboxError::OutputLimit(_) | SandboxError::MemoryLimit(_)),
            ) = exit
            {
                return Err(BuildError::StepStopped { step: step.name.clone(), source, output: tail.lines() }.into());
            }
            let (step, exit, output) = (step.name.clone(), exit?, tail.lines());
            let is_out_of_space = diagnosis.is_out_of_space();
            let path = spec.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
            let files = ImageFiles::open(env.lowers)?;
            let hint = diagnosis.hint(|name| files.has_program(path, name));
            return Err(if is_out_of_space {
                BuildError::StepOutOfSpace { step, exit, output, hint }.into()
            } else {
                BuildError::StepFailed { step, exit, output, hint }.into()
            });
        }
        let misses_repository = trace.map(|trace| trace.misses_repository()).transpose()?.unwrap_or(false);
        if let Some(warning) = diagnosis.warning(misses_repository) {
            self.context.notice(warning);
        }
        let changes = self.diff(&rootfs.diff_source, env.lowers, &dir.join("changes"));
        userns_helper::clear(self.ids(), &rootfs_dir);
        changes
    }

    /// The changes of `new` relative to `lowers`, moved to the new directory `dest`.
    pub(super) fn diff(&self, new: &DiffSource, lowers: &[Tree], dest: &Path) -> Result<Changes, Error> {
        fs::create_dir(dest).map_err(IoError::at("create", dest))?;
        let diff = userns_helper::diff(self.ids(), new, lowers, &TreeRoot::new(dest))?;
        if diff.skipped_special_files > 0 {
            self.context.notice(format!(
                "{} sockets or devices that a step made are not in the image",
                diff.skipped_special_files
            ));
        }
        if let Some(first) = diff.acls.first() {
            let more =
                if diff.acls.len() > 1 { format!(" and of {} more", diff.acls.len() - 1) } else { String::new() };
            self.context.notice(format!(
                "the access control list of `{first}`{more} is not in the image: only its mode is, without what the list gives to \
                 those that it names"
            ));
        }
        Ok(Changes { conflicts: diff.conflicts, ..Changes::new(dest, diff.metadata, diff.entries) })
    }

    /// Normalizes changes in place.
    pub(super) fn normalize(&self, changes: Changes, options: &NormalizeOptions<'_>) -> Result<Changes, Error> {
        let report = normalize::normalize(&changes.tree.root.open()?, &self.plan.recipe.app.in_tree(), options)?;
        let is_removed =
            |path: &&EntryPath| report.removed.iter().any(|removed| is_below(path.as_bytes(), removed.as_bytes()));
        for name in changes.conflicts.iter().filter(|path| !is_removed(path)) {
            self.context.notice(format!("`{name}` differs between environments; the image has the last one's"));
        }
        for (name, why) in report.skipped {
            self.context.notice(format!("`{name}` is not normalized: {why}"));
        }
        for (name, version) in report.unknown {
            let is_new = self.unknown_manifests.lock().is_ok_and(|mut known| known.insert((name.to_string(), version)));
            if is_new {
                self.context.notice(format!(
                    "`{name}` has version {version} of Mix's manifests, which this Phial does not know: only times were set in it"
                ));
            }
        }
        for name in report.urls_with_user {
            self.context.notice(format!("`{name}` keeps user information in its URL, since `mix.lock` has the same"));
        }
        Ok(changes)
    }

    fn spec(&self, step: &Step, root: sandbox::Root, step_env: &StepEnv<'_>) -> Result<Spec, Error> {
        let mut env = self.plan.recipe.env(&self.base_env, step_env.mtime);
        if let Some(count) = partitions(step, self.context.host.cores.get(), self.plan.recipe.envs.len()) {
            env.entry(PARTITIONS.to_owned()).or_insert_with(|| count.to_string());
        }
        env.extend(step.env.iter().map(|name| ("MIX_ENV".to_owned(), name.clone())));
        env.extend(step_env.commit_variables());
        let (passed, binds) = self.passed()?;
        env.extend(passed);
        let network = match self.plan.network {
            NetworkAccess::Host => sandbox::Network::Host,
            NetworkAccess::None => sandbox::Network::None,
        };
        Ok(Spec {
            env,
            cwd: step_env.cwd.into(),
            network,
            ids: self.ids(),
            binds,
            hosts: HOSTS.into(),
            resolv: resolv_conf(network),
            limits: self.plan.limits,
            ..Spec::new(root, step.argv.clone())
        })
    }

    pub(super) fn ids(&self) -> Ids {
        if self.plan.ranges { self.isolation.ranges(self.context) } else { Ids::Single }
    }

    fn step_ids(&self, isolation: Isolation) -> StepIds {
        match (isolation, self.ids()) {
            (Isolation::Chroot, _) => StepIds::All,
            (_, Ids::Ranges) => StepIds::Range,
            (_, Ids::Single) if self.plan.ranges => StepIds::NoRange,
            (_, Ids::Single) => StepIds::One,
        }
    }

    /// The caller's variables that a step may see, and the files of certificates that they name.
    fn passed(&self) -> Result<(BTreeMap<String, String>, Vec<Bind>), Error> {
        let (mut env, mut binds) = (BTreeMap::new(), vec![]);
        for name in self.plan.visible() {
            let Some(value) = self.context.host.var(name) else { continue };
            if !matches!(name, "HEX_CACERTS_PATH" | "SSL_CERT_FILE") {
                env.insert(name.to_owned(), value.to_owned());
            } else if !Path::new(value).is_file() {
                let reason = "which is not a file";
                return Err(ConfigError::Value { key: name.into(), value: value.into(), reason }.into());
            } else {
                let target = format!("/run/phial/{}.pem", name.to_lowercase());
                env.insert(name.to_owned(), target.clone());
                binds.push(Bind { source: PathBuf::from(value), target, read_only: true });
            }
        }
        Ok((env, binds))
    }
}

impl Changes {
    pub(super) fn new(root: &Path, metadata: Metadata, entries: u64) -> Self {
        Self {
            tree: Tree { root: TreeRoot::new(root), metadata, info: TreeInfo::default() },
            entries,
            conflicts: vec![],
        }
    }
}

/// The number of operating system processes that compile dependencies, for Mix of Elixir 1.19 and later. It changes no byte.
const PARTITIONS: &str = "MIX_OS_DEPS_COMPILE_PARTITION_COUNT";

/// The value of [`PARTITIONS`] for a step that compiles dependencies, of which one for each environment runs at a time; `None`
/// if more processes than one would wait for each other.
fn partitions(step: &Step, cores: usize, envs: usize) -> Option<usize> {
    let compiles_deps = step.env.is_some() && step.name.starts_with("deps");
    let count = cores.div_ceil(envs.max(1));
    (compiles_deps && count > 1).then_some(count)
}

fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cores_are_divided_among_the_environments_that_compile_dependencies() {
        let step =
            |name: &str, env: Option<&str>| Step { name: name.into(), argv: vec![], env: env.map(str::to_owned) };
        let deps = step("deps prod", Some("prod"));
        let count = |cores, envs| partitions(&deps, cores, envs);
        assert_eq!(
            [count(1, 1), count(2, 1), count(2, 2), count(3, 2), count(8, 2)],
            [None, Some(2), None, Some(2), Some(4)]
        );
        assert_eq!(partitions(&step("deps", None), 8, 1), None, "fetching");
        assert_eq!(partitions(&step("build prod", Some("prod")), 8, 1), None);
    }
}
