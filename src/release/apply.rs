//! Applies a release plan: copies the image and its referrers, records the reason of `--untested`, then writes the tags.

use std::io;
use std::path::Path;

use phial_layers::Digest;

use super::error::ReleaseError;
use super::inspect::SourceImage;
use super::plan::{Override, ReleaseName, ReleasePlan};
use crate::attest::{ImageLocation, UntestedRecord, single_blob};
use crate::context::Context;
use crate::error::Error;
use crate::image::{Artifact, BlobReader, Blobs, RegistryRef, fallback_tag};
use crate::layout::{self, Names, Put};
use crate::registry::{ArtifactPush, BaseLayers, Push, RegistryError};

/// How deep referrers of referrers are copied: enough for a signature of an SBOM of an image.
const MAX_DEPTH: usize = 3;

/// Suffixes of the tags under which cosign 2 keeps signatures and attestations (sigstore/cosign,
/// `specs/SIGNATURE_SPEC.md`).
const COSIGN_SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// A release that is being applied.
struct Apply<'a> {
    source: &'a SourceImage,
    /// The referrers that copies of the image get.
    referrers: Vec<Artifact>,
    /// The record of `--untested` with its document, which every destination gets.
    untested: Option<(Artifact, Vec<u8>)>,
    context: &'a Context<'a>,
}

/// Applies the plan. Every copy is complete before the first tag is written.
pub(super) fn apply(plan: &ReleasePlan, source: &SourceImage, context: &Context<'_>) -> Result<(), Error> {
    let mut referrers = Vec::new();
    if !plan.copies.is_empty() {
        collect_referrers(source, &plan.digest, context, &mut referrers, MAX_DEPTH)?;
    }
    let untested = plan.untested.as_ref().map(|reason| untested_record(reason, plan, source, context));
    let apply = Apply { source, referrers, untested, context };
    let locations = locations(plan);
    for location in &locations {
        if let ImageLocation::Registry(to) = location {
            if plan.copies.contains(location) {
                apply.copy_to_registry(to)?;
            }
            apply.record_untested(to)?;
        }
    }
    for location in locations {
        let names: Vec<&ReleaseName> = plan.names.iter().filter(|name| name.location == *location).collect();
        match location {
            ImageLocation::Registry(to) => names.into_iter().try_for_each(|name| apply.tag(to, name))?,
            ImageLocation::Layout(dir) => apply.write_layout(dir, &names)?,
            ImageLocation::Archive(_) => {}
        }
    }
    Ok(())
}

/// The locations of a plan's names, each once and in order.
fn locations(plan: &ReleasePlan) -> Vec<&ImageLocation> {
    let mut locations: Vec<&ImageLocation> = Vec::new();
    for name in &plan.names {
        if !locations.contains(&&name.location) {
            locations.push(&name.location);
        }
    }
    locations
}

/// Adds the referrers of `subject`, and theirs to this depth.
fn collect_referrers(
    source: &SourceImage,
    subject: &Digest,
    context: &Context<'_>,
    all: &mut Vec<Artifact>,
    depth: usize,
) -> Result<(), Error> {
    if depth == 0 {
        return Ok(());
    }
    for artifact in source.location.referrers(context.client, subject)? {
        if all.iter().any(|other| other.digest == artifact.digest) {
            continue;
        }
        let digest = artifact.digest.clone();
        all.push(artifact);
        collect_referrers(source, &digest, context, all, depth - 1)?;
    }
    Ok(())
}

fn untested_record(
    reason: &Override,
    plan: &ReleasePlan,
    source: &SourceImage,
    context: &Context<'_>,
) -> (Artifact, Vec<u8>) {
    let record = UntestedRecord {
        reason: reason.reason.clone(),
        doubts: reason.problems.clone(),
        names: plan.names.iter().map(ToString::to_string).collect(),
        version: env!("CARGO_PKG_VERSION").into(),
        time: context.host.unix_time_millis(),
        url: context.host.run_url(),
    };
    record.record(source.image.descriptor())
}

