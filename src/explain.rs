//! `phial explain`: the inputs of each layer of a build, and which of them changed since the previous build.

use std::collections::{BTreeMap, BTreeSet};

use phial_layers::{Digest, EntryPath};
use serde::Serialize;

use crate::build::{BuildRecord, LayerRecord};
use crate::compare::dependencies;
use crate::config;
use crate::context::Context;
use crate::error::{Error, ExitKind, UserError};
use crate::event::some_of;
use crate::image::{Reference, rfc3339, shown};
use crate::repository::{repository_name, working_tree_app};
use crate::runtime::ResolvedImage;
use crate::source::{self, FileChange, LocalObjects, Location};
use crate::store::CacheKey;

/// Number of changed files of a commit that are named.
const MAX_FILES: usize = 10;

/// The store has no record of the build.
#[derive(Debug, thiserror::Error)]
#[error("no build of `{of}` is on record")]
pub struct ExplainError {
    /// The image or repository as the user wrote it.
    pub of: String,
    /// Which of the two it is.
    pub subject: ExplainSubject,
}

/// What a build is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainSubject {
    /// An image that it built.
    Image,
    /// Its repository.
    Repository,
}

impl UserError for ExplainError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Refused
    }

    fn hint(&self) -> Option<String> {
        let text = match self.subject {
            ExplainSubject::Image => {
                "only the cache directory of the build has its record, and only of the last ten builds of a repository; \
                 `phial diff` compares any two images"
            }
            ExplainSubject::Repository => "run `phial build` first, with the same cache directory",
        };
        Some(text.into())
    }
}

/// A build compared with the previous one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The build.
    pub build: BuildRecord,
    /// The previous build of the same repository, if there is a record of it.
    pub previous: Option<BuildRecord>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerExplanation>,
    /// Names of the layers that only the previous build had.
    pub gone: Vec<String>,
}

/// Why a layer was built or reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerExplanation {
    /// `deps`, `app` or `build ENV`.
    pub name: String,
    /// Whether the result was cached.
    pub cached: bool,
    /// Wall clock in milliseconds of running the step, or of finding its result.
    pub millis: u64,
    /// The names of all inputs of its cache key.
    pub inputs: Vec<String>,
    /// The inputs that differ from the previous build; `None` if that had no such layer.
    pub changed: Option<Vec<ChangedInput>>,
    /// Why it was built or cached, where the inputs do not show it.
    pub note: Option<String>,
}

/// An input of a cache key that differs from the previous build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedInput {
    /// Its name in the cache key.
    pub name: String,
    /// Its previous value; of a variable, the digest of the value. `None` if it is new.
    pub left: Option<String>,
    /// Its present value; `None` if it is gone.
    pub right: Option<String>,
    /// The difference in words, one line each.
    #[serde(rename = "words")]
    pub description: Vec<String>,
}

/// Explains the last build of `image` (a reference or a digest), or else of the repository `location`.
/// `app` names the app's directory as for `phial build`.
pub fn explain(
    image: Option<&str>,
    location: &Location,
    app: Option<&str>,
    context: &Context<'_>,
) -> Result<Explanation, Error> {
    let builds = if let Some(image) = image {
        builds_of_image(image, context)?
    } else {
        let app = working_tree_app(location, app)?;
        let name = repository_name(location, &app, context)?;
        let none = || ExplainError { of: shown(&name), subject: ExplainSubject::Repository };
        Builds::last(context.store.history(&name), |_| true).ok_or_else(none)?
    };
    Ok(explanation(builds, context))
}

/// A build and the previous one of the same repository.
struct Builds {
    build: BuildRecord,
    previous: Option<BuildRecord>,
}

impl Builds {
    /// The last of a repository's builds that fulfils a condition.
    fn last(mut records: Vec<BuildRecord>, is_wanted: impl Fn(&BuildRecord) -> bool) -> Option<Self> {
        records.truncate(records.iter().rposition(is_wanted)? + 1);
        Some(Self { build: records.pop()?, previous: records.pop() })
    }
}

