//! Compares compiled modules by the chunks of their `.beam` files.

use std::collections::BTreeMap;

use phial_layers::Digest;

use crate::elixir::beam;

/// Digests of the chunks by name.
pub(super) type ChunkDigests = BTreeMap<String, Digest>;

/// The most that is unzipped of a gzipped file, in bytes.
pub(super) const MAX_PLAIN: u64 = 64 << 20;

/// Chunks that do not affect how the module runs: debug information, documentation, facts about the compiler, line numbers, and
/// Elixir's data for checking callers. `Attr` is not one of them: programs can read it.
const NOT_CODE: [&str; 8] = ["Abst", "CInf", "Dbgi", "Docs", "ExCk", "ExDc", "ExDp", "Line"];

/// The chunks of a `.beam` file; `None` if it is not a complete and valid one, or has two chunks of one name, of which readers
/// take either.
pub(super) fn chunks(bytes: &[u8]) -> Option<ChunkDigests> {
    let plain = beam::unzipped(bytes, MAX_PLAIN).ok()?;
    let mut digests = ChunkDigests::new();
    for chunk in beam::chunks(&plain).filter(|_| beam::has_whole_size(&plain))? {
        let chunk = chunk.ok()?;
        if digests.insert(chunk.name.escape_ascii().to_string(), Digest::of(chunk.data)).is_some() {
            return None;
        }
    }
    Some(digests)
}

/// The names of the chunks that differ, in alphabetical order.
pub(super) fn differing(left: &ChunkDigests, right: &ChunkDigests) -> Vec<String> {
    let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
    names.sort();
    names.dedup();
    names.into_iter().filter(|name| left.get(*name) != right.get(*name)).cloned().collect()
}

/// Whether no chunk of these names affects how the module runs.
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
    fn an_incomplete_or_ambiguous_file_has_no_chunks() {
        let whole = beam(&[("Code", b"12345"), ("Dbgi", b"x")]);
        for cut in 0..whole.len() {
            assert_eq!(chunks(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(chunks(&beam(&[("Code", b"1"), ("Code", b"2")])), None);
        assert!(chunks(&whole).is_some());
    }
}
