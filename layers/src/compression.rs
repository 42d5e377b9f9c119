//! The compressions of a layer blob: their names and their magic numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the bytes of a layer blob are compressed. It affects the digest of the blob, never the [`DiffId`](crate::DiffId).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A plain tar.
    None,
    /// One or more gzip members (RFC 1952).
    Gzip,
    /// One or more zstd frames (RFC 8878).
    Zstd,
}

impl Compression {
    /// The first bytes of a gzip member: the magic number, and deflate as its only method (RFC 1952, section 2.3.1).
    pub(crate) const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
    /// The first bytes of a zstd frame with data (RFC 8878, section 3.1.1).
    pub(crate) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

    /// The compression that `head`, the first bytes of a file, shows; [`None`](Self::None) for all that is neither gzip nor
    /// zstd. Four bytes are enough.
    pub fn sniff(head: &[u8]) -> Self {
        if head.starts_with(&Self::GZIP_MAGIC) {
            Self::Gzip
        } else if head.starts_with(&Self::ZSTD_MAGIC) {
            Self::Zstd
        } else {
            Self::None
        }
    }

    /// `none`, `gzip` or `zstd`: the name in settings, records and cache keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Compression;

    #[test]
    fn a_compression_has_one_name() {
        for (compression, name) in
            [(Compression::None, "none"), (Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")]
        {
            assert_eq!(compression.as_str(), name);
            assert_eq!(compression.to_string(), name);
            assert_eq!(serde_json::to_value(compression).unwrap(), name);
            assert_eq!(serde_json::from_value::<Compression>(name.into()).unwrap(), compression);
        }
    }

    #[test]
    fn a_file_is_recognised_by_its_whole_magic_number() {
        for (head, expected) in [
            (&[0x1f, 0x8b, 8, 0][..], Compression::Gzip),
            (&[0x1f, 0x8b, 8], Compression::Gzip),
            (&[0x1f, 0x8b, 7], Compression::None),
            (&[0x1f, 0x8b], Compression::None),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&[0x28, 0xb5, 0x2f, 0xfd, 0], Compression::Zstd),
            (&[0x28, 0xb5, 0x2f], Compression::None),
            (b"ustar", Compression::None),
            (b"", Compression::None),
        ] {
            assert_eq!(Compression::sniff(head), expected, "{head:?}");
        }
    }
}