impl Apply<'_> {
    /// Copies the image by its digest, then its referrers.
    fn copy_to_registry(&self, to: &RegistryRef) -> Result<(), Error> {
        let (image, client) = (&self.source.image, self.context.client);
        let step = format!("copy to {}", to.name());
        let start = self.context.step_started(&step);
        let from = if let ImageLocation::Registry(from) = &self.source.location { Some(from) } else { None };
        let blobs = |digest: &Digest| self.layer(digest);
        let base = from.map(|repository| BaseLayers { repository, count: image.manifest.layers.len() });
        client.push(to, &Push { image, blobs: &blobs, base, tags: &[] }, self.context.watch)?;
        let same_registry = from.filter(|from| from.host == to.host);
        let mount: Vec<&str> = same_registry.iter().map(|from| from.repository.as_str()).collect();
        for artifact in &self.referrers {
            let blobs = |digest: &Digest| self.blob_of(artifact, digest);
            client.put_referrer(to, ArtifactPush { artifact, blobs: &blobs, mount: &mount })?;
        }
        let cosign = self.copy_cosign_tags(to, &mount)?;
        let note = format!("{} and {} referrers", image.manifest_digest, self.referrers.len() + cosign);
        self.context.step_finished(&step, &note, Some(start));
        Ok(())
    }

    /// Copies what cosign keeps under tags in place of referrers, and counts it. A tag that exists is not changed.
    fn copy_cosign_tags(&self, to: &RegistryRef, mount: &[&str]) -> Result<usize, Error> {
        let ImageLocation::Registry(from) = &self.source.location else { return Ok(0) };
        let client = self.context.client;
        let mut count = 0;
        for suffix in COSIGN_SUFFIXES {
            let tag = format!("{}.{suffix}", fallback_tag(&self.source.image.manifest_digest));
            let named = |repository: &RegistryRef| RegistryRef { tag: Some(tag.clone()), ..repository.clone() };
            let manifest = match client.resolve(&named(from)) {
                Err(RegistryError::NotFound { .. }) => continue,
                manifest => manifest?,
            };
            let artifact = Artifact::read(&manifest.digest, manifest.bytes, Some(&manifest.media_type))?;
            let Some(artifact) = artifact else { continue };
            match client.head_manifest(&named(to))? {
                Some(existing) if existing == artifact.digest => {}
                Some(_) => {
                    let to = named(to);
                    self.context.notice(format!("`{to}` keeps what it has, which differs from what `{from}` has"));
                }
                None => {
                    let blobs = |digest: &Digest| self.blob_of(&artifact, digest);
                    client.put_tagged(to, &tag, ArtifactPush { artifact: &artifact, blobs: &blobs, mount })?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    fn record_untested(&self, to: &RegistryRef) -> Result<(), Error> {
        let Some((artifact, document)) = &self.untested else { return Ok(()) };
        let blobs = single_blob(document);
        self.context.client.put_referrer(to, ArtifactPush { artifact, blobs: &blobs, mount: &[] })?;
        self.context.notice(format!("the reason is recorded in `{}@{}`", to.name(), artifact.digest));
        Ok(())
    }

    /// Writes a tag, unless it has changed since it was inspected.
    fn tag(&self, to: &RegistryRef, name: &ReleaseName) -> Result<(), Error> {
        let Some(tag) = &name.tag else { return Ok(()) };
        let (image, client) = (&self.source.image, self.context.client);
        let current = client.head_manifest(&RegistryRef { tag: Some(tag.clone()), ..to.clone() })?;
        if current.as_ref() == Some(&image.manifest_digest) {
            return Ok(());
        }
        if current != name.previous {
            return Err(ReleaseError::Raced { name: name.to_string(), found: current }.into());
        }
        let put = client.tag(to, tag, &image.manifest_bytes, image.manifest.media_type());
        put.map_err(|error| match error {
            RegistryError::Immutable { found, .. } => ReleaseError::Immutable { name: name.to_string(), found }.into(),
            other => other.into(),
        })
    }

    /// Writes image, referrers and tags at once: the index of a layout is replaced as a whole, after its blobs.
    fn write_layout(&self, dir: &Path, names: &[&ReleaseName]) -> Result<(), Error> {
        let image = &self.source.image;
        let tags: Vec<String> = names.iter().filter_map(|name| name.tag.clone()).collect();
        let previous = |tag: &str| names.iter().find(|name| name.tag.as_deref() == Some(tag))?.previous.as_ref();
        let layers = |digest: &Digest| self.layer(digest);
        let mut artifacts = self.referrers.clone();
        artifacts.extend(self.untested.iter().map(|(artifact, _)| artifact.clone()));
        let documents = |digest: &Digest| -> Result<Option<BlobReader>, Error> {
            if let Some((_, document)) = self.untested.as_ref().filter(|(_, document)| Digest::of(document) == *digest)
            {
                return Ok(Some(Box::new(io::Cursor::new(document.clone()))));
            }
            let holder = artifacts.iter().find(|artifact| artifact.blobs().iter().any(|blob| blob.digest == *digest));
            holder.map_or(Ok(None), |artifact| self.blob_of(artifact, digest))
        };
        let may_write =
            |tag: &str, current: Option<&Digest>| current == Some(&image.manifest_digest) || current == previous(tag);
        let put = Put {
            image: Some((image, &layers as Blobs<'_>)),
            names: Names::Tags(&tags),
            referrers: Some((&artifacts, &documents)),
            check: &may_write,
        };
        Ok(layout::put_into(dir, &put, self.context.watch).map_err(ReleaseError::from)?)
    }

    /// A layer of the image: from the store, or from where the image is.
    fn layer(&self, digest: &Digest) -> Result<Option<BlobReader>, Error> {
        let mut layers = self.source.image.manifest.layers.iter();
        let Some(layer) = layers.find(|layer| layer.digest == *digest) else { return Ok(None) };
        match self.context.store.blob(digest, layer.size)? {
            Some(stored) => Ok(Some(Box::new(stored))),
            None => Ok(Some(self.source.location.blob(self.context.client, layer)?)),
        }
    }

    /// A blob of a referrer.
    fn blob_of(&self, artifact: &Artifact, digest: &Digest) -> Result<Option<BlobReader>, Error> {
        let blob = artifact.blobs().into_iter().find(|blob| blob.digest == *digest);
        Ok(blob.map(|blob| self.source.location.blob(self.context.client, blob)).transpose()?)
    }
}
