//! The parts of a file whose format is known, named in the format's own words, each with the digest of its content: so two
//! files are compared by part without keeping them in memory. No value is shown, since a manifest holds the configuration.

mod beam_functions;
mod erlang_text;
mod manifest;

use std::collections::BTreeMap;
use std::fmt;

use phial_layers::{Digest, EntryPath};
use serde::Serialize;

use crate::elixir::etf::{self, Term};
use crate::image::shown;

/// Digests of the parts by name.
pub(super) type Parts = BTreeMap<String, Digest>;

/// The most parts of a file that are named.
const MAX_NAMED: usize = 8;
/// The most characters of a name.
const MAX_NAME: usize = 200;
/// The most parts that are kept of a file.
const MAX_PARTS: usize = 100_000;

/// Whether the path is that of a file that [`of`] reads.
pub(super) fn is_known(path: &EntryPath) -> bool {
    FileFormat::of(path).is_some()
}

/// The parts of a file; empty if it is not what its name says.
pub(super) fn of(path: &EntryPath, bytes: &[u8]) -> Parts {
    let mut parts = FoundParts::default();
    match FileFormat::of(path) {
        Some(FileFormat::Beam) => beam_functions::find(bytes, &mut parts),
        Some(FileFormat::Text) => erlang_text::find(bytes, &mut parts),
        Some(FileFormat::Manifest) => {
            if let Ok(term) = etf::decode(bytes) {
                manifest::find(&term, &mut parts);
            }
        }
        Some(FileFormat::Boot) => {
            if let Ok(term) = etf::decode(bytes) {
                manifest::find_boot(&term, &mut parts);
            }
        }
        None => {}
    }
    parts.0
}

/// The parts of a file that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DifferingParts {
    /// Their names in alphabetical order: at most eight.
    pub names: Vec<String>,
    /// Number of the others.
    pub more: usize,
}

impl DifferingParts {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl fmt::Display for DifferingParts {
    /// `: a, b and 3 more`, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.names.iter().map(|name| format!("`{}`", shown(name))).collect();
        match (self.names.is_empty(), self.more) {
            (true, _) => Ok(()),
            (false, 0) => write!(f, ": {}", names.join(", ")),
            (false, more) => write!(f, ": {} and {more} more", names.join(", ")),
        }
    }
}

/// The parts in which two files differ.
pub(super) fn differing(left: &Parts, right: &Parts) -> DifferingParts {
    let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
    names.sort();
    names.dedup();
    let all: Vec<String> = names.into_iter().filter(|name| left.get(*name) != right.get(*name)).cloned().collect();
    let more = all.len().saturating_sub(MAX_NAMED);
    DifferingParts { names: all.into_iter().take(MAX_NAMED).collect(), more }
}

enum FileFormat {
    /// A compiled module.
    Beam,
    /// `.app` and `.rel`: one term of Erlang as text.
    Text,
    /// `.mix/compile.NAME`.
    Manifest,
    /// `.boot`: the script that a VM starts with.
    Boot,
}

impl FileFormat {
    fn of(path: &EntryPath) -> Option<Self> {
        let path = path.as_bytes();
        let (dir, name) =
            path.iter().rposition(|byte| *byte == b'/').map_or((&b""[..], path), |at| path.split_at(at + 1));
        if dir.ends_with(b".mix/") && name.starts_with(b"compile.") {
            return Some(Self::Manifest);
        }
        match name.rsplit(|byte| *byte == b'.').next()? {
            b"beam" => Some(Self::Beam),
            b"app" | b"rel" => Some(Self::Text),
            b"boot" => Some(Self::Boot),
            _ => None,
        }
    }
}

/// The parts that were found. Two with one name are one part.
#[derive(Default)]
struct FoundParts(Parts);

impl FoundParts {
    fn add(&mut self, name: &str, content: &[u8]) {
        if self.0.len() >= MAX_PARTS {
            return;
        }
        let name: String = name.chars().take(MAX_NAME).collect();
        let digest = match self.0.get(&name) {
            Some(before) => Digest::of(&[before.as_str().as_bytes(), Digest::of(content).as_str().as_bytes()].concat()),
            None => Digest::of(content),
        };
        self.0.insert(name, digest);
    }

    fn add_term(&mut self, name: &str, term: &Term) {
        self.add(name, &etf::encode(term));
    }
}

/// A term as the name of something: an atom without the `Elixir.` of a module, or a text.
fn name_of(term: &Term) -> Option<String> {
    match term {
        Term::Atom(text) | Term::Bin(text) | Term::Str(text) => {
            let text = String::from_utf8_lossy(text);
            Some(text.strip_prefix("Elixir.").unwrap_or(&text).to_owned())
        }
        Term::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
