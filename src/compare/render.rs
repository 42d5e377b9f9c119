//! Differences in words, and the one that names the culprit.

use std::fmt;

use super::{Change, Comparison, Dependency, Field, FileDiff, LayerDiff, LayerId, LayerWhy, Status, Why};

/// Where the culprit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// In the layer of this name.
    Layer(String),
    /// In the config.
    Config,
    /// In the manifest.
    Manifest,
}

/// The difference to look at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Where it is.
    pub place: Section,
    /// A path in a layer, or a field; none if the whole differs.
    pub path: Option<String>,
    /// What differs, such as ``chunk `Dbgi` ``.
    pub reason: String,
}

impl Comparison {
    /// The difference to look at first: in the lowest layer that differs, since upper ones follow from it, and there what
    /// weighs most, so that no directory's time hides another content. Config and manifest follow from the layers.
    pub fn first(&self) -> Option<Culprit> {
        let layer = self.layers.iter().find(|layer| layer.status != Status::Same || !layer.why.is_empty());
        if let Some(layer) = layer {
            let place = Section::Layer(layer.name.clone());
            if let (Status::Changed, Some(file)) = (layer.status, layer.files.iter().min_by_key(|file| weight(file))) {
                let reason = file.why.first().filter(|_| file.change == Change::Changed);
                let reason = reason.map_or_else(|| word(file.change).into(), Why::to_string);
                return Some(Culprit { place, path: Some(format!("{:?}", file.path)), reason });
            }
            let reason = match (layer.status, layer.why.first()) {
                (Status::Added, _) => "only the second has it".into(),
                (Status::Removed, _) => "only the first has it".into(),
                (_, why) => why.map_or_else(String::new, LayerWhy::to_string),
            };
            return Some(Culprit { place, path: None, reason });
        }
        let fields = [(Section::Config, self.config.first()), (Section::Manifest, self.manifest.first())];
        let (place, field) = fields.into_iter().find_map(|(place, field)| Some((place, field?)))?;
        Some(Culprit { place, path: Some(field.name.clone()), reason: field.sides() })
    }
}

fn weight(file: &FileDiff) -> u8 {
    match file.why.first() {
        _ if file.change != Change::Changed => 0,
        None | Some(Why::Mtime { .. }) => 2,
        Some(Why::Mode { .. } | Why::Owner { .. } | Why::Xattr { .. }) => 1,
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
        let side = |value: &Option<String>| value.as_deref().map_or_else(|| "nothing".into(), crate::image::shown);
        format!("{} -> {}", side(&self.left), side(&self.right))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", crate::image::shown(&self.name), self.sides())
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Some(digest) => write!(f, "`{}` (`{digest}`)", crate::image::shown(&self.name)),
            None => write!(f, "`{}`", crate::image::shown(&self.name)),
        }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Section::Layer(name) => {
                write!(f, "layer `{}`", crate::image::shown(name.strip_prefix("layer ").unwrap_or(name)))?;
            }
            Section::Config => write!(f, "config")?,
            Section::Manifest => write!(f, "manifest")?,
        }
        if let Some(path) = &self.path {
            write!(f, ": `{path}`")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for LayerWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob => write!(f, "the same files, compressed otherwise"),
            Self::Spec => write!(f, "it stands elsewhere in the order of layers"),
            Self::Name { left, right } => write!(f, "name `{left}` -> `{right}`"),
            Self::Descriptor { field } => write!(f, "descriptor: {field}"),
            Self::EntryOrder => write!(f, "the same files in another order"),
            Self::Headers => write!(f, "the same files; the headers of the tar differ in what says nothing about them"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whiteout { right } => write!(f, "{}", side(*right, "whiteout")),
            Self::Opaque { right } => write!(f, "{}", side(*right, "opaque whiteout")),
            Self::Kind { left, right } => write!(f, "type {left} -> {right}"),
            Self::Content { left, right } if left == right => write!(f, "content ({left} bytes)"),
            Self::Content { left, right } => write!(f, "content ({left} -> {right} bytes)"),
            Self::Chunks { names, same_code } => {
                let plural = if names.len() == 1 { "" } else { "s" };
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                let note = if *same_code { " (the code is the same)" } else { "" };
                write!(f, "chunk{plural} {}{note}", names.join(", "))
            }
            Self::Link { left, right } => write!(f, "link `{left}` -> `{right}`"),
            Self::Mode { left, right } => write!(f, "mode {left:04o} -> {right:04o}"),
            Self::Owner { left, right } => write!(f, "owner {left} -> {right}"),
            Self::Xattr { names } => {
                let names: Vec<String> = names.iter().map(|name| format!("`{}`", crate::image::shown(name))).collect();
                write!(f, "xattr {}", names.join(", "))
            }
            Self::Mtime { left, right } => write!(f, "time {} -> {}", time(*left), time(*right)),
        }
    }
}

fn side(right: bool, what: &str) -> String {
    if right { format!("{what} added") } else { format!("{what} removed") }
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
        let why: Vec<String> = self.why.iter().map(Why::to_string).collect();
        if !why.is_empty() {
            write!(f, "  {}", why.join(", "))?;
        }
        match &self.elsewhere {
            Some(place) if self.change == Change::Added => {
                write!(f, "  same content as `{:?}` in layer `{}` of the first", place.path, place.layer)
            }
            Some(place) => write!(f, "  same content as `{:?}` in layer `{}` of the second", place.path, place.layer),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::lock::Way;
        let name = crate::image::shown(&self.name);
        let side = |value: &Option<String>| value.as_deref().map_or_else(|| "none".into(), crate::image::shown);
        let (left, right) = (side(&self.left), side(&self.right));
        match self.way {
            Way::Added => write!(f, "{name} {right} added"),
            Way::Removed => write!(f, "{name} {left} removed"),
            Way::Down => write!(f, "{name} {left} -> {right} (down)"),
            Way::Other if left == right => write!(f, "{name} {left}: locked otherwise"),
            Way::Up | Way::Other => write!(f, "{name} {left} -> {right}"),
        }
    }
}

impl Comparison {
    /// The whole of it, a line for each thing; one line if nothing differs. Another commit means another time of every file:
    /// without `times`, files that differ in nothing else are counted only.
    pub fn text(&self, times: bool) -> String {
        if self.is_same() {
            return "no difference".into();
        }
        let mut lines = Vec::new();
        lines.extend(self.manifest.iter().map(|field| format!("manifest {field}")));
        self.config_lines(&mut lines);
        for layer in &self.layers {
            lines.push(heading(layer));
            let (late, told): (Vec<_>, Vec<_>) =
                layer.files.iter().partition(|file| !times && matches!(file.why[..], [Why::Mtime { .. }]));
            lines.extend(told.iter().map(|file| format!("  {file}")));
            if !late.is_empty() {
                let files = if late.len() == 1 { "file differs in its" } else { "files differ in their" };
                lines.push(format!("  ~ {} {files} time alone", late.len()));
            }
        }
        lines.extend(self.dependencies.iter().map(|dependency| format!("dependency {dependency}")));
        lines.join("\n")
    }

    /// The history repeats the time of the image for every layer of ours, which is said once.
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
    let why: Vec<String> = layer.why.iter().map(LayerWhy::to_string).collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
    let count = match layer.files.len() {
        0 => String::new(),
        1 => ": 1 file".into(),
        n => format!(": {n} files"),
    };
    // A layer that nobody named is called by its place.
    let name = crate::image::shown(layer.name.strip_prefix("layer ").unwrap_or(&layer.name));
    format!("layer {name} {status}{why}{count}")
}
