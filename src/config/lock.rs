//! `phial.lock`: the digest of the base, beside `phial.toml` in the commit.

use phial_layers::Digest;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The base image.
    pub base: Base,
}

/// A name and what it stood for when `phial lock` ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// As the settings write it.
    pub name: String,
    /// The manifest's digest.
    pub digest: Digest,
}

impl Lock {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let broken =
            |e: toml::de::Error| ConfigError::Toml { file: "phial.lock".into(), text: e.to_string().trim_end().into() };
        toml::from_str(text).map_err(broken)
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let Base { name, digest } = &self.base;
        let name = toml::Value::String(name.clone());
        format!("# Written by `phial lock`; commit it.\n[base]\nname = {name}\ndigest = \"{digest}\"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_reads_back_as_it_was_written() {
        let lock = Lock { base: Base { name: "r.example/e:1 \"x\"".into(), digest: Digest::of(b"") } };
        assert_eq!(Lock::parse(&lock.text()).unwrap(), lock);
        assert!(Lock::parse("[base]\nname = \"x\"\ndigest = \"sha256:../..\"\n").is_err());
    }
}
