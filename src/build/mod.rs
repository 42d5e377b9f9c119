//! `phial build`: from a git commit to an image in its targets.
//!
//! The commit is fetched and checked out, its steps run in sandboxes on top of the base image ([`layers`]), their changes
//! become layers, the layers and the settings become an image ([`image_config`]), and the image is published.

mod base_home;
mod built;
mod chroot_binds;
mod commit;
mod compile;
mod disagreements;
mod downloads;
mod error;
mod git_trace;
mod hex_reuse;
mod image_config;
mod layers;
mod lazy_isolation;
pub mod rebuild_check;
mod record;
mod reproducibility;
mod request;
mod start_check;
mod step_env;
mod step_key;
mod step_runner;
mod test_deps;
mod toolchain;
mod unfinished_deps;

pub(crate) use built::UnpublishedImage;
pub use built::{Built, BuiltLayer};
pub use error::BuildError;
pub use record::{BuildRecord, LayerRecord};
pub use reproducibility::ReproducibilityError;
pub(crate) use reproducibility::{LeftSide, OtherImage, difference};
pub use request::BuildRequest;
pub(crate) use test_deps::TestDeps;

use std::sync::Mutex;

use phial_layers::EntryPath;

use self::commit::CommitFiles;
use self::image_config::image_of;
use self::layers::LayerBuilder;
use self::lazy_isolation::LazyIsolation;
use self::step_runner::StepRunner;
use self::toolchain::VersionCheck;
use crate::config::{self, BuildPlan, PreparePlan};
use crate::context::Context;
use crate::error::{Error, ExitKind};
use crate::image::shown;
use crate::publish;
use crate::recipe::{Agreement, EPOCH};
use crate::remote_cache::{RemoteCache, RemoteCacheMode};
use crate::repository::{CommittedApp, committed_app};
use crate::runtime::{ResolvedImage, environment};
use crate::source::{self, Access, CommitEntry, EntryMode, Fetched, LfsFiles};

/// Builds a commit and publishes the image to every target.
pub fn build(request: &BuildRequest, context: &Context<'_>) -> Result<Built, Error> {
    let unpublished = build_unpublished(request, context)?;
    start_check::check(&unpublished, context)?;
    if request.twice {
        rebuild_check::check(request, &unpublished, context)?;
    }
    let UnpublishedImage { built, image, base, remote_cache, .. } = &unpublished;
    remote_cache.copy_to_targets(built.layers.iter().filter_map(|layer| layer.layer.as_ref()), &built.targets)?;
    publish::publish(context, base, image, &built.targets)?;
    if request.remote_cache == RemoteCacheMode::Write {
        for BuiltLayer { layer, key, cached, .. } in &built.layers {
            match layer {
                Some(layer) if *cached && remote_cache.has(layer) => remote_cache.update_fallback_tags(key),
                Some(layer) => remote_cache.store(key, layer),
                None => {}
            }
        }
    }
    record::keep(request, built, context);
    Ok(unpublished.built)
}

/// Builds the image of a commit, and leaves its layers in the store or the remote cache.
pub(crate) fn build_unpublished<'a>(
    request: &BuildRequest,
    context: &'a Context<'a>,
) -> Result<UnpublishedImage<'a>, Error> {
    let mut fetched = fetch(request, context)?;
    let commit = fetched.commit.clone();
    let plan = plan(request, &fetched, context)?;
    let app = &plan.prepare.recipe.app;
    let name = app.name(&commit.name);
    let entries = entries(request, &mut fetched, &plan, context)?;
    let files = CommitFiles::read(&fetched, entries, &plan.prepare.recipe, context.watch)?;
    let base = resolve_base(request, &plan, context)?;

    let lock = EntryPath::new(plan.prepare.recipe.lock_path().as_bytes()).to_string();
    let remote_cache = match request.remote_cache {
        RemoteCacheMode::Off => RemoteCache::off(context, name, &lock),
        _ => RemoteCache::new(context, name, &lock, request.remote_cache_repository.as_ref(), &plan.targets),
    };
    let steps = StepRunner {
        context,
        plan: &plan.prepare,
        isolation: LazyIsolation::new(request.isolation),
        base_env: environment(&base.image),
        base_user: &base.image.config.config.user,
        libc: base.libc(context)?,
        no_cache: request.no_cache,
        remote_cache: &remote_cache,
        unknown_manifests: Mutex::default(),
        downloads: Mutex::default(),
    };
    let deps_time = base.toolchain_mtime(context)?.max(EPOCH);
    let app_time = deps_time.max(commit.time);
    let builder = LayerBuilder {
        steps,
        base: &base,
        commit: &files,
        deps_time,
        app_time,
        versions: VersionCheck::new(if request.strict_versions { Agreement::Exact } else { Agreement::Release }),
    };
    let layers = builder.layers()?;
    let isolation = builder.steps.isolation.used();
    let unknown_manifests = builder.steps.unknown_manifests.into_inner().unwrap_or_default();
    let downloads = builder.steps.downloads.into_inner().unwrap_or_default();

    let mut provenance = image_config::provenance(&base.image, &plan, &files, &layers);
    if let Some(record) = &request.rebuild_of {
        // `--source` and `--base` name other places of the same commit and base image.
        provenance.source.clone_from(&record.source);
        provenance.base.clone_from(&record.base);
    }
    let image = image_of(&base.image, &plan, commit.time, &layers, &provenance);
    let built = Built {
        digest: image.manifest_digest.clone(),
        targets: plan.targets.clone(),
        commit: commit.sha.clone(),
        app: app.clone(),
        base: base.image.manifest_digest.clone(),
        base_layers: base.image.manifest.layers.len(),
        isolation,
        unknown_manifests,
        downloads,
        layers,
    };
    let base_name = plan.base.pinned(&base.image.manifest_digest);
    Ok(UnpublishedImage { built, image, base, base_name, remote_cache })
}

