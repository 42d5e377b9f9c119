//! What every step of a build shares: recall, running a call of the script, harvest, packing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use phial_layers::{Compression, DiffId, Digest, Limits, Metadata, PackOptions, pack, unpack};
use serde::{Deserialize, Serialize};

use super::far::Shared;
use super::tail::Tail;
use super::{BuildError, Isolation, World, hidden};
use crate::config::{ConfigError, Network, Plan};
use crate::event::Event;
use crate::normal;
use crate::prepare::{APP, PASSED, Recipe, Step};
use crate::rootfs::{self, New, Rung};
use crate::sandbox::{self, Bind, Exit, Ids, OURSELVES, Order, Stdio};
use crate::steady::Toolchain;
use crate::store::{About, Key, Recall, Scratch, Tree, Trees};

/// A layer of ours, as it is kept under its key. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size: u64,
    /// Size of the tar.
    pub tar_size: u64,
    /// How many entries.
    pub entries: u64,
    /// What is between tar and blob.
    pub compression: Compression,
}

/// A step's result; `None` if it changed nothing.
pub(super) type Made = Option<Layer>;

/// A tree that is not kept yet: a directory in a scratch folder, and what the disk cannot say of it.
pub(super) struct Draft {
    pub(super) tree: Tree,
    pub(super) entries: u64,
}

/// What a call runs in, beside its trees.
pub(super) struct Around<'a> {
    /// The working directory; must exist.
    pub(super) cwd: &'static str,
    /// The modification time of all it finds, in seconds since 1970.
    pub(super) mtime: i64,
    /// What Erlang VMs begin with: the base's, and the atoms of the sources.
    pub(super) seed: Option<(&'a Toolchain, &'a BTreeSet<String>)>,
    /// Directories that are there already, as if the call had made them: the path in the root, and where they are.
    pub(super) given: &'a [(PathBuf, PathBuf)],
}

/// What all steps of a build share.
pub(super) struct Steps<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) plan: &'a Plan,
    pub(super) recipe: &'a Recipe,
    pub(super) isolation: Isolation,
    pub(super) rung: OnceLock<Rung>,
    pub(super) ids: OnceLock<Ids>,
    pub(super) base_env: BTreeMap<String, String>,
    pub(super) fresh: bool,
    pub(super) shared: &'a Shared<'a>,
}

