//! Results of steps by cache key: the local deps cache, and every other step whose result is reused.
//!
//! A cache key is a list of named inputs. It is stored in clear with the result, so that it can be shown and compared.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::marker::PhantomData;
use std::path::PathBuf;

use phial_layers::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::Store;
use super::disk::{read, sync_dir, touch};
use super::error::{StoreError, at};

/// A cache key: the named inputs of a step. Steps with equal keys have equal results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheKey {
    /// The kind of step, such as `deps`.
    pub step: String,
    /// Name to value or digest. Never a secret.
    pub inputs: BTreeMap<String, String>,
}

/// The result of [`Store::result`].
pub enum Lookup<T> {
    /// The result that an earlier run stored.
    Hit(T),
    /// There is none that can be read; this value stores one.
    Miss(Vacant<T>),
}

/// A cache key without a result yet.
pub struct Vacant<T> {
    path: PathBuf,
    key: CacheKey,
    kind: PhantomData<T>,
}

#[derive(Serialize, Deserialize)]
struct StoredResult<T> {
    key: CacheKey,
    result: T,
}

impl CacheKey {
    /// Prefix of the names of inputs that are environment variables from the settings.
    pub const VARIABLE: &str = "env ";

    /// The name of the input that a range of user ids is mapped.
    pub const IDS: &str = "ids";

    /// Prefix of the names of inputs that are files of the commit.
    pub const FILE: &str = "file ";

    /// A key of `step` without inputs.
    pub fn new(step: &str) -> Self {
        Self { step: step.into(), inputs: BTreeMap::new() }
    }

    /// This key with one more input.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.inputs.insert(name.into(), value.into());
        self
    }

    /// This key with the digest in place of the value of every environment variable from the settings: for places that
    /// others can read.
    #[must_use]
    pub fn without_values(&self) -> Self {
        let mut key = self.clone();
        for (name, value) in &mut key.inputs {
            if name.starts_with(Self::VARIABLE) {
                *value = Digest::of(value.as_bytes()).to_string();
            }
        }
        key
    }

    /// The name of the key on disk: the SHA-256 of its sorted JSON, in hex digits.
    pub fn hex(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        Digest::of(&json).hex().to_owned()
    }
}

impl Store {
    /// For storing a result under `key`, whether there is one already or not.
    pub fn vacant<T>(&self, key: &CacheKey) -> Vacant<T> {
        Vacant { path: self.root().join("results").join(key.hex()), key: key.clone(), kind: PhantomData }
    }

    /// Looks a key up. A file that cannot be read or that holds another key is a miss.
    pub fn result<T: Serialize + DeserializeOwned>(&self, key: &CacheKey) -> Result<Lookup<T>, StoreError> {
        let path = self.root().join("results").join(key.hex());
        let stored = read(&path).and_then(|bytes| serde_json::from_slice::<StoredResult<T>>(&bytes).ok());
        Ok(match stored {
            Some(stored) if stored.key == *key => {
                touch(&path);
                Lookup::Hit(stored.result)
            }
            _ => Lookup::Miss(self.vacant(key)),
        })
    }

    /// The key and the result (as JSON) whose file name begins with `name`; `None` unless there is exactly one.
    pub fn find_result(&self, name: &str) -> Option<(CacheKey, serde_json::Value)> {
        let folder = fs::read_dir(self.root().join("results")).ok()?;
        let mut entries =
            folder.filter_map(Result::ok).filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
        let (first, second) = (entries.next()?, entries.next());
        let stored: StoredResult<serde_json::Value> = serde_json::from_slice(&read(&first.path())?).ok()?;
        second.is_none().then_some((stored.key, stored.result))
    }
}

impl<T: Serialize> Vacant<T> {
    /// Stores the result.
    pub fn keep(self, result: &T) -> Result<(), StoreError> {
        let folder = self.path.parent().unwrap_or(&self.path);
        let mut file = NamedTempFile::new_in(folder).map_err(at("create a file in", folder))?;
        let json = serde_json::to_vec(&StoredResult { key: self.key, result })
            .map_err(|e| at("write", &self.path)(e.into()))?;
        file.write_all(&json).and_then(|()| file.as_file().sync_all()).map_err(at("write", &self.path))?;
        file.persist(&self.path).map_err(|e| at("keep", &self.path)(e.error))?;
        sync_dir(folder)
    }
}
