//! Hex's marker in a fetched package, `deps/*/.hex`: a term that says which version of which package it is.

use super::etf::{self, Term};
use super::mix_lock::HexPackage;
use crate::tree::TreeDir;

/// The largest marker that is read, in bytes: they have some hundred.
const MAX_BYTES: u64 = 1 << 20;

/// The package that the marker in a directory names; `None` if it is no Hex package, or was fetched by a Hex before 2.0.
pub fn read(dir: &TreeDir) -> Option<HexPackage> {
    parse(&dir.read(".hex", MAX_BYTES).ok()??)
}

/// The package that the bytes of a marker name.
pub fn parse(marker: &[u8]) -> Option<HexPackage> {
    let Term::Tuple(parts) = etf::decode(marker).ok()? else { return None };
    let [Term::Tuple(version), Term::Map(pairs)] = &parts[..] else { return None };
    if !matches!(&version[..], [hex, Term::Int(2), Term::Int(_)] if hex.is_atom("hex")) {
        return None;
    }
    let get = |key: &str| pairs.iter().find_map(|(name, value)| name.is_atom(key).then_some(value));
    let text = |key: &str| get(key).and_then(text);
    let managers = match get("managers")? {
        Term::Nil => vec![],
        Term::List(items, _) => items.iter().map(self::text).collect::<Option<_>>()?,
        _ => return None,
    };
    Some(HexPackage {
        name: text("name")?,
        version: text("version")?,
        inner_checksum: text("inner_checksum")?,
        outer_checksum: text("outer_checksum")?,
        repository: text("repo")?,
        managers,
    })
}

fn text(term: &Term) -> Option<String> {
    match term {
        Term::Atom(bytes) | Term::Bin(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elixir::mix_lock::hex_packages;

    #[test]
    fn a_marker_and_the_lock_describe_the_same_package() {
        let lock = r#"  "a": {:hex, :a_b, "1.0.0-rc.1", "aa", [:make, :rebar3], [], "hexpm:team", "bb"},"#;
        let bin = |text: &str| Term::Bin(text.as_bytes().to_vec());
        let pairs = [
            ("name", bin("a_b")),
            ("version", bin("1.0.0-rc.1")),
            ("inner_checksum", bin("aa")),
            ("outer_checksum", bin("bb")),
            ("repo", bin("hexpm:team")),
            ("managers", Term::List(vec![Term::atom("make"), Term::atom("rebar3")], Box::new(Term::Nil))),
        ];
        let map = Term::Map(pairs.map(|(key, value)| (Term::atom(key), value)).into());
        let version = Term::Tuple(vec![Term::atom("hex"), Term::Int(2), Term::Int(0)]);
        let dir = tempfile::tempdir().unwrap();
        let opened = TreeDir::open(dir.path()).unwrap();
        assert_eq!(read(&opened), None);
        std::fs::write(dir.path().join(".hex"), etf::encode(&Term::Tuple(vec![version, map]))).unwrap();
        assert_eq!(read(&opened).as_ref(), Some(&hex_packages(lock)["a"]));
    }
}
