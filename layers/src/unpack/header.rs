//! Reads the entries of a tar as Go's `archive/tar` and Python's `tarfile` read them, or refuses them where the two differ.
//!
//! The `tar` crate gives the layout of a header. Numbers, names and extensions are read here, since its own readers are
//! laxer. pax records take precedence over ustar fields; GNU long names beside pax records are refused.

use std::collections::BTreeMap;

use tar::Header;

use super::error::{UnpackError, Violation};
use super::list::EntryKind;
use super::pax::{self, MAX_EXTENSION, Pax};
use super::sparse::{self, SparseMap};
use super::stream::TarStream;
use crate::tar_block::{BLOCK, padding};

/// One entry; its body is still in the stream.
pub(super) struct TarEntry {
    /// The name as the tar has it.
    pub(super) name: Vec<u8>,
    pub(super) kind: EntryKind,
    pub(super) link: Vec<u8>,
    /// The bytes of the body that are still in the stream, without padding.
    pub(super) stored: u64,
    /// The bytes of padding after the body.
    pub(super) padding: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970, and nanoseconds after them.
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) sparse: Option<SparseMap>,
}

/// The headers before an entry's own that extend it.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// The next entry; none at the end of the tar: two zero blocks, or the end of the stream.
pub(super) fn next(stream: &mut TarStream) -> Result<Option<TarEntry>, UnpackError> {
    let mut extensions = Extensions::default();
    loop {
        let Some(block) = header_block(stream)? else {
            return if extensions.is_empty() { Ok(None) } else { Err(UnpackError::stream(Violation::Truncated)) };
        };
        let header = Header::from_byte_slice(&block);
        verify_checksum(&block)?;
        let size = u64::try_from(parse_numeric(&header.as_old().size)?).map_err(|_| malformed())?;
        match header.as_old().linkflag[0] {
            b'x' => {
                if !extensions.is_empty() {
                    return Err(UnpackError::stream(Violation::Pax));
                }
                extensions.pax = Some(Pax::parse(&extension(stream, size)?)?);
            }
            b'g' => pax::check_global(&extension(stream, size)?)?,
            flag @ (b'L' | b'K') => {
                let name = until_nul(&extension(stream, size)?).to_vec();
                let field = if flag == b'L' { &mut extensions.long_name } else { &mut extensions.long_link };
                if extensions.pax.is_some() || field.is_some() || name.is_empty() {
                    return Err(UnpackError::stream(Violation::Pax));
                }
                *field = Some(name);
            }
            flag => return entry(stream, &block, flag, size, extensions).map(Some),
        }
    }
}

/// The next header; none at the end of the tar.
fn header_block(stream: &mut TarStream) -> Result<Option<[u8; BLOCK]>, UnpackError> {
    let Some(block) = stream.block()? else { return Ok(None) };
    if block != [0; BLOCK] {
        return Ok(Some(block));
    }
    match stream.block()? {
        Some(second) if second != [0; BLOCK] => Err(malformed()),
        _ => Ok(None),
    }
}

fn entry(
    stream: &mut TarStream,
    block: &[u8; BLOCK],
    flag: u8,
    size: u64,
    extensions: Extensions,
) -> Result<TarEntry, UnpackError> {
    let old = Header::from_byte_slice(block).as_old();
    let pax = extensions.pax.unwrap_or_default();
    let name = extensions.long_name.or(pax.path.clone()).map_or_else(|| ustar_name(block), Ok)?;
    let kind = kind(block, flag, &name)?;
    // Entries of the other kinds have no body, whatever their size field contains (Go: isHeaderOnlyType).
    let body = if kind == EntryKind::File { pax.size.unwrap_or(size) } else { 0 };
    let mut entry = TarEntry {
        kind,
        link: extensions.long_link.or(pax.linkpath.clone()).unwrap_or_else(|| until_nul(&old.linkname).to_vec()),
        stored: body,
        padding: padding(body),
        mode: u32::try_from(parse_numeric(&old.mode)? & 0o7777).map_err(|_| malformed())?,
        uid: pax.uid.map_or_else(|| parse_id(&old.uid), Ok)?,
        gid: pax.gid.map_or_else(|| parse_id(&old.gid), Ok)?,
        mtime: pax.mtime.map_or_else(|| parse_numeric(&old.mtime).map(|seconds| (seconds, 0)), Ok)?,
        sparse: None,
        name,
        xattrs: BTreeMap::new(),
    };
    if flag == b'S' {
        if pax.size.is_some() || !pax.sparse.is_empty() {
            return Err(UnpackError::entry(Violation::Pax, &entry.name));
        }
        entry.sparse = Some(sparse::old_gnu(stream, block, body)?);
    } else if kind != EntryKind::File && sparse::is_sparse(&pax) {
        return Err(UnpackError::stream(Violation::Sparse));
    } else if let Some(sparse) = sparse::from_pax(stream, &pax, body)? {
        entry.stored -= sparse.used;
        entry.name = pax.sparse_name.unwrap_or(entry.name);
        entry.sparse = Some(sparse.map);
    }
    entry.xattrs = pax.xattrs;
    Ok(entry)
}

