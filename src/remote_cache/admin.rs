//! The entries of a deps cache in a registry, looked at from outside of a build.

use std::collections::{BTreeMap, BTreeSet};

use phial_layers::Digest;

use super::{STEP, entry, fallback};
use crate::context::Context;
use crate::error::Error;
use crate::image::{Platform, RegistryRef};
use crate::registry::RegistryError;
use crate::store::{PruneOptions, PruneReport};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its tag.
    pub tag: String,
    /// Its manifest.
    pub digest: Digest,
    /// The hex name of its key.
    pub key: String,
    /// The inputs of its key, of variables a digest of the value; empty if it does not tell.
    pub inputs: BTreeMap<String, String>,
    /// Its layer; images may share it.
    pub layer: Digest,
    /// Bytes of that.
    pub size: u64,
    /// The packages of Hex in which compiling changed nothing.
    pub untouched: BTreeSet<String>,
    /// When it was made, in seconds since 1970.
    pub made: i64,
}

/// All entries in a repository, the oldest first.
pub fn entries(at: &RegistryRef, context: &Context<'_>) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    let tags = context.client.tags(at)?.into_iter().filter(|tag| tag.starts_with(&format!("{STEP}-")));
    // One that moves names what has a tag of its own, too.
    for tag in tags.filter(|tag| !fallback::moves(tag)) {
        let named = RegistryRef { tag: Some(tag.clone()), ..at.repository_only() };
        let image = match context.client.image(&named, &Platform::host()) {
            // Somebody else's, or gone meanwhile.
            Err(RegistryError::NotFound { .. } | RegistryError::Image { .. }) => continue,
            image => image?,
        };
        let (Some(described), [layer]) = (entry::describe(&image), &image.manifest.layers[..]) else { continue };
        let inputs = described.key.map(|key| key.inputs).unwrap_or_default();
        let (layer, size) = (layer.digest.clone(), layer.size);
        let (made, untouched) = (described.notes.made, described.notes.untouched);
        found.push(Entry {
            tag,
            digest: image.manifest_digest,
            key: described.name,
            inputs,
            layer,
            size,
            untouched,
            made,
        });
    }
    found.sort_by(|a, b| (a.made, &a.tag).cmp(&(b.made, &b.tag)));
    Ok(found)
}

/// Removes the entries that were made longest ago, as `prune` says: a registry does not tell when one was used.
pub fn prune_entries(at: &RegistryRef, prune: PruneOptions, context: &Context<'_>) -> Result<PruneReport, Error> {
    let entries = entries(at, context)?;
    let mut pruned =
        PruneReport { remaining_bytes: entries.iter().map(|entry| entry.size).sum(), ..PruneReport::default() };
    for entry in entries {
        let is_old = prune.unused_since.is_some_and(|since| entry.made < since);
        let is_much = prune.limit.is_some_and(|limit| pruned.remaining_bytes > limit);
        if is_old || is_much {
            context.client.delete(at, &entry.digest)?;
            pruned.removed += 1;
            pruned.removed_bytes += entry.size;
            pruned.remaining_bytes -= entry.size;
        }
    }
    Ok(pruned)
}
