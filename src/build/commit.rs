//! A commit's files, settings and lock files.

use std::path::Path;

use crate::config::{self, ConfigError, FileConfig, LockFile, SettingsOrigin};
use crate::error::Error;
use crate::recipe::SourceFile;
use crate::source::{self, CommitEntry, EntryMode, Fetched, Location};

/// The files of a commit.
pub(super) struct CommitFiles<'a> {
    pub(super) fetched: &'a Fetched,
    pub(super) entries: Vec<CommitEntry>,
    /// The same files as the recipe needs them.
    pub(super) files: Vec<SourceFile>,
    /// The text of `mix.lock`; `None` if the commit has none.
    pub(super) mix_lock: Option<String>,
}

impl<'a> CommitFiles<'a> {
    pub(super) fn read(fetched: &'a Fetched) -> Result<Self, Error> {
        let entries = source::list(fetched)?;
        let file = |entry: &CommitEntry| SourceFile {
            path: entry.name.as_bytes().to_vec(),
            executable: entry.mode == EntryMode::Executable,
        };
        Ok(Self { fetched, files: entries.iter().map(file).collect(), entries, mix_lock: text(fetched, "mix.lock")? })
    }

    /// The text of `mix.lock`, empty if the commit has none.
    pub(super) fn mix_lock(&self) -> &str {
        self.mix_lock.as_deref().unwrap_or_default()
    }
}

/// Who wrote the settings that [`settings`] reads for a commit of `location`.
pub(super) fn settings_origin(config: Option<&Path>, location: &Location) -> SettingsOrigin {
    if config.is_some() || location.local().is_some() { SettingsOrigin::Caller } else { SettingsOrigin::Url }
}

/// The settings of `--config`, or else of the commit; and the commit's `phial.lock`.
pub(super) fn settings(config: Option<&Path>, fetched: &Fetched) -> Result<(FileConfig, Option<LockFile>), Error> {
    let settings = match config {
        Some(path) => config::read(path)?,
        None => config::parse("phial.toml", &text(fetched, "phial.toml")?.unwrap_or_default())?,
    };
    let lock = text(fetched, "phial.lock")?.map(|text| LockFile::parse(&text)).transpose()?;
    Ok((settings, lock))
}

/// The text of a file at the root of the commit; `None` if the commit has no such file.
fn text(fetched: &Fetched, name: &str) -> Result<Option<String>, Error> {
    let bytes = source::read_file(fetched, name)?;
    let utf8 = |bytes| {
        String::from_utf8(bytes).map_err(|_| ConfigError::Toml { file: name.into(), text: "it is not UTF-8".into() })
    };
    Ok(bytes.map(utf8).transpose()?)
}
