//! The order of things, and nothing else: from a commit to the digest of an image that is where it should be.

mod base;
mod chroot;
mod circumstances;
mod deliver;
mod diff;
mod error;
mod explain;
mod foundation;
pub mod hidden;
mod lock;
mod record;
mod run;
mod settings;
mod steps;
mod tail;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use phial_layers::Digest;

pub use diff::diff;
pub use error::BuildError;
pub use explain::{Explanation, Input, Story, explain};
pub use foundation::{Foundation, lay};
pub use lock::lock;
pub use record::{LayerRecord, Record};
pub use run::{Start, run};
pub use settings::built_with;
pub use steps::Layer;

use self::base::Base;
use self::steps::{Made, Steps};
use self::work::{CommitFiles, Work};
use crate::config::{self, ConfigError, Flags, Lock, Plan, Wish};
use crate::event::{Event, Watch};
use crate::host::Host;
use crate::image::{Image, NewLayer, Reference, Target, Terms, assemble};
use crate::prepare::{EPOCH, FORMAT, File, MIX_HOME, Recipe, Script, WORKDIR};
use crate::registry::Client;
use crate::rootfs::Rung;
use crate::sandbox::{self, Network, OURSELVES};
use crate::source::{self, Access, Commit, Fetched, Mode, Place};
use crate::store::{Key, Store};

/// The user of an image that names none: `nonroot`, as distroless images number it.
const NOBODY: &str = "65532:65532";

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
    /// The repository.
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
}

