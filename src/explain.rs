//! `phial explain`: from which inputs each layer of a build followed, and which of them differ from the build before.

use std::collections::BTreeMap;

use phial_layers::{Digest, EntryPath};
use serde::Serialize;

use crate::build::{BuildRecord, LayerRecord, repository_name};
use crate::compare::dependencies;
use crate::config;
use crate::context::Context;
use crate::error::{Error, ExitKind, UserError};
use crate::image::{Reference, rfc3339, shown};
use crate::runtime::ResolvedImage;
use crate::source::{self, FileChange, LocalObjects, Location};
use crate::store::Key;

/// How many files of a commit are named in a sentence.
const NAMED: usize = 10;
/// How a key names an input that is a file of the commit.
const FILE: &str = "file ";

/// No build is remembered that could be explained.
#[derive(Debug, thiserror::Error)]
#[error("no build of `{of}` is on record")]
pub struct ExplainError {
    /// An image or a repository.
    pub of: String,
    /// Whether it is an image.
    pub image: bool,
}

impl UserError for ExplainError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Refused
    }

    fn hint(&self) -> Option<String> {
        let text = if self.image {
            "only the machine and cache that built an image know how, and only of the last ten builds of a repository; \
             `phial diff` compares any two images"
        } else {
            "run `phial build` first, with the same cache"
        };
        Some(text.into())
    }
}

/// A build, beside the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The build.
    pub build: BuildRecord,
    /// The build before it of the same repository, if one is remembered.
    pub previous: Option<BuildRecord>,
    /// Its layers, lowest first.
    pub layers: Vec<Story>,
    /// Names of the layers that only the build before had.
    pub gone: Vec<String>,
}

/// How a layer came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Story {
    /// Its name.
    pub name: String,
    /// Whether it was cached, as against made.
    pub cached: bool,
    /// How long that took, wall clock, in milliseconds.
    pub millis: u64,
    /// The names of all inputs of its key.
    pub inputs: Vec<String>,
    /// The inputs that differ from the build before; none if there was no such layer.
    pub changed: Option<Vec<Input>>,
    /// Why it was made or cached where the inputs alone do not say so.
    pub note: Option<String>,
}

/// An input that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Input {
    /// Its name in the key.
    pub name: String,
    /// What it was; of a variable, the digest of its value.
    pub left: Option<String>,
    /// What it is.
    pub right: Option<String>,
    /// The difference in words, a line each.
    pub words: Vec<String>,
}

/// Explains the build of `image` (a reference, or a digest alone), or else the last one of the repository `location`.
pub fn explain(image: Option<&str>, location: &Location, context: &Context<'_>) -> Result<Explanation, Error> {
    let (build, previous) = if let Some(text) = image {
        of_image(text, context)?
    } else {
        let name = repository_name(location, context)?;
        let mut records: Vec<BuildRecord> = context.store.history(&name);
        let last = records.pop().ok_or_else(|| ExplainError { of: shown(&name), image: false })?;
        (last, records.pop())
    };
    Ok(told(build, previous, context))
}

/// The last build that made the image, and the one before it.
fn of_image(text: &str, context: &Context<'_>) -> Result<(BuildRecord, Option<BuildRecord>), Error> {
    let find = |digest: &Digest| {
        let mut found: Option<(BuildRecord, Option<BuildRecord>)> = None;
        for records in context.store.histories::<BuildRecord>()? {
            let at = records.iter().rposition(|record| record.image == *digest);
            let newer = |at: &usize| found.as_ref().is_none_or(|(old, _)| old.time < records[*at].time);
            if let Some(at) = at.filter(newer) {
                found = Some((records[at].clone(), at.checked_sub(1).map(|before| records[before].clone())));
            }
        }
        Ok::<_, Error>(found)
    };
    let none = || ExplainError { of: shown(text), image: true };
    if let Ok(digest) = text.parse() {
        return Ok(find(&digest)?.ok_or_else(none)?);
    }
    let reference = config::reference("image", text)?;
    let named = match &reference {
        Reference::Registry(name) => name.digest.as_ref(),
        Reference::Layout { digest, .. } | Reference::OciArchive { digest, .. } => digest.as_ref(),
    };
    // What is on record needs no registry.
    if let Some(found) = named.map(&find).transpose()?.flatten() {
        return Ok(found);
    }
    let base = ResolvedImage::resolve(context, &reference, None)?;
    Ok(find(&base.image.manifest_digest)?.ok_or_else(none)?)
}

fn told(build: BuildRecord, previous: Option<BuildRecord>, context: &Context<'_>) -> Explanation {
    let mirrors = context.store.git_dir();
    let places = [Some(&build), previous.as_ref()].into_iter().flatten();
    let near: Vec<LocalObjects> =
        places.filter_map(|record| Some(source::local_objects(&record.source.parse().ok()?, &mirrors))).collect();
    let before: BTreeMap<&str, &LayerRecord> =
        previous.iter().flat_map(|record| &record.layers).map(|layer| (layer.name.as_str(), layer)).collect();
    let mut layers: Vec<Story> = Vec::new();
    // The source comes first: the others follow from it.
    let (apps, others): (Vec<_>, Vec<_>) = build.layers.iter().partition(|layer| layer.name == "app");
    for layer in apps.into_iter().chain(others) {
        let changed = before.get(layer.name.as_str()).map(|old| {
            let inputs = differing(old, layer);
            inputs
                .map(|(name, left, right)| Input {
                    words: words(&name, [&left, &right], &near, &layers),
                    name,
                    left,
                    right,
                })
                .collect::<Vec<_>>()
        });
        layers.push(Story {
            name: layer.name.clone(),
            cached: layer.cached,
            millis: layer.millis,
            inputs: layer.key.inputs.keys().cloned().collect(),
            note: note(layer, changed.as_deref(), build.no_cache),
            changed,
        });
    }
    layers.sort_by_key(|story| build.layers.iter().position(|layer| layer.name == story.name));
    let has = |name: &str| build.layers.iter().any(|layer| layer.name == name);
    let gone = before.keys().filter(|name| !has(name)).map(|name| (*name).to_owned()).collect();
    Explanation { build, previous, layers, gone }
}

