//! Histories: lists of the last few records under a name, such as the builds of a repository.
//!
//! They inform users and no build depends on them: a history that cannot be read counts as empty, and a record that
//! cannot be read is skipped. Writes are not synced; after a crash of the machine the last records may be missing.

use std::fs;
use std::path::{Path, PathBuf};

use phial_layers::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{StoreError, at};
use super::{Store, disk};
use crate::tree::TreeDir;

/// A file of `history/`.
#[derive(Default, Serialize, Deserialize)]
struct HistoryFile {
    name: String,
    /// Oldest first. Each is parsed on its own: one written by another version of Phial does not hide the others.
    records: Vec<Value>,
}

impl Store {
    /// Appends `record` to the history `name` and drops all but its last `keep` records.
    pub fn append_history<T: Serialize>(&self, name: &str, record: &T, keep: usize) -> Result<(), StoreError> {
        let path = self.history_path(name);
        let _lock = self.lock(&format!("history-{}", Digest::of(name.as_bytes()).hex()))?;
        let failed = |error: serde_json::Error| at("write", &path)(error.into());
        let mut history = read(&path).filter(|history| history.name == name).unwrap_or_default();
        history.name = name.into();
        history.records.push(serde_json::to_value(record).map_err(failed)?);
        history.records.drain(..history.records.len().saturating_sub(keep));
        let json = serde_json::to_vec(&history).map_err(failed)?;
        let folder = TreeDir::open(&self.root().join("history"))?;
        Ok(folder.replace(path.file_name().unwrap_or_default(), &json, 0o600)?)
    }

    /// The records of the history `name`, oldest first.
    pub fn history<T: DeserializeOwned>(&self, name: &str) -> Vec<T> {
        let history = read(&self.history_path(name)).filter(|history| history.name == name);
        history.map(records).unwrap_or_default()
    }

    /// All histories, each with its records, oldest first.
    pub fn histories<T: DeserializeOwned>(&self) -> Result<Vec<Vec<T>>, StoreError> {
        let folder = self.root().join("history");
        let mut paths = Vec::new();
        for entry in fs::read_dir(&folder).map_err(at("read", &folder))? {
            paths.push(entry.map_err(at("read", &folder))?.path());
        }
        paths.sort();
        Ok(paths.iter().filter_map(|path| read(path)).map(records).collect())
    }

    fn history_path(&self, name: &str) -> PathBuf {
        self.root().join("history").join(Digest::of(name.as_bytes()).hex())
    }
}

fn read(path: &Path) -> Option<HistoryFile> {
    serde_json::from_slice(&disk::read(path)?).ok()
}

fn records<T: DeserializeOwned>(history: HistoryFile) -> Vec<T> {
    history.records.into_iter().filter_map(|record| serde_json::from_value(record).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_records_are_kept_and_a_damaged_file_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        assert!(store.history::<u32>("a").is_empty());
        for n in 0..5_u32 {
            store.append_history("a", &n, 3).unwrap();
        }
        store.append_history("b", &"text", 3).unwrap();
        assert_eq!(store.history::<u32>("a"), [2, 3, 4]);
        assert!(store.history::<u32>("b").is_empty());
        assert_eq!(store.histories::<u32>().unwrap().concat(), [2, 3, 4]);
        fs::write(store.history_path("a"), b"{").unwrap();
        assert!(store.history::<u32>("a").is_empty());
        store.append_history("a", &9_u32, 3).unwrap();
        assert_eq!(store.history::<u32>("a"), [9]);
    }
}