fn kind(block: &[u8; BLOCK], flag: u8, name: &[u8]) -> Result<EntryKind, UnpackError> {
    // Devices are never created. Their numbers serve comparisons alone, so malformed ones are read as 0.
    let number = |field: &[u8]| parse_numeric(field).ok().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let (major, minor) = (&block[329..337], &block[337..345]);
    Ok(match flag {
        0 if name.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::Hardlink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice { major: number(major), minor: number(minor) },
        b'4' => EntryKind::BlockDevice { major: number(major), minor: number(minor) },
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        _ => return Err(UnpackError::entry(Violation::EntryType, name)),
    })
}

/// The prefix and name in the ustar fields.
fn ustar_name(block: &[u8; BLOCK]) -> Result<Vec<u8>, UnpackError> {
    let header = Header::from_byte_slice(block);
    let name = until_nul(&header.as_old().name);
    let prefix: &[u8] = match &block[257..265] {
        // The format of star, recognised by its trailer, has a shorter prefix.
        [b'u', b's', b't', b'a', b'r', 0, ..] => {
            let end = if block[508..] == *b"tar\0" { 476 } else { 500 };
            until_nul(&block[345..end])
        }
        // GNU headers have two times there. Go reads a prefix if they are not numbers; such archives are refused.
        b"ustar  \0" => {
            for time in [&block[345..357], &block[357..369]] {
                parse_numeric(time)?;
            }
            b""
        }
        _ => b"",
    };
    Ok(if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') })
}

/// The body of an extension header.
fn extension(stream: &mut TarStream, size: u64) -> Result<Vec<u8>, UnpackError> {
    if size > MAX_EXTENSION {
        return Err(UnpackError::stream(Violation::Pax));
    }
    let body = stream.read(usize::try_from(size).map_err(|_| malformed())?)?;
    stream.skip(padding(size))?;
    Ok(body)
}

/// Compares the checksum with the sum of all bytes, in which its own field counts as blanks. Some old tars sum signed bytes.
fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), UnpackError> {
    let checksum = parse_numeric(&block[148..156])?;
    let bytes = || block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    if checksum == unsigned || checksum == signed { Ok(()) } else { Err(malformed()) }
}

fn parse_id(field: &[u8]) -> Result<u32, UnpackError> {
    u32::try_from(parse_numeric(field)?).map_err(|_| malformed())
}

/// A number in octal digits between blanks and NULs, or in base 256 with the first bit set (GNU). The reader of the `tar`
/// crate ignores what follows the first number of a field, and does not support negative numbers.
pub(super) fn parse_numeric(field: &[u8]) -> Result<i64, UnpackError> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        let invert = if field[0] & 0x40 == 0 { 0 } else { 0xff };
        let mut value = 0_u64;
        for (i, byte) in field.iter().enumerate() {
            if value >> 56 != 0 {
                return Err(malformed());
            }
            let byte = (byte ^ invert) & if i == 0 { 0x7f } else { 0xff };
            value = value << 8 | u64::from(byte);
        }
        let value = i64::try_from(value).map_err(|_| malformed())?;
        return Ok(if invert == 0 { value } else { !value });
    }
    let digits = until_nul(past_blanks(field)).trim_ascii_end();
    if digits.iter().any(|b| !(b'0'..=b'7').contains(b)) || digits.len() > 20 {
        return Err(malformed());
    }
    Ok(digits.iter().fold(0, |value, b| value << 3 | i64::from(b - b'0')))
}

fn past_blanks(field: &[u8]) -> &[u8] {
    &field[field.iter().position(|b| !matches!(b, 0 | b' ')).unwrap_or(field.len())..]
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

fn malformed() -> UnpackError {
    UnpackError::stream(Violation::TarHeader)
}

#[cfg(test)]
mod tests;
