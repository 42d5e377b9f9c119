//! What every step of a build shares: cached results, running one call of the script in a sandbox, taking what it changed,
//! packing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use phial_layers::{Limits, Metadata, PackOptions, pack, unpack};

use super::{BuildError, BuiltLayer, chroot_binds};
use crate::config::{ConfigError, Network, Plan};
use crate::context::Context;
use crate::determinism::normalize::{self, NormalizeOptions};
use crate::determinism::shims::Toolchain;
use crate::error::{Error, IoError};
use crate::event::Event;
use crate::image::PackedLayer;
use crate::recipe::{APP, PASSED, Recipe, Step};
use crate::remote_cache::RemoteCache;
use crate::rootfs::{self, DiffSource, Isolation};
use crate::runtime::{HOSTS, IsolationChoice, OutputTail, choose, resolv_conf, userns_helper};
use crate::sandbox::{self, Bind, Exit, Ids, OURSELVES, Spec, Stdio};
use crate::store::{Key, Lookup, Scratch, StoreError, Tree, TreeInfo, TreeLookup};

/// What a step changed: a tree in a scratch directory that is not kept yet.
pub(super) struct Changes {
    pub(super) tree: Tree,
    /// Number of entries; 0 if the step changed nothing.
    pub(super) entries: u64,
}

/// What a step runs in, besides its trees.
pub(super) struct StepEnv<'a> {
    /// The working directory; must exist.
    pub(super) cwd: &'static str,
    /// The modification time of all files that the step sees, in seconds since 1970.
    pub(super) mtime: i64,
    /// What Erlang VMs start with: the toolchain of the base, and the atoms of the sources.
    pub(super) seed: Option<(&'a Toolchain, &'a BTreeSet<String>)>,
    /// Directories that exist beforehand, as if the step had made them: the path in the root, and the source on the host.
    pub(super) given: &'a [(PathBuf, PathBuf)],
}

/// The results of a step.
pub(super) struct StepOutcome {
    /// One for each layer of the step; `None` for a layer without changes.
    pub(super) layers: Vec<Option<PackedLayer>>,
    /// Whether they were cached.
    pub(super) cached: bool,
    /// Wall clock in milliseconds.
    pub(super) millis: u64,
}

impl StepOutcome {
    /// The outcome of a step of one layer.
    pub(super) fn single(self, name: &str, key: Key) -> BuiltLayer {
        let layer = self.layers.into_iter().next().flatten();
        BuiltLayer { name: name.into(), layer, cached: self.cached, key, millis: self.millis }
    }
}

/// What all steps of a build share.
pub(super) struct StepRunner<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) plan: &'a Plan,
    pub(super) recipe: &'a Recipe,
    pub(super) choice: IsolationChoice,
    /// Set when the first step runs.
    pub(super) isolation: OnceLock<Isolation>,
    pub(super) ids: OnceLock<Ids>,
    pub(super) base_env: BTreeMap<String, String>,
    pub(super) no_cache: bool,
    pub(super) remote_cache: &'a RemoteCache<'a>,
}