impl Steps<'_> {
    /// The rung that steps run on; found out when the first one runs.
    pub(super) fn rung(&self) -> Result<Rung, BuildError> {
        if let Some(rung) = self.rung.get() {
            return Ok(*rung);
        }
        let rung = super::choose(self.isolation, self.world)?;
        Ok(*self.rung.get_or_init(|| rung))
    }

    /// The results under `key`, or what `make` gives, kept. The flag says whether they were recalled.
    pub(super) fn recalled(
        &self,
        name: &str,
        key: &Key,
        make: impl FnOnce(&Scratch) -> Result<Vec<Made>, BuildError>,
    ) -> Result<(Vec<Made>, bool), BuildError> {
        let _alone = self.world.store.lock(&key.hex())?;
        let slot = match self.world.store.recall::<Vec<Made>>(key)? {
            Recall::Hit(made) if !self.fresh && made.iter().flatten().all(|layer| self.usable(layer)) => {
                self.world.ended(name, "recalled", None);
                return Ok((made, true));
            }
            Recall::Hit(_) => self.world.store.slot(key),
            Recall::Miss(slot) => slot,
        };
        if let Some((made, at)) = self.shared.find(key).filter(|_| !self.fresh) {
            slot.keep(&made)?;
            self.world.ended(name, &format!("recalled from {at}"), None);
            return Ok((made, true));
        }
        let start = self.world.began(name);
        let scratch = self.world.store.scratch()?;
        let made = make(&scratch)?;
        slot.keep(&made)?;
        let files: u64 = made.iter().flatten().map(|layer| layer.entries).sum();
        self.world.ended(name, &format!("{files} files"), Some(start));
        Ok((made, false))
    }

    fn usable(&self, layer: &Layer) -> bool {
        self.world.store.has_blob(&layer.digest, layer.size)
    }

    /// Packs a draft, keeps its blob and its tree.
    pub(super) fn keep(&self, draft: &Draft, mtime: i64) -> Result<Made, BuildError> {
        if draft.entries == 0 {
            return Ok(None);
        }
        let compression = self.plan.compression;
        let terms = PackOptions { compression, mtime, workers: self.world.host.cores };
        let mut blob = self.world.store.blob_writer()?;
        let packed = pack(&draft.tree.root, &draft.tree.records, &terms, &mut blob)?;
        blob.keep(Some(&packed.digest))?;
        self.world.store.keep_tree(&draft.tree.root, &packed.diff_id, &draft.tree.records)?;
        let (diff_id, digest, size) = (packed.diff_id, packed.digest, packed.size);
        Ok(Some(Layer { diff_id, digest, size, tar_size: packed.tar_size, entries: packed.entries, compression }))
    }

    /// The tree of a layer of ours; made again from its blob if it is gone.
    pub(super) fn tree(&self, layer: &Layer) -> Result<Tree, BuildError> {
        let slot = match self.world.store.tree(&layer.diff_id)? {
            Trees::Hit(tree) => return Ok(tree),
            Trees::Miss(slot) => slot,
        };
        let lost = || BuildError::Lost(layer.digest.clone());
        if !self.usable(layer) && self.shared.has(layer) {
            self.shared.fetch(layer)?;
        }
        let blob = self.world.store.blob(&layer.digest, layer.size)?.ok_or_else(lost)?;
        match unpack(blob, layer.compression, &slot.root, &Limits::GENEROUS) {
            Ok(unpacked) if unpacked.diff_id == layer.diff_id => Ok(slot.keep(&unpacked.records, About::default())?),
            _ => {
                self.world.store.set_aside(&layer.digest)?;
                Err(lost())
            }
        }
    }

    /// Runs one call of the script over `lowers` (topmost first), and brings what it changed to a draft.
    /// `dir` is a folder of a scratch that does not exist yet.
    pub(super) fn call(
        &self,
        step: &Step,
        lowers: &[Tree],
        dir: &Path,
        around: &Around<'_>,
    ) -> Result<Draft, BuildError> {
        fs::create_dir(dir).map_err(BuildError::io("create", dir))?;
        let rung = self.rung()?;
        let ground = dir.join("ground");
        fs::create_dir(&ground).map_err(BuildError::io("create", &ground))?;
        let rootfs = rootfs::stand(rung, lowers, &ground)?;
        for (path, from) in around.given {
            rootfs::put(&rootfs, from, path)?;
        }
        let mut order = self.order(step, rootfs.root.clone(), around)?;
        self.surround(&mut order, step, around, &dir.join("given"))?;
        if rung == Rung::Chroot {
            super::chroot::copy_binds(&mut order)?;
        }
        let mut tail = Tail::default();
        let ended = sandbox::run(OURSELVES.as_ref(), &order, self.world.cancel, &mut |bytes: &[u8]| {
            tail.push(bytes);
            (self.world.watch)(Event::Output { step: step.name.clone(), bytes: bytes.to_vec() });
        });
        if !matches!(ended, Ok(Exit::Code(0))) {
            hidden::clear(self.ids(), &ground);
            return Err(BuildError::Script { step: step.name.clone(), exit: ended?, tail: tail.lines() });
        }
        let draft = self.harvest(&rootfs.new, lowers, &dir.join("draft"));
        hidden::clear(self.ids(), &ground);
        draft
    }

    /// What `new` changes over `lowers`, moved to the new directory `dest`.
    pub(super) fn harvest(&self, new: &New, lowers: &[Tree], dest: &Path) -> Result<Draft, BuildError> {
        fs::create_dir(dest).map_err(BuildError::io("create", dest))?;
        let harvest = hidden::harvest(self.ids(), new, lowers, dest)?;
        for name in &harvest.clashes {
            let text = format!("`{name:?}` came out differently for two environments; the last one's is in the image");
            (self.world.watch)(Event::Notice { text });
        }
        if harvest.left_out > 0 {
            let text = format!("{} sockets or devices that a step left are not in the image", harvest.left_out);
            (self.world.watch)(Event::Notice { text });
        }
        Ok(draft(dest, harvest.records, harvest.entries))
    }

    /// Brings a draft into its normal form.
    pub(super) fn normalise(&self, draft: Draft, terms: &normal::Terms<'_>) -> Result<Draft, BuildError> {
        let report = normal::normalise(&draft.tree.root, APP, terms)?;
        for (name, why) in report.left {
            (self.world.watch)(Event::Notice { text: format!("`{name:?}` is left as it was written: {why}") });
        }
        for name in report.urls_with_user {
            let text = format!("`{name:?}` keeps user information in its URL, since `mix.lock` has the same");
            (self.world.watch)(Event::Notice { text });
        }
        Ok(draft)
    }

    fn order(&self, step: &Step, root: sandbox::Root, around: &Around<'_>) -> Result<Order, BuildError> {
        let mut env = self.recipe.env(&self.base_env, around.mtime);
        env.extend(step.env.iter().map(|name| ("MIX_ENV".to_owned(), name.clone())));
        let (passed, binds) = self.passed()?;
        env.extend(passed);
        let network = match self.plan.network {
            Network::Host => sandbox::Network::Host,
            Network::None => sandbox::Network::None,
        };
        Ok(Order {
            root,
            argv: step.argv.clone(),
            env,
            cwd: around.cwd.into(),
            user: (0, 0),
            network,
            ids: self.ids(),
            binds,
            tmpfs: vec![],
            ready: None,
            hosts: super::HOSTS.into(),
            resolv: super::resolv(network),
            stdio: Stdio::Stream,
            read_only: false,
        })
    }

    /// A range of ids where the settings want one and the machine gives one, else one id. The digest is the same.
    fn ids(&self) -> Ids {
        if !self.plan.ranges || self.rung.get() == Some(&Rung::Chroot) {
            return Ids::Single;
        }
        *self.ids.get_or_init(|| match hidden::try_ranges() {
            Ok(()) => Ids::Ranges,
            Err(error) => {
                let text = format!("one id is mapped, since there is no range to map: {error}");
                (self.world.watch)(Event::Notice { text });
                Ids::Single
            }
        })
    }

    /// The caller's variables that a step may see; one that names a file of certificates brings the file along.
    fn passed(&self) -> Result<(BTreeMap<String, String>, Vec<Bind>), BuildError> {
        let (mut env, mut binds) = (BTreeMap::new(), vec![]);
        for name in PASSED.iter().copied().chain(self.plan.pass.iter().map(String::as_str)) {
            let Some(value) = self.world.host.var(name) else { continue };
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

/// A draft of what stands in `root`.
pub(super) fn draft(root: &Path, records: Metadata, entries: u64) -> Draft {
    Draft { tree: Tree { root: root.to_owned(), records, about: About::default() }, entries }
}