/// The last build of an image, in whichever repository.
fn builds_of_image(image: &str, context: &Context<'_>) -> Result<Builds, Error> {
    let find = |digest: &Digest| -> Result<Option<Builds>, Error> {
        let histories = context.store.histories::<BuildRecord>()?.into_iter();
        let found = histories.filter_map(|records| Builds::last(records, |record| record.image == *digest));
        // The first of those with the same time, as in the order of the histories.
        Ok(found.reduce(|one, other| if one.build.time < other.build.time { other } else { one }))
    };
    let none = || ExplainError { of: shown(image), subject: ExplainSubject::Image };
    if let Ok(digest) = image.parse() {
        return Ok(find(&digest)?.ok_or_else(none)?);
    }
    let reference = config::reference("image", image)?;
    let digest = match &reference {
        Reference::Registry(name) => name.digest.as_ref(),
        Reference::Layout { digest, .. } | Reference::OciArchive { digest, .. } => digest.as_ref(),
    };
    // A digest with a record needs no registry.
    if let Some(builds) = digest.map(&find).transpose()?.flatten() {
        return Ok(builds);
    }
    let resolved = ResolvedImage::resolve(context, &reference, None)?;
    Ok(find(&resolved.image.manifest_digest)?.ok_or_else(none)?)
}

fn explanation(Builds { build, previous }: Builds, context: &Context<'_>) -> Explanation {
    let mirrors = context.store.git_dir();
    let records = [Some(&build), previous.as_ref()].into_iter().flatten();
    let objects: Vec<LocalObjects> =
        records.filter_map(|record| Some(source::local_objects(&record.source.parse().ok()?, &mirrors))).collect();
    let before: BTreeMap<&str, &LayerRecord> =
        previous.iter().flat_map(|record| &record.layers).map(|layer| (layer.name.as_str(), layer)).collect();
    let mut layers: Vec<LayerExplanation> = Vec::new();
    // The source comes first: the other layers depend on it.
    let (apps, others): (Vec<_>, Vec<_>) = build.layers.iter().partition(|layer| layer.name == "app");
    for layer in apps.into_iter().chain(others) {
        let changed = before.get(layer.name.as_str()).map(|old| changed_inputs(old, layer, &objects, &layers));
        layers.push(LayerExplanation {
            name: layer.name.clone(),
            cached: layer.cached,
            millis: layer.millis,
            inputs: layer.key.inputs.keys().cloned().collect(),
            note: note(layer, changed.as_deref(), build.no_cache),
            changed,
        });
    }
    layers.sort_by_key(|explained| build.layers.iter().position(|layer| layer.name == explained.name));
    let has = |name: &str| build.layers.iter().any(|layer| layer.name == name);
    let gone = before.keys().filter(|name| !has(name)).map(|name| (*name).to_owned()).collect();
    Explanation { build, previous, layers, gone }
}

/// The inputs in which the keys of two layers differ, by name. `explained` are the layers that are explained already.
fn changed_inputs(
    old: &LayerRecord,
    new: &LayerRecord,
    objects: &[LocalObjects],
    explained: &[LayerExplanation],
) -> Vec<ChangedInput> {
    let (old, new) = (&old.key.inputs, &new.key.inputs);
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differing = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    differing
        .map(|name| {
            let (left, right) = (old.get(name).cloned(), new.get(name).cloned());
            let description = describe(name, [&left, &right], objects, explained);
            ChangedInput { name: name.clone(), left, right, description }
        })
        .collect()
}

/// Why a layer was built or cached, where its inputs do not show it.
fn note(layer: &LayerRecord, changed: Option<&[ChangedInput]>, no_cache: bool) -> Option<String> {
    let is_same = changed.is_some_and(<[ChangedInput]>::is_empty);
    let text = match (layer.cached, is_same) {
        (false, true) if no_cache => "no input changed; it was built again because of `--no-cache`",
        (false, true) => "no input changed; it was built again because it was not in the cache any more",
        (true, false) => "an earlier build had the same inputs",
        _ => return None,
    };
    Some(text.into())
}

