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

#[cfg(test)]
mod tests {
    use super::super::stream::tests::stream;
    use super::*;

    fn segments(pairs: &[(u64, u64)]) -> Vec<Segment> {
        pairs.iter().map(|(offset, length)| Segment { offset: *offset, length: *length }).collect()
    }

    /// The map and the bytes it took of a body that begins with `body` and has `stored` bytes.
    fn read(
        records: &[(&str, &str)],
        pairs: &[u64],
        body: &[u8],
        stored: u64,
    ) -> Result<(Vec<Segment>, u64, u64), &'static str> {
        let mut pax = Pax { sparse_pairs: pairs.to_vec(), ..Pax::default() };
        pax.sparse = records.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let sparse = from_pax(&mut stream(&[body], 1 << 20), &pax, stored).map_err(|error| error.code())?;
        Ok(sparse.map(|sparse| (sparse.map.segments, sparse.map.size, sparse.used)).unwrap())
    }

    fn block(text: &str) -> Vec<u8> {
        let mut block = text.as_bytes().to_vec();
        block.resize(block.len().next_multiple_of(512), 0);
        block
    }

    #[test]
    fn format_0_0_has_its_map_in_pairs_of_records() {
        let read = |records: &[(&str, &str)], pairs: &[u64]| read(records, pairs, b"", 3);
        let expected = Ok((segments(&[(1, 2), (5, 1)]), 9, 0));
        assert_eq!(read(&[("size", "9")], &[1, 2, 5, 1]), expected);
        assert_eq!(read(&[("size", "9"), ("numblocks", "2")], &[1, 2, 5, 1]), expected);
        assert_eq!(read(&[("size", "9"), ("major", "0"), ("minor", "0")], &[1, 2, 5, 1]), expected);
        assert_eq!(read(&[("size", "9"), ("numblocks", "4")], &[1, 2, 5, 1]), Err("layer.sparse"));
        assert_eq!(read(&[("size", "9"), ("minor", "1")], &[1, 2, 5, 1]), Err("layer.sparse"), "0.1 has a map");
        assert_eq!(read(&[("size", "9")], &[1, 3, 5]), Err("layer.sparse"));
        assert_eq!(read(&[], &[1, 3]), Err("layer.sparse"), "no size");
        assert_eq!(read(&[("size", "x")], &[1, 3]), Err("layer.pax"));
    }

    #[test]
    fn format_0_1_has_its_map_in_one_record() {
        let read = |records: &[(&str, &str)], pairs: &[u64]| read(records, pairs, b"", 3);
        let expected = Ok((segments(&[(1, 2), (5, 1)]), 9, 0));
        assert_eq!(read(&[("size", "9"), ("map", "1,2,5,1")], &[]), expected);
        assert_eq!(read(&[("size", "9"), ("map", "1,2,5,1"), ("minor", "1"), ("numblocks", "2")], &[]), expected);
        assert_eq!(read(&[("size", "1"), ("realsize", "9"), ("map", "1,2,5,1")], &[]), expected, "realsize first");
        assert_eq!(read(&[("size", "9"), ("map", "1,2,5,1")], &[1, 2]), Err("layer.sparse"), "two maps");
        assert_eq!(read(&[("size", "9"), ("map", "1,2,5")], &[]), Err("layer.sparse"));
        assert_eq!(read(&[("size", "9"), ("map", "1,x")], &[]), Err("layer.pax"));
        assert_eq!(read(&[("size", "9"), ("map", "1,3"), ("major", "1"), ("minor", "1")], &[]), Err("layer.sparse"));
        assert_eq!(read(&[("size", "9"), ("map", "1,3"), ("minor", "2")], &[]), Err("layer.sparse"));
    }

    #[test]
    fn format_1_0_has_its_map_before_the_data() {
        let records = [("major", "1"), ("minor", "0"), ("realsize", "99")];
        let read = |body: &[u8], stored| read(&records, &[], body, stored);
        assert_eq!(read(&block("2\n1\n2\n5\n1\n"), 515), Ok((segments(&[(1, 2), (5, 1)]), 99, 512)));
        assert_eq!(read(&block("0\n"), 512), Ok((vec![], 99, 512)));
        assert_eq!(read(&block("1\n0\n0\n\n junk"), 512), Ok((segments(&[(0, 0)]), 99, 512)), "padding is not read");
        let long = format!("256\n{}", "7\n0\n".repeat(256));
        assert_eq!(read(&block(&long), 1536).map(|(map, _, used)| (map.len(), used)), Ok((256, 1536)));
        assert_eq!(read(&block(&long), 1535), Err("layer.sparse"), "the map is longer than the body");
        assert_eq!(read(&block("2\n1\n2\n"), 514), Err("layer.sparse"));
        assert_eq!(read(&block("1\n1\n2\n"), 513), Err("layer.sparse"), "other lengths than the data");
        for bad in ["\n1\n", "1\n\n1\n2\n", "x\n", "1\n1\n-1\n", "1048577\n", "00000000000000000001\n", "1 \n"] {
            assert_eq!(read(&block(bad), 5120), Err("layer.sparse"), "{bad:?}");
        }
        assert_eq!(read(&block("0000000000000000001\n0\n0\n"), 512), Ok((segments(&[(0, 0)]), 99, 512)), "19 digits");
        assert_eq!(
            read(format!("1048576\n{}", "1\n".repeat(252)).as_bytes(), 1 << 40),
            Err("layer.truncated"),
            "the longest map"
        );
    }

    #[test]
    fn segments_are_in_order_within_the_file_and_as_long_as_the_data() {
        let check = |pairs: &[(u64, u64)], size, stored| {
            checked(SparseMap { segments: segments(pairs), size }, stored).map(|map| map.size).map_err(|e| e.code())
        };
        assert_eq!(check(&[(0, 2), (2, 3), (9, 1)], 10, 6), Ok(10));
        assert_eq!(check(&[], 10, 0), Ok(10));
        assert_eq!(check(&[(0, 2), (1, 1)], 10, 3), Err("layer.sparse"), "overlap");
        assert_eq!(check(&[(5, 1), (0, 2)], 10, 3), Err("layer.sparse"), "order");
        assert_eq!(check(&[(9, 2)], 10, 2), Err("layer.sparse"), "past the end");
        assert_eq!(check(&[(u64::MAX, 2)], 10, 2), Err("layer.sparse"), "overflow");
        assert_eq!(check(&[(0, 2)], 10, 3), Err("layer.sparse"));
        assert_eq!(check(&[(0, 2)], 10, 1), Err("layer.sparse"));
    }

    #[test]
    fn a_name_without_a_map_is_refused_and_no_record_is_no_map() {
        let pax = Pax { sparse_name: Some(b"s".to_vec()), ..Pax::default() };
        assert_eq!(from_pax(&mut stream(&[], 0), &pax, 0).err().map(|e| e.code()), Some("layer.sparse"));
        assert!(from_pax(&mut stream(&[], 0), &Pax::default(), 0).unwrap().is_none());
    }

    fn old_header(pairs: &[(u64, u64)], extended: bool) -> [u8; BLOCK] {
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        octal(&mut gnu.realsize, 99);
        for (field, (offset, length)) in gnu.sparse.iter_mut().zip(pairs) {
            octal(&mut field.offset, *offset);
            octal(&mut field.numbytes, *length);
        }
        gnu.isextended[0] = u8::from(extended);
        *header.as_bytes()
    }

    fn octal(field: &mut [u8; 12], value: u64) {
        field.copy_from_slice(format!("{value:011o}\0").as_bytes());
    }

    #[test]
    fn the_old_format_continues_in_extension_blocks() {
        let mut extension = GnuExtSparseHeader::new();
        octal(&mut extension.sparse[0].offset, 50);
        octal(&mut extension.sparse[0].numbytes, 5);
        extension.isextended[0] = 1;
        let mut last = GnuExtSparseHeader::new();
        octal(&mut last.sparse[0].offset, 60);
        octal(&mut last.sparse[0].numbytes, 6);
        let blocks = [*extension.as_bytes(), *last.as_bytes()].concat();
        let first = [(0, 1), (10, 2), (20, 3), (30, 4)];
        let map = old_gnu(&mut stream(&[&blocks], 1 << 20), &old_header(&first, true), 21).unwrap();
        assert_eq!((map.segments, map.size), (segments(&[&first[..], &[(50, 5), (60, 6)]].concat()), 99));
        let cut = old_gnu(&mut stream(&[&blocks[..512]], 1 << 20), &old_header(&first, true), 21);
        assert_eq!(cut.unwrap_err().code(), "layer.truncated");
        let map = old_gnu(&mut stream(&[&blocks], 1 << 20), &old_header(&first[..2], false), 3).unwrap();
        assert_eq!(map.segments, segments(&first[..2]));
    }
}
