//! The image to where it should be.

use std::io::{self, Read};
use std::path::Path;

use phial_layers::Digest;

use super::base::{Base, Origin};
use super::{BuildError, World};
use crate::image::{Blobs, Descriptor, Image, RegistryRef, Target};
use crate::layout;
use crate::registry::{Outcome, Push, Pushed};

/// Brings an image over a base to its targets; a layer of the base is fetched only if a target lacks it.
pub(super) fn deliver(world: &World<'_>, base: &Base, image: &Image, targets: &[Target]) -> Result<(), BuildError> {
    let lowest = base.image.manifest.layers.len();
    let from = match &base.origin {
        Origin::Registry(repository) => Some((repository, lowest)),
        Origin::Layout(_) => None,
    };
    bring(world, image, targets, from, &|digest| match own(world, image, digest)? {
        Some(blob) => Ok(blob),
        None => base.blob(world, digest),
    })
}

/// Brings an image whose every layer is in the store to its targets.
pub(super) fn deliver_own(world: &World<'_>, image: &Image, targets: &[Target]) -> Result<(), BuildError> {
    bring(world, image, targets, None, &|digest| {
        own(world, image, digest)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    })
}

type Blob = Box<dyn Read + Send>;

pub(super) fn own(world: &World<'_>, image: &Image, digest: &Digest) -> io::Result<Option<Blob>> {
    let size = image.manifest.layers.iter().find(|layer| layer.digest == *digest).map_or(0, |layer| layer.size);
    let kept = world.store.blob(digest, size).map_err(io::Error::other)?;
    Ok(kept.map(|blob| Box::new(blob) as Blob))
}

fn bring(
    world: &World<'_>,
    image: &Image,
    targets: &[Target],
    base: Option<(&RegistryRef, usize)>,
    blobs: Blobs<'_>,
) -> Result<(), BuildError> {
    for target in targets {
        check(target, image)?;
    }
    let is_kept = |layer: &&Descriptor| world.store.has_blob(&layer.digest, layer.size);
    let kept: Vec<_> = image.manifest.layers.iter().filter(is_kept).collect();
    bring_each(world, image, targets, base, blobs).map_err(|error| {
        // A kept blob that turns out to be damaged is set aside while it is read.
        let lost = kept.into_iter().find(|layer| !is_kept(layer));
        lost.map_or(error, |layer| BuildError::Lost(layer.digest.clone()))
    })
}

fn bring_each(
    world: &World<'_>,
    image: &Image,
    targets: &[Target],
    base: Option<(&RegistryRef, usize)>,
    blobs: Blobs<'_>,
) -> Result<(), BuildError> {
    for target in targets {
        let name = format!("to {}", target.place());
        let start = world.began(&name);
        match target {
            Target::Layout { dir, tag, .. } => layout::write_layout(dir, image, tag.as_deref(), blobs, world.watch)?,
            Target::OciArchive { file, tag, .. } => {
                layout::write_oci_archive(file, image, tag.as_deref(), blobs, world.watch)?;
            }
            Target::DockerArchive { file, tag, .. } => {
                let name = tag.as_ref().map(|tag| format!("{}:{tag}", stem(file)));
                layout::write_docker_archive(file, image, name.as_deref(), blobs, world.watch)?;
            }
            Target::Registry(to) => {
                let tags: Vec<String> = to.tag.iter().cloned().collect();
                let pushed = world.client.push(to, &Push { image, blobs, base, tags: &tags }, world.watch)?;
                world.ended(&name, &told(&pushed), Some(start));
                continue;
            }
        }
        world.ended(&name, image.manifest_digest.as_str(), Some(start));
    }
    Ok(())
}

/// A target with a digest takes that image and no other.
fn check(target: &Target, image: &Image) -> Result<(), BuildError> {
    match target.digest() {
        Some(asked) if *asked != image.manifest_digest => Err(BuildError::Other {
            target: target.place(),
            asked: asked.clone(),
            found: image.manifest_digest.clone(),
        }),
        _ => Ok(()),
    }
}

fn told(pushed: &Outcome) -> String {
    if pushed.was_there {
        return "was there".into();
    }
    let count = |how| pushed.blobs.iter().filter(|(_, pushed)| *pushed == how).count();
    let (sent, mounted, existed) = (count(Pushed::Uploaded), count(Pushed::Mounted), count(Pushed::Existed));
    format!("{sent} blobs uploaded, {mounted} mounted, {existed} there before")
}

/// What an image in an archive is called: the file's name without its ending.
fn stem(file: &Path) -> String {
    file.file_stem().map_or_else(|| "app".into(), |stem| stem.to_string_lossy().to_lowercase())
}
