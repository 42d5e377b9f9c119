//! A directory tree to the bytes of an OCI layer, and back.
//!
//! Pure: what comes out is a function of the tree, its records and the [`PackOptions`]; no clock, environment, network or git is
//! read. The same tree packs to the same bytes on one core or many, for any caller, on any file system.

mod blocks;
mod compress;
mod digest;
mod escape;
mod frame;
mod pack;
mod metadata;
mod scan;
mod tar_out;
mod unpack;

pub use compress::{compress, decompressed};
pub use digest::{DiffId, Digest, DigestError, Sha256Writer};
pub use metadata::{EntryMetadata, EntryPath, Metadata};
pub use pack::{PackError, PackOptions, Packed, pack};
pub use unpack::{Entry, EntryKind, Limits, Listed, Rule, UnpackError, Unpacked, list, unpack};

/// How the bytes of a layer blob are compressed. Part of what reaches the digest of the blob, never of its [`DiffId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A plain tar.
    None,
    /// Members of RFC 1952 joined end to end.
    Gzip,
    /// Frames of RFC 8878 joined end to end.
    Zstd,
}

impl Compression {
    /// `none`, `gzip` or `zstd`: the name in settings, records and cache keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}
