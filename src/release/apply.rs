//! Doing what was decided: copies, the excuse, then names.

use std::io;

use phial_layers::Digest;

use super::error::ReleaseError;
use super::inspect::Found;
use super::plan::{Name, Override, Plan};
use crate::attest::{ImageLocation, Untested, only};
use crate::context::Context;
use crate::error::Error;
use crate::event::Event;
use crate::image::{Artifact, BlobReader, Blobs, RegistryRef, fallback_tag};
use crate::layout::{self, Names, Put};
use crate::registry::{Push, RegistryError};

/// How deep referrers of referrers are copied: a signature of a list of parts of an image.
const MAX_DEPTH: usize = 3;

/// How the tags end that cosign 2 writes (sigstore/cosign, `specs/SIGNATURE_SPEC.md`).
const COSIGN: [&str; 3] = ["sig", "att", "sbom"];

/// Everything that stands beside the image, and where its blobs come from.
struct Referrers {
    artifacts: Vec<Artifact>,
    /// The record of the excuse, which no place has yet.
    excuse: Option<(Artifact, Vec<u8>)>,
}

/// Does it, the names last.
pub(super) fn act(plan: &Plan, found: &Found, context: &Context<'_>) -> Result<(), Error> {
    let mut artifacts = Vec::new();
    if !plan.copies.is_empty() {
        beside(found, &plan.digest, context, &mut artifacts, MAX_DEPTH)?;
    }
    let excuse = plan.excuse.as_ref().map(|excuse| recorded(excuse, plan, found, context));
    let beside = Referrers { artifacts, excuse };
    for name in places(plan) {
        let is_copy = plan.copies.contains(&name.place);
        if let ImageLocation::Registry(to) = &name.place {
            into_registry(to, is_copy, (found, &beside), context)?;
        }
    }
    for name in places(plan) {
        let names: Vec<&Name> = plan.names.iter().filter(|other| other.place == name.place).collect();
        match &name.place {
            ImageLocation::Registry(to) => {
                for name in names {
                    tag(to, name, found, context)?;
                }
            }
            ImageLocation::Layout(dir) => into_layout(dir, &names, (found, &beside), context)?,
            ImageLocation::Archive(_) => {}
        }
    }
    Ok(())
}

/// The first name of each place.
fn places(plan: &Plan) -> Vec<&Name> {
    let mut first: Vec<&Name> = Vec::new();
    for name in &plan.names {
        if !first.iter().any(|other| other.place == name.place) {
            first.push(name);
        }
    }
    first
}

/// What refers to the image where it is, and what refers to that.
fn beside(
    found: &Found,
    subject: &Digest,
    context: &Context<'_>,
    all: &mut Vec<Artifact>,
    depth: usize,
) -> Result<(), Error> {
    if depth == 0 {
        return Ok(());
    }
    for artifact in found.place.referrers(context.client, subject)? {
        if all.iter().any(|other| other.digest == artifact.digest) {
            continue;
        }
        let digest = artifact.digest.clone();
        all.push(artifact);
        beside(found, &digest, context, all, depth - 1)?;
    }
    Ok(())
}

fn recorded(excuse: &Override, plan: &Plan, found: &Found, context: &Context<'_>) -> (Artifact, Vec<u8>) {
    let record = Untested {
        reason: excuse.reason.clone(),
        doubts: excuse.doubts.clone(),
        names: plan.names.iter().map(Name::text).collect(),
        version: env!("CARGO_PKG_VERSION").into(),
        time: context.host.unix_time_millis(),
        url: context.host.run_url(),
    };
    record.record(found.image.descriptor())
}

/// The image by its digest, then what stands beside it.
fn into_registry(
    to: &RegistryRef,
    is_copy: bool,
    (found, beside): (&Found, &Referrers),
    context: &Context<'_>,
) -> Result<(), Error> {
    if is_copy {
        let step = format!("copy to {}", to.name());
        let start = context.step_started(&step);
        let blobs = |digest: &Digest| layer(found, context, digest);
        let base = match &found.place {
            ImageLocation::Registry(name) => Some((name, found.image.manifest.layers.len())),
            _ => None,
        };
        context.client.push(to, &Push { image: &found.image, blobs: &blobs, base, tags: &[] }, context.watch)?;
        let mount: Vec<&str> = match &found.place {
            ImageLocation::Registry(name) if name.host == to.host => vec![name.repository.as_str()],
            _ => vec![],
        };
        for artifact in &beside.artifacts {
            let blobs = |digest: &Digest| document(found, artifact, context, digest);
            context.client.refer(to, artifact, &blobs, &mount)?;
        }
        let tagged = tagged(to, &mount, found, context)?;
        let count = beside.artifacts.len() + tagged;
        let note = format!("{} and {count} that refer to it", found.image.manifest_digest);
        context.step_finished(&step, &note, Some(start));
    }
    if let Some((artifact, document)) = &beside.excuse {
        context.client.refer(to, artifact, &only(document), &[])?;
        (context.watch)(Event::Notice {
            text: format!("the reason is recorded in `{}@{}`", to.name(), artifact.digest),
        });
    }
    Ok(())
}

