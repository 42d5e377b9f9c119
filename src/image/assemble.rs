//! New layers on a base: one pure function from values to an image.

use std::collections::BTreeMap;

use super::config::{Config, History};
use super::layer::PackedLayer;
use super::manifest::{Descriptor, Image, Manifest};
use super::media::{OCI_MANIFEST, layer_compression, layer_media_type};
use super::time::rfc3339;

/// A layer to add on top of a base image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLayer {
    /// The layer.
    pub layer: PackedLayer,
    /// `created_by` of its history entry.
    pub created_by: String,
}

/// What the new image says of itself. Changes bytes, so nothing has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    /// Seconds since 1970, for the config and each new history entry.
    pub created: i64,
    /// Replaces the base's. As in a Dockerfile, a new entry point without `cmd` clears the base's `Cmd`.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the base's.
    pub cmd: Option<Vec<String>>,
    /// Added to the base's, by name.
    pub env: BTreeMap<String, String>,
    /// Replaces the base's.
    pub working_dir: Option<String>,
    /// Replaces the base's.
    pub user: Option<String>,
    /// Added to the base's, by name.
    pub labels: BTreeMap<String, String>,
    /// Of the manifest. The base's are about the base and are not carried on.
    pub annotations: BTreeMap<String, String>,
}

/// The image of `layers` over `base`. Always an OCI manifest: a Docker base keeps its blobs and gets OCI's names for them.
pub fn assemble(base: &Image, layers: &[NewLayer], terms: &ImageOptions) -> Image {
    let created = rfc3339(terms.created);
    let mut config = base.config.clone();
    config.created = Some(created.clone());
    config.author = None;
    fill_history(&mut config, base.manifest.layers.len());
    run_as(&mut config, terms);
    let mut descriptors: Vec<Descriptor> = base.manifest.layers.iter().map(translated).collect();
    for NewLayer { layer, created_by } in layers {
        descriptors.push(layer.descriptor());
        config.rootfs.diff_ids.push(layer.diff_id.clone());
        let created_by = Some(created_by.clone());
        config.history.push(History { created: Some(created.clone()), created_by, ..History::default() });
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.into()),
        artifact_type: None,
        config: base.manifest.config.clone(), // replaced by `write`
        layers: descriptors,
        subject: None,
        annotations: terms.annotations.clone(),
    };
    Image::write(config, manifest)
}

/// Readers count history against layers. Where a base has too few entries, nameless ones are put below.
fn fill_history(config: &mut Config, layers: usize) {
    let named = config.history.iter().filter(|entry| !entry.empty_layer).count();
    let missing = layers.saturating_sub(named);
    config.history.splice(0..0, std::iter::repeat_n(History::default(), missing));
}

fn run_as(config: &mut Config, terms: &ImageOptions) {
    let run = &mut config.config;
    if let Some(entrypoint) = &terms.entrypoint {
        run.entrypoint.clone_from(entrypoint);
        run.cmd.clear();
    }
    if let Some(cmd) = &terms.cmd {
        run.cmd.clone_from(cmd);
    }
    for (name, value) in &terms.env {
        run.set_env(name, value);
    }
    if let Some(dir) = &terms.working_dir {
        run.working_dir.clone_from(dir);
    }
    if let Some(user) = &terms.user {
        run.user.clone_from(user);
    }
    run.labels.extend(terms.labels.clone());
}

fn translated(layer: &Descriptor) -> Descriptor {
    let mut layer = layer.clone();
    if let Ok(compression) = layer_compression(&layer.media_type) {
        layer.media_type = layer_media_type(compression).into();
    }
    layer.urls.clear();
    layer
}
