//! Entries of a tar, read as Go's `archive/tar` and Python's `tarfile` read them, or refused: never a third reading.
//!
//! The `tar` crate gives the layout of a header; numbers, names and extensions are read here, since its own readers are
//! laxer in places (see the numbers' comments). Order of precedence: pax over ustar; GNU long names never beside pax.

use std::collections::BTreeMap;

use tar::Header;

use super::error::{Rule, UnpackError};
use super::pax::{self, PAX_MAX, Pax};
use super::sparse::{self, Sparse};
use super::stream::{BLOCK, TarStream, padding};

/// What kind of file an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Symlink,
    Hardlink,
    Fifo,
    Device,
}

/// One entry; its body is still in the stream.
pub(super) struct Entry {
    /// As it stands in the tar.
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) link: Vec<u8>,
    /// How many bytes of body are still in the stream, without padding.
    pub(super) stored: u64,
    /// How many bytes of padding follow the body.
    pub(super) padding: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) sparse: Option<Sparse>,
    /// Of a device: whether it is a block device, major and minor number.
    pub(super) device: (bool, u32, u32),
}

/// What stood before the entry's own header.
#[derive(Default)]
struct Before {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Before {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// The next entry; none at the end of the tar, which two zero blocks or the end of the stream make.
pub(super) fn next(stream: &mut TarStream) -> Result<Option<Entry>, UnpackError> {
    let mut before = Before::default();
    loop {
        let Some(block) = header_block(stream)? else {
            let whole = before.is_empty();
            return if whole { Ok(None) } else { Err(UnpackError::stream(Rule::Truncated)) };
        };
        let header = Header::from_byte_slice(&block);
        check_sum(&block)?;
        let size = u64::try_from(numeric(&header.as_old().size)?).map_err(|_| malformed())?;
        match header.as_old().linkflag[0] {
            b'x' => {
                if !before.is_empty() {
                    return Err(UnpackError::stream(Rule::Pax));
                }
                before.pax = Some(Pax::parse(&extension(stream, size)?)?);
            }
            b'g' => pax::check_global(&extension(stream, size)?)?,
            flag @ (b'L' | b'K') => {
                let name = until_nul(&extension(stream, size)?).to_vec();
                let place = if flag == b'L' { &mut before.long_name } else { &mut before.long_link };
                if before.pax.is_some() || place.is_some() || name.is_empty() {
                    return Err(UnpackError::stream(Rule::Pax));
                }
                *place = Some(name);
            }
            flag => return entry(stream, &block, flag, size, before).map(Some),
        }
    }
}

/// A block that is not zero; none at the end.
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
    before: Before,
) -> Result<Entry, UnpackError> {
    let header = Header::from_byte_slice(block);
    let old = header.as_old();
    let pax = before.pax.unwrap_or_default();
    let name = before.long_name.or(pax.path.clone()).map_or_else(|| own_name(block), Ok)?;
    let kind = match flag {
        0 if name.ends_with(b"/") => Kind::Dir,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::Hardlink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Device,
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        _ => return Err(UnpackError::entry(Rule::EntryType, &name)),
    };
    // Entries of the other kinds have no body, whatever their size field says (Go: isHeaderOnlyType).
    let whole = if kind == Kind::File { pax.size.unwrap_or(size) } else { 0 };
    let mut entry = Entry {
        kind,
        link: before.long_link.or(pax.linkpath.clone()).unwrap_or_else(|| until_nul(&old.linkname).to_vec()),
        stored: whole,
        padding: padding(whole),
        mode: u32::try_from(numeric(&old.mode)? & 0o7777).map_err(|_| malformed())?,
        uid: pax.uid.map_or_else(|| id(&old.uid), Ok)?,
        gid: pax.gid.map_or_else(|| id(&old.gid), Ok)?,
        mtime: pax.mtime.map_or_else(|| numeric(&old.mtime).map(|seconds| (seconds, 0)), Ok)?,
        sparse: None,
        device: if kind == Kind::Device { device(block, flag) } else { (false, 0, 0) },
        name,
        xattrs: BTreeMap::new(),
    };
    if flag == b'S' {
        if pax.size.is_some() || !pax.sparse.is_empty() {
            return Err(UnpackError::entry(Rule::Pax, &entry.name));
        }
        entry.sparse = Some(sparse::old_gnu(stream, block, whole)?);
    } else if let Some((sparse, used)) = sparse::pax(stream, &pax, kind, whole)? {
        entry.stored -= used;
        entry.name = pax.sparse_name.unwrap_or(entry.name);
        entry.sparse = Some(sparse);
    }
    entry.xattrs = pax.xattrs;
    Ok(entry)
}

/// Devices are never made, so their numbers are read for comparisons alone and may be anything.
fn device(block: &[u8; BLOCK], flag: u8) -> (bool, u32, u32) {
    let number = |field: &[u8]| numeric(field).ok().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    (flag == b'4', number(&block[329..337]), number(&block[337..345]))
}

/// EntryPath and prefix of the header itself.
fn own_name(block: &[u8; BLOCK]) -> Result<Vec<u8>, UnpackError> {
    let header = Header::from_byte_slice(block);
    let name = until_nul(&header.as_old().name);
    let prefix: &[u8] = match &block[257..265] {
        // star's own format, by its trailer, has a shorter prefix.
        [b'u', b's', b't', b'a', b'r', 0, ..] => {
            let end = if block[508..] == *b"tar\0" { 476 } else { 500 };
            until_nul(&block[345..end])
        }
        // GNU headers have times there. Go reads a prefix if they are no numbers; such archives are refused.
        b"ustar  \0" => {
            for time in [&block[345..357], &block[357..369]] {
                numeric(time)?;
            }
            b""
        }
        _ => b"",
    };
    Ok(if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') })
}

fn extension(stream: &mut TarStream, size: u64) -> Result<Vec<u8>, UnpackError> {
    if size > PAX_MAX {
        return Err(UnpackError::stream(Rule::Pax));
    }
    let body = stream.take(usize::try_from(size).map_err(|_| malformed())?)?;
    stream.skip(padding(size))?;
    Ok(body)
}

/// The sum of all bytes, the sum's own field taken as blanks; some old tars added the bytes as signed.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), UnpackError> {
    let said = numeric(&block[148..156])?;
    let bytes = || block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    if said == unsigned || said == signed { Ok(()) } else { Err(malformed()) }
}

fn id(field: &[u8]) -> Result<u32, UnpackError> {
    u32::try_from(numeric(field)?).map_err(|_| malformed())
}

/// A number in octal digits between blanks and NULs, or big-endian with the first bit set (GNU). The crate's own
/// reader takes a part of a field for the whole and knows no negative numbers.
pub(super) fn numeric(field: &[u8]) -> Result<i64, UnpackError> {
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
    UnpackError::stream(Rule::TarHeader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_other_tars_read_them() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0", 0),
            (b"00000000001\0", 1),
            (&[0x80, 0, 0, 1, 0], 256),
            (&[0xff, 0xff, 0xff], -1),
        ] {
            assert_eq!(numeric(field).unwrap(), value, "{field:?}");
        }
        for bad in [&b"0008\0"[..], b"-1\0", b"6 4\0", &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(numeric(bad).is_err(), "{bad:?}");
        }
    }
}
