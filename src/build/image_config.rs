//! The manifest and config of a built image, and the record of how it was made.

use std::collections::BTreeMap;

use phial_layers::Digest;

use super::BuiltLayer;
use super::commit::CommitFiles;
use crate::config::{BuildPlan, PreparePlan};
use crate::image::{Image, ImageOptions, LABEL, NewLayer, Provenance, Reference, RegistryRef, assemble};
use crate::recipe::{FORMAT, MIX_HOME, Script};
use crate::remote_cache::{STEP, entry_digest};
use crate::runtime::environment;
use crate::source::Location;

/// The default user: `nonroot`, with the ids that distroless images give it.
const NONROOT: &str = "65532:65532";

/// The image of `base` with `layers` on top. `created` is the time in its config, in seconds since 1970.
pub(super) fn image_of(
    base: &Image,
    plan: &BuildPlan,
    created: i64,
    layers: &[BuiltLayer],
    provenance: &Provenance,
) -> Image {
    let new: Vec<NewLayer> = layers
        .iter()
        .filter_map(|built| Some(NewLayer { layer: built.layer.clone()?, created_by: format!("phial {}", built.name) }))
        .collect();
    let settings = &plan.image;
    let is_mix = plan.prepare.recipe.script == Script::BuiltIn;
    let mut env = BTreeMap::new();
    if is_mix {
        let envs = &plan.prepare.recipe.envs;
        let started = envs.iter().find(|env| *env == "prod").or(envs.last());
        env.extend(started.map(|env| ("MIX_ENV".to_owned(), env.clone())));
        env.insert("LANG".into(), "C.UTF-8".into());
        if !environment(base).contains_key("MIX_HOME") {
            env.insert("MIX_HOME".into(), MIX_HOME.into());
        }
    }
    env.extend(settings.env.clone().unwrap_or_default());
    let mut labels = settings.labels.clone().unwrap_or_default();
    labels.insert(LABEL.into(), provenance.json());
    // Without `--no-compile`, Mix of Elixir up to 1.18 writes to the `_build` of an umbrella, and the user may not.
    let default_cmd = || ["mix", "run", "--no-compile", "--no-halt"].map(String::from).to_vec();
    let options = ImageOptions {
        created,
        entrypoint: settings.entrypoint.clone(),
        cmd: settings.cmd.clone().or_else(|| (is_mix && settings.entrypoint.is_none()).then(default_cmd)),
        env,
        working_dir: Some(plan.prepare.recipe.app.workdir()),
        user: Some(settings.user.clone().unwrap_or_else(|| NONROOT.into())),
        labels,
        annotations: provenance.annotations(),
    };
    assemble(base, &new, &options)
}

/// The record of how the image was made. Nothing in it depends on the machine or the time.
pub(super) fn provenance(base: &Image, plan: &BuildPlan, files: &CommitFiles<'_>, layers: &[BuiltLayer]) -> Provenance {
    let commit = &files.fetched.commit;
    let deps = layers.iter().find(|layer| layer.name == STEP);
    let PreparePlan { recipe, compression, network, .. } = &plan.prepare;
    let source = plan.image.source.clone().or_else(|| commit.origin.as_ref().and_then(Location::web_address));
    let name = match &plan.base {
        Reference::Registry(name) => Some(RegistryRef { digest: None, ..name.clone() }.to_string()),
        _ => None,
    };
    Provenance {
        format: FORMAT,
        commit: commit.sha.clone(),
        source,
        root: (!recipe.app.is_root()).then(|| recipe.app.path().to_owned()),
        base: name,
        base_digest: base.manifest_digest.clone(),
        envs: recipe.envs.clone(),
        compression: compression.as_str().to_owned(),
        network: network.as_str().to_owned(),
        settings: plan.digest(),
        script: recipe.script_digest(),
        lock: files.mix_lock.as_ref().map(|text| Digest::of(text.as_bytes())),
        deps_cache: deps.and_then(|deps| Some(entry_digest(&deps.key, deps.layer.as_ref()?))),
    }
}
