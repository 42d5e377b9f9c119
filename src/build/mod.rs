//! `phial build`: from a git commit to an image in its targets.
//!
//! The commit is fetched and checked out, its steps run in sandboxes over the base image ([`layers`]), what they changed
//! becomes the layers of the image ([`image_config`]), and the image is published.

mod chroot_binds;
mod commit;
mod error;
mod hex_reuse;
mod image_config;
mod layers;
pub mod rebuild_check;
mod record;
mod reproducibility;
mod step_env;
mod step_runner;
mod test_deps;

use std::path::PathBuf;
use std::sync::OnceLock;

use phial_layers::Digest;

pub use error::BuildError;
pub use record::{BuildRecord, LayerRecord, repository_name};
pub use reproducibility::ReproducibilityError;
pub(crate) use reproducibility::{Order, difference};
pub(crate) use test_deps::TestDeps;

use self::commit::CommitFiles;
use self::image_config::image_of;
use self::layers::LayerBuilder;
use self::step_runner::StepRunner;
use crate::config::{Flags, Plan};
use crate::context::Context;
use crate::error::{Error, ExitKind};
use crate::image::{Image, PackedLayer, Provenance, Reference, RegistryRef, Target};
use crate::publish;
use crate::recipe::{EPOCH, Recipe};
use crate::registry::NetworkOptions;
use crate::remote_cache::{RemoteCache, RemoteCacheMode};
use crate::rootfs::Isolation;
use crate::runtime::{IsolationChoice, ResolvedImage, environment};
use crate::source::{self, Access, Fetched, Location};
use crate::store::Key;

/// One call of `phial build`.
#[derive(Debug)]
pub struct BuildRequest {
    /// The repository as the user named it.
    pub source: String,
    /// The same, parsed.
    pub location: Location,
    /// The revision.
    pub rev: String,
    /// Options of the command line that stand above `phial.toml`.
    pub flags: Flags,
    /// A settings file in place of the commit's `phial.toml`.
    pub config: Option<PathBuf>,
    /// How steps are isolated.
    pub isolation: IsolationChoice,
    /// Ignores cached results.
    pub no_cache: bool,
    /// Builds a second time under other conditions and compares, before the image is published.
    pub twice: bool,
    /// Logins, certificates and plain http, for the second build's client.
    pub network_options: NetworkOptions,
    /// What to do with the deps cache in a registry.
    pub remote_cache: RemoteCacheMode,
    /// The repository of that cache; `None` for the image's own.
    pub remote_cache_repository: Option<RegistryRef>,
    /// The record of the image that is rebuilt by `phial verify`.
    pub rebuild_of: Option<Provenance>,
}

/// A finished build.
#[derive(Debug)]
pub struct Built {
    /// Digest of the image's manifest.
    pub digest: Digest,
    /// Where the image is now.
    pub targets: Vec<Target>,
    /// Full SHA of the commit.
    pub commit: String,
    /// Digest of the base image's manifest.
    pub base: Digest,
    /// The layers above the base's, lowest first.
    pub layers: Vec<BuiltLayer>,
    /// Number of layers of the base image.
    pub base_layers: usize,
    /// How steps were isolated; `None` if all were cached.
    pub isolation: Option<Isolation>,
}

/// One layer of a finished build.
#[derive(Clone, Debug)]
pub struct BuiltLayer {
    /// `deps`, `app`, `build prod`.
    pub name: String,
    /// The layer; `None` if the step changed nothing.
    pub layer: Option<PackedLayer>,
    /// Whether the result was cached.
    pub cached: bool,
    /// The cache key.
    pub key: Key,
    /// Wall clock in milliseconds, of running the step or of finding its result.
    pub millis: u64,
}

/// An image whose layers are in the store, not published yet.
pub(crate) struct UnpublishedImage<'a> {
    pub(crate) built: Built,
    pub(crate) image: Image,
    pub(crate) base: ResolvedImage,
    /// The base image's name with its digest.
    base_name: Reference,
    remote_cache: RemoteCache<'a>,
}

/// Builds a commit and publishes the image to every target.
pub fn build(request: &BuildRequest, context: &Context<'_>) -> Result<Built, Error> {
    let unpublished = build_unpublished(request, context)?;
    if request.twice {
        rebuild_check::check(request, &unpublished, context)?;
    }
    let UnpublishedImage { built, image, base, remote_cache, .. } = &unpublished;
    remote_cache.provide(built.layers.iter().filter_map(|layer| layer.layer.as_ref()), &built.targets)?;
    publish::publish(context, base, image, &built.targets)?;
    if request.remote_cache == RemoteCacheMode::Write {
        for BuiltLayer { layer, key, cached, .. } in &built.layers {
            layer.iter().for_each(|layer| remote_cache.store(key, layer, *cached));
        }
    }
    record::keep(request, built, context);
    Ok(unpublished.built)
}

