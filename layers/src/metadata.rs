//! What a tree on disk cannot say about its files: owners, full modes and extended attributes.
//!
//! A tree is written by whoever runs Phial, often with a single uid, so `stat` says nothing about owners. The layer's own
//! headers do; what differs from the default is kept beside the tree, and packing and diffing read it from here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// A path inside a tree, relative to its root, without a leading or trailing slash; any bytes but NUL.
/// In JSON it is percent-escaped, so that names which are not UTF-8 survive.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryPath(Vec<u8>);

/// What is true of one entry and not to be seen on disk. `None` and empty mean the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryMetadata {
    /// User id in the image; 0 if absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// Group id in the image; 0 if absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// Permission bits (with setuid, setgid, sticky) where the disk holds others, since the caller must be able to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Extended attributes of the entry, by name; values are bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// The records of a tree; an entry without one is owned by 0:0, has the mode on disk and no extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(pub BTreeMap<EntryPath, EntryMetadata>);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(id: &u32) -> bool {
    *id == 0
}

impl EntryPath {
    /// `bytes` without leading, trailing and doubled slashes or `.` components.
    pub fn new(bytes: &[u8]) -> Self {
        let parts: Vec<&[u8]> = bytes.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        Self(parts.join(&b'/'))
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<EntryPath> for String {
    fn from(name: EntryPath) -> Self {
        let mut text = Self::with_capacity(name.0.len());
        for byte in name.0 {
            match byte {
                b'%' | 0..=31 | 127..=255 => {
                    let _ = write!(text, "%{byte:02x}"); // a String takes whatever is written
                }
                plain => text.push(char::from(plain)),
            }
        }
        text
    }
}

impl TryFrom<String> for EntryPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            if first == b'%' {
                let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
                let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
                bytes.push(byte.ok_or_else(|| format!("bad escape in `{text}`"))?);
                rest = &tail[2..];
            } else {
                bytes.push(first);
                rest = tail;
            }
        }
        Ok(Self(bytes))
    }
}

impl std::fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for EntryPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from(self.clone()))
    }
}

impl Metadata {
    /// Drops the records of `name` and of all below it.
    pub(crate) fn forget(&mut self, name: &EntryPath) {
        self.0.remove(name);
        let below = EntryPath([name.as_bytes(), b"/"].concat());
        let gone = self.0.range(&below..).take_while(|(name, _)| name.0.starts_with(&below.0));
        for name in gone.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.0.remove(&name);
        }
    }

    /// The record of `name`, or the default.
    pub fn of(&self, name: &EntryPath) -> EntryMetadata {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_bytes_survives_json() {
        let name = EntryPath::new(b"./a%b//\xff\n/c/");
        let json = serde_json::to_string(&name).expect("a string");
        assert_eq!(json, "\"a%25b/%ff%0a/c\"");
        assert_eq!(serde_json::from_str::<EntryPath>(&json).expect("the same"), name);
    }
}
