//! Which atoms a compilation will make: those of compiled modules, and every word of the sources that can become one.
//!
//! A superset does no harm (each costs the VM some bytes), a missing one only matters if code goes through a map with it as a
//! key while it is compiled.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use walkdir::WalkDir;

use crate::determinism::etf::{self, Term};

/// The longest atom (OTP, "Advanced", system limits), in characters.
const LONGEST: usize = 255;
/// Larger files are data.
const LARGEST: u64 = 4 << 20;
/// So many modules of one file are put together with each other.
const NESTED: usize = 40;

/// What is read below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Compiled modules.
    Modules,
    /// Compiled modules, all of each.
    WholeModules,
    /// Compiled modules and texts.
    Texts,
}

/// Adds the atoms of what is below `root`; links are not followed. Directories of a name in `skip` are left out.
pub(super) fn below(root: &Path, what: What, skip: &[&str], atoms: &mut BTreeSet<String>) -> io::Result<()> {
    let walk = WalkDir::new(root).into_iter();
    for entry in walk.filter_entry(|entry| entry.depth() == 0 || !skip.iter().any(|name| *name == entry.file_name())) {
        let entry = entry?;
        let beam = entry.path().extension().is_some_and(|ending| ending == "beam");
        if !entry.file_type().is_file() || !(beam || what == What::Texts) || entry.metadata()?.len() > LARGEST {
            continue;
        }
        let bytes = fs::read(entry.path())?;
        if beam {
            of_module(&bytes, what == What::WholeModules, atoms);
        } else if !bytes.contains(&0) {
            of_text(&String::from_utf8_lossy(&bytes), atoms);
        }
    }
    Ok(())
}

/// Adds the atoms of a compiled module: its table (`AtU8`), its literals (`LitT`), which have keys of maps, and if
/// it goes deep its abstract code (`Dbgi`) and what Elixir's checker knows (`ExCk`), which take long to read. What cannot be
/// read adds nothing. The form: OTP, `erts/emulator/beam/beam_file.c`.
pub(super) fn of_module(bytes: &[u8], deep: bool, atoms: &mut BTreeSet<String>) {
    let mut plain = vec![];
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        let unzipped = flate2::read::GzDecoder::new(bytes).take(LARGEST).read_to_end(&mut plain);
        if unzipped.is_ok() { &plain[..] } else { return }
    } else {
        bytes
    };
    let Some(mut rest) = bytes.strip_prefix(b"FOR1").and_then(|rest| rest.get(4..)?.strip_prefix(b"BEAM")) else {
        return;
    };
    while let Some((name, data, after)) = chunk(rest) {
        match name {
            b"AtU8" => drop(table(data, atoms)),
            b"LitT" => drop(literals(data, atoms)),
            b"Dbgi" | b"ExCk" if deep => drop(etf::decode(data).map(|term| of_term(&term, atoms))),
            _ => {}
        }
        rest = after;
    }
}

/// The first chunk: its name, its data, what follows.
fn chunk(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = bytes.split_at_checked(4)?;
    let (size, rest) = word(rest)?;
    let data = rest.get(..size)?;
    Some((name, data, rest.get(size.next_multiple_of(4)..).unwrap_or_default()))
}

fn word(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*word) as usize, rest))
}

/// A count, then each name behind its length. From OTP 28 on the count is negative and lengths are compact terms.
fn table(data: &[u8], atoms: &mut BTreeSet<String>) -> Option<()> {
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
        add(std::str::from_utf8(name).ok()?, atoms);
        rest = after;
    }
    Some(())
}

/// The size when inflated (0: it is not compressed), then a count and each literal behind its size.
fn literals(data: &[u8], atoms: &mut BTreeSet<String>) -> Option<()> {
    let (size, packed) = word(data)?;
    let mut plain = vec![];
    if size == 0 {
        plain.extend_from_slice(packed);
    } else {
        flate2::read::ZlibDecoder::new(packed).take(size as u64).read_to_end(&mut plain).ok()?;
    }
    let (count, mut rest) = word(&plain)?;
    for _ in 0..count {
        let (size, after) = word(rest)?;
        let (literal, after) = after.split_at_checked(size)?;
        if let Ok(term) = etf::decode(literal) {
            of_term(&term, atoms);
        }
        rest = after;
    }
    Some(())
}

fn of_term(term: &Term, atoms: &mut BTreeSet<String>) {
    match term {
        Term::Atom(name) => {
            if let Ok(name) = std::str::from_utf8(name) {
                add(name, atoms);
            }
        }
        Term::Tuple(items) => items.iter().for_each(|item| of_term(item, atoms)),
        Term::List(items, tail) => items.iter().chain([&**tail]).for_each(|item| of_term(item, atoms)),
        Term::Map(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).for_each(|item| of_term(item, atoms)),
        _ => {}
    }
}

fn add(name: &str, atoms: &mut BTreeSet<String>) {
    if !name.is_empty() && name.chars().count() <= LONGEST && !atoms.contains(name) {
        atoms.insert(name.to_owned());
    }
}

