//! The previous deps layer, for a key that has no entry: the last one whose key differs from it in the app's lock file alone.
//!
//! On this machine it is a result in the store. In a registry it is a fallback tag: first that of the branch, then that of all
//! branches. A build that writes puts its entry under both. Tags are requested by name, never listed. `build::hex_reuse` uses
//! the layer.

use std::collections::BTreeSet;

use phial_layers::Digest;
use serde::{Deserialize, Serialize};

use super::cache::RemoteCache;
use super::entry::{self, STEP};
use crate::image::{PackedLayer, Platform, RegistryRef};
use crate::registry::RegistryError;
use crate::store::{CacheKey, Lookup, StoreError};

/// The part of a fallback tag that tells it from an entry's tag: `deps-ARCH-near-INPUTS[-BRANCH]`. It is in the tags
/// that earlier versions wrote to registries; another one would make them unknown.
const FALLBACK: &str = "near";
/// Longest branch name in a tag, in characters. A tag has 128 characters at most (distribution-spec, "Pulling manifests").
const MAX_BRANCH: usize = 60;

/// A deps layer, and the Hex packages in it in which compiling changed no file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PreviousDeps {
    pub(crate) layer: PackedLayer,
    pub(crate) untouched: BTreeSet<String>,
}

impl RemoteCache<'_> {
    /// The previous deps layer and a description of its origin: this machine's, else the registry's.
    pub(crate) fn previous_deps(&self, key: &CacheKey) -> Option<(PreviousDeps, String)> {
        if let Ok(Lookup::Hit(previous)) = self.context.store.result::<PreviousDeps>(&self.local_key(key))
            && self.context.store.has_blob(&previous.layer.digest, previous.layer.size)
        {
            return Some((previous, "the last deps layer on this machine".into()));
        }
        let at = self.repository()?;
        self.fallback_tags(at, key).into_iter().find_map(|named| {
            let image = self.image(&named, &format!("`{named}`"))?;
            let (layer, untouched) = entry::read_any(&image)?;
            self.add_remote_blob(&layer);
            Some((PreviousDeps { layer, untouched }, format!("`{named}`")))
        })
    }

    /// Makes a layer the previous one of later builds on this machine.
    pub(crate) fn remember(
        &self,
        key: &CacheKey,
        layer: &PackedLayer,
        untouched: BTreeSet<String>,
    ) -> Result<(), StoreError> {
        self.context.store.vacant(&self.local_key(key)).keep(&PreviousDeps { layer: layer.clone(), untouched })
    }

    /// The Hex packages in which compiling changed no file, of a layer that was made on this machine.
    pub(super) fn untouched(&self, key: &CacheKey, layer: &PackedLayer) -> BTreeSet<String> {
        match self.context.store.result::<PreviousDeps>(&self.local_key(key)) {
            Ok(Lookup::Hit(previous)) if previous.layer == *layer => previous.untouched,
            _ => BTreeSet::new(),
        }
    }

    /// Lets the fallback tags name an entry; those that name it already are not written. Layers of a script of the repository
    /// have no fallback tags, since only that script knows which of their files could be reused.
    pub(super) fn move_fallback_tags(
        &self,
        at: &RegistryRef,
        key: &CacheKey,
        entry: &RegistryRef,
    ) -> Result<(), RegistryError> {
        if !key.inputs.get("script").is_some_and(|script| script.starts_with("built-in ")) {
            return Ok(());
        }
        let mut resolved = None;
        let digest = self.context.client.head_manifest(entry)?;
        for named in self.fallback_tags(at, key) {
            if digest.is_some() && self.context.client.head_manifest(&named)? == digest {
                continue;
            }
            if resolved.is_none() {
                resolved = Some(self.context.client.resolve(entry)?);
            }
            let Some((entry, tag)) = resolved.as_ref().zip(named.tag.as_ref()) else { continue };
            self.context.client.tag(at, tag, &entry.bytes, &entry.media_type)?;
        }
        Ok(())
    }

    /// The fallback tags in the order in which they are requested.
    fn fallback_tags(&self, at: &RegistryRef, key: &CacheKey) -> Vec<RegistryRef> {
        let inputs = &shared_inputs(key, &self.lock).hex()[..16];
        let all = format!("{STEP}-{}-{FALLBACK}-{inputs}", Platform::host().architecture);
        let branch = self.context.host.branch().map(|branch| format!("{all}-{}", tag_part(branch)));
        let tags = branch.into_iter().chain([all]);
        tags.map(|tag| RegistryRef { tag: Some(tag), ..at.repository_only() }).collect()
    }

    /// The key of the previous layer in the store.
    fn local_key(&self, key: &CacheKey) -> CacheKey {
        shared_inputs(key, &self.lock).with("app", &self.app)
    }
}

/// Whether a tag of the cache is a fallback tag.
pub(super) fn is_fallback_tag(tag: &str) -> bool {
    tag.strip_prefix(STEP).is_some_and(|rest| rest.split('-').nth(2) == Some(FALLBACK))
}

/// The inputs that two deps layers must have in common for packages of the one to be reused in the other: all but the lock file
/// at the path `lock`. `mix.exs`, the configuration and variables decide what the step that fetches does with packages.
fn shared_inputs(key: &CacheKey, lock: &str) -> CacheKey {
    let lock = format!("{}{lock}", CacheKey::FILE);
    let inputs = key.inputs.iter().filter(|(name, _)| **name != lock);
    inputs.fold(CacheKey::new(FALLBACK), |shared, (name, value)| shared.with(name, value))
}

/// A branch name as a part of a tag: other characters than a tag may have become dashes. A name that is changed or cut gets
/// eight digits of its digest, so that two branches have two tags.
fn tag_part(branch: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let plain: String = branch.chars().map(|c| if is_allowed(c) { c } else { '-' }).take(MAX_BRANCH).collect();
    if plain == branch { plain } else { format!("{plain}-{}", &Digest::of(branch.as_bytes()).hex()[..8]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lock_file_may_differ() {
        let key = |changed: &str| {
            let names = ["base", "envs", "env MIX_ENV", "file a/mix.lock", "file mix.exs", "file mix.lock", "network"];
            let value = |name: &str| if name == changed { "new" } else { "old" };
            names.iter().fold(CacheKey::new(STEP), |key, name| key.with(name, value(name)))
        };
        let shared = |changed: &str| shared_inputs(&key(changed), "mix.lock");
        assert_eq!(shared("file mix.lock"), shared(""));
        for name in key("").inputs.keys().filter(|name| *name != "file mix.lock") {
            assert_ne!(shared(name), shared(""), "{name}");
        }
        assert_ne!(shared_inputs(&key("file mix.lock"), "other.lock"), shared_inputs(&key(""), "other.lock"));
    }

    #[test]
    fn each_branch_has_a_valid_tag() {
        assert_eq!(tag_part("main"), "main");
        assert_ne!(tag_part("fix/a"), tag_part("fix-a"));
        assert_ne!(tag_part(&"x".repeat(200)), tag_part(&"x".repeat(201)));
        for branch in ["fix/a", "renovate/größer", &"/".repeat(300)] {
            let tag = format!("deps-riscv64-near-0123456789abcdef-{}", tag_part(branch));
            assert!(format!("registry.example/a:{tag}").parse::<RegistryRef>().is_ok(), "{tag}");
            assert!(is_fallback_tag(&tag));
        }
        assert!(!is_fallback_tag("deps-amd64-0123456789abcdef0123456789abcdef") && !is_fallback_tag("v1-near-x"));
    }
}
