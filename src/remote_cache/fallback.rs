//! What comes near to an entry that is not there: the deps layer that was made last, over the same base by the same script.
//!
//! On this machine it is a result in the store. In a registry it is a tag that moves: the branch's own, then the one of all
//! branches; a build that writes puts its entry's manifest under both. Tags are asked for by name, nothing is listed. What it is
//! good for is in `build::hex_reuse`.

use std::collections::BTreeSet;

use phial_layers::Digest;
use serde::{Deserialize, Serialize};

use super::{RemoteCache, STEP, entry};
use crate::image::{PackedLayer, Platform, RegistryRef};
use crate::registry::RegistryError;
use crate::store::{Key, Lookup, StoreError};

/// What stands in a tag that moves, where an entry's own has its key.
const NEAR: &str = "near";
/// How long a branch's part of a tag may be. A tag has 128 characters at most (distribution specification).
const SLUG: usize = 60;

/// A deps layer, and the packages of Hex in it in which compiling changed nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Earlier {
    pub(crate) layer: PackedLayer,
    pub(crate) untouched: BTreeSet<String>,
}

impl RemoteCache<'_> {
    /// The deps layer to begin with, and where it is from: this machine's, else the registry's.
    pub(crate) fn earlier(&self, key: &Key) -> Option<(Earlier, String)> {
        if let Ok(Lookup::Hit(earlier)) = self.context.store.result::<Earlier>(&self.place(key))
            && self.context.store.has_blob(&earlier.layer.digest, earlier.layer.size)
        {
            return Some((earlier, "the last deps layer on this machine".into()));
        }
        let at = self.repository()?;
        self.moving(at, key).into_iter().find_map(|named| {
            let image = self.image(&named, &format!("`{named}`"))?;
            let (layer, untouched) = entry::read_any(&image)?;
            self.known().insert(layer.digest.clone());
            Some((Earlier { layer, untouched }, format!("`{named}`")))
        })
    }

    /// Keeps on this machine what a later build may begin with.
    pub(crate) fn remember(
        &self,
        key: &Key,
        layer: &PackedLayer,
        untouched: BTreeSet<String>,
    ) -> Result<(), StoreError> {
        self.context.store.vacant(&self.place(key)).keep(&Earlier { layer: layer.clone(), untouched })
    }

    /// What is known of a layer that was made here.
    pub(super) fn untouched(&self, key: &Key, layer: &PackedLayer) -> BTreeSet<String> {
        match self.context.store.result::<Earlier>(&self.place(key)) {
            Ok(Lookup::Hit(earlier)) if earlier.layer == *layer => earlier.untouched,
            _ => BTreeSet::new(),
        }
    }

    /// Puts an entry under the tags that move; those that have it already stay untouched. There are none for what a script of the
    /// repository makes, of which only that script knows which part would do.
    pub(super) fn move_tags(&self, at: &RegistryRef, key: &Key, entry: &RegistryRef) -> Result<(), RegistryError> {
        if !key.inputs.get("script").is_some_and(|script| script.starts_with("built-in ")) {
            return Ok(());
        }
        let mut found = None;
        let own = self.context.client.head_manifest(entry)?;
        for named in self.moving(at, key) {
            if own.is_some() && self.context.client.head_manifest(&named)? == own {
                continue;
            }
            if found.is_none() {
                found = Some(self.context.client.resolve(entry)?);
            }
            let Some((entry, tag)) = found.as_ref().zip(named.tag.as_ref()) else { continue };
            self.context.client.tag(at, tag, &entry.bytes, &entry.media_type)?;
        }
        Ok(())
    }

    /// The tags that move, in the order in which they are asked for.
    fn moving(&self, at: &RegistryRef, key: &Key) -> Vec<RegistryRef> {
        let ground = &ground(key).hex()[..16];
        let all = format!("{STEP}-{}-{NEAR}-{ground}", Platform::host().architecture);
        let branch = self.context.host.branch().map(|branch| format!("{all}-{}", slug(branch)));
        let tags = branch.into_iter().chain([all]);
        tags.map(|tag| RegistryRef { tag: Some(tag), ..at.repository_only() }).collect()
    }

    fn place(&self, key: &Key) -> Key {
        ground(key).with("app", &self.app)
    }
}

/// Whether a tag is one that moves.
pub(crate) fn moves(tag: &str) -> bool {
    tag.strip_prefix(STEP).is_some_and(|rest| rest.split('-').nth(2) == Some(NEAR))
}

/// What two deps layers must have in common for the one to be near the other.
fn ground(key: &Key) -> Key {
    let names = ["base", "format", "script"];
    let inputs = names.iter().filter_map(|name| key.inputs.get_key_value(*name));
    inputs.fold(Key::new(NEAR), |ground, (name, value)| ground.with(name, value))
}

/// A branch's name as a part of a tag: what a tag cannot have is a dash, and then, or where it is too long, a part of its digest
/// keeps it apart from others.
fn slug(branch: &str) -> String {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let plain: String = branch.chars().map(|c| if is_fine(c) { c } else { '-' }).take(SLUG).collect();
    if plain == branch { plain } else { format!("{plain}-{}", &Digest::of(branch.as_bytes()).hex()[..8]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_have_tags_of_their_own_that_are_tags() {
        assert_eq!(slug("main"), "main");
        assert_ne!(slug("fix/a"), slug("fix-a"));
        assert_ne!(slug(&"x".repeat(200)), slug(&"x".repeat(201)));
        for branch in ["fix/a", "renovate/größer", &"/".repeat(300)] {
            let tag = format!("deps-riscv64-near-0123456789abcdef-{}", slug(branch));
            assert!(format!("registry.example/a:{tag}").parse::<RegistryRef>().is_ok(), "{tag}");
            assert!(moves(&tag));
        }
        assert!(!moves("deps-amd64-0123456789abcdef0123456789abcdef") && !moves("v1-near-x"));
    }
}
