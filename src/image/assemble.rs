//! Puts new layers on a base image: one pure function.

use std::collections::BTreeMap;

use super::config::{Config, History};
use super::layer::PackedLayer;
use super::manifest::{Descriptor, Image};
use super::media::{layer_compression, layer_media_type};
use super::time::rfc3339;

/// A layer to add on top of a base image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLayer {
    /// The layer.
    pub layer: PackedLayer,
    /// `created_by` of its history entry.
    pub created_by: String,
}

/// Config and annotations of the new image. They change its digest, so nothing has a default.
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
    /// Annotations of the manifest. The base's describe the base and are left out.
    pub annotations: BTreeMap<String, String>,
}

/// The image of `layers` over `base`. Its manifest is always OCI's: blobs of a Docker base get OCI's media types.
pub fn assemble(base: &Image, layers: &[NewLayer], options: &ImageOptions) -> Image {
    let created = rfc3339(options.created);
    let mut config = base.config.clone();
    config.created = Some(created.clone());
    config.author = None;
    fill_history(&mut config, base.manifest.layers.len());
    set_execution(&mut config, options);
    let mut descriptors: Vec<Descriptor> = base.manifest.layers.iter().map(translated).collect();
    for NewLayer { layer, created_by } in layers {
        descriptors.push(layer.descriptor());
        config.rootfs.diff_ids.push(layer.diff_id.clone());
        let created_by = Some(created_by.clone());
        config.history.push(History { created: Some(created.clone()), created_by, ..History::default() });
    }
    Image::write(config, descriptors, None, options.annotations.clone())
}

/// Readers match history entries with layers. If a base has too few entries, empty ones are added at the bottom.
fn fill_history(config: &mut Config, layers: usize) {
    let named = config.history.iter().filter(|entry| !entry.empty_layer).count();
    let missing = layers.saturating_sub(named);
    config.history.splice(0..0, std::iter::repeat_n(History::default(), missing));
}

fn set_execution(config: &mut Config, options: &ImageOptions) {
    let run = &mut config.config;
    if let Some(entrypoint) = &options.entrypoint {
        run.entrypoint.clone_from(entrypoint);
        run.cmd.clear();
    }
    if let Some(cmd) = &options.cmd {
        run.cmd.clone_from(cmd);
    }
    for (name, value) in &options.env {
        run.set_env(name, value);
    }
    if let Some(dir) = &options.working_dir {
        run.working_dir.clone_from(dir);
    }
    if let Some(user) = &options.user {
        run.user.clone_from(user);
    }
    run.labels.extend(options.labels.clone());
}

/// The descriptor of a layer with OCI's media type.
fn translated(layer: &Descriptor) -> Descriptor {
    let mut layer = layer.clone();
    if let Ok(compression) = layer_compression(&layer.media_type) {
        layer.media_type = layer_media_type(compression).into();
    }
    layer.urls.clear();
    layer
}
