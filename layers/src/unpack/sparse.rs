//! Sparse files: GNU's old format (map in the header) and its three pax formats (0.0 and 0.1: map in the records; 1.0: map
//! before the data). GNU tar manual, appendix "Sparse Formats".

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::error::{Rule, UnpackError};
use super::header::{Kind, numeric};
use super::pax::{Pax, number};
use super::stream::{BLOCK, TarStream};

/// No map is longer: a hole per MiB of a TiB.
const LONGEST_MAP: usize = 1 << 20;

/// Where the stored bytes belong.
pub(super) struct Sparse {
    /// Offset and length of each piece, in order, without overlap; the lengths add up to the stored bytes.
    pub(super) map: Vec<(u64, u64)>,
    /// The size of the file with its holes.
    pub(super) size: u64,
}

/// The map of a header of type `S`, and of the blocks that continue it.
pub(super) fn old_gnu(stream: &mut TarStream, block: &[u8; BLOCK], stored: u64) -> Result<Sparse, UnpackError> {
    let header = Header::from_byte_slice(block);
    let gnu = header.as_gnu().ok_or_else(refused)?;
    let size = u64::try_from(numeric(&gnu.realsize)?).map_err(|_| refused())?;
    let mut map = Vec::new();
    read_old(&gnu.sparse, &mut map)?;
    let mut more = gnu.isextended[0] != 0;
    while more {
        let block = stream.block()?.ok_or_else(|| UnpackError::stream(Rule::Truncated))?;
        let mut next = GnuExtSparseHeader::new();
        next.as_mut_bytes().copy_from_slice(&block);
        read_old(&next.sparse, &mut map)?;
        more = next.isextended[0] != 0;
    }
    checked(map, size, stored)
}

fn read_old(pieces: &[GnuSparseHeader], map: &mut Vec<(u64, u64)>) -> Result<(), UnpackError> {
    let field = |bytes| numeric(bytes).and_then(|n| u64::try_from(n).map_err(|_| refused()));
    for piece in pieces {
        if piece.offset[0] == 0 {
            break;
        }
        map.push((field(&piece.offset)?, field(&piece.numbytes)?));
    }
    if map.len() > LONGEST_MAP { Err(refused()) } else { Ok(()) }
}

/// The map that pax records announce, and how many bytes of the body it took; none for an ordinary file.
pub(super) fn pax(
    stream: &mut TarStream,
    pax: &Pax,
    kind: Kind,
    stored: u64,
) -> Result<Option<(Sparse, u64)>, UnpackError> {
    if pax.sparse.is_empty() && pax.pairs.is_empty() {
        return if pax.sparse_name.is_some() { Err(refused()) } else { Ok(None) };
    }
    let record = |key: &str| pax.sparse.get(key).map(String::as_str);
    let version = (record("major"), record("minor"));
    let size = record("realsize").or(record("size")).ok_or_else(refused)?;
    let size = number(size.as_bytes())?;
    if kind != Kind::File {
        return Err(refused());
    }
    if version == (Some("1"), Some("0")) {
        let (map, used) = map_before_data(stream, stored)?;
        return Ok(Some((checked(map, size, stored - used)?, used)));
    }
    let numbers = match (version, record("map")) {
        ((None | Some("0"), None | Some("0" | "1")), Some(map)) if pax.pairs.is_empty() => {
            map.split(',').filter(|n| !n.is_empty()).map(|n| number(n.as_bytes())).collect::<Result<Vec<_>, _>>()?
        }
        ((None | Some("0"), None | Some("0")), None) => pax.pairs.clone(),
        _ => return Err(refused()),
    };
    if numbers.len() % 2 != 0 || record("numblocks").is_some_and(|n| n != (numbers.len() / 2).to_string()) {
        return Err(refused());
    }
    let map = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    Ok(Some((checked(map, size, stored)?, 0)))
}

/// Format 1.0: decimal numbers, a newline after each, their count first, filled up with zeros to a whole block.
fn map_before_data(stream: &mut TarStream, stored: u64) -> Result<(Vec<(u64, u64)>, u64), UnpackError> {
    let (mut numbers, mut digits, mut used) = (Vec::new(), Vec::new(), 0);
    let mut wanted = None;
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        used += BLOCK as u64;
        if used > stored {
            return Err(refused());
        }
        for byte in stream.take(BLOCK)? {
            match (byte, wanted) {
                (_, Some(wanted)) if numbers.len() == wanted => break,
                (b'\n', None) => {
                    let pieces = usize::try_from(number(&digits)?).map_err(|_| refused())?;
                    if digits.is_empty() || pieces > LONGEST_MAP {
                        return Err(refused());
                    }
                    wanted = Some(pieces * 2);
                    digits.clear();
                }
                (b'\n', Some(_)) if !digits.is_empty() => {
                    numbers.push(number(&digits)?);
                    digits.clear();
                }
                (b'0'..=b'9', _) if digits.len() < 19 => digits.push(byte),
                _ => return Err(refused()),
            }
        }
    }
    Ok((numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), used))
}

fn checked(map: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Sparse, UnpackError> {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for (offset, length) in &map {
        if *offset < end {
            return Err(refused());
        }
        end = offset.checked_add(*length).filter(|end| *end <= size).ok_or_else(refused)?;
        sum += length;
    }
    if sum == stored { Ok(Sparse { map, size }) } else { Err(refused()) }
}

fn refused() -> UnpackError {
    UnpackError::stream(Rule::Sparse)
}