/// Builds a commit to an image whose layers are in the store.
pub(crate) fn build_unpublished<'a>(
    request: &BuildRequest,
    context: &'a Context<'a>,
) -> Result<UnpublishedImage<'a>, Error> {
    let fetched = fetch(request, context)?;
    let commit = fetched.commit.clone();
    let (settings, lock) = commit::settings(request.config.as_deref(), &fetched)?;
    let mut plan = Plan::new(settings, lock.as_ref(), &request.flags, &commit.name)?;
    if let Some(recorded) = &request.rebuild_of {
        reproducibility::follow_record(&mut plan, recorded, request.config.is_some())?;
    }
    let recipe = recipe(&plan);
    let files = CommitFiles::read(&fetched)?;
    recipe.check(&files.files)?;
    let base = resolve_base(request, &plan, context)?;

    let remote_cache = match request.remote_cache {
        RemoteCacheMode::Off => RemoteCache::off(context, &commit.name),
        _ => RemoteCache::new(context, &commit.name, request.remote_cache_repository.as_ref(), &plan.targets),
    };
    let steps = StepRunner {
        context,
        plan: &plan,
        recipe: &recipe,
        choice: request.isolation,
        isolation: OnceLock::new(),
        ids: OnceLock::new(),
        base_env: environment(&base.image),
        no_cache: request.no_cache,
        remote_cache: &remote_cache,
    };
    let deps_time = base.toolchain_mtime(context)?.max(EPOCH);
    let app_time = deps_time.max(commit.time);
    let builder = LayerBuilder { steps, base: &base, commit: &files, deps_time, app_time };
    let layers = builder.layers()?;
    let isolation = builder.steps.isolation.get().copied();

    let mut provenance = image_config::provenance(&base.image, &plan, &recipe, &files, &layers);
    if let Some(recorded) = &request.rebuild_of {
        provenance.source.clone_from(&recorded.source);
        provenance.base.clone_from(&recorded.base);
    }
    let image = image_of(&base.image, &plan, commit.time, &layers, &provenance);
    let built = Built {
        digest: image.manifest_digest.clone(),
        targets: plan.targets.clone(),
        commit: commit.sha,
        base: base.image.manifest_digest.clone(),
        base_layers: base.image.manifest.layers.len(),
        isolation,
        layers,
    };
    let base_name = plan.base.pinned(&base.image.manifest_digest);
    Ok(UnpublishedImage { built, image, base, base_name, remote_cache })
}

fn fetch(request: &BuildRequest, context: &Context<'_>) -> Result<Fetched, Error> {
    let start = context.step_started("source");
    let access = Access::of(context.host);
    let fetched = source::fetch(&request.location, &request.rev, &context.store.git_dir(), &access, context.watch);
    let fetched = match (fetched, &request.rebuild_of) {
        (Err(error), Some(_)) => {
            let name = request.source.clone();
            let source = error.into();
            return Err(ReproducibilityError::Gone { what: "repository", name, flag: "--source", source }.into());
        }
        (fetched, _) => fetched?,
    };
    context.step_finished("source", &fetched.commit.sha, Some(start));
    Ok(fetched)
}

/// The base image, by the digest of `phial.lock` if that has one.
fn resolve_base(request: &BuildRequest, plan: &Plan, context: &Context<'_>) -> Result<ResolvedImage, Error> {
    let start = context.step_started("base");
    let resolved = ResolvedImage::resolve(context, &plan.base, plan.pinned.as_ref());
    let resolved = resolved.map_err(|source| match (&request.rebuild_of, &plan.pinned) {
        (Some(_), _) => {
            let name = request.flags.base.clone().unwrap_or_default();
            ReproducibilityError::Gone { what: "base", name, flag: "--base", source }.into()
        }
        (None, Some(pinned)) if source.exit_kind() == ExitKind::Refused => {
            BuildError::Pinned { pinned: pinned.clone(), source }.into()
        }
        _ => source,
    })?;
    context.step_finished("base", resolved.image.manifest_digest.as_str(), Some(start));
    Ok(resolved)
}

fn recipe(plan: &Plan) -> Recipe {
    Recipe { script: plan.script.clone(), envs: plan.envs.clone(), inputs: plan.inputs.clone(), env: plan.env.clone() }
}