type Differing = (String, Option<String>, Option<String>);

fn differing<'a>(old: &'a LayerRecord, new: &'a LayerRecord) -> impl Iterator<Item = Differing> + 'a {
    let (old, new) = (&old.key.inputs, &new.key.inputs);
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let changed = names.into_iter().filter(move |name| old.get(*name) != new.get(*name));
    changed.map(move |name| (name.clone(), old.get(name).cloned(), new.get(name).cloned()))
}

fn note(layer: &LayerRecord, changed: Option<&[Input]>, no_cache: bool) -> Option<String> {
    let same = changed.is_some_and(<[Input]>::is_empty);
    let text = match (layer.cached, same) {
        (false, true) if no_cache => "no input changed; it was made again, since `--no-cache` was given",
        (false, true) => "no input changed; it was made again, since it was no longer kept",
        (true, false) => "an earlier build made it from these inputs",
        _ => return None,
    };
    Some(text.into())
}

/// A changed input in words. `told` are the layers that are explained already.
fn words(name: &str, sides: [&Option<String>; 2], near: &[LocalObjects], told: &[Story]) -> Vec<String> {
    if let Some(path) = name.strip_prefix(FILE) {
        return file(path, sides, near);
    }
    if let Some(variable) = name.strip_prefix(Key::VARIABLE) {
        return vec![format!("variable {}: {}", shown(variable), came_or_went(sides))];
    }
    if matches!(name, "app" | "deps") {
        return follows(name, told);
    }
    let [left, right] = sides.map(|side| side.as_deref().unwrap_or("none"));
    match name {
        "commit" => vec![commit(left, right, near)],
        "mtime" => vec![format!("times of files: {} -> {}", time(left), time(right))],
        _ => vec![format!("{}: {} -> {}", shown(name), short(left), short(right))],
    }
}

/// What a layer that follows from another layer says of that one.
fn follows(layer: &str, told: &[Story]) -> Vec<String> {
    let changed = told.iter().find(|story| story.name == layer).and_then(|story| story.changed.as_deref());
    let causes = changed.unwrap_or_default().iter().filter(|input| input.name != "mtime");
    let words: Vec<String> = causes.flat_map(|input| &input.words).cloned().collect();
    if words.is_empty() {
        let why = if changed.is_some() { "came out differently from the same inputs" } else { "is another one" };
        return vec![format!("layer {layer}: it {why}")];
    }
    // The source is what everybody means; of anything else it is said whose input it was.
    let prefix = if layer == "app" { String::new() } else { format!("{layer}: ") };
    words.into_iter().map(|words| format!("{prefix}{words}")).collect()
}

fn came_or_went(sides: [&Option<String>; 2]) -> &'static str {
    match sides {
        [None, _] => "new",
        [_, None] => "gone",
        _ => "changed",
    }
}

/// A file by its blob; `mix.lock` by what it says, where both texts are at hand.
fn file(path: &str, sides: [&Option<String>; 2], near: &[LocalObjects]) -> Vec<String> {
    let [Some(left), Some(right)] = sides else { return vec![format!("{}: {}", shown(path), came_or_went(sides))] };
    let id = |side: &str| side.rsplit(' ').next().unwrap_or_default().to_owned();
    let (one, other) = (id(left), id(right));
    if one == other {
        return vec![format!("{}: its mode changed", shown(path))];
    }
    if path == "mix.lock" || path.ends_with("/mix.lock") {
        let text =
            |id: &str| near.iter().find_map(|near| near.blob(id)).and_then(|bytes| String::from_utf8(bytes).ok());
        if let (Some(one), Some(other)) = (text(&one), text(&other)) {
            let moved = dependencies(&one, &other);
            if !moved.is_empty() {
                return moved.iter().map(|dependency| format!("{}: {dependency}", shown(path))).collect();
            }
        }
    }
    vec![format!("{}: {} -> {}", shown(path), short(&one), short(&other))]
}

fn commit(left: &str, right: &str, near: &[LocalObjects]) -> String {
    let head = format!("commit {} -> {}", short(left), short(right));
    let Some(files) = near.iter().find_map(|near| near.changes(left, right)) else { return head };
    if files.is_empty() {
        return format!("{head}: no file differs");
    }
    let word = |(name, touch): &(EntryPath, FileChange)| {
        let word = match touch {
            FileChange::Added => "added",
            FileChange::Removed => "removed",
            FileChange::Changed => "changed",
        };
        format!("{name:?} {word}")
    };
    let named: Vec<String> = files.iter().take(NAMED).map(word).collect();
    let more = files.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{head}: {}{more}", named.join(", "))
}

/// Digests and SHAs cut to twelve digits, other text as it is.
fn short(text: &str) -> String {
    let (head, hex) = text.split_once(':').map_or(("", text), |(algorithm, hex)| (algorithm, hex));
    if hex.len() >= 40 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        let colon = if head.is_empty() { "" } else { ":" };
        return format!("{head}{colon}{}", &hex[..12]);
    }
    if text.is_empty() { "nothing".into() } else { shown(text) }
}

fn time(text: &str) -> String {
    text.parse().map_or_else(|_| shown(text), rfc3339)
}
