//! `mix.lock`: the locked dependencies of a Mix project. Mix writes one on each line (`Mix.Dep.Lock`):
//!
//! ```text
//!   "jason": {:hex, :jason, "1.4.4", "c5eb...", [:mix], [...], "hexpm", "c5eb..."},
//!   "stamp": {:git, "https://host/stamp.git", "4f5c...", [tag: "v1.0.0"]},
//! ```
//!
//! Only this form is read, not any Elixir term: no crate parses Elixir, and evaluating the file would run code.

use std::collections::BTreeMap;

/// A dependency in a `mix.lock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockEntry<'a> {
    /// The name of its app.
    pub app: &'a str,
    /// Where it comes from: `hex`, `git` or another SCM.
    pub scm: &'a str,
    /// The line, without indentation and trailing comma.
    pub line: &'a str,
    /// The line after the SCM.
    fields: &'a str,
}

/// A version of a Hex package, as both `mix.lock` and Hex's marker describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HexPackage {
    /// The name in its repository, which may differ from the name of its app.
    pub name: String,
    /// The version.
    pub version: String,
    /// SHA-256 of the tarball's contents, in hex digits.
    pub inner_checksum: String,
    /// SHA-256 of the tarball, in hex digits.
    pub outer_checksum: String,
    /// `hexpm`, or `hexpm:ORGANIZATION`.
    pub repository: String,
    /// The build tools that it can be built with, such as `mix` and `rebar3`.
    pub managers: Vec<String>,
}

/// The dependencies in the text of a `mix.lock`. Lines of another form are skipped.
pub fn entries(text: &str) -> impl Iterator<Item = LockEntry<'_>> {
    text.lines().filter_map(|line| {
        let line = line.trim_start().trim_end_matches(|c: char| c == ',' || c.is_whitespace());
        let (app, rest) = line.strip_prefix('"')?.split_once("\": {:")?;
        let (scm, fields) = rest.split_once(", ")?;
        Some(LockEntry { app, scm, line, fields })
    })
}

/// The Hex packages in the text of a `mix.lock`, by app. Entries of another form than today's (Hex 2.0) are skipped.
pub fn hex_packages(text: &str) -> BTreeMap<String, HexPackage> {
    entries(text).filter_map(|entry| Some((entry.app.to_owned(), entry.hex_package()?))).collect()
}

impl<'a> LockEntry<'a> {
    /// The version of a Hex package or the revision of a git dependency; `None` for other SCMs and unknown forms.
    pub fn version(&self) -> Option<&'a str> {
        let rest = match self.scm {
            // The package's own name, then the version.
            "hex" => self.fields.split_once(", ")?.1,
            // The URL, then the revision.
            "git" => self.fields.strip_prefix('"')?.split_once("\", ")?.1,
            _ => return None,
        };
        rest.strip_prefix('"')?.split('"').next()
    }

    /// `:NAME, "VERSION", "INNER", [:MANAGER], [DEPENDENCIES], "REPOSITORY", "OUTER"}` of a Hex package.
    fn hex_package(&self) -> Option<HexPackage> {
        let fields = self.fields.strip_prefix(':').filter(|_| self.scm == "hex")?;
        let (name, rest) = fields.split_once(", \"")?;
        let (version, rest) = rest.split_once("\", \"")?;
        let (inner, rest) = rest.split_once("\", [")?;
        let (managers, rest) = rest.split_once(']')?;
        let (rest, outer) = rest.strip_suffix("\"}")?.rsplit_once("\", \"")?;
        let (_, repository) = rest.rsplit_once('"')?;
        Some(HexPackage {
            name: unquoted(name),
            version: unquoted(version),
            inner_checksum: unquoted(inner),
            outer_checksum: unquoted(outer),
            repository: unquoted(repository),
            managers: managers.split(", ").filter_map(|name| name.strip_prefix(':')).map(str::to_owned).collect(),
        })
    }
}

fn unquoted(text: &str) -> String {
    text.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"%{
  "a": {:hex, :a_b, "1.0.0-rc.1", "aa", [:make, :rebar3], [{:x, "~> 1.0", [hex: :x, repo: "hexpm", optional: true]}], "hexpm:team", "bb"},
  "b": {:hex, :b, "2.0.0", "cc", [:mix], [], "hexpm", "dd"},
  "c": {:git, "https://u:p@host/c.git", "0123", [tag: "v1"]},
  "old": {:hex, :old, "0.1.0", "ee", [:mix], []},
  "p": {:path, "x"},
}
not a line of a lock
"#;

    #[test]
    fn entries_have_an_app_an_scm_and_a_version() {
        let found: Vec<_> = entries(LOCK).map(|entry| (entry.app, entry.scm, entry.version())).collect();
        let expected = [
            ("a", "hex", Some("1.0.0-rc.1")),
            ("b", "hex", Some("2.0.0")),
            ("c", "git", Some("0123")),
            ("old", "hex", Some("0.1.0")),
            ("p", "path", None),
        ];
        assert_eq!(found, expected);
        assert!(entries(LOCK).all(|entry| entry.line.starts_with('"') && entry.line.ends_with('}')));
    }

    #[test]
    fn a_line_alone_is_read_as_it_is_in_its_file() {
        for text in [LOCK, "\t \"a\": {:path, \"x\"} ,, \r\n", "\"\": {::, ,"] {
            for entry in entries(text) {
                assert_eq!(entries(entry.line).collect::<Vec<_>>(), [entry]);
            }
        }
    }

    #[test]
    fn hex_packages_are_read_with_all_their_fields() {
        let packages = hex_packages(LOCK);
        assert_eq!(packages.keys().collect::<Vec<_>>(), ["a", "b"]);
        let expected = HexPackage {
            name: "a_b".into(),
            version: "1.0.0-rc.1".into(),
            inner_checksum: "aa".into(),
            outer_checksum: "bb".into(),
            repository: "hexpm:team".into(),
            managers: vec!["make".into(), "rebar3".into()],
        };
        assert_eq!(packages["a"], expected);
        assert_eq!(packages["b"].managers, ["mix"]);
    }
}
