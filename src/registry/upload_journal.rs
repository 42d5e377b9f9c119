//! Uploads that were begun and not finished, kept from run to run: whoever is killed in the middle of a layer goes on from
//! where the registry says it got to.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use phial_layers::Digest;
use serde::{Deserialize, Serialize};

/// A note is not longer.
const MAX_NOTE: u64 = 64 << 10;
/// Smaller blobs are sent anew.
const WORTH_IT: u64 = 1 << 20;

/// The folder of notes, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal(pub(super) Option<PathBuf>);

/// The note about one blob for one repository, locked: another process that sends the same blob has its own session.
#[derive(Debug, Default)]
pub(super) struct Checkpoint(Option<(File, PathBuf)>);

/// What is noted. The URL may hold a signature: the folder is private.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Resumable {
    /// Where the upload goes on.
    pub(super) url: String,
    /// What the registry has confirmed, in bytes.
    pub(super) offset: u64,
}

impl Journal {
    /// The note about a blob. Where none can be kept, nothing is remembered.
    pub(super) fn note(&self, host: &str, repository: &str, digest: &Digest, size: u64) -> Checkpoint {
        let Some(folder) = self.0.as_ref().filter(|_| size >= WORTH_IT) else { return Checkpoint::default() };
        let path = folder.join(Digest::of(format!("{host}\n{repository}\n{digest}").as_bytes()).hex());
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        let opened = made.and_then(|()| {
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path)
        });
        match opened {
            Ok(file) if file.try_lock().is_ok() => Checkpoint(Some((file, path))),
            _ => Checkpoint::default(),
        }
    }
}

impl Checkpoint {
    /// What an earlier run has left.
    pub(super) fn read(&mut self) -> Option<Resumable> {
        let (file, _) = self.0.as_mut()?;
        let mut text = Vec::new();
        file.take(MAX_NOTE).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Notes where the upload stands. That it cannot be written is no reason to stop.
    pub(super) fn keep(&mut self, url: &str, offset: u64) {
        let Some((file, _)) = self.0.as_mut() else { return };
        let Ok(text) = serde_json::to_vec(&Resumable { url: url.into(), offset }) else { return };
        let _ = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(&text));
    }

    /// The upload is over.
    pub(super) fn forget(&mut self) {
        if let Some((_, path)) = self.0.take() {
            let _ = fs::remove_file(path);
        }
    }
}
