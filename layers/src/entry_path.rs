//! The path of an entry inside a tree or layer.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::escape::escaped;

/// The longest path that a layer may hold, in bytes: `PATH_MAX` without its NUL.
pub(crate) const MAX_PATH: usize = 4095;

/// A path relative to the root of a tree, without leading, trailing or doubled slashes and without `.` components; the root
/// itself is empty. Bytes need not be UTF-8; control characters, `%` and bytes that are not ASCII are `%xx` in JSON.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// The path `bytes`, normalised. `..` is kept as it is.
    pub fn new(bytes: &[u8]) -> Self {
        Self(components(bytes).collect::<Vec<_>>().join(&b'/'))
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The components of `path` without empty ones and `.`.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// The path of the directory that holds `path`; empty for a path of one component.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)]
}

/// The last component of `path`.
pub(crate) fn file_name(path: &[u8]) -> &[u8] {
    &path[path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1)..]
}

/// Removes `path` and everything below it from a map.
pub(crate) fn remove_tree<V>(map: &mut BTreeMap<EntryPath, V>, path: &EntryPath) {
    map.remove(path);
    let prefix = EntryPath([path.as_bytes(), b"/"].concat());
    let below = map.range(&prefix..).map(|(path, _)| path).take_while(|path| path.0.starts_with(&prefix.0));
    for path in below.cloned().collect::<Vec<_>>() {
        map.remove(&path);
    }
}

impl From<EntryPath> for String {
    fn from(path: EntryPath) -> Self {
        let mut text = Self::with_capacity(path.0.len());
        for byte in path.0 {
            match byte {
                b'%' | 0..=31 | 127..=255 => {
                    let _ = write!(text, "%{byte:02x}"); // writing to a String never fails
                }
                plain => text.push(char::from(plain)),
            }
        }
        text
    }
}

impl TryFrom<String> for EntryPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            if first == b'%' {
                let (byte, tail) =
                    escaped_byte(tail).ok_or_else(|| format!("bad escape in `{}`", escaped(text.as_bytes())))?;
                bytes.push(byte);
                rest = tail;
            } else {
                bytes.push(first);
                rest = tail;
            }
        }
        if bytes.contains(&0) || Self::new(&bytes).0 != bytes {
            return Err(format!("`{}` is not a normalised relative path", escaped(text.as_bytes())));
        }
        Ok(Self(bytes))
    }
}

/// The byte that the two hex digits at the start of `text` mean, and the text after them.
fn escaped_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<2>()?;
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(digits[0])? << 4 | digit(digits[1])?, rest))
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(self.clone()))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<EntryPath, String> {
        EntryPath::try_from(text.to_owned())
    }

    #[test]
    fn a_path_of_any_bytes_survives_json() {
        let path = EntryPath::new(b"./a%b//\xff\n/c d/\x7f~\x1f ");
        let json = serde_json::to_string(&path).unwrap();
        assert_eq!(json, "\"a%25b/%ff%0a/c d/%7f~%1f \"");
        assert_eq!(serde_json::from_str::<EntryPath>(&json).unwrap(), path);
        assert_eq!(format!("{path:?}"), "a%25b/%ff%0a/c d/%7f~%1f ");
        assert_eq!(parsed("%FF%0A"), parsed("%ff%0a"));
        assert_eq!(parsed("é").unwrap().as_bytes(), "é".as_bytes());
    }

    #[test]
    fn a_path_is_normalised() {
        for (bytes, expected) in [
            ("", ""),
            ("/", ""),
            (".", ""),
            ("./a/", "a"),
            ("/a//b/./c/", "a/b/c"),
            ("..a/.b", "..a/.b"),
            ("../a", "../a"),
        ] {
            assert_eq!(EntryPath::new(bytes.as_bytes()).as_bytes(), expected.as_bytes(), "{bytes}");
        }
    }

    #[test]
    fn json_holds_only_paths_that_could_have_been_written() {
        for bad in ["%", "%f", "%fg", "%+f", "%-1", "a%", "a%2", "a%éa"] {
            assert_eq!(parsed(bad), Err(format!("bad escape in `{bad}`")));
        }
        for bad in ["/a", "a/", "a//b", "./a", ".", "a/%2e", "%00", "%2fa"] {
            assert_eq!(parsed(bad), Err(format!("`{bad}` is not a normalised relative path")));
        }
        for bad in ["a\0", "/\u{1b}[31m", "%\u{7}"] {
            assert!(!parsed(bad).unwrap_err().contains(char::is_control), "{bad:?}");
        }
        assert_eq!(parsed("").unwrap(), EntryPath::new(b""));
    }

    #[test]
    fn a_path_has_a_parent_and_a_last_component() {
        for (path, above, name) in [("a", "", "a"), ("a/b", "a", "b"), ("a/b/c", "a/b", "c"), ("", "", "")] {
            assert_eq!(parent(path.as_bytes()), above.as_bytes(), "{path}");
            assert_eq!(file_name(path.as_bytes()), name.as_bytes(), "{path}");
        }
    }
}
