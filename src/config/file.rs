//! `phial.toml`: its tables and keys. Every key may be left out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use phial_layers::Compression;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::keys::{KeyLookup, lookup, nearest};
use super::limits::{SizeSetting, TimeSetting};
use super::test_settings::TestSettings;
use crate::error::IoError;

/// The tables of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FileConfig {
    /// `[image]`.
    pub image: ImageSettings,
    /// `[prepare]`.
    pub prepare: PrepareSettings,
    /// `[source]`.
    pub source: SourceSettings,
    /// `[release]`.
    pub release: ReleaseSettings,
    /// `[test]`.
    pub test: TestSettings,
}

/// `[image]`: the image's name, its base image and its config.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ImageSettings {
    /// The directory of the app in the repository.
    pub root: Option<String>,
    /// What the app needs of the repository outside of its directory.
    pub include: Option<Vec<String>>,
    /// The target that the image is written to.
    pub name: Option<String>,
    /// The base image.
    pub base: Option<String>,
    /// The environments to compile for.
    pub envs: Option<Vec<String>>,
    /// The URL in the annotation `org.opencontainers.image.source`, if it is not the clone's origin.
    pub source: Option<String>,
    /// `Entrypoint` of the config.
    pub entrypoint: Option<Vec<String>>,
    /// `Cmd` of the config.
    pub cmd: Option<Vec<String>>,
    /// `User` of the config.
    pub user: Option<String>,
    /// `Env` of the config, added to that of the base image.
    pub env: Option<BTreeMap<String, String>>,
    /// `Labels` of the config.
    pub labels: Option<BTreeMap<String, String>>,
    /// How layers are compressed.
    pub compression: Option<Compression>,
}

/// `[prepare]`: how the steps run that fetch and compile.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PrepareSettings {
    /// A script of the repository to call instead of the built-in one.
    pub script: Option<String>,
    /// Files and directories that the deps step sees besides those that Mix reads.
    pub inputs: Option<Vec<String>>,
    /// See the key `prepare.lockfile`.
    pub lockfile: Option<String>,
    /// See the key `prepare.hex`.
    pub hex: Option<String>,
    /// Whether steps reach the network.
    pub network: Option<NetworkAccess>,
    /// The time that steps see while they compile.
    pub clock: Option<ClockSetting>,
    /// Whether everything is compiled twice, for code that creates atoms while it compiles.
    pub strict: Option<bool>,
    /// Environment variables of the steps; part of the cache keys.
    pub env: Option<BTreeMap<String, String>>,
    /// Names of the caller's variables that the steps may see; values are not recorded.
    pub pass: Option<Vec<String>>,
    /// Whether to map a range of ids where `newuidmap` and `/etc/subuid` allow it.
    pub ranges: Option<bool>,
    /// How long a step may take.
    pub timeout: Option<TimeSetting>,
    /// How much a step may write to its standard streams.
    pub max_output: Option<SizeSetting>,
    /// How many processes and threads a step may have at one time.
    pub max_processes: Option<u32>,
    /// How much memory the processes of a step may have together.
    pub max_memory: Option<SizeSetting>,
}

/// `[source]`: what belongs to the commit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SourceSettings {
    /// Whether submodules are fetched.
    pub submodules: Option<bool>,
    /// Whether files of Git LFS have their objects, and not their pointers.
    pub lfs: Option<bool>,
}

/// `[release]`: what `phial release` requires of an image.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReleaseSettings {
    /// Names of test commands that must have passed; all commands of `[test]` if it is not set.
    pub requires: Option<Vec<String>>,
}

/// Whether steps reach the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkAccess {
    /// The caller's network.
    Host,
    /// Loopback only.
    None,
}

impl NetworkAccess {
    /// `host` or `none`: the name in settings, records and cache keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

/// The time that steps see while they compile the app and its dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockSetting {
    /// One fixed moment, an hour after the modification time of the sources.
    Fixed,
    /// The machine's clock; code that reads it compiles to other bytes each time.
    Real,
}

impl ClockSetting {
    /// `fixed` or `real`: the name in settings and cache keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Real => "real",
        }
    }
}

/// The most bytes of a settings file that are read.
const MAX_FILE: u64 = 1 << 20;

/// Reads the settings file of `--config`. What is at a relative path may come from a commit, and must be a regular file; an
/// absolute one is what the caller makes it (`/dev/stdin`).
pub fn read(path: &Path) -> Result<FileConfig, ConfigError> {
    let failed = |source| ConfigError::from(IoError::at("read", path)(source));
    let file = if path.is_relative() { open_plain(path) } else { File::open(path) };
    let mut text = String::new();
    file.and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text)).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {MAX_FILE} bytes"))));
    }
    parse(&path.display().to_string(), &text)
}

/// Opens a regular file. A link is not followed, and the writer of a FIFO not waited for.
fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::LOOP | Errno::NXIO) => return Err(not_regular()),
        opened => File::from(opened?),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Reads the text of a settings file. `file` is its name in errors.
pub fn parse(file: &str, text: &str) -> Result<FileConfig, ConfigError> {
    let text = text.trim_start_matches('\u{feff}'); // a byte order mark
    let invalid = |error: toml::de::Error| ConfigError::toml(file, text, &error);
    let table: toml::Table = toml::from_str(text).map_err(invalid)?;
    check_keys(file, &[], &table)?;
    toml::from_str(text).map_err(invalid)
}

fn check_keys(file: &str, above: &[&str], table: &toml::Table) -> Result<(), ConfigError> {
    for (name, value) in table {
        let path = [above, &[name]].concat();
        match (lookup(&path), value) {
            (KeyLookup::Key, _) => {}
            (KeyLookup::Table, toml::Value::Table(table)) => check_keys(file, &path, table)?,
            _ => {
                let (nearest, key) = (nearest(&path), path.join("."));
                return Err(ConfigError::UnknownKey { file: file.into(), key, nearest });
            }
        }
    }
    Ok(())
}
