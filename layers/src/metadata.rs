//! Owners, modes and extended attributes of a tree's entries, which the tree on disk cannot hold.
//!
//! A tree is written by an unprivileged user, often with a single uid, so `stat` does not tell its owners. They come from
//! the headers of a layer, are stored beside the tree, and go back into the headers when the tree is packed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{EntryPath, entry_path};

/// The metadata of one entry as far as it differs from the default: owner 0:0, the mode on disk, no attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryMetadata {
    /// User ID in the image.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// Group ID in the image.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// Permission bits with setuid, setgid and sticky, if the file on disk has others: it must stay readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Values of the extended attributes by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// The metadata of a tree's entries. Entries that have the default are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(pub BTreeMap<EntryPath, EntryMetadata>);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(id: &u32) -> bool {
    *id == 0
}

impl Metadata {
    /// Removes the metadata of `path` and of everything below it.
    pub(crate) fn remove_tree(&mut self, path: &EntryPath) {
        entry_path::remove_tree(&mut self.0, path);
    }

    /// The metadata of `path`; the default if there is none.
    pub fn of(&self, path: &EntryPath) -> EntryMetadata {
        self.0.get(path).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_not_written_and_may_be_absent() {
        let full = EntryMetadata { uid: 1, gid: 2, mode: Some(0o4755), xattrs: [("user.a".into(), vec![1])].into() };
        let json = serde_json::json!({"uid": 1, "gid": 2, "mode": 0o4755, "xattrs": {"user.a": [1]}});
        assert_eq!(serde_json::to_value(&full).unwrap(), json);
        assert_eq!(serde_json::from_value::<EntryMetadata>(json).unwrap(), full);
        let empty = serde_json::json!({});
        assert_eq!(serde_json::to_value(EntryMetadata::default()).unwrap(), empty);
        assert_eq!(serde_json::from_value::<EntryMetadata>(empty).unwrap(), EntryMetadata::default());
    }

    #[test]
    fn metadata_of_a_removed_tree_goes_and_that_of_its_siblings_stays() {
        let owned = EntryMetadata { uid: 1, ..EntryMetadata::default() };
        let paths = ["a", "a!", "a-b", "a/b", "a/b/c", "a/d", "a0", "b", "b/a"];
        let path = |path: &&str| EntryPath::new(path.as_bytes());
        let mut metadata = Metadata(paths.iter().map(|p| (path(p), owned.clone())).collect());
        metadata.remove_tree(&EntryPath::new(b"a"));
        let left: Vec<String> = metadata.0.keys().map(|p| format!("{p:?}")).collect();
        assert_eq!(left, ["a!", "a-b", "a0", "b", "b/a"]);
        assert_eq!(metadata.of(&EntryPath::new(b"b")), owned);
        assert_eq!(metadata.of(&EntryPath::new(b"a")), EntryMetadata::default());
    }
}