/// What cosign keeps under tags of its own instead of referrers. One that is there stays.
fn tagged(to: &RegistryRef, mount: &[&str], found: &Found, context: &Context<'_>) -> Result<usize, Error> {
    let ImageLocation::Registry(from) = &found.place else { return Ok(0) };
    let mut count = 0;
    for ending in COSIGN {
        let tag = format!("{}.{ending}", fallback_tag(&found.image.manifest_digest));
        let named = |at: &RegistryRef| RegistryRef { tag: Some(tag.clone()), ..at.clone() };
        let kept = match context.client.resolve(&named(from)) {
            Err(RegistryError::NotFound { .. }) => continue,
            kept => kept?,
        };
        let Some(artifact) = Artifact::read(&kept.digest, kept.bytes, Some(&kept.media_type))? else { continue };
        match context.client.head_manifest(&named(to))? {
            Some(there) if there == artifact.digest => {}
            Some(_) => {
                let text = format!("`{}` keeps what it has, which is not what `{from}` has", named(to));
                (context.watch)(Event::Notice { text });
            }
            None => {
                let blobs = |digest: &Digest| document(found, &artifact, context, digest);
                context.client.put_tagged(to, &tag, (&artifact, &blobs), mount)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// One name: looked at once more, given, and looked at again.
fn tag(to: &RegistryRef, name: &Name, found: &Found, context: &Context<'_>) -> Result<(), Error> {
    let Some(tag) = &name.tag else { return Ok(()) };
    let digest = &found.image.manifest_digest;
    let now = context.client.head_manifest(&RegistryRef { tag: Some(tag.clone()), ..to.clone() })?;
    if now.as_ref() == Some(digest) {
        return Ok(());
    }
    if now != name.was {
        return Err(ReleaseError::Raced { name: name.text(), found: now }.into());
    }
    let put = context.client.tag(to, tag, &found.image.manifest_bytes, found.image.manifest.media_type());
    put.map_err(|error| match error {
        RegistryError::Immutable { found, .. } => ReleaseError::Immutable { name: name.text(), found }.into(),
        other => other.into(),
    })
}

/// All of it at once: a layout's index is written last, and whole.
fn into_layout(
    dir: &std::path::Path,
    names: &[&Name],
    (found, beside): (&Found, &Referrers),
    context: &Context<'_>,
) -> Result<(), Error> {
    let digest = &found.image.manifest_digest;
    let tags: Vec<String> = names.iter().filter_map(|name| name.tag.clone()).collect();
    let was = |tag: &str| names.iter().find(|name| name.tag.as_deref() == Some(tag)).and_then(|name| name.was.clone());
    let blobs = |of: &Digest| layer(found, context, of);
    let mut artifacts = beside.artifacts.clone();
    artifacts.extend(beside.excuse.iter().map(|(artifact, _)| artifact.clone()));
    let documents = |of: &Digest| -> Result<Option<BlobReader>, Error> {
        if let Some((_, own)) = beside.excuse.as_ref().filter(|(_, own)| Digest::of(own) == *of) {
            return Ok(Some(Box::new(io::Cursor::new(own.clone()))));
        }
        let holder = artifacts.iter().find(|artifact| artifact.blobs().iter().any(|blob| blob.digest == *of));
        holder.map_or(Ok(None), |artifact| document(found, artifact, context, of))
    };
    let check = |tag: &str, now: Option<&Digest>| now == Some(digest) || now == was(tag).as_ref();
    let put = Put {
        image: Some((&found.image, &blobs as Blobs<'_>)),
        names: Names::Tags(&tags),
        referrers: Some((&artifacts, &documents)),
        check: &check,
    };
    Ok(layout::put_into(dir, &put, context.watch).map_err(ReleaseError::from)?)
}

/// A layer of the image: the kept one, or from where the image is.
fn layer(found: &Found, context: &Context<'_>, digest: &Digest) -> Result<Option<BlobReader>, Error> {
    let Some(layer) = found.image.manifest.layers.iter().find(|layer| layer.digest == *digest) else { return Ok(None) };
    match context.store.blob(digest, layer.size)? {
        Some(kept) => Ok(Some(Box::new(kept))),
        None => Ok(Some(found.place.blob(context.client, layer)?)),
    }
}

fn document(
    found: &Found,
    artifact: &Artifact,
    context: &Context<'_>,
    digest: &Digest,
) -> Result<Option<BlobReader>, Error> {
    let blob = artifact.blobs().into_iter().find(|blob| blob.digest == *digest);
    Ok(blob.map(|blob| found.place.blob(context.client, blob)).transpose()?)
}
