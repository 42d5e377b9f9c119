//! `phial.lock`: the digest of the base image, next to `phial.toml` in the commit.

use phial_layers::Digest;
use serde::{Deserialize, Serialize};

use super::error::ConfigError;

/// The lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockFile {
    /// The base image.
    pub base: LockedBase,
}

/// The name of a base image, and the digest that it had when `phial lock` ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedBase {
    /// As the settings write it.
    pub name: String,
    /// The manifest's digest.
    pub digest: Digest,
}

impl LockFile {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::toml("phial.lock", text, &error))
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let LockedBase { name, digest } = &self.base;
        let name = toml::Value::String(name.clone());
        format!("# Written by `phial lock`; commit it.\n[base]\nname = {name}\ndigest = \"{digest}\"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_reads_back_as_it_was_written() {
        let lock = LockFile { base: LockedBase { name: "r.example/e:1 \"x\"".into(), digest: Digest::of(b"") } };
        assert_eq!(LockFile::parse(&lock.text()).unwrap(), lock);
        assert!(LockFile::parse("[base]\nname = \"x\"\ndigest = \"sha256:../..\"\n").is_err());
    }
}
