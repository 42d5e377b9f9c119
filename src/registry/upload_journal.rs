//! Uploads in progress, recorded on disk: a run that was killed in the middle of a layer is resumed by the next one from
//! where the registry reports the upload to be.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;

use phial_layers::Digest;
use serde::{Deserialize, Serialize};

use crate::tree::TreeDir;

/// Bytes of a record that are read.
const MAX_RECORD: u64 = 64 << 10;
/// Blobs of fewer bytes are sent again from their beginning.
const MIN_BLOB: u64 = 1 << 20;

/// The directory of records, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct UploadJournal(pub(super) Option<PathBuf>);

/// The record of one upload. Its file is locked: another process that sends the same blob has a session of its own. Without
/// a file nothing is recorded.
#[derive(Debug, Default)]
pub(super) struct Checkpoint(Option<(File, PathBuf)>);

/// What is recorded, as JSON. The URL may hold a signature: the directory is private.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UploadPosition {
    /// Where the upload continues.
    pub(super) url: String,
    /// Bytes that the registry has confirmed.
    pub(super) offset: u64,
}

impl UploadJournal {
    /// The record of a blob's upload to a repository; an empty one where none can be kept, or the blob is small.
    pub(super) fn checkpoint(&self, host: &str, repository: &str, digest: &Digest, size: u64) -> Checkpoint {
        let Some(dir) = self.0.as_ref().filter(|_| size >= MIN_BLOB) else { return Checkpoint::default() };
        let name = Digest::of(format!("{host}\n{repository}\n{digest}").as_bytes()).hex().to_owned();
        // The store makes the directory; without one nothing is recorded.
        match TreeDir::open(dir).and_then(|dir| dir.open_or_create(&name, 0o600)) {
            Ok(file) if file.try_lock().is_ok() => Checkpoint(Some((file, dir.join(name)))),
            _ => Checkpoint::default(),
        }
    }
}

impl Checkpoint {
    /// Where an earlier run stopped.
    pub(super) fn read(&mut self) -> Option<UploadPosition> {
        let (file, _) = self.0.as_mut()?;
        let mut text = Vec::new();
        file.take(MAX_RECORD).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Records where the upload is. A failure is ignored: the upload continues.
    pub(super) fn write(&mut self, url: &str, offset: u64) {
        let Some((file, _)) = self.0.as_mut() else { return };
        let Ok(text) = serde_json::to_vec(&UploadPosition { url: url.into(), offset }) else { return };
        let _ = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(&text));
    }

    /// Removes the record: the upload has ended.
    pub(super) fn remove(&mut self) {
        if let Some((_, path)) = self.0.take() {
            let _ = fs::remove_file(path);
        }
    }
}