/// A changed input in words. `sides` are its previous and its present value.
fn describe(
    name: &str,
    sides: [&Option<String>; 2],
    objects: &[LocalObjects],
    explained: &[LayerExplanation],
) -> Vec<String> {
    if let Some(path) = name.strip_prefix(CacheKey::FILE) {
        return describe_file(path, sides, objects);
    }
    if let Some(variable) = name.strip_prefix(CacheKey::VARIABLE) {
        return vec![format!("variable {}: {}", shown(variable), presence(sides))];
    }
    if matches!(name, "app" | "deps") {
        return describe_layer(name, explained);
    }
    let [left, right] = sides.map(|side| side.as_deref().unwrap_or("none"));
    match name {
        "commit" => vec![describe_commit(left, right, objects)],
        "mtime" => vec![format!("file times: {} -> {}", time(left), time(right))],
        _ => vec![format!("{}: {} -> {}", shown(name), short(left), short(right))],
    }
}

/// Why a layer that is an input of another one changed.
fn describe_layer(layer: &str, explained: &[LayerExplanation]) -> Vec<String> {
    let changed = explained.iter().find(|other| other.name == layer).and_then(|other| other.changed.as_deref());
    let causes = changed.unwrap_or_default().iter().filter(|input| input.name != "mtime");
    let lines: Vec<String> = causes.flat_map(|input| &input.description).cloned().collect();
    if lines.is_empty() {
        let why = if changed.is_some() { "differs, though its inputs are the same" } else { "is another one" };
        return vec![format!("layer {layer}: it {why}")];
    }
    // A change of the source needs no prefix; of other layers it is shown whose input changed.
    let prefix = if layer == "app" { String::new() } else { format!("{layer}: ") };
    lines.into_iter().map(|line| format!("{prefix}{line}")).collect()
}

fn presence(sides: [&Option<String>; 2]) -> &'static str {
    match sides {
        [None, _] => "new",
        [_, None] => "gone",
        _ => "changed",
    }
}

/// A file by its blob; `mix.lock` by its dependencies, if this machine has both versions of it.
fn describe_file(path: &str, sides: [&Option<String>; 2], objects: &[LocalObjects]) -> Vec<String> {
    let [Some(left), Some(right)] = sides else { return vec![format!("{}: {}", shown(path), presence(sides))] };
    let id = |side: &str| side.rsplit(' ').next().unwrap_or_default().to_owned();
    let (one, other) = (id(left), id(right));
    if one == other {
        return vec![format!("{}: its mode or encoding changed", shown(path))];
    }
    if path == "mix.lock" || path.ends_with("/mix.lock") {
        let text = |id: &str| {
            objects.iter().find_map(|objects| objects.blob(id)).and_then(|bytes| String::from_utf8(bytes).ok())
        };
        if let (Some(one), Some(other)) = (text(&one), text(&other)) {
            let changed = dependencies(&one, &other);
            if !changed.is_empty() {
                return changed.iter().map(|dependency| format!("{}: {dependency}", shown(path))).collect();
            }
        }
    }
    vec![format!("{}: {} -> {}", shown(path), short(&one), short(&other))]
}

fn describe_commit(left: &str, right: &str, objects: &[LocalObjects]) -> String {
    let head = format!("commit {} -> {}", short(left), short(right));
    let Some(files) = objects.iter().find_map(|objects| objects.changes(left, right)) else { return head };
    if files.is_empty() {
        return format!("{head}: no file differs");
    }
    let describe = |(name, change): &(EntryPath, FileChange)| {
        let word = match change {
            FileChange::Added => "added",
            FileChange::Removed => "removed",
            FileChange::Changed => "changed",
        };
        format!("{name:?} {word}")
    };
    format!("{head}: {}", some_of(files.iter().map(describe), MAX_FILES))
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