/// Adds every word of a source text; of `A.B.C` every alias that Elixir makes of it; of `A.{B, C}` both; what stands in
/// quotes; and for modules defined in one file each one inside each earlier one.
pub(super) fn of_text(text: &str, atoms: &mut BTreeSet<String>) {
    let mut modules: Vec<&str> = vec![];
    let mut before = "";
    let mut group: Option<&str> = None;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| starts(c) || c == '"' || c == '\'' || c == '}') {
        let gap = &rest[..start];
        rest = &rest[start..];
        if let Some(quote @ ('"' | '\'')) = rest.chars().next() {
            rest = quoted(&rest[1..], quote, atoms);
            continue;
        }
        if let Some(after) = rest.strip_prefix('}') {
            (group, rest) = (None, after);
            continue;
        }
        if gap.trim_end() == "{" && before.ends_with('.') {
            group = Some(before.trim_end_matches('.'));
        }
        let whole = word_at(rest);
        rest = &rest[whole.len()..];
        let word = whole.trim_end_matches('.');
        if word.starts_with(char::is_uppercase) {
            alias(group, word, atoms);
            if before == "defmodule" {
                modules.push(word);
            }
        }
        word.split('.').for_each(|part| add(part, atoms));
        before = whole;
    }
    for (nth, outer) in modules.iter().take(NESTED).enumerate() {
        for inner in modules.iter().take(NESTED).skip(nth + 1) {
            add(&format!("Elixir.{outer}.{inner}"), atoms);
        }
    }
}

fn starts(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

/// A name with what may follow in it: `a_b?`, `node@host`, and for aliases `A.B`.
fn word_at(text: &str) -> &str {
    let alias = text.starts_with(char::is_uppercase);
    let part = |c: char| starts(c) || c.is_numeric() || c == '@' || (alias && c == '.');
    let end = text.find(|c| !part(c)).unwrap_or(text.len());
    let end = end + usize::from(!alias && text[end..].starts_with(['?', '!']));
    &text[..end]
}

fn alias(group: Option<&str>, word: &str, atoms: &mut BTreeSet<String>) {
    let whole = group.map_or_else(|| format!("Elixir.{word}"), |group| format!("Elixir.{group}.{word}"));
    let ends = whole.match_indices('.').map(|(at, _)| at).skip(1).chain([whole.len()]);
    ends.for_each(|end| add(&whole[..end], atoms));
}

/// What stands up to the closing quote on the same line, as an atom and as text; what follows the opening quote or it.
fn quoted<'a>(text: &'a str, quote: char, atoms: &mut BTreeSet<String>) -> &'a str {
    let Some(end) = text.find([quote, '\n']).filter(|end| text[*end..].starts_with(quote)) else { return text };
    let inner = &text[..end];
    add(inner, atoms);
    let mut words = inner;
    while let Some(start) = words.find(starts) {
        let word = word_at(&words[start..]);
        word.split('.').for_each(|part| add(part, atoms));
        words = &words[start + word.len()..];
    }
    &text[end + 1..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut atoms = BTreeSet::new();
        of_text(text, &mut atoms);
        atoms.into_iter().collect()
    }

    #[test]
    fn words_aliases_groups_and_quoted_atoms_are_found() {
        assert_eq!(words("valid?: x!"), ["valid?", "x!"]);
        assert_eq!(words("A.B.c()"), ["A", "B", "Elixir.A", "Elixir.A.B", "Elixir.A.B.c", "c"]);
        let group = words("alias A.{B, C}; D");
        for name in ["Elixir.A.B", "Elixir.A.C", "Elixir.D"] {
            assert!(group.contains(&name.to_owned()), "{group:?}");
        }
        assert!(words(":\"a-b c\"").contains(&"a-b c".to_owned()));
        assert!(words("it's \"one\ntwo\" x").contains(&"x".to_owned()));
        let nested = words("defmodule A do\n defmodule B.C do");
        assert!(nested.contains(&"Elixir.A.B.C".to_owned()), "{nested:?}");
        assert!(words("größe = 1").contains(&"größe".to_owned()));
    }

    #[test]
    fn the_atoms_of_a_module_are_read_in_both_forms() {
        let module = |table: &[u8]| {
            let size = u32::try_from(table.len()).expect("small").to_be_bytes();
            [b"FOR1\0\0\0\0BEAMAtU8", &size[..], table, &[0; 3][..table.len().next_multiple_of(4) - table.len()]]
                .concat()
        };
        let long = "l".repeat(40);
        let old = [&2_i32.to_be_bytes()[..], &[2], b"ab", &[40], long.as_bytes()].concat();
        let new = [&(-2_i32).to_be_bytes()[..], &[2 << 4], b"ab", &[0b0000_1000, 40], long.as_bytes()].concat();
        for table in [old, new] {
            let mut atoms = BTreeSet::new();
            of_module(&module(&table), true, &mut atoms);
            assert_eq!(Vec::from_iter(atoms), ["ab", &long]);
        }
    }

    #[test]
    fn junk_adds_nothing_and_never_panics() {
        let mut atoms = BTreeSet::new();
        let whole = b"FOR1\0\0\0\x10BEAMAtU8\0\0\0\x09\0\0\0\x02\x02ab\x05x".to_vec();
        for end in 0..whole.len() {
            of_module(&whole[..end], true, &mut atoms);
        }
        assert!(atoms.len() <= 1, "{atoms:?}");
    }
}
