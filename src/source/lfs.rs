//! Git LFS: a blob may be a pointer to an object that git does not hold (`docs/spec.md` of git-lfs).

use std::io::{self, Read};
use std::path::PathBuf;

use phial_layers::{Digest, Sha256Writer};

use crate::tree::TreeDir;

/// The first line of a pointer.
const VERSION: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// The most bytes of a pointer.
const MAX_POINTER: usize = 1024;

/// The largest object, in bytes: it is read into memory, as blobs are.
pub(super) const MAX_OBJECT: u64 = 1 << 30;

/// The object that a pointer names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    /// The SHA-256 of its bytes.
    pub(super) oid: Digest,
    /// Its size in bytes.
    pub(super) size: u64,
}

impl Pointer {
    /// The pointer to what `content` has.
    pub(super) fn to(mut content: impl Read) -> io::Result<Self> {
        let mut hash = Sha256Writer::new(io::sink());
        io::copy(&mut content, &mut hash)?;
        let (_, oid, size) = hash.finish();
        Ok(Self { oid, size })
    }

    /// Reads a pointer. `None` for what is none, and for one of an extension, whose programs make the content.
    pub(super) fn parse(blob: &[u8]) -> Option<Self> {
        let rest = blob.strip_prefix(VERSION).filter(|_| blob.len() <= MAX_POINTER)?;
        let text = std::str::from_utf8(rest).ok()?;
        if text.lines().any(|line| line.starts_with("ext-")) {
            return None;
        }
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let oid = value("oid ")?.parse::<Digest>().ok().filter(|oid| oid.algorithm() == "sha256")?;
        Some(Self { oid, size: value("size ")?.parse().ok()? })
    }

    /// Where a git directory has the object, from `lfs/objects` in it.
    fn path(&self) -> PathBuf {
        let hex = self.oid.hex();
        [&hex[..2], &hex[2..4], hex].iter().collect()
    }

    /// The size of the object in the first of some git directories that has one with this name, in bytes.
    pub(super) fn stored_size(&self, git_dirs: &[PathBuf]) -> Option<u64> {
        stores(git_dirs).find_map(|store| Some(store.stat(self.path()).ok()??.size()))
    }

    /// The object in the first of some git directories that has it; `None` if there is none, or it is damaged.
    pub(super) fn read(&self, git_dirs: &[PathBuf]) -> Option<Vec<u8>> {
        let is_whole = |bytes: &Vec<u8>| bytes.len() as u64 == self.size && Digest::of(bytes) == self.oid;
        stores(git_dirs).find_map(|store| store.read(self.path(), MAX_OBJECT).ok()?.filter(is_whole))
    }
}

fn stores(git_dirs: &[PathBuf]) -> impl Iterator<Item = TreeDir> {
    git_dirs.iter().filter_map(|dir| TreeDir::open(&dir.join("lfs/objects")).ok())
}

/// Whether a blob says that it is a pointer, whether it can be read or not. git-lfs takes all others for the content itself.
pub(super) fn is_pointer(blob: &[u8]) -> bool {
    blob.len() <= MAX_POINTER && blob.starts_with(VERSION)
}
