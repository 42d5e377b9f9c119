//! The chunks of a `.beam` file: an IFF container, `FOR1`, size, `BEAM`, then chunks of a four-letter name, a size and data
//! padded to four bytes (`beam_lib` in the documentation of stdlib). A file may be gzipped as a whole (compiler option
//! `compressed`).

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::GzDecoder;
use phial_layers::{Compression, Digest};

/// Digests of the chunks by name.
pub(super) type Chunks = BTreeMap<String, Digest>;

/// A gzipped file is not unpacked any further.
const MAX_PLAIN: u64 = 64 << 20;

/// Chunks without which the module runs the same: debug information, documentation, what the compiler noted of itself, line
/// numbers, and Elixir's notes for checking callers. `Attr` is not one of them, since a program can read it.
const NOT_CODE: [&str; 8] = ["Abst", "CInf", "Dbgi", "Docs", "ExCk", "ExDc", "ExDp", "Line"];

/// The chunks of a whole and sound `.beam` file.
pub(super) fn chunks(bytes: &[u8]) -> Option<Chunks> {
    if Compression::sniff(bytes) == Compression::Gzip {
        let mut plain = Vec::new();
        GzDecoder::new(bytes).take(MAX_PLAIN).read_to_end(&mut plain).ok()?;
        return container(&plain);
    }
    container(bytes)
}

fn container(bytes: &[u8]) -> Option<Chunks> {
    let rest = bytes.strip_prefix(b"FOR1")?;
    let (size, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_be_bytes(*size) as usize != rest.len() {
        return None;
    }
    let mut rest = rest.strip_prefix(b"BEAM")?;
    let mut chunks = Chunks::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_first_chunk::<4>()?;
        let (size, after) = after.split_first_chunk::<4>()?;
        let size = u32::from_be_bytes(*size) as usize;
        let data = after.get(..size)?;
        if chunks.insert(name.escape_ascii().to_string(), Digest::of(data)).is_some() {
            return None; // readers differ in which of the two they take
        }
        rest = after.get(size.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(chunks)
}

/// The names of the chunks that differ, in alphabetical order.
pub(super) fn differing(left: &Chunks, right: &Chunks) -> Vec<String> {
    let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
    names.sort();
    names.dedup();
    names.into_iter().filter(|name| left.get(*name) != right.get(*name)).cloned().collect()
}

/// Whether none of these chunks holds what the machine runs.
pub(super) fn same_code(names: &[String]) -> bool {
    names.iter().all(|name| NOT_CODE.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn beam(chunks: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = b"BEAM".to_vec();
        for (name, data) in chunks {
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
            body.extend_from_slice(data);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        [b"FOR1", &u32::try_from(body.len()).unwrap().to_be_bytes(), body.as_slice()].concat()
    }

    #[test]
    fn chunks_that_differ_come_by_name_compressed_or_not() {
        let left = beam(&[("AtU8", b"a"), ("Code", b"12345"), ("Dbgi", b"x"), ("Docs", b"d")]);
        let right = beam(&[("AtU8", b"a"), ("Code", b"12345"), ("Dbgi", b"y"), ("CInf", b"")]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&right).unwrap();
        for right in [right, packed.finish().unwrap()] {
            let names = differing(&chunks(&left).unwrap(), &chunks(&right).unwrap());
            assert_eq!(names, ["CInf", "Dbgi", "Docs"]);
            assert!(same_code(&names));
        }
        assert!(!same_code(&["Code".into(), "Dbgi".into()]));
    }

    #[test]
    fn what_is_no_sound_beam_file_has_no_chunks() {
        let whole = beam(&[("Code", b"12345"), ("Dbgi", b"x")]);
        for cut in 0..whole.len() {
            assert_eq!(chunks(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(chunks(&beam(&[("Code", b"1"), ("Code", b"2")])), None);
        assert!(chunks(&whole).is_some());
    }
}
