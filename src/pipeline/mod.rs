//! The order of things, and nothing else: from a commit to the digest of an image that is where it should be.

mod base;
mod chroot;
mod circumstances;
mod deliver;
mod diff;
mod entries;
mod error;
mod explain;
mod far;
mod finish;
mod foundation;
pub mod hidden;
mod lock;
mod more;
mod proof;
mod record;
mod run;
mod seeds;
mod settings;
mod steps;
mod tail;
pub mod twice;
mod verify;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use phial_layers::Digest;

pub use diff::diff;
pub use entries::{Entry, entries, prune_entries};
pub use error::BuildError;
pub use explain::{Explanation, Input, Story, explain};
pub use far::Far;
pub use foundation::{Foundation, lay};
pub use lock::lock;
pub use proof::ProofError;
pub use record::{LayerRecord, Record};
pub use run::{Start, run};
pub use settings::built_with;
pub use steps::Layer;
pub use verify::{Verdict, Verify, verify};

pub(crate) use self::base::Base;
use self::far::Shared;
pub(crate) use self::more::More;
pub(crate) use self::run::account;
pub(crate) use self::settings::of_image;
use self::steps::{Made, Steps};
pub(crate) use self::tail::Tail;
use self::work::{CommitFiles, Work};
use crate::config::{self, ConfigError, Flags, Lock, Plan, Wish};
use crate::event::{Event, Watch};
use crate::host::Host;
use crate::image::{Image, Provenance, Reference, RegistryRef, Target};
use crate::prepare::{EPOCH, File, Recipe};
use crate::registry::{Client, Wishes};
use crate::rootfs::Rung;
use crate::sandbox::{Network, OURSELVES, Probe};
use crate::source::{self, Access, Fetched, Mode, Place};
use crate::store::{Key, Store};

/// The hosts file of every sandbox.
pub(crate) const HOSTS: &str = "127.0.0.1 localhost phial\n::1 localhost ip6-localhost ip6-loopback\n";

/// What the rooms work with.
pub struct World<'a> {
    /// The process's facts.
    pub host: &'a Host,
    /// What is kept.
    pub store: &'a Store,
    /// The way to registries.
    pub client: &'a Client,
    /// Who listens.
    pub watch: Watch<'a>,
    /// Becomes true when the user wants an end.
    pub cancel: &'a AtomicBool,
}

/// The rung of isolation that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The best that works here.
    Auto,
    /// This one or none.
    Only(Rung),
}

/// One call of `phial build`.
#[derive(Debug)]
pub struct Request {
    /// The repository, as it was named.
    pub source: String,
    /// The same, understood.
    pub place: Place,
    /// The revision.
    pub rev: String,
    /// What the command line asks for.
    pub flags: Flags,
    /// Settings in place of the commit's `phial.toml`.
    pub config: Option<PathBuf>,
    /// The rung.
    pub isolation: Isolation,
    /// Whether every step is done, recalled or not.
    pub no_cache: bool,
    /// Whether to build a second time under other conditions, and to compare, before the image goes anywhere.
    pub twice: bool,
    /// How registries are to be reached: the second build's client is told it again.
    pub wishes: Wishes,
    /// What to do with a deps cache in a registry.
    pub far: Far,
    /// Its repository, if that is not the image's own.
    pub far_at: Option<RegistryRef>,
    /// The record of the image that is made again: what it says of where it comes from is said again.
    pub again: Option<Provenance>,
}

/// What came of it.
#[derive(Debug)]
pub struct Built {
    /// The image's name: the digest of its manifest.
    pub digest: Digest,
    /// Where it is now.
    pub targets: Vec<Target>,
    /// The full SHA of the commit.
    pub commit: String,
    /// The digest of the base's manifest.
    pub base: Digest,
    /// Our layers, lowest first.
    pub layers: Vec<Report>,
    /// How many layers of the base lie below them.
    pub base_layers: usize,
    /// The rung that steps ran on, if any ran.
    pub rung: Option<Rung>,
}

/// One of our layers.
#[derive(Clone, Debug)]
pub struct Report {
    /// `deps`, `app`, `build prod`.
    pub name: String,
    /// The layer; none if the step changed nothing.
    pub layer: Made,
    /// Whether it was recalled.
    pub recalled: bool,
    /// The key it was made under.
    pub key: Key,
    /// Wall clock, in milliseconds: of making it, or of recalling it.
    pub millis: u64,
}