/// From a commit to an image in every target.
pub fn build(request: &Request, world: &World<'_>) -> Result<Built, BuildError> {
    let start = world.began("source");
    let access = Access::of(world.host);
    let fetched = source::fetch(&request.place, &request.rev, &world.store.git_dir(), &access, world.watch)?;
    let commit = fetched.commit.clone();
    world.ended("source", &commit.sha, Some(start));

    let (wish, lock) = settings(request, &fetched)?;
    let plan = Plan::new(wish, lock.as_ref(), &request.flags, &commit.name)?;
    let recipe = recipe(&plan);
    let entries = source::list(&fetched)?;
    let files: Vec<File> = entries.iter().map(file).collect();
    recipe.check(&files)?;

    let start = world.began("base");
    let base = pinned(world, &plan)?;
    world.ended("base", base.image.manifest_digest.as_str(), Some(start));
    let deps_time = base.toolchain(world)?.max(EPOCH);

    let steps = Steps {
        world,
        plan: &plan,
        recipe: &recipe,
        isolation: request.isolation,
        rung: OnceLock::new(),
        ids: OnceLock::new(),
        base_env: environment(&base.image),
        fresh: request.no_cache,
    };
    let app_time = deps_time.max(commit.time);
    let lock_text = text(&fetched, "mix.lock")?.unwrap_or_default();
    let commit_files = CommitFiles { fetched: &fetched, entries: &entries, files: &files, mix_lock: &lock_text };
    let work = Work { steps, base: &base, commit: commit_files, deps_time, app_time };
    let layers = work.layers()?;
    let image = finish(&base.image, &plan, &commit, &layers);
    deliver::deliver(world, &base, &image, &plan.targets)?;
    let built = Built {
        digest: image.manifest_digest.clone(),
        targets: plan.targets.clone(),
        commit: commit.sha,
        base: base.image.manifest_digest.clone(),
        base_layers: base.image.manifest.layers.len(),
        rung: work.steps.rung.get().copied(),
        layers,
    };
    record::keep(request, &built, world);
    Ok(built)
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
fn environment(image: &Image) -> BTreeMap<String, String> {
    let pairs = image.config.config.env.iter().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The image: what is in the layers, and what it says of itself.
fn finish(base: &Image, plan: &Plan, commit: &Commit, layers: &[Report]) -> Image {
    let new: Vec<NewLayer> = layers
        .iter()
        .filter_map(|report| {
            let layer = report.layer.as_ref()?;
            Some(NewLayer {
                diff_id: layer.diff_id.clone(),
                digest: layer.digest.clone(),
                size: layer.size,
                compression: layer.compression,
                created_by: format!("phial {}", report.name),
            })
        })
        .collect();
    let wish = &plan.image;
    let mix = plan.script == Script::BuiltIn;
    let mut env = BTreeMap::new();
    if mix {
        let main = plan.envs.iter().find(|env| *env == "prod").or(plan.envs.last());
        env.extend(main.map(|env| ("MIX_ENV".to_owned(), env.clone())));
        env.insert("LANG".into(), "C.UTF-8".into());
        if !environment(base).contains_key("MIX_HOME") {
            env.insert("MIX_HOME".into(), MIX_HOME.into());
        }
    }
    env.extend(wish.env.clone().unwrap_or_default());
    let default_cmd = || ["mix", "run", "--no-halt"].map(String::from).to_vec();
    let terms = Terms {
        created: commit.time,
        entrypoint: wish.entrypoint.clone(),
        cmd: wish.cmd.clone().or_else(|| (mix && wish.entrypoint.is_none()).then(default_cmd)),
        env,
        working_dir: Some(WORKDIR.into()),
        user: Some(wish.user.clone().unwrap_or_else(|| NOBODY.into())),
        labels: wish.labels.clone().unwrap_or_default(),
        annotations: annotations(base, plan, commit),
    };
    assemble(base, &new, &terms)
}

/// What an image says of where it comes from (image-spec, annotations.md). Nothing of the machine that built it.
fn annotations(base: &Image, plan: &Plan, commit: &Commit) -> BTreeMap<String, String> {
    let mut notes = BTreeMap::from([
        ("org.opencontainers.image.revision".to_owned(), commit.sha.clone()),
        ("org.opencontainers.image.base.digest".to_owned(), base.manifest_digest.to_string()),
        ("dev.phial.format".to_owned(), FORMAT.to_string()),
    ]);
    let source = plan.image.source.clone().or_else(|| commit.origin.as_deref().and_then(web_address));
    notes.extend(source.map(|url| ("org.opencontainers.image.source".to_owned(), url)));
    if let Reference::Registry(name) = &plan.base {
        let name = crate::image::RegistryRef { digest: None, ..name.clone() };
        notes.insert("org.opencontainers.image.base.name".into(), name.to_string());
    }
    notes
}

/// The address of a repository on the web, the same whichever way it was cloned: `https://host/path`. A repository on this
/// machine has none: it would mean nothing elsewhere.
fn web_address(origin: &str) -> Option<String> {
    let (scheme, rest) = match origin.split_once("://") {
        Some((scheme, rest)) => (scheme, rest.to_owned()),
        None => ("ssh", origin.replacen(':', "/", 1)),
    };
    let (authority, path) = rest.split_once('/')?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    if name == "localhost" || name.starts_with("127.") || name == "[::1]" {
        return None;
    }
    let host = if scheme == "ssh" { name } else { host };
    let path = path.trim_matches('/');
    Some(format!("https://{host}/{}", path.strip_suffix(".git").unwrap_or(path)))
}

/// What `/etc/resolv.conf` of a sandbox says: as on the host, where the host's network is there.
fn resolv(network: Network) -> Option<String> {
    match network {
        Network::Host => std::fs::read_to_string("/etc/resolv.conf").ok(),
        Network::None | Network::Shared(_) => Some(String::new()),
    }
}

/// The best rung that works, or the one that was asked for if it does.
fn choose(isolation: Isolation, world: &World<'_>) -> Result<Rung, BuildError> {
    let scratch = world.store.scratch()?;
    let probe = sandbox::probe(OURSELVES.as_ref(), scratch.path());
    let rungs = [(Rung::Overlay, probe.overlay), (Rung::Copy, probe.namespaces), (Rung::Chroot, probe.chroot)];
    let wanted = |rung| isolation == Isolation::Auto || isolation == Isolation::Only(rung);
    let mut tried = vec![];
    for (rung, works) in rungs.into_iter().filter(|(rung, _)| wanted(*rung)) {
        match works {
            Ok(()) => {
                (world.watch)(Event::Notice { text: format!("isolation: {rung}") });
                return Ok(rung);
            }
            Err(why) => tried.push((rung, why)),
        }
    }
    Err(BuildError::NoRung(tried))
}

#[cfg(test)]
mod tests {
    use super::web_address;

    #[test]
    fn a_repository_has_one_address_however_it_was_cloned() {
        for origin in [
            "https://git.example/team/app.git",
            "https://ann@git.example/team/app",
            "ssh://git@git.example:2222/team/app.git",
            "git@git.example:team/app.git",
        ] {
            assert_eq!(web_address(origin).as_deref(), Some("https://git.example/team/app"), "{origin}");
        }
        assert_eq!(web_address("https://git.example:8443/app").as_deref(), Some("https://git.example:8443/app"));
        assert_eq!(web_address("http://127.0.0.1:4000/app.git"), None);
        assert_eq!(web_address("http://[::1]:4000/app.git"), None);
    }
}
