//! Writes an image to its targets: layouts, archives and repositories.

use std::path::Path;

use phial_layers::Digest;

use crate::context::Context;
use crate::error::{Error, ExitKind, UserError};
use crate::image::{BlobReader, Blobs, Descriptor, Image, Target};
use crate::layout::{self, ArchiveKind};
use crate::registry::{BaseLayers, Push, PushOutcome, Pushed};
use crate::runtime::{Origin, ResolvedImage};
use crate::store::StoreError;
use crate::tree::OutputPath;

/// A target names a digest, and the image has another one.
#[derive(Debug, thiserror::Error)]
#[error("`{target}` requires `{required}`, built `{built}`")]
pub struct PublishError {
    /// The target, as the user wrote it.
    pub target: String,
    /// The digest it names.
    pub required: Digest,
    /// The image's digest.
    pub built: Digest,
}

impl UserError for PublishError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Refused
    }
}

/// Writes an image to its targets. A layer of the base image is fetched only if a target lacks it.
pub(crate) fn publish(
    context: &Context<'_>,
    base: &ResolvedImage,
    image: &Image,
    targets: &[Target],
) -> Result<(), Error> {
    let base_layers = match &base.origin {
        Origin::Registry(repository) => Some(BaseLayers { repository, count: base.image.manifest.layers.len() }),
        Origin::Layout(_) => None,
    };
    write(context, image, targets, base_layers, &|digest| match stored_blob(context, image, digest)? {
        Some(blob) => Ok(Some(blob)),
        None => base.blob(context, digest),
    })
}

/// Writes an image to its targets. The store must have all its layers.
pub(crate) fn publish_stored(context: &Context<'_>, image: &Image, targets: &[Target]) -> Result<(), Error> {
    write(context, image, targets, None, &|digest| stored_blob(context, image, digest))
}

/// Checks, before anything is built, that what is at the targets on this machine may be replaced, that they can be written, and that no
/// link of a checkout leads to them.
pub(crate) fn check_targets(targets: &[Target], context: &Context<'_>) -> Result<(), Error> {
    let output = |path: &Path| OutputPath::new(path, &context.host.cwd);
    for target in targets {
        match target {
            Target::Layout { dir, .. } => {
                output(dir).check_links()?;
                layout::check_layout_target(dir)?;
            }
            Target::OciArchive { file, .. } => {
                output(file).check_links_above()?;
                layout::check_archive_target(file, ArchiveKind::Oci)?;
            }
            Target::DockerArchive { file, .. } => {
                output(file).check_links_above()?;
                layout::check_archive_target(file, ArchiveKind::Docker)?;
            }
            Target::Registry(_) => {}
        }
    }
    Ok(())
}

/// The blob of a layer, if the store has it.
pub(crate) fn stored_blob(context: &Context<'_>, image: &Image, digest: &Digest) -> Result<Option<BlobReader>, Error> {
    let size = image.manifest.layers.iter().find(|layer| layer.digest == *digest).map_or(0, |layer| layer.size);
    let stored = context.store.blob(digest, size)?;
    Ok(stored.map(|blob| Box::new(blob) as BlobReader))
}

/// Writes an image to its targets, after all targets are checked.
fn write(
    context: &Context<'_>,
    image: &Image,
    targets: &[Target],
    base: Option<BaseLayers<'_>>,
    blobs: Blobs<'_>,
) -> Result<(), Error> {
    for target in targets {
        check(target, image)?;
    }
    let is_stored = |layer: &&Descriptor| context.store.has_blob(&layer.digest, layer.size);
    let stored: Vec<_> = image.manifest.layers.iter().filter(is_stored).collect();
    let written = targets.iter().try_for_each(|target| write_to(context, image, target, base, blobs));
    written.map_err(|error| {
        // The store moves a damaged blob away while it is read, and the writer's error does not name it.
        let lost = stored.into_iter().find(|layer| !is_stored(layer));
        lost.map_or(error, |layer| StoreError::LayerLost(layer.digest.clone()).into())
    })
}

fn write_to(
    context: &Context<'_>,
    image: &Image,
    target: &Target,
    base: Option<BaseLayers<'_>>,
    blobs: Blobs<'_>,
) -> Result<(), Error> {
    let name = format!("to {}", target.without_digest());
    let start = context.step_started(&name);
    let done = match target {
        Target::Layout { dir, tag, .. } => {
            layout::write_layout(dir, image, tag.as_deref(), blobs, context.watch)?;
            image.manifest_digest.to_string()
        }
        Target::OciArchive { file, tag, .. } => {
            layout::write_oci_archive(file, image, tag.as_deref(), blobs, context.watch)?;
            image.manifest_digest.to_string()
        }
        Target::DockerArchive { file, tag, .. } => {
            let name = tag.as_ref().map(|tag| format!("{}:{tag}", stem(file)));
            layout::write_docker_archive(file, image, name.as_deref(), blobs, context.watch)?;
            image.manifest_digest.to_string()
        }
        Target::Registry(to) => {
            let tags: Vec<String> = to.tag.iter().cloned().collect();
            summary(&context.client.push(to, &Push { image, blobs, base, tags: &tags }, context.watch)?)
        }
    };
    context.step_finished(&name, &done, Some(start));
    Ok(())
}

/// Checks the digest that a target names.
fn check(target: &Target, image: &Image) -> Result<(), PublishError> {
    match target.digest() {
        Some(required) if *required != image.manifest_digest => Err(PublishError {
            target: target.without_digest(),
            required: required.clone(),
            built: image.manifest_digest.clone(),
        }),
        _ => Ok(()),
    }
}

fn summary(pushed: &PushOutcome) -> String {
    if pushed.existed {
        return "already there".into();
    }
    let count = |how| pushed.blobs.iter().filter(|(_, pushed)| *pushed == how).count();
    let (sent, mounted, existed) = (count(Pushed::Uploaded), count(Pushed::Mounted), count(Pushed::Existed));
    format!("{sent} blobs uploaded, {mounted} mounted, {existed} already there")
}

/// The repository name of an image in a Docker archive: the file's name without its extension.
fn stem(file: &Path) -> String {
    file.file_stem().map_or_else(|| "app".into(), |stem| stem.to_string_lossy().to_lowercase())
}
