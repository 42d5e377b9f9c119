//! Somebody else's root filesystem tar: what it is wrapped in, told by its first bytes and never by its name.

use std::io::Read;
use std::path::Path;

use super::debian::{BaseError, open};

pub(super) const XZ: &str = "compressed by xz";
pub(super) const BZIP2: &str = "compressed by bzip2";

/// How a tar is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// Not at all.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Looks at the head of a root filesystem's file. A plain tar must be POSIX or GNU: `ustar` stands at byte 257.
pub(super) fn wrapping(path: &Path) -> Result<Wrapping, BaseError> {
    let mut head = Vec::with_capacity(512);
    open(path)?.take(512).read_to_end(&mut head).map_err(|source| BaseError::Io {
        what: "cannot read",
        path: path.into(),
        source,
    })?;
    told_by(&head).map_err(|what| BaseError::NotATar { path: path.into(), what })
}

fn told_by(head: &[u8]) -> Result<Wrapping, &'static str> {
    match head {
        [] => Err("empty"),
        [0x1f, 0x8b, ..] => Ok(Wrapping::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Wrapping::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(XZ),
        [b'B', b'Z', b'h', ..] => Err(BZIP2),
        _ if head.get(257..262) == Some(b"ustar") => Ok(Wrapping::Plain),
        _ => Err("something else"),
    }
}

#[cfg(test)]
mod tests {
    use super::{BZIP2, Wrapping, XZ, told_by};

    #[test]
    fn a_file_is_known_by_its_first_bytes() {
        let mut plain = vec![0; 512];
        plain[257..262].copy_from_slice(b"ustar");
        assert_eq!(told_by(&plain), Ok(Wrapping::Plain));
        assert_eq!(told_by(b"\x1f\x8b\x08"), Ok(Wrapping::Gzip));
        assert_eq!(told_by(b"\x28\xb5\x2f\xfd\0"), Ok(Wrapping::Zstd));
    }

    #[test]
    fn what_is_not_read_is_named() {
        assert_eq!(told_by(b"\xfd7zXZ\0\0"), Err(XZ));
        assert_eq!(told_by(b"BZh9"), Err(BZIP2));
        assert_eq!(told_by(b""), Err("empty"));
        assert_eq!(told_by(&[0; 512]), Err("something else"));
    }
}
