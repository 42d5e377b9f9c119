//! Results by key: the deps cache and every other step that need not be done twice.
//!
//! A key is a list of named inputs, kept in clear beside the result, so that it can be shown and compared.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::marker::PhantomData;
use std::path::PathBuf;

use phial_layers::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{Store, StoreError, at};

/// The named inputs of a step. Two steps with equal keys have equal results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Which kind of step.
    pub step: String,
    /// Name to value or digest; no secret.
    pub inputs: BTreeMap<String, String>,
}

/// A key was found, or is to be filled.
pub enum Lookup<T> {
    /// What an earlier run kept.
    Hit(T),
    /// Nothing usable; only this vacant can keep a result.
    Miss(Vacant<T>),
}

/// The right to keep a result under a key.
pub struct Vacant<T> {
    path: PathBuf,
    key: Key,
    kind: PhantomData<T>,
}

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    key: Key,
    result: T,
}

impl Key {
    /// How the name of an input begins that is a variable of the settings.
    pub const VARIABLE: &str = "env ";

    /// A key of `step` without inputs.
    pub fn new(step: &str) -> Self {
        Self { step: step.into(), inputs: BTreeMap::new() }
    }

    /// The same with one more input.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.inputs.insert(name.into(), value.into());
        self
    }

    /// The same with the digest in place of the value of every input that is a variable of the settings: for places that
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

    /// The name of the key on disk: the hex SHA-256 of its sorted JSON.
    pub fn hex(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        Digest::of(&json).hex().to_owned()
    }
}

impl Store {
    /// The right to keep a result under `key` in place of the one that is there.
    pub fn vacant<T>(&self, key: &Key) -> Vacant<T> {
        Vacant { path: self.root().join("recall").join(key.hex()), key: key.clone(), kind: PhantomData }
    }

    /// Looks the key up. What cannot be read or belongs to another key is a miss.
    pub fn result<T: Serialize + DeserializeOwned>(&self, key: &Key) -> Result<Lookup<T>, StoreError> {
        let path = self.root().join("recall").join(key.hex());
        let kept = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Kept<T>>(&bytes).ok());
        Ok(match kept {
            Some(kept) if kept.key == *key => {
                super::evict::touch(&path);
                Lookup::Hit(kept.result)
            }
            _ => Lookup::Miss(self.vacant(key)),
        })
    }
}

impl Store {
    /// A kept result by the name of its key or the beginning of it: the key, and the result as JSON. `None` for none, or more
    /// than one.
    pub fn kept_result(&self, name: &str) -> Option<(Key, serde_json::Value)> {
        let folder = fs::read_dir(self.root().join("recall")).ok()?;
        let mut found =
            folder.filter_map(Result::ok).filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
        let (one, more) = (found.next()?, found.next());
        let kept: Kept<serde_json::Value> = serde_json::from_slice(&fs::read(one.path()).ok()?).ok()?;
        more.is_none().then_some((kept.key, kept.result))
    }
}

impl<T: Serialize> Vacant<T> {
    /// Keeps the result.
    pub fn keep(self, result: &T) -> Result<(), StoreError> {
        let folder = self.path.parent().unwrap_or(&self.path);
        let mut file = NamedTempFile::new_in(folder).map_err(at("create a file in", folder))?;
        let json =
            serde_json::to_vec(&Kept { key: self.key, result }).map_err(|e| at("write", &self.path)(e.into()))?;
        file.write_all(&json).and_then(|()| file.as_file().sync_all()).map_err(at("write", &self.path))?;
        file.persist(&self.path).map_err(|e| at("keep", &self.path)(e.error))?;
        super::sync_dir(folder)
    }
}
