//! Differences as text, and the choice of the one to look at first.

use std::fmt;

use super::comparison::{Comparison, LayerDiff, LayerDifference, LayerId, Status};
use super::fields::Field;
use super::files::{Change, FileDiff, FileDifference};
use super::lock::Dependency;
use crate::image::shown;

/// A part of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImagePart {
    /// The layer of this name.
    Layer(String),
    /// The config.
    Config,
    /// The manifest.
    Manifest,
}

/// The difference to look at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstDifference {
    /// The part that differs.
    pub part: ImagePart,
    /// A path in the layer, or a field; `None` if the part differs as a whole.
    pub path: Option<String>,
    /// The difference, such as ``chunk `Dbgi` ``.
    pub reason: String,
}

impl Comparison {
    /// The difference to look at first: in the lowest layer that differs, since upper layers depend on it, and there the most
    /// important one, so that a time does not hide different content. Config and manifest come last: they depend on the layers.
    pub fn first(&self) -> Option<FirstDifference> {
        let layer = self.layers.iter().find(|layer| layer.status != Status::Same || !layer.differences.is_empty());
        if let Some(layer) = layer {
            let part = ImagePart::Layer(layer.name.clone());
            if let (Status::Changed, Some(file)) = (layer.status, layer.files.iter().min_by_key(|file| rank(file))) {
                let reason = file.differences.first().filter(|_| file.change == Change::Changed);
                let reason = reason.map_or_else(|| word(file.change).into(), FileDifference::to_string);
                return Some(FirstDifference { part, path: Some(file.path.to_string()), reason });
            }
            let reason = match (layer.status, layer.differences.first()) {
                (Status::Added, _) => "only the second has it".into(),
                (Status::Removed, _) => "only the first has it".into(),
                (_, why) => why.map_or_else(String::new, LayerDifference::to_string),
            };
            return Some(FirstDifference { part, path: None, reason });
        }
        let fields = [(ImagePart::Config, self.config.first()), (ImagePart::Manifest, self.manifest.first())];
        let (part, field) = fields.into_iter().find_map(|(part, field)| Some((part, field?)))?;
        Some(FirstDifference { part, path: Some(field.name.clone()), reason: field.sides() })
    }
}

/// 0 for the most important differences.
fn rank(file: &FileDiff) -> u8 {
    match file.differences.first() {
        _ if file.change != Change::Changed => 0,
        None | Some(FileDifference::Mtime { .. }) => 2,
        Some(FileDifference::Mode { .. } | FileDifference::Owner { .. } | FileDifference::Xattr { .. }) => 1,
        Some(_) => 0,
    }
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "only the second has it",
        Change::Removed => "only the first has it",
        Change::Changed => "it differs",
    }
}

impl Field {
    /// `left -> right`.
    pub fn sides(&self) -> String {
        let side = |value: &Option<String>| value.as_deref().map_or_else(|| "nothing".into(), shown);
        format!("{} -> {}", side(&self.left), side(&self.right))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", shown(&self.name), self.sides())
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Some(digest) => write!(f, "`{}` (`{digest}`)", shown(&self.name)),
            None => write!(f, "`{}`", shown(&self.name)),
        }
    }
}

impl fmt::Display for FirstDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            ImagePart::Layer(name) => {
                write!(f, "layer `{}`", shown(name.strip_prefix("layer ").unwrap_or(name)))?;
            }
            ImagePart::Config => write!(f, "config")?,
            ImagePart::Manifest => write!(f, "manifest")?,
        }
        if let Some(path) = &self.path {
            write!(f, ": `{path}`")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for LayerDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob => write!(f, "the same files, compressed differently"),
            Self::Order => write!(f, "another place in the order of layers"),
            Self::Name { left, right } => write!(f, "name `{}` -> `{}`", shown(left), shown(right)),
            Self::Descriptor { field } => write!(f, "descriptor: {field}"),
            Self::EntryOrder => write!(f, "the same files in another order"),
            Self::Headers => write!(f, "the same files; the encoding of the tar differs"),
        }
    }
}

impl fmt::Display for FileDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whiteout { right } => write!(f, "whiteout {}", added_or_removed(*right)),
            Self::Opaque { right } => write!(f, "opaque whiteout {}", added_or_removed(*right)),
            Self::Kind { left, right } => write!(f, "type {left} -> {right}"),
            Self::Content { left, right, parts } if left == right => write!(f, "content ({left} bytes){parts}"),
            Self::Content { left, right, parts } => write!(f, "content ({left} -> {right} bytes){parts}"),
            Self::Chunks { names, same_code, parts } => {
                let plural = if names.len() == 1 { "" } else { "s" };
                let names: Vec<String> = names.iter().map(|name| format!("`{}`", shown(name))).collect();
                let note = if *same_code { " (the code is the same)" } else { "" };
                write!(f, "chunk{plural} {}{note}{parts}", names.join(", "))
            }
            Self::Link { left, right } => write!(f, "link `{left}` -> `{right}`"),
            Self::Mode { left, right } => write!(f, "mode {left:04o} -> {right:04o}"),
            Self::Owner { left, right } => write!(f, "owner {left} -> {right}"),
            Self::Xattr { names } => {
                let names: Vec<String> = names.iter().map(|name| format!("`{}`", shown(name))).collect();
                write!(f, "xattr {}", names.join(", "))
            }
            Self::Mtime { left, right } => write!(f, "time {} -> {}", time(*left), time(*right)),
        }
    }
}

