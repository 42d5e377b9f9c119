//! `phial.toml`: every line optional.

use std::collections::BTreeMap;
use std::path::Path;

use phial_layers::Compression;
use serde::Deserialize;

use super::keys::{Lookup, lookup, nearest};
use super::{Clock, ConfigError, Network, Test};

/// The file's tables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FileConfig {
    /// `[image]`.
    pub image: Image,
    /// `[prepare]`.
    pub prepare: Prepare,
    /// `[release]`.
    pub release: Release,
    /// `[test]`.
    pub test: Test,
}

/// `[image]`: what the image is called, built on, and says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Image {
    /// Where it goes.
    pub name: Option<String>,
    /// What it is built on.
    pub base: Option<String>,
    /// The environments to compile for.
    pub envs: Option<Vec<String>>,
    /// The repository's URL, for the annotation, where the origin of the clone is not it.
    pub source: Option<String>,
    /// `Entrypoint` of the config.
    pub entrypoint: Option<Vec<String>>,
    /// `Cmd` of the config.
    pub cmd: Option<Vec<String>>,
    /// `User` of the config.
    pub user: Option<String>,
    /// `Env` of the config.
    pub env: Option<BTreeMap<String, String>>,
    /// `Labels` of the config.
    pub labels: Option<BTreeMap<String, String>>,
    /// How layers are compressed.
    pub compression: Option<Compression>,
}

/// `[prepare]`: how the app is prepared.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Prepare {
    /// A script of the repository in place of the built-in one.
    pub script: Option<String>,
    /// More files that the deps step may see.
    pub inputs: Option<Vec<String>>,
    /// Whether steps reach the network.
    pub network: Option<Network>,
    /// What the time is while the app is compiled.
    pub clock: Option<Clock>,
    /// Whether everything is compiled twice, for code that makes up names while it compiles.
    pub strict: Option<bool>,
    /// Variables of the steps; recorded.
    pub env: Option<BTreeMap<String, String>>,
    /// Names of the caller's variables that the steps may see; values not recorded.
    pub pass: Option<Vec<String>>,
    /// Whether to map a range of ids where `newuidmap` and `/etc/subuid` allow it.
    pub ranges: Option<bool>,
}

/// `[release]`: what an image must have passed before it gets a name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Release {
    /// Names of test commands; without it, those that the settings test with.
    pub requires: Option<Vec<String>>,
}

/// Reads a settings file that the user names.
pub fn read(path: &Path) -> Result<FileConfig, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
    parse(&path.display().to_string(), &text)
}

/// Reads the file's text. `file` is its name for errors.
pub fn parse(file: &str, text: &str) -> Result<FileConfig, ConfigError> {
    let broken = |e: toml::de::Error| ConfigError::Toml { file: file.into(), text: e.to_string().trim_end().into() };
    let table: toml::Table = toml::from_str(text.trim_start_matches('\u{feff}')).map_err(broken)?;
    check_keys(file, &[], &table)?;
    toml::from_str(text.trim_start_matches('\u{feff}')).map_err(broken)
}

fn check_keys(file: &str, above: &[&str], table: &toml::Table) -> Result<(), ConfigError> {
    for (name, value) in table {
        let path = [above, &[name]].concat();
        match (lookup(&path), value) {
            (Lookup::Key, _) => {}
            (Lookup::Table, toml::Value::Table(table)) => check_keys(file, &path, table)?,
            _ => return Err(ConfigError::Unknown { file: file.into(), nearest: nearest(&path), key: path.join(".") }),
        }
    }
    Ok(())
}
