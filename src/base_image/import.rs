//! The tar of an existing root filesystem: its compression, recognised by its first bytes and never by its name.

use std::io::Read;
use std::path::Path;

use phial_layers::Compression;

use super::error::{BZIP2, BaseError, XZ, open};
use crate::error::IoError;

/// Reads the first bytes of a root filesystem's tar. A plain tar must be POSIX or GNU: it has `ustar` at byte 257.
pub(super) fn tar_compression(path: &Path) -> Result<Compression, BaseError> {
    let mut head = Vec::with_capacity(512);
    open(path)?.take(512).read_to_end(&mut head).map_err(IoError::at("read", path))?;
    sniff(&head).map_err(|what| BaseError::NotATar { path: path.into(), what })
}

fn sniff(head: &[u8]) -> Result<Compression, &'static str> {
    match (Compression::sniff(head), head) {
        (compression @ (Compression::Gzip | Compression::Zstd), _) => Ok(compression),
        (_, []) => Err("empty"),
        (_, [0xfd, b'7', b'z', b'X', b'Z', 0, ..]) => Err(XZ),
        (_, [b'B', b'Z', b'h', ..]) => Err(BZIP2),
        _ if head.get(257..262) == Some(b"ustar") => Ok(Compression::None),
        _ => Err("something else"),
    }
}

#[cfg(test)]
mod tests {
    use super::{BZIP2, Compression, XZ, sniff};

    #[test]
    fn a_file_is_known_by_its_first_bytes() {
        let mut plain = vec![0; 512];
        plain[257..262].copy_from_slice(b"ustar");
        assert_eq!(sniff(&plain), Ok(Compression::None));
        assert_eq!(sniff(b"\x1f\x8b\x08"), Ok(Compression::Gzip));
        assert_eq!(sniff(b"\x28\xb5\x2f\xfd\0"), Ok(Compression::Zstd));
    }

    #[test]
    fn what_is_not_read_is_named() {
        assert_eq!(sniff(b"\xfd7zXZ\0\0"), Err(XZ));
        assert_eq!(sniff(b"BZh9"), Err(BZIP2));
        assert_eq!(sniff(b""), Err("empty"));
        assert_eq!(sniff(&[0; 512]), Err("something else"));
    }
}
