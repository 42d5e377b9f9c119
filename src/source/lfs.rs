//! Git LFS: a blob may be a pointer to an object that git does not hold (`docs/spec.md` of git-lfs).

use std::io::{self, Read};

use phial_layers::{Digest, Sha256Writer};

/// The first line of a pointer.
const VERSION: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// The most bytes of a pointer.
const MAX_POINTER: usize = 1024;

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

    /// Reads a pointer. `None` for what is none: git-lfs takes that for the content itself.
    pub(super) fn parse(blob: &[u8]) -> Option<Self> {
        let rest = blob.strip_prefix(VERSION).filter(|_| blob.len() <= MAX_POINTER)?;
        let text = std::str::from_utf8(rest).ok()?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let oid = value("oid ")?.parse::<Digest>().ok().filter(|oid| oid.algorithm() == "sha256")?;
        Some(Self { oid, size: value("size ")?.parse().ok()? })
    }
}