/// How the commit is built: its settings, those of the request, and what the commit itself shows.
fn plan(request: &BuildRequest, fetched: &Fetched, context: &Context<'_>) -> Result<BuildPlan, Error> {
    let config = request.config.as_deref().map(config::read).transpose()?;
    let recorded = request.rebuild_of.as_ref().map(|record| record.root.as_deref().unwrap_or_default());
    let named = recorded.or(request.app.as_deref());
    let CommittedApp { dir: app, mut settings, lock } = committed_app(named, config, &request.location, fetched)?;
    let names_envs = settings.image.envs.is_some() || !request.flags.envs.is_empty();
    if !names_envs && settings.prepare.script.is_none() {
        settings.image.envs = commit::default_envs(fetched, &app)?;
        if let Some(envs) = &settings.image.envs {
            let envs = envs.join("`, `");
            context.notice(format!("the app is compiled for `{envs}` only: the other default has no configuration"));
        }
    }
    let origin = commit::settings_origin(request.config.as_deref(), &request.location);
    let name = app.name(&fetched.commit.name);
    let mut plan = BuildPlan::new(settings, origin, lock.as_ref(), &request.flags, name)?;
    check_consent(&plan.prepare, context)?;
    commit::check_envs(fetched, &plan.prepare.recipe)?;
    if let Some(host) = plan.foreign_registry(&request.flags) {
        context.client.withhold_login(host);
    }
    match &request.rebuild_of {
        None => {
            plan.check_places_are_the_callers(&request.flags)?;
            publish::check_targets(&plan.targets, context)?;
        }
        Some(record) => {
            let settings_file = if request.config.is_some() { "`--config`" } else { "the commit" };
            reproducibility::check_settings(&plan, record, settings_file)?;
            plan.pinned = Some(record.base_digest.clone());
        }
    }
    Ok(plan)
}

/// Checks that steps get of the caller's only what the caller agrees to.
fn check_consent(plan: &PreparePlan, context: &Context<'_>) -> Result<(), Error> {
    let is_set = |name: &str| context.host.var(name).is_some();
    plan.check_consent(is_set)?;
    for name in plan.withheld().into_iter().filter(|name| is_set(name)) {
        context.notice(format!(
            "the steps do not see `{name}`, since others wrote them: `--pass {name}` shows it to them"
        ));
    }
    Ok(())
}

fn fetch(request: &BuildRequest, context: &Context<'_>) -> Result<Fetched, Error> {
    let start = context.step_started("source");
    let access = Access::of(context.host, &request.git_hosts);
    let fetched = source::fetch(&request.location, &request.rev, &context.store.git_dir(), &access, context.watch);
    let fetched = match (fetched, &request.rebuild_of) {
        (Err(error), Some(_)) => {
            let name = request.source.clone();
            let source = error.into();
            return Err(ReproducibilityError::Unavailable { what: "repository", name, flag: "--source", source }.into());
        }
        (fetched, _) => fetched?,
    };
    context.step_finished("source", &fetched.commit.sha, Some(start));
    Ok(fetched)
}

/// The entries of the commit, once its submodules are fetched.
fn entries(
    request: &BuildRequest,
    fetched: &mut Fetched,
    plan: &BuildPlan,
    context: &Context<'_>,
) -> Result<Vec<CommitEntry>, Error> {
    let lfs = if plan.source.lfs { LfsFiles::Objects } else { LfsFiles::Pointers };
    fetched.set_lfs(lfs);
    let entries = source::list(fetched)?;
    if !plan.source.submodules || entries.iter().all(|entry| entry.mode != EntryMode::Submodule) {
        return Ok(entries);
    }
    let start = context.step_started("submodules");
    let access = Access::of(context.host, &request.git_hosts);
    let count = source::fetch_submodules(fetched, &context.store.git_dir(), &access, context.watch)?;
    context.step_finished("submodules", &count.to_string(), Some(start));
    fetched.set_lfs(lfs);
    Ok(source::list(fetched)?)
}

/// Tells which instructions of a Dockerfile the base image has for those who build on it: `phial build` runs no Dockerfile.
fn report_onbuild(base: &ResolvedImage, context: &Context<'_>) {
    let instructions = base.image.config.config.other.get("OnBuild").and_then(serde_json::Value::as_array);
    let texts: Vec<String> = instructions.into_iter().flatten().filter_map(|text| text.as_str().map(shown)).collect();
    if !texts.is_empty() {
        context.notice(format!(
            "the base image's ONBUILD instructions are not run, and stay in the image's config: `{}`",
            texts.join("`, `")
        ));
    }
}

/// Resolves the base image; to the pinned digest, if there is one.
fn resolve_base(request: &BuildRequest, plan: &BuildPlan, context: &Context<'_>) -> Result<ResolvedImage, Error> {
    let start = context.step_started("base");
    let resolved = ResolvedImage::resolve(context, &plan.base, plan.pinned.as_ref());
    let resolved = resolved.map_err(|source| match (&request.rebuild_of, &plan.pinned) {
        (Some(_), _) => {
            let name = request.flags.base.clone().unwrap_or_default();
            ReproducibilityError::Unavailable { what: "base image", name, flag: "--base", source }.into()
        }
        (None, Some(pinned)) if source.exit_kind() == ExitKind::Refused => {
            BuildError::Pinned { pinned: pinned.clone(), source }.into()
        }
        _ => source,
    })?;
    resolved.check_platform()?;
    context.step_finished("base", resolved.image.manifest_digest.as_str(), Some(start));
    report_onbuild(&resolved, context);
    Ok(resolved)
}
