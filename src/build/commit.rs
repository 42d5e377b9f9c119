//! The commit as the steps of a build need it: its files, its settings, its lock files.

use std::path::Path;

use crate::config::{self, ConfigError, FileConfig, Lock};
use crate::error::Error;
use crate::recipe::File;
use crate::source::{self, Entry, Fetched, Mode};

/// The files of a commit.
pub(super) struct CommitFiles<'a> {
    pub(super) fetched: &'a Fetched,
    pub(super) entries: Vec<Entry>,
    /// The same for the recipe.
    pub(super) files: Vec<File>,
    /// The text of `mix.lock`; `None` if the commit has none.
    pub(super) mix_lock: Option<String>,
}

impl<'a> CommitFiles<'a> {
    pub(super) fn read(fetched: &'a Fetched) -> Result<Self, Error> {
        let entries = source::list(fetched)?;
        let file =
            |entry: &Entry| File { path: entry.name.as_bytes().to_vec(), executable: entry.mode == Mode::Executable };
        Ok(Self { fetched, files: entries.iter().map(file).collect(), entries, mix_lock: text(fetched, "mix.lock")? })
    }

    /// The text of `mix.lock`, empty if the commit has none.
    pub(super) fn mix_lock(&self) -> &str {
        self.mix_lock.as_deref().unwrap_or_default()
    }
}

/// The settings in the file `given`, or else those of the commit; and the commit's `phial.lock`.
pub(super) fn settings(given: Option<&Path>, fetched: &Fetched) -> Result<(FileConfig, Option<Lock>), Error> {
    let settings = match given {
        Some(path) => config::read(path)?,
        None => config::parse("phial.toml", &text(fetched, "phial.toml")?.unwrap_or_default())?,
    };
    let lock = text(fetched, "phial.lock")?.map(|text| Lock::parse(&text)).transpose()?;
    Ok((settings, lock))
}

/// A small text file of the commit.
fn text(fetched: &Fetched, name: &str) -> Result<Option<String>, Error> {
    let bytes = source::read_file(fetched, name)?;
    let utf8 = |bytes| {
        String::from_utf8(bytes).map_err(|_| ConfigError::Toml { file: name.into(), text: "it is not UTF-8".into() })
    };
    Ok(bytes.map(utf8).transpose()?)
}
