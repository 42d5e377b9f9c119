//! Lists and prunes the entries of a deps cache in a registry, for `phial cache --in`.

use std::collections::{BTreeMap, BTreeSet};

use phial_layers::Digest;

use super::entry::{self, STEP};
use super::fallback;
use crate::context::Context;
use crate::error::Error;
use crate::image::{Platform, RegistryRef};
use crate::registry::RegistryError;
use crate::store::{PruneOptions, PruneReport};

/// An entry of the deps cache in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// The tag that is made from its key.
    pub tag: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// The key's hex digest.
    pub key: String,
    /// The inputs of the key; variables have the digest of their value. Empty if the entry does not list them.
    pub inputs: BTreeMap<String, String>,
    /// Digest of the layer's blob, which images may share.
    pub layer: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// The Hex packages in which compiling changed no file.
    pub untouched: BTreeSet<String>,
    /// When it was made, in seconds since 1970.
    pub made: i64,
}

/// All entries in a repository, the oldest first.
pub fn entries(at: &RegistryRef, context: &Context<'_>) -> Result<Vec<CacheEntry>, Error> {
    let mut entries = Vec::new();
    let tags = context.client.tags(at)?.into_iter().filter(|tag| tag.starts_with(&format!("{STEP}-")));
    for tag in tags.filter(|tag| !fallback::is_fallback_tag(tag)) {
        let named = RegistryRef { tag: Some(tag.clone()), ..at.repository_only() };
        let image = match context.client.image(&named, &Platform::host()) {
            // Not an image, or deleted since the tags were listed.
            Err(RegistryError::NotFound { .. } | RegistryError::Image { .. }) => continue,
            image => image?,
        };
        let (Some(described), [layer]) = (entry::describe(&image), &image.manifest.layers[..]) else { continue };
        let inputs = described.key.map(|key| key.inputs).unwrap_or_default();
        let (layer, size) = (layer.digest.clone(), layer.size);
        let (made, untouched) = (described.annotations.made, described.annotations.untouched);
        entries.push(CacheEntry {
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
    entries.sort_by(|a, b| (a.made, &a.tag).cmp(&(b.made, &b.tag)));
    Ok(entries)
}

/// Removes the oldest entries until `prune` is fulfilled. A registry does not know when an entry was last used, so the time at
/// which it was made counts.
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
