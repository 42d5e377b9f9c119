//! Finds the atoms that a compilation may create: those in compiled modules, and every word of the sources that can
//! become one.
//!
//! Atoms that are never used are harmless (each takes some bytes of memory). A missing atom matters only if code that
//! runs during the compilation iterates over a map that has it as a key.

use std::collections::BTreeSet;

use crate::elixir::beam;
use crate::elixir::etf::{self, Term};
use crate::error::IoError;
use crate::tree::{Enter, TreeDir};

/// Which atoms are found: raise it whenever this file, or what it uses of `elixir`, finds other atoms in the same
/// files. Part of the cache key of a toolchain.
pub(super) const VERSION: &str = "atoms 1";

/// The longest atom (OTP, "Advanced", system limits), in characters.
const LONGEST: usize = 255;
/// The longest character, in bytes.
const MAX_CHAR: usize = 4;
/// Larger files are skipped: they are data, not code. In bytes.
const LARGEST: u64 = 4 << 20;
/// Number of modules in one source file that are combined with each other to names of nested modules.
const NESTED: usize = 40;

/// Which files below a directory are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtomFiles {
    /// Compiled modules (`*.beam`).
    Modules(Depth),
    /// Compiled modules, and all other files that are text.
    ModulesAndTexts,
}

/// How much of a compiled module is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// The table of atoms (`AtU8`) and the literals (`LitT`), whose maps have keys.
    Tables,
    /// The abstract code (`Dbgi`) and the data of Elixir's checker (`ExCk`) too, which are slow to read.
    Full,
}

/// Adds the atoms in the files of a tree. Skips everything whose name is in `skip`.
pub(super) fn below(
    tree: &TreeDir,
    files: AtomFiles,
    skip: &[&str],
    atoms: &mut BTreeSet<String>,
) -> Result<(), IoError> {
    tree.walk(|entry| {
        if entry.path.file_name().is_some_and(|name| skip.iter().any(|skipped| *skipped == name)) {
            return Ok(Enter::No);
        }
        let is_beam = entry.path.extension().is_some_and(|ending| ending == "beam");
        let is_read = is_beam || files == AtomFiles::ModulesAndTexts;
        if entry.stat.is_regular_file() && is_read && entry.stat.size() <= LARGEST {
            let bytes = tree.read(&entry.path, LARGEST)?.unwrap_or_default();
            if is_beam {
                let depth = if let AtomFiles::Modules(depth) = files { depth } else { Depth::Tables };
                of_module(&bytes, depth, atoms);
            } else if !bytes.contains(&0) {
                of_text(&String::from_utf8_lossy(&bytes), atoms);
            }
        }
        Ok(Enter::Yes)
    })
}

/// Adds the atoms of a compiled module. What cannot be read adds none.
fn of_module(bytes: &[u8], depth: Depth, atoms: &mut BTreeSet<String>) {
    let Ok(plain) = beam::unzipped(bytes, LARGEST) else { return };
    for chunk in beam::chunks(&plain).into_iter().flatten().map_while(Result::ok) {
        match &chunk.name {
            b"AtU8" => drop(beam::each_atom(chunk.data, |name| add(name, atoms))),
            b"LitT" => drop(beam::each_literal(chunk.data, |term| of_term(term, atoms))),
            b"Dbgi" | b"ExCk" if depth == Depth::Full => {
                drop(etf::decode(chunk.data).map(|term| of_term(&term, atoms)));
            }
            _ => {}
        }
    }
}

fn of_term(term: &Term, atoms: &mut BTreeSet<String>) {
    if let Term::Atom(name) = term
        && let Ok(name) = std::str::from_utf8(name)
    {
        add(name, atoms);
    }
    term.children().for_each(|child| of_term(child, atoms));
}

fn add(name: &str, atoms: &mut BTreeSet<String>) {
    if !name.is_empty() && name.chars().count() <= LONGEST && !atoms.contains(name) {
        atoms.insert(name.to_owned());
    }
}

/// Adds every word of a source text; for `A.B.C` the aliases `Elixir.A`, `Elixir.A.B` and `Elixir.A.B.C`; for `A.{B,
/// C}` both modules; quoted text; and for modules defined in one file each one nested in each earlier one.
fn of_text(text: &str, atoms: &mut BTreeSet<String>) {
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

/// The identifier (`a_b?`, `node@host`) or alias (`A.B`) at the start of `text`.
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
    // Longer ones are no atoms, and there may be as many as the file has bytes.
    ends.take_while(|end| *end <= LONGEST * MAX_CHAR).for_each(|end| add(&whole[..end], atoms));
}