impl World<'_> {
    pub(crate) fn began(&self, step: &str) -> Instant {
        (self.watch)(Event::Began { step: step.into() });
        Instant::now()
    }

    pub(crate) fn ended(&self, step: &str, note: &str, start: Option<Instant>) {
        let millis = start.map_or(0, |start| u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        (self.watch)(Event::Ended { step: step.into(), note: note.into(), millis });
    }

    fn stands_on(&self, rung: Rung) {
        (self.watch)(Event::Notice { text: format!("isolation: {rung}") });
    }
}

/// An image whose own layers are in the store, and nowhere else yet.
struct Product<'a> {
    built: Built,
    image: Image,
    base: Base,
    /// The base's name, with its digest.
    base_name: Reference,
    shared: Shared<'a>,
}

/// From a commit to an image in every target.
pub fn build(request: &Request, world: &World<'_>) -> Result<Built, BuildError> {
    let product = make(request, world)?;
    if request.twice {
        twice::check(request, &product, world)?;
    }
    product.shared.lend(&product.built)?;
    deliver::deliver(world, &product.base, &product.image, &product.built.targets)?;
    if request.far == Far::Write {
        product.shared.keep(&product.built);
    }
    record::keep(request, &product.built, world);
    Ok(product.built)
}

/// From a commit to an image.
fn make<'a>(request: &Request, world: &'a World<'a>) -> Result<Product<'a>, BuildError> {
    let start = world.began("source");
    let access = Access::of(world.host);
    let fetched = source::fetch(&request.place, &request.rev, &world.store.git_dir(), &access, world.watch);
    let fetched = fetched.map_err(|error| gone(request, "repository", &request.source, "--source")(error.into()))?;
    let commit = fetched.commit.clone();
    world.ended("source", &commit.sha, Some(start));

    let (wish, lock) = settings(request, &fetched)?;
    let mut plan = Plan::new(wish, lock.as_ref(), &request.flags, &commit.name)?;
    if let Some(recorded) = &request.again {
        as_recorded(&mut plan, recorded, request.config.is_some())?;
    }
    let recipe = recipe(&plan);
    let entries = source::list(&fetched)?;
    let files: Vec<File> = entries.iter().map(file).collect();
    recipe.check(&files)?;

    let start = world.began("base");
    let name = request.flags.base.as_deref().unwrap_or_default();
    let base = pinned(world, &plan).map_err(gone(request, "base", name, "--base"))?;
    world.ended("base", base.image.manifest_digest.as_str(), Some(start));
    let deps_time = base.toolchain(world)?.max(EPOCH);

    let shared = Shared::of(world, request.far, request.far_at.as_ref(), (&fetched.commit.name, &plan.targets));
    let steps = Steps {
        world,
        plan: &plan,
        recipe: &recipe,
        isolation: request.isolation,
        rung: OnceLock::new(),
        ids: OnceLock::new(),
        base_env: environment(&base.image),
        fresh: request.no_cache,
        shared: &shared,
    };
    let app_time = deps_time.max(commit.time);
    let lock_text = text(&fetched, "mix.lock")?;
    let commit_files = CommitFiles {
        fetched: &fetched,
        entries: &entries,
        files: &files,
        mix_lock: lock_text.as_deref().unwrap_or_default(),
    };
    let work = Work { steps, base: &base, commit: commit_files, deps_time, app_time };
    let layers = work.layers()?;
    let rung = work.steps.rung.get().copied();
    let mut provenance = finish::provenance(&base.image, &plan, &recipe, &commit, (&layers, lock_text.as_deref()));
    if let Some(recorded) = &request.again {
        provenance.source.clone_from(&recorded.source);
        provenance.base.clone_from(&recorded.base);
    }
    let image = finish::finish(&base.image, &plan, &commit, &layers, &provenance);
    let built = Built {
        digest: image.manifest_digest.clone(),
        targets: plan.targets.clone(),
        commit: commit.sha,
        base: base.image.manifest_digest.clone(),
        base_layers: base.image.manifest.layers.len(),
        rung,
        layers,
    };
    let base_name = plan.base.pinned(&base.image.manifest_digest);
    Ok(Product { built, image, base, base_name, shared })
}