fn added_or_removed(is_on_right: bool) -> &'static str {
    if is_on_right { "added" } else { "removed" }
}

fn time((seconds, nanos): (i64, u32)) -> String {
    if nanos == 0 { seconds.to_string() } else { format!("{seconds}.{nanos:09}") }
}

impl fmt::Display for FileDiff {
    /// One line: `+`, `-` or `~`, the path, and why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.change {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Changed => '~',
        };
        write!(f, "{mark} {:?}", self.path)?;
        let differences: Vec<String> = self.differences.iter().map(FileDifference::to_string).collect();
        if !differences.is_empty() {
            write!(f, "  {}", differences.join(", "))?;
        }
        match &self.same_content {
            Some(place) if self.change == Change::Added => {
                write!(f, "  same content as `{:?}` in layer `{}` of the first", place.path, shown(&place.layer))
            }
            Some(place) => {
                write!(f, "  same content as `{:?}` in layer `{}` of the second", place.path, shown(&place.layer))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::lock::LockChange;
        let name = shown(&self.name);
        let side = |value: &Option<String>| value.as_deref().map_or_else(|| "none".into(), shown);
        let (left, right) = (side(&self.left), side(&self.right));
        match self.change {
            LockChange::Added => write!(f, "{name} {right} added"),
            LockChange::Removed => write!(f, "{name} {left} removed"),
            LockChange::Down => write!(f, "{name} {left} -> {right} (down)"),
            LockChange::Other if left == right => write!(f, "{name} {left}: locked differently"),
            LockChange::Up | LockChange::Other => write!(f, "{name} {left} -> {right}"),
        }
    }
}

/// How files that differ in nothing but their time are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Each with its times.
    Listed,
    /// Their number.
    Counted,
}

impl Comparison {
    /// All differences, one line each; one line if there are none. Files of another commit have other times: files that differ
    /// in nothing else are only counted, unless `times` asks for them.
    pub fn text(&self, times: Times) -> String {
        if self.is_same() {
            return "no difference".into();
        }
        let mut lines = Vec::new();
        lines.extend(self.manifest.iter().map(|field| format!("manifest {field}")));
        self.config_lines(&mut lines);
        for layer in &self.layers {
            lines.push(heading(layer));
            let (counted, listed): (Vec<_>, Vec<_>) = layer.files.iter().partition(|file| {
                times == Times::Counted && matches!(file.differences[..], [FileDifference::Mtime { .. }])
            });
            lines.extend(listed.iter().map(|file| format!("  {file}")));
            if !counted.is_empty() {
                let files = if counted.len() == 1 { "file differs in its" } else { "files differ in their" };
                lines.push(format!("  ~ {} {files} time alone", counted.len()));
            }
        }
        lines.extend(self.dependencies.iter().map(|dependency| format!("dependency {dependency}")));
        lines.join("\n")
    }

    /// The history repeats the image's time for each layer that Phial built; one line shows them all.
    fn config_lines(&self, lines: &mut Vec<String>) {
        let created = self.config.iter().find(|field| field.name == "created");
        let repeats = |field: &&Field| {
            let of_history = field.name.starts_with("history[") && field.name.ends_with("].created");
            of_history && created.is_some_and(|created| (&created.left, &created.right) == (&field.left, &field.right))
        };
        let repeated = self.config.iter().filter(repeats).count();
        for field in self.config.iter().filter(|field| !repeats(field)) {
            let also = match repeated {
                1 if field.name == "created" => ", and so in 1 entry of the history".into(),
                2.. if field.name == "created" => format!(", and so in {repeated} entries of the history"),
                _ => String::new(),
            };
            lines.push(format!("config {field}{also}"));
        }
    }
}

fn heading(layer: &LayerDiff) -> String {
    let status = match layer.status {
        Status::Same => "same",
        Status::Changed => "changed",
        Status::Added => "added",
        Status::Removed => "removed",
    };
    let differences: Vec<String> = layer.differences.iter().map(LayerDifference::to_string).collect();
    let differences = if differences.is_empty() { String::new() } else { format!(" ({})", differences.join(", ")) };
    let count = match layer.files.len() {
        0 => String::new(),
        1 => ": 1 file".into(),
        n => format!(": {n} files"),
    };
    // `layer 3 changed`, not `layer layer 3 changed`.
    let name = shown(layer.name.strip_prefix("layer ").unwrap_or(&layer.name));
    format!("layer {name} {status}{differences}{count}")
}