/// Adds the text up to the closing quote on the same line, as one atom and as words. Returns the text after the closing
/// quote, or all of it if there is none.
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
    use std::fs;

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
        let apart = words("The end. Of A. B }");
        assert!(!apart.iter().any(|name| name.starts_with("Elixir.A.") || name.starts_with("Elixir.end")), "{apart:?}");
        assert!(words(":\"a-b c\"").contains(&"a-b c".to_owned()));
        assert!(words("it's \"one\ntwo\" x").contains(&"x".to_owned()));
        let nested = words("defmodule A do\n defmodule B.C do");
        assert!(nested.contains(&"Elixir.A.B.C".to_owned()), "{nested:?}");
        assert!(words("größe = 1").contains(&"größe".to_owned()));
    }

    #[test]
    fn an_alias_as_long_as_a_file_takes_no_time() {
        let long = words(&"A.".repeat(1 << 20));
        assert_eq!(long.last().map(String::len), Some(254), "{:?}", long.last());
    }

    #[test]
    fn junk_adds_nothing_and_never_panics() {
        let mut atoms = BTreeSet::new();
        let whole = b"FOR1\0\0\0\x10BEAMAtU8\0\0\0\x09\0\0\0\x02\x02ab\x05x".to_vec();
        for end in 0..whole.len() {
            of_module(&whole[..end], Depth::Full, &mut atoms);
        }
        assert!(atoms.len() <= 1, "{atoms:?}");
    }

    fn set(text: &str) -> BTreeSet<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_text_has_the_words_that_can_become_atoms() {
        for (text, expected) in [
            ("_a b1 c@d e_f 12 -", "_a b1 c@d e_f"),
            ("ok?:no!", "ok? no!"),
            ("A?", "A Elixir.A"),
            ("A.B.", "A B Elixir.A Elixir.A.B"),
            ("a.b", "a b"),
            ("X.{Y}; Z", "X Y Z Elixir.X Elixir.X.Y Elixir.Z"),
            ("X.{ \nY} {Z}", "X Y Z Elixir.X Elixir.X.Y Elixir.Z"),
            ("X {Y}", "X Y Elixir.X Elixir.Y"),
            ("defmodule A do end defmodule B do end", "A B Elixir.A Elixir.B Elixir.A.B defmodule do end"),
            ("\"x.y\" '1-z' \"open", "x.y x y 1-z z open"),
            ("\"a\nb\"", "a b"),
        ] {
            assert_eq!(words(text).into_iter().collect::<BTreeSet<_>>(), set(expected), "{text}");
        }
        assert_eq!(words(&"é".repeat(255)).len(), 1, "the limit is of characters");
        assert!(words(&"a".repeat(256)).is_empty());
    }

    fn module(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut body = b"BEAM".to_vec();
        for (name, data) in chunks {
            let size = u32::try_from(data.len()).unwrap().to_be_bytes();
            body.extend_from_slice(&[&name[..], &size, data].concat());
            body.resize(body.len().next_multiple_of(4), 0);
        }
        [&b"FOR1\0\0\0\0"[..], &body].concat()
    }

    #[test]
    fn files_are_read_by_their_kind_their_size_and_what_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let table = [&1_u32.to_be_bytes()[..], b"\x04atom"].concat();
        let of = |name: &str| Term::Map(vec![(Term::atom(name), Term::Tuple(vec![Term::atom("inner"), Term::Nil]))]);
        let literal = etf::encode(&of("key"));
        let size = u32::try_from(literal.len()).unwrap().to_be_bytes();
        let literals = [&[0; 4], &1_u32.to_be_bytes()[..], &size, &literal].concat();
        let list = Term::List(vec![Term::atom("head")], Box::new(Term::atom("tail")));
        let chunks: [(&[u8; 4], &[u8]); 4] = [
            (b"AtU8", &table),
            (b"LitT", &literals),
            (b"Dbgi", &etf::encode(&of("debug"))),
            (b"ExCk", &etf::encode(&list)),
        ];
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("ebin/m.beam", &module(&chunks));
        write("lib/source.ex", b"word");
        write("lib/data", b"binary\0file");
        write("lib/large", &b"x".repeat(usize::try_from(LARGEST).unwrap() + 1));
        write("lib/largest", &[&b" ".repeat(usize::try_from(LARGEST).unwrap() - 4)[..], b"last"].concat());
        write("skipped/source.ex", b"unseen");
        let tree = TreeDir::open(dir.path()).unwrap();
        let found = |files, skip: &[&str]| {
            let mut atoms = BTreeSet::new();
            below(&tree, files, skip, &mut atoms).unwrap();
            atoms
        };
        let tables = set("atom key inner");
        assert_eq!(found(AtomFiles::Modules(Depth::Tables), &[]), tables);
        assert_eq!(found(AtomFiles::Modules(Depth::Full), &[]), &tables | &set("debug head tail"));
        assert_eq!(found(AtomFiles::ModulesAndTexts, &["skipped"]), &tables | &set("word last"));
        assert_eq!(found(AtomFiles::ModulesAndTexts, &[]), &tables | &set("word last unseen"));
    }
}