/// The base, by the digest of `phial.lock` if that has one.
fn pinned(world: &World<'_>, plan: &Plan) -> Result<Base, BuildError> {
    let resolved = Base::resolve(world, &plan.base, plan.pinned.as_ref());
    resolved.map_err(|source| match &plan.pinned {
        Some(pinned) if source.exit_code() == 3 => {
            BuildError::Pinned { pinned: pinned.clone(), source: Box::new(source) }
        }
        _ => source,
    })
}

/// Something that an image records cannot be had; the error itself where nothing is made again.
fn gone<'a>(
    request: &'a Request,
    what: &'static str,
    name: &'a str,
    flag: &'static str,
) -> impl FnOnce(BuildError) -> BuildError + 'a {
    move |source| match (&request.again, source) {
        (Some(_), BuildError::Pinned { source, .. }) => {
            ProofError::Gone { what, name: name.into(), flag, source }.into()
        }
        (Some(_), source) => ProofError::Gone { what, name: name.into(), flag, source: source.into() }.into(),
        (None, source) => source,
    }
}

/// The plan of an image that is made again: its base by digest, and settings that come to the recorded ones.
fn as_recorded(plan: &mut Plan, recorded: &Provenance, given: bool) -> Result<(), BuildError> {
    plan.pinned = Some(recorded.base_digest.clone());
    let here = if given { "`--config`" } else { "the commit" };
    let (recorded, found) = (recorded.settings.clone(), plan.digest());
    if found == recorded { Ok(()) } else { Err(ProofError::Settings { recorded, here, found }.into()) }
}

fn file(entry: &source::Entry) -> File {
    File { path: entry.name.as_bytes().to_vec(), executable: entry.mode == Mode::Executable }
}

/// The settings of the commit, and its lock.
fn settings(request: &Request, fetched: &Fetched) -> Result<(Wish, Option<Lock>), BuildError> {
    let wish = match &request.config {
        Some(path) => {
            let read =
                std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.clone(), source })?;
            config::parse(&path.display().to_string(), &read)?
        }
        None => config::parse("phial.toml", &text(fetched, "phial.toml")?.unwrap_or_default())?,
    };
    let lock = text(fetched, "phial.lock")?.map(|text| Lock::parse(&text)).transpose()?;
    Ok((wish, lock))
}

/// A small text file of the commit.
fn text(fetched: &Fetched, name: &str) -> Result<Option<String>, BuildError> {
    let bytes = source::read_file(fetched, name)?;
    let utf8 = |bytes| {
        String::from_utf8(bytes).map_err(|_| ConfigError::Toml { file: name.into(), text: "it is not UTF-8".into() })
    };
    Ok(bytes.map(utf8).transpose()?)
}

fn recipe(plan: &Plan) -> Recipe {
    Recipe { script: plan.script.clone(), envs: plan.envs.clone(), inputs: plan.inputs.clone(), env: plan.env.clone() }
}

/// The variables of an image's config.
pub(crate) fn environment(image: &Image) -> BTreeMap<String, String> {
    let pairs = image.config.config.env.iter().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What `/etc/resolv.conf` of a sandbox says: as on the host, where the host's network is there.
pub(crate) fn resolv(network: Network) -> Option<String> {
    match network {
        Network::Host => std::fs::read_to_string("/etc/resolv.conf").ok(),
        Network::None | Network::Shared(_) => Some(String::new()),
    }
}

/// The best rung that works, or the one that was asked for if it does. No rung is tried below the first that works.
pub(crate) fn choose(isolation: Isolation, world: &World<'_>) -> Result<Rung, BuildError> {
    let scratch = world.store.scratch()?;
    let probe = Probe { exe: OURSELVES.as_ref(), scratch: scratch.path() };
    let wanted = |rung: &Rung| isolation == Isolation::Auto || isolation == Isolation::Only(*rung);
    let mut tried = vec![];
    for rung in [Rung::Overlay, Rung::Copy, Rung::Chroot].into_iter().filter(wanted) {
        let works = match rung {
            Rung::Overlay => probe.overlay(),
            Rung::Copy => probe.namespaces(),
            Rung::Chroot => probe.chroot(),
        };
        match works {
            Ok(()) => {
                world.stands_on(rung);
                return Ok(rung);
            }
            Err(why) => tried.push((rung, why)),
        }
    }
    Err(BuildError::NoRung(tried))
}
