//! How the bytes of a blob differ from its descriptor.

use phial_layers::Digest;
use sha2::{Digest as _, Sha256, Sha512};

/// How a blob differs from its descriptor. Inside an [`io::Error`] of kind `InvalidData` when it comes from a stream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlobError {
    /// Other bytes.
    #[error("`{expected}` was expected, the bytes are `{actual}`")]
    Digest {
        /// Digest asked for.
        expected: Digest,
        /// Digest of the bytes, in the same algorithm.
        actual: String,
    },
    /// Fewer bytes.
    #[error("`{digest}` ends after {actual} of {expected} bytes")]
    Short {
        /// The blob.
        digest: Digest,
        /// Bytes that its descriptor states.
        expected: u64,
        /// Bytes that there are.
        actual: u64,
    },
    /// More bytes.
    #[error("`{digest}` has more than the {expected} bytes its descriptor states")]
    Long {
        /// The blob.
        digest: Digest,
        /// Bytes that its descriptor states.
        expected: u64,
    },
}

/// A hash in the algorithm of a digest.
pub(super) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(super) fn new(digest: &Digest) -> Self {
        if digest.algorithm() == "sha512" { Self::Sha512(Sha512::new()) } else { Self::Sha256(Sha256::new()) }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(super) fn finish(self) -> String {
        let (name, hash) = match self {
            Self::Sha256(hash) => ("sha256", hash.finalize().to_vec()),
            Self::Sha512(hash) => ("sha512", hash.finalize().to_vec()),
        };
        let mut text = format!("{name}:");
        for byte in hash {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        text
    }
}

impl BlobError {
    /// Checks bytes against a digest.
    pub fn check(expected: &Digest, bytes: &[u8]) -> Result<(), Self> {
        let mut hash = Hasher::new(expected);
        hash.update(bytes);
        let actual = hash.finish();
        if actual == expected.as_str() { Ok(()) } else { Err(Self::Digest { expected: expected.clone(), actual }) }
    }
}
