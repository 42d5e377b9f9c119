//! Hex's marker in a fetched package, `deps/*/.hex`: one term, whose maps get one order. And what it says, beside what
//! `mix.lock` says of the same package.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::determinism::etf::{self, EtfError, Term};

/// A version of a package of Hex, by all that its marker holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// In its repository, where it may have another name than its app.
    pub name: String,
    /// As it is written there.
    pub version: String,
    /// SHA-256 of what the tarball holds, in hex digits.
    pub inner: String,
    /// SHA-256 of the tarball.
    pub outer: String,
    /// `hexpm`, or `hexpm:ORGANISATION`.
    pub repository: String,
    /// What builds it, such as `mix` and `rebar3`.
    pub managers: Vec<String>,
}

/// What a fetched package says that it is; none for what is no package of Hex, or was fetched by a Hex before 2.0.
pub fn fetched(dir: &Path) -> Option<Package> {
    let Term::Tuple(parts) = etf::decode(&fs::read(dir.join(".hex")).ok()?).ok()? else { return None };
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
    Some(Package {
        name: text("name")?,
        version: text("version")?,
        inner: text("inner_checksum")?,
        outer: text("outer_checksum")?,
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

/// The packages of Hex in the text of a `mix.lock`, by app. Mix writes one on each line (`Mix.Dep.Lock`); what is not understood
/// is passed over.
pub fn locked(lock: &str) -> BTreeMap<String, Package> {
    lock.lines().filter_map(|line| entry(line.trim().trim_end_matches(','))).collect()
}

/// `"app": {:hex, :name, "version", "inner", [:mix], [...], "repository", "outer"}`
fn entry(line: &str) -> Option<(String, Package)> {
    let (app, rest) = line.strip_prefix('"')?.split_once("\": {:hex, :")?;
    let (name, rest) = rest.split_once(", \"")?;
    let (version, rest) = rest.split_once("\", \"")?;
    let (inner, rest) = rest.split_once("\", [")?;
    let (managers, rest) = rest.split_once(']')?;
    let (rest, outer) = rest.strip_suffix("\"}")?.rsplit_once("\", \"")?;
    let (_, repository) = rest.rsplit_once('"')?;
    let own = |text: &str| text.trim_matches('"').to_owned();
    let managers = managers.split(", ").filter_map(|manager| manager.strip_prefix(':')).map(str::to_owned).collect();
    let (version, inner, outer, repository) = (own(version), own(inner), own(outer), own(repository));
    Some((app.to_owned(), Package { name: own(name), version, inner, outer, repository, managers }))
}

/// The same term in canonical bytes. Older Hex wrote plain text, which is not a term: an error, and to be left alone.
pub(super) fn normal(bytes: &[u8]) -> Result<Vec<u8>, EtfError> {
    Ok(etf::encode(&etf::decode(bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_the_same_however_its_map_was_ordered() {
        let pair = |key: &str| (Term::atom(key), Term::Bin(key.as_bytes().to_vec()));
        let version = Term::Tuple(vec![Term::atom("hex"), Term::Int(2), Term::Int(0)]);
        let marker = |pairs| Term::Tuple(vec![version.clone(), Term::Map(pairs)]);
        let expected = etf::encode(&marker(vec![pair("name"), pair("repo")]));
        // term_to_binary in the other order: {tuple 2, version, map 2, repo, name}
        let mut bytes = etf::encode(&Term::Tuple(vec![version.clone()]));
        bytes[2] = 2;
        bytes.extend_from_slice(&[116, 0, 0, 0, 2]);
        for key in ["repo", "name"] {
            bytes.extend_from_slice(&etf::encode(&Term::atom(key))[1..]);
            bytes.extend_from_slice(&etf::encode(&Term::Bin(key.as_bytes().to_vec()))[1..]);
        }
        assert_ne!(bytes, expected);
        assert_eq!(normal(&bytes), Ok(expected));
    }

    #[test]
    fn a_marker_of_old_hex_is_not_a_term() {
        assert!(normal(b"jason,1.2.0,abc,hexpm\n").is_err());
    }

    #[test]
    fn a_marker_and_the_lock_say_the_same_of_a_package() {
        let lock = r#"%{
  "a": {:hex, :a_b, "1.0.0-rc.1", "aa", [:make, :rebar3], [{:x, "~> 1.0", [hex: :x, repo: "hexpm", optional: true]}], "hexpm:team", "bb"},
  "b": {:hex, :b, "2.0.0", "cc", [:mix], [], "hexpm", "dd"},
  "c": {:git, "https://host/c.git", "0123", []},
}
"#;
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
        assert_eq!(fetched(dir.path()), None);
        fs::write(dir.path().join(".hex"), etf::encode(&Term::Tuple(vec![version, map]))).unwrap();
        let found = locked(lock);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(fetched(dir.path()).as_ref(), Some(&found["a"]));
        assert_eq!(found["b"].managers, ["mix"]);
    }
}
