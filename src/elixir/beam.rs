//! Compiled modules, `.beam` files: an IFF container (`FOR1`, size, `BEAM`) of chunks, each a four-letter name, a size
//! and data padded to four bytes. A file may be gzipped as a whole (compiler option `compressed`).
//!
//! Sources: `beam_lib` in the documentation of stdlib; `erts/emulator/beam/beam_file.c` of OTP for the content of
//! chunks. The reader is ours because it must have limits and take what it can from damaged files.

use std::borrow::Cow;
use std::io::{self, Read as _};

use super::etf::{self, Term};
use flate2::read::{GzDecoder, ZlibDecoder};

/// A chunk of a `.beam` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Such as `AtU8`.
    pub name: [u8; 4],
    /// Without padding.
    pub data: &'a [u8],
}

/// A chunk is longer than the rest of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// The content of a `.beam` file, unzipped if it is gzipped, and then at most `limit` bytes of it.
pub fn unzipped(bytes: &[u8], limit: u64) -> io::Result<Cow<'_, [u8]>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes.into());
    }
    let mut plain = Vec::new();
    GzDecoder::new(bytes).take(limit).read_to_end(&mut plain)?;
    Ok(plain.into())
}

/// The chunks of an unzipped `.beam` file in order, up to the first that is truncated; `None` if it is no such file.
/// The size in its header is not checked: see [`has_whole_size`].
pub fn chunks(bytes: &[u8]) -> Option<impl Iterator<Item = Result<Chunk<'_>, Truncated>>> {
    let mut rest = bytes.strip_prefix(b"FOR1")?.get(4..)?.strip_prefix(b"BEAM")?;
    Some(std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = split_chunk(rest);
        rest = next.map_or(&[], |(_, after)| after);
        Some(next.map(|(chunk, _)| chunk).ok_or(Truncated))
    }))
}

/// Whether the size in the header of an unzipped `.beam` file is that of the file.
pub fn has_whole_size(bytes: &[u8]) -> bool {
    bytes.get(4..).and_then(split_word).is_some_and(|(size, rest)| size == rest.len())
}

/// Calls `found` for each atom in the data of a chunk `AtU8`: a count, then names with their lengths. From OTP 28 on
/// the count is negative and lengths are compact terms. `None` if the table is damaged; the atoms before that are
/// found.
pub fn each_atom(data: &[u8], mut found: impl FnMut(&str)) -> Option<()> {
    let (count, mut rest) = data.split_first_chunk::<4>()?;
    let count = i32::from_be_bytes(*count);
    for _ in 0..count.unsigned_abs() {
        let (first, after) = rest.split_first()?;
        let (length, after) = match (count < 0, first & 0b1000) {
            (false, _) => (usize::from(*first), after),
            (true, 0) => (usize::from(first >> 4), after),
            (true, _) => {
                let (second, after) = after.split_first()?;
                (usize::from(first >> 5) << 8 | usize::from(*second), after)
            }
        };
        let (name, after) = after.split_at_checked(length)?;
        found(std::str::from_utf8(name).ok()?);
        rest = after;
    }
    Some(())
}

/// Calls `found` for each literal in the data of a chunk `LitT`: the inflated size (0 if it is not compressed), then a
/// count and terms with their sizes. `None` if the table is damaged or has more than [`etf::MAX_BYTES`]; the literals before
/// the damage are found. Terms that cannot be decoded are skipped.
pub fn each_literal(data: &[u8], mut found: impl FnMut(&Term)) -> Option<()> {
    let (size, packed) = split_word(data).filter(|(size, _)| *size <= etf::MAX_BYTES)?;
    let mut inflated = Vec::new();
    let plain = if size == 0 {
        packed
    } else {
        ZlibDecoder::new(packed).take(size as u64).read_to_end(&mut inflated).ok()?;
        &inflated
    };
    let (count, mut rest) = split_word(plain)?;
    for _ in 0..count {
        let (size, after) = split_word(rest)?;
        let (literal, after) = after.split_at_checked(size)?;
        if let Ok(term) = etf::decode(literal) {
            found(&term);
        }
        rest = after;
    }
    Some(())
}

fn split_chunk(bytes: &[u8]) -> Option<(Chunk<'_>, &[u8])> {
    let (name, rest) = bytes.split_first_chunk::<4>()?;
    let (size, rest) = split_word(rest)?;
    let data = rest.get(..size)?;
    Some((Chunk { name: *name, data }, rest.get(size.next_multiple_of(4)..).unwrap_or_default()))
}

fn split_word(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*word) as usize, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut body = b"BEAM".to_vec();
        for (name, data) in chunks {
            body.extend_from_slice(*name);
            body.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
            body.extend_from_slice(data);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        [b"FOR1", &u32::try_from(body.len()).unwrap().to_be_bytes(), body.as_slice()].concat()
    }

    fn names(bytes: &[u8]) -> Option<Vec<Result<[u8; 4], Truncated>>> {
        chunks(bytes).map(|chunks| chunks.map(|chunk| chunk.map(|chunk| chunk.name)).collect())
    }

    #[test]
    fn chunks_come_in_order_and_the_last_may_be_truncated() {
        let whole = file(&[(b"AtU8", b"12345"), (b"Code", b"x")]);
        assert!(has_whole_size(&whole));
        assert_eq!(names(&whole), Some(vec![Ok(*b"AtU8"), Ok(*b"Code")]));
        let cut = &whole[..whole.len() - 4];
        assert!(!has_whole_size(cut));
        assert_eq!(names(cut), Some(vec![Ok(*b"AtU8"), Err(Truncated)]));
        assert_eq!(names(b"FOR1\0\0\0\x04BEAN"), None);
    }

    #[test]
    fn atoms_are_read_in_the_old_and_the_new_form() {
        let long = "l".repeat(40);
        let old = [&2_i32.to_be_bytes()[..], &[2], b"ab", &[40], long.as_bytes()].concat();
        let new = [&(-2_i32).to_be_bytes()[..], &[2 << 4], b"ab", &[0b0000_1000, 40], long.as_bytes()].concat();
        for table in [old, new] {
            let mut atoms = vec![];
            assert_eq!(each_atom(&table, |atom| atoms.push(atom.to_owned())), Some(()));
            assert_eq!(atoms, ["ab", &long]);
            assert_eq!(each_atom(&table[..table.len() - 1], |_| {}), None);
        }
    }

    #[test]
    fn a_table_of_literals_takes_no_more_memory_than_a_term_may() {
        use std::io::Write as _;
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        for _ in 0..65 {
            packed.write_all(&vec![0; 1 << 20]).unwrap();
        }
        let data = [&(65_u32 << 20).to_be_bytes()[..], &packed.finish().unwrap()].concat();
        assert!(data.len() < 1 << 20);
        assert_eq!(each_literal(&data, |_| {}), None);
    }

    #[test]
    fn literals_are_read_compressed_or_not() {
        use std::io::Write as _;
        let term = Term::Tuple(vec![Term::atom("a"), Term::Int(1)]);
        let literal = etf::encode(&term);
        let table = [&1_u32.to_be_bytes()[..], &u32::try_from(literal.len()).unwrap().to_be_bytes(), &literal].concat();
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&table).unwrap();
        let size = u32::try_from(table.len()).unwrap().to_be_bytes();
        for data in [[&[0; 4], &table[..]].concat(), [&size[..], &packed.finish().unwrap()].concat()] {
            let mut terms = vec![];
            assert_eq!(each_literal(&data, |term| terms.push(term.clone())), Some(()));
            assert_eq!(terms, std::slice::from_ref(&term));
        }
    }
}