impl StepRunner<'_> {
    /// The isolation that steps run in; found out when the first one runs.
    pub(super) fn isolation(&self) -> Result<Isolation, Error> {
        if let Some(isolation) = self.isolation.get() {
            return Ok(*isolation);
        }
        let isolation = choose(self.choice, self.context)?;
        Ok(*self.isolation.get_or_init(|| isolation))
    }

    /// The results under `key` in the store, if they are usable.
    pub(super) fn find_cached(&self, name: &str, key: &Key) -> Result<Option<StepOutcome>, Error> {
        let start = Instant::now();
        let Lookup::Hit(layers) = self.context.store.result::<Vec<Option<PackedLayer>>>(key)? else { return Ok(None) };
        if self.no_cache || !layers.iter().flatten().all(|layer| self.is_here(layer)) {
            return Ok(None);
        }
        self.context.step_finished(name, "cached", None);
        Ok(Some(StepOutcome { layers, cached: true, millis: millis_since(start) }))
    }

    /// The results under `key` from the store or the remote cache, or else what `make` gives, which is then kept. Of
    /// several processes that want the same key one makes it, and the others wait.
    pub(super) fn cached(
        &self,
        name: &str,
        key: &Key,
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
            let files: u64 = layers.iter().flatten().map(|layer| layer.entries).sum();
            self.context.step_finished(name, &format!("{files} files"), Some(start));
            (layers, false)
        };
        vacant.keep(&layers)?;
        Ok(StepOutcome { layers, cached, millis: millis_since(started) })
    }

    fn is_here(&self, layer: &PackedLayer) -> bool {
        self.context.store.has_blob(&layer.digest, layer.size)
    }

    /// Makes sure that a layer which may be in the remote cache alone is in the store. False if the remote cache fails, which
    /// turns it off.
    pub(super) fn fetch_from_remote(&self, layer: &PackedLayer) -> bool {
        self.is_here(layer) || !self.remote_cache.has(layer) || self.remote_cache.fetch(layer)
    }

    /// Packs what a step changed, and keeps the blob and the tree. `None` if it changed nothing.
    pub(super) fn keep(&self, changes: &Changes, mtime: i64) -> Result<Option<PackedLayer>, Error> {
        if changes.entries == 0 {
            return Ok(None);
        }
        let compression = self.plan.compression;
        let options = PackOptions { compression, mtime, workers: self.context.host.cores };
        let mut blob = self.context.store.blob_writer()?;
        let packed = pack(&changes.tree.root, &changes.tree.metadata, &options, &mut blob)?;
        blob.keep(Some(&packed.digest))?;
        self.context.store.keep_tree(&changes.tree.root, &packed.diff_id, &changes.tree.metadata)?;
        Ok(Some(PackedLayer::new(packed, compression)))
    }

    /// The tree of a layer; unpacked from its blob if it is not in the store.
    pub(super) fn tree(&self, layer: &PackedLayer) -> Result<Tree, Error> {
        let vacant = match self.context.store.tree(&layer.diff_id)? {
            TreeLookup::Hit(tree) => return Ok(tree),
            TreeLookup::Miss(vacant) => vacant,
        };
        let lost = || StoreError::LayerLost(layer.digest.clone());
        if !self.fetch_from_remote(layer) {
            return Err(lost().into());
        }
        let blob = self.context.store.blob(&layer.digest, layer.size)?.ok_or_else(lost)?;
        match unpack(blob, layer.compression, &vacant.root, &Limits::GENEROUS) {
            Ok(unpacked) if unpacked.diff_id == layer.diff_id => {
                Ok(vacant.keep(&unpacked.metadata, TreeInfo::default())?)
            }
            _ => {
                self.context.store.quarantine(&layer.digest)?;
                Err(lost().into())
            }
        }
    }

    /// Runs one step over `lowers` (topmost first) and returns what it changed. `dir` is a directory to be made in a scratch
    /// directory.
    pub(super) fn run(&self, step: &Step, lowers: &[Tree], dir: &Path, env: &StepEnv<'_>) -> Result<Changes, Error> {
        fs::create_dir(dir).map_err(IoError::at("create", dir))?;
        let isolation = self.isolation()?;
        let rootfs_dir = dir.join("rootfs");
        fs::create_dir(&rootfs_dir).map_err(IoError::at("create", &rootfs_dir))?;
        let rootfs = rootfs::assemble(isolation, lowers, &rootfs_dir)?;
        for (path, from) in env.given {
            rootfs::copy_into(&rootfs, from, path)?;
        }
        let mut spec = self.spec(step, rootfs.root.clone(), env)?;
        self.add_shims(&mut spec, step, env, &dir.join("shims"))?;
        if isolation == Isolation::Chroot {
            chroot_binds::copy_binds(&mut spec)?;
        }
        let mut tail = OutputTail::default();
        let ended = sandbox::run(OURSELVES.as_ref(), &spec, self.context.cancel, &mut |bytes: &[u8]| {
            tail.push(bytes);
            (self.context.watch)(Event::StepOutput { step: step.name.clone(), bytes: bytes.to_vec() });
        });
        if !matches!(ended, Ok(Exit::Code(0))) {
            userns_helper::clear(self.ids(), &rootfs_dir);
            let step = step.name.clone();
            return Err(BuildError::StepFailed { step, exit: ended?, output: tail.lines() }.into());
        }
        let changes = self.diff(&rootfs.diff_source, lowers, &dir.join("changes"));
        userns_helper::clear(self.ids(), &rootfs_dir);
        changes
    }

    /// What `new` changes over `lowers`, moved to the new directory `dest`.
    pub(super) fn diff(&self, new: &DiffSource, lowers: &[Tree], dest: &Path) -> Result<Changes, Error> {
        fs::create_dir(dest).map_err(IoError::at("create", dest))?;
        let diff = userns_helper::diff(self.ids(), new, lowers, dest)?;
        for name in &diff.conflicts {
            self.context.notice(format!("`{name}` differs between two environments; the last one's is in the image"));
        }
        if diff.skipped_special_files > 0 {
            self.context.notice(format!(
                "{} sockets or devices that a step left are not in the image",
                diff.skipped_special_files
            ));
        }
        Ok(Changes::new(dest, diff.metadata, diff.entries))
    }

    /// Normalizes what a step changed, in place.
    pub(super) fn normalize(&self, changes: Changes, options: &NormalizeOptions<'_>) -> Result<Changes, Error> {
        let report = normalize::normalize(&changes.tree.root, APP, options)?;
        for (name, why) in report.left {
            self.context.notice(format!("`{name}` is left as it was written: {why}"));
        }
        for name in report.urls_with_user {
            self.context.notice(format!("`{name}` keeps user information in its URL, since `mix.lock` has the same"));
        }
        Ok(changes)
    }

    fn spec(&self, step: &Step, root: sandbox::Root, step_env: &StepEnv<'_>) -> Result<Spec, Error> {
        let mut env = self.recipe.env(&self.base_env, step_env.mtime);
        env.extend(step.env.iter().map(|name| ("MIX_ENV".to_owned(), name.clone())));
        let (passed, binds) = self.passed()?;
        env.extend(passed);
        let network = match self.plan.network {
            Network::Host => sandbox::Network::Host,
            Network::None => sandbox::Network::None,
        };
        Ok(Spec {
            root,
            argv: step.argv.clone(),
            env,
            cwd: step_env.cwd.into(),
            user: (0, 0),
            network,
            ids: self.ids(),
            binds,
            tmpfs: vec![],
            ready: None,
            hosts: HOSTS.into(),
            resolv: resolv_conf(network),
            stdio: Stdio::Stream,
            read_only: false,
        })
    }

    /// A range of ids where the settings want one and the machine gives one, else one id. The digest is the same.
    fn ids(&self) -> Ids {
        if !self.plan.ranges || self.isolation.get() == Some(&Isolation::Chroot) {
            return Ids::Single;
        }
        *self.ids.get_or_init(|| match userns_helper::try_ranges() {
            Ok(()) => Ids::Ranges,
            Err(error) => {
                self.context.notice(format!("one id is mapped, since there is no range to map: {error}"));
                Ids::Single
            }
        })
    }

    /// The caller's variables that a step may see; one that names a file of certificates brings the file along.
    fn passed(&self) -> Result<(BTreeMap<String, String>, Vec<Bind>), Error> {
        let (mut env, mut binds) = (BTreeMap::new(), vec![]);
        for name in PASSED.iter().copied().chain(self.plan.pass.iter().map(String::as_str)) {
            let Some(value) = self.context.host.var(name) else { continue };
            if !matches!(name, "HEX_CACERTS_PATH" | "SSL_CERT_FILE") {
                env.insert(name.to_owned(), value.to_owned());
            } else if !Path::new(value).is_file() {
                let reason = "and there is no such file";
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
        Self { tree: Tree { root: root.to_owned(), metadata, info: TreeInfo::default() }, entries }
    }
}

fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
