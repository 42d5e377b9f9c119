//! Maps of sparse files: GNU's old format (in the header) and its three pax formats (0.0 and 0.1: in the records; 1.0:
//! before the data). GNU tar manual, appendix "Sparse Formats".

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::error::{UnpackError, Violation};
use super::header::parse_numeric;
use super::pax::{Pax, number};
use super::stream::TarStream;
use crate::tar_block::BLOCK;

/// The most segments in a map: one hole per MiB of a TiB.
const MAX_SEGMENTS: usize = 1 << 20;

/// A run of bytes that the tar stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its place in the file.
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Where the stored bytes of a sparse file belong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SparseMap {
    /// In order and without overlap; the lengths add up to the stored bytes.
    pub(super) segments: Vec<Segment>,
    /// The size of the file with its holes.
    pub(super) size: u64,
}

/// The map of an entry of type `S`: in its header and in the blocks that extend it.
pub(super) fn old_gnu(stream: &mut TarStream, block: &[u8; BLOCK], stored: u64) -> Result<SparseMap, UnpackError> {
    let header = Header::from_byte_slice(block);
    let gnu = header.as_gnu().ok_or_else(malformed)?;
    let size = u64::try_from(parse_numeric(&gnu.realsize)?).map_err(|_| malformed())?;
    let mut segments = Vec::new();
    read_old_gnu(&gnu.sparse, &mut segments)?;
    let mut extended = gnu.isextended[0] != 0;
    while extended {
        let block = stream.block()?.ok_or_else(|| UnpackError::stream(Violation::Truncated))?;
        let mut extension = GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(&block);
        read_old_gnu(&extension.sparse, &mut segments)?;
        extended = extension.isextended[0] != 0;
    }
    checked(SparseMap { segments, size }, stored)
}

fn read_old_gnu(fields: &[GnuSparseHeader], segments: &mut Vec<Segment>) -> Result<(), UnpackError> {
    let number = |bytes| parse_numeric(bytes).and_then(|n| u64::try_from(n).map_err(|_| malformed()));
    for field in fields {
        if field.offset[0] == 0 {
            break;
        }
        segments.push(Segment { offset: number(&field.offset)?, length: number(&field.numbytes)? });
    }
    if segments.len() > MAX_SEGMENTS { Err(malformed()) } else { Ok(()) }
}

/// The map that pax records announce, and the bytes of the body that hold it.
pub(super) struct PaxSparse {
    pub(super) map: SparseMap,
    pub(super) used: u64,
}

/// The map of a regular file with a body of `stored` bytes; none if the file is not sparse.
pub(super) fn from_pax(stream: &mut TarStream, pax: &Pax, stored: u64) -> Result<Option<PaxSparse>, UnpackError> {
    if !is_sparse(pax) {
        return if pax.sparse_name.is_some() { Err(malformed()) } else { Ok(None) };
    }
    let record = |key: &str| pax.sparse.get(key).map(String::as_str);
    let version = (record("major"), record("minor"));
    let size = record("realsize").or(record("size")).ok_or_else(malformed)?;
    let size = number(size.as_bytes())?;
    if version == (Some("1"), Some("0")) {
        let (segments, used) = map_before_data(stream, stored)?;
        return Ok(Some(PaxSparse { map: checked(SparseMap { segments, size }, stored - used)?, used }));
    }
    let numbers = match (version, record("map")) {
        ((None | Some("0"), None | Some("0" | "1")), Some(map)) if pax.sparse_pairs.is_empty() => {
            map.split(',').filter(|n| !n.is_empty()).map(|n| number(n.as_bytes())).collect::<Result<Vec<_>, _>>()?
        }
        ((None | Some("0"), None | Some("0")), None) => pax.sparse_pairs.clone(),
        _ => return Err(malformed()),
    };
    if numbers.len() % 2 != 0 || record("numblocks").is_some_and(|n| n != (numbers.len() / 2).to_string()) {
        return Err(malformed());
    }
    let segments = pairs(&numbers);
    Ok(Some(PaxSparse { map: checked(SparseMap { segments, size }, stored)?, used: 0 }))
}

/// Whether pax records announce a sparse file.
pub(super) fn is_sparse(pax: &Pax) -> bool {
    !pax.sparse.is_empty() || !pax.sparse_pairs.is_empty()
}

/// Format 1.0: decimal numbers, each ended by a newline, the number of segments first, padded to a whole block. Returns the
/// segments and the bytes read.
fn map_before_data(stream: &mut TarStream, stored: u64) -> Result<(Vec<Segment>, u64), UnpackError> {
    let (mut numbers, mut digits, mut used) = (Vec::new(), Vec::new(), 0);
    let mut wanted = None;
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        used += BLOCK as u64;
        if used > stored {
            return Err(malformed());
        }
        for byte in stream.read(BLOCK)? {
            match (byte, wanted) {
                (_, Some(wanted)) if numbers.len() == wanted => break,
                (b'\n', _) if digits.is_empty() => return Err(malformed()),
                (b'\n', None) => {
                    let segments = usize::try_from(number(&digits)?).map_err(|_| malformed())?;
                    if segments > MAX_SEGMENTS {
                        return Err(malformed());
                    }
                    wanted = Some(segments * 2);
                    digits.clear();
                }
                (b'\n', Some(_)) => {
                    numbers.push(number(&digits)?);
                    digits.clear();
                }
                (b'0'..=b'9', _) if digits.len() < 19 => digits.push(byte),
                _ => return Err(malformed()),
            }
        }
    }
    Ok((pairs(&numbers), used))
}

fn pairs(numbers: &[u64]) -> Vec<Segment> {
    numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect()
}

/// `map`, if its segments are in order, within the file, and as long as the stored bytes.
fn checked(map: SparseMap, stored: u64) -> Result<SparseMap, UnpackError> {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for Segment { offset, length } in &map.segments {
        if *offset < end {
            return Err(malformed());
        }
        end = offset.checked_add(*length).filter(|end| *end <= map.size).ok_or_else(malformed)?;
        sum += length;
    }
    if sum == stored { Ok(map) } else { Err(malformed()) }
}

fn malformed() -> UnpackError {
    UnpackError::stream(Violation::Sparse)
}
