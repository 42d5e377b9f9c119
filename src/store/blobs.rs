//! Blobs by digest, in directories as in an OCI layout (`blobs/ALGORITHM/HEX`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use phial_layers::{Digest, Sha256Writer};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::Store;
use super::disk::{sync_dir, touch};
use super::error::{StoreError, at};
use super::scratch::locked;

/// Writes a new blob to a temporary file, which is removed unless [`BlobWriter::keep`] is called.
pub struct BlobWriter {
    out: Sha256Writer<BufWriter<NamedTempFile>>,
    store: Store,
}

impl Store {
    /// The path of the blob of a digest, whether it exists or not.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// Whether there is a blob of that digest and size; its content is not read. Counts as a use of the blob.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        let path = self.blob_path(digest);
        let is_there = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == size);
        if is_there {
            touch(&path);
        }
        is_there
    }

    /// Opens a blob, to be read to its end: the last read fails if the content does not have the digest, and moves the
    /// blob to `bad/`. `None` if there is no blob of that digest and size.
    pub fn blob(&self, digest: &Digest, size: u64) -> Result<Option<VerifiedBlob>, StoreError> {
        if !self.has_blob(digest, size) {
            return Ok(None);
        }
        let path = self.blob_path(digest);
        let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(at("open", &path))?;
        Ok(Some(VerifiedBlob { file, hash: Sha256::new(), digest: digest.clone(), store: self.clone() }))
    }

    /// Starts a new blob.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        let folder = self.root().join("scratch");
        let file = locked(&tempfile::Builder::new(), &folder).map_err(at("create a file in", &folder))?;
        Ok(BlobWriter { out: Sha256Writer::new(BufWriter::with_capacity(1 << 18, file)), store: self.clone() })
    }

    /// Moves a damaged blob to `bad/`, where it is no longer found and can be inspected.
    pub fn quarantine(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        match fs::rename(&path, self.root().join("bad").join(digest.hex())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at("move", &path)(e)),
            _ => Ok(()),
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl BlobWriter {
    /// Adds the blob to the store, if its digest is the `expected` one, and returns its digest.
    pub fn keep(self, expected: Option<&Digest>) -> Result<Digest, StoreError> {
        let (buffered, found, size) = self.out.finish();
        if let Some(expected) = expected.filter(|digest| **digest != found) {
            return Err(StoreError::Mismatch { expected: expected.clone(), found });
        }
        let path = self.store.blob_path(&found);
        let file = buffered.into_inner().map_err(|e| at("write", &path)(e.into_error()))?;
        file.as_file().sync_all().map_err(at("sync", &path))?;
        file.persist(&path).map_err(|e| at("keep", &path)(e.error))?;
        sync_dir(path.parent().unwrap_or(Path::new("/")))?;
        self.store.count_added(size);
        Ok(found)
    }
}

/// Reads a blob and checks its digest at the end.
pub struct VerifiedBlob {
    file: File,
    hash: Sha256,
    digest: Digest,
    store: Store,
}

impl Read for VerifiedBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hash.update(&buffer[..n]);
        if n == 0
            && !buffer.is_empty()
            && self.digest.algorithm() == "sha256"
            && Digest::from_hash(&self.hash.clone().finalize().into()) != self.digest
        {
            let _ = self.store.quarantine(&self.digest);
            let text = format!("the cached blob `{}` is damaged", self.digest);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(n)
    }
}
