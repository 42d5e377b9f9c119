//! Mix's manifests (`_build/*/lib/*/.mix/*`) in normal form: one time for all files, sets in one order, and no number that
//! depends on what other compiler processes did.
//!
//! Mix must read them and find nothing to do. So only fields that are known to be a time, a set or a warning are changed, and
//! never a value of the user's configuration. Where they stand is looked up by the manifest's version
//! ([`mix_manifest`]); of one that is not known only integers within the times of the step are changed, and it is reported.

use super::counters;
use super::options::{NormalizeOptions, Part};
use crate::elixir::etf::{self, EtfError, Term};
use crate::elixir::mix_manifest::{self, ElixirLayout, position};

/// 2000-01-01, in seconds since 1970: Mix records no earlier time for a configuration.
const EARLIEST: i64 = 946_684_800;

/// The fields of a source that are sets: their order is that of the compiler's processes.
const SETS: [&str; 6] = [
    "compile_references",
    "export_references",
    "runtime_references",
    "compile_warnings",
    "runtime_warnings",
    "warnings",
];
/// The fields of a source that Mix prints again, and reads for nothing else.
const WARNINGS: [&str; 3] = ["compile_warnings", "runtime_warnings", "warnings"];

/// The version of `compile.erlang`, `compile.yecc` and `compile.leex`, and those of `compile.protocols`.
const ERLANG: i64 = 1;
const PROTOCOLS: [i64; 2] = [1, 3];

/// A manifest in normal form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NormalizedManifest {
    pub(super) bytes: Vec<u8>,
    /// Whether the parent's configuration was removed.
    pub(super) scrubbed: bool,
    /// The version, if it is not known.
    pub(super) unknown: Option<i64>,
}

/// The normal form of the manifest of the file name `name`.
pub(super) fn normalized(name: &str, bytes: &[u8], options: &NormalizeOptions) -> Result<NormalizedManifest, EtfError> {
    let mut term = etf::decode(bytes)?;
    let version = mix_manifest::version(&term);
    let layout = version.and_then(mix_manifest::elixir_layout);
    let mut scrubbed = false;
    let mut unknown = None;
    match (name, &mut term, layout) {
        ("compile.elixir", Term::Tuple(fields), Some(layout)) if fields.len() == layout.manifest.len() => {
            normalize_elixir(fields, layout, options);
            scrubbed = scrub(fields, options);
        }
        ("compile.erlang" | "compile.yecc" | "compile.leex", Term::Tuple(fields), _) if version == Some(ERLANG) => {
            for field in fields {
                move_times(field, options);
                sort_list(field);
            }
        }
        ("compile.protocols", term, _) if version.is_some_and(|version| PROTOCOLS.contains(&version)) => {
            move_times(term, &any_time(options));
            // Version 1 is `[1 | Entries]`.
            if let Term::List(items, tail) = term
                && **tail == Term::Nil
            {
                etf::sort(&mut items[1..]);
            }
        }
        ("compile.elixir" | "compile.erlang" | "compile.yecc" | "compile.leex" | "compile.protocols", term, _) => {
            unknown = version;
            match term {
                Term::Tuple(fields) => {
                    let is_config = |field: &&mut Term| matches!(field, Term::Map(pairs) if is_deps_config(pairs));
                    fields.iter_mut().filter(|field| !is_config(field)).for_each(|field| move_times(field, options));
                    scrubbed = scrub(fields, options);
                }
                other => move_times(other, options),
            }
        }
        (_, other, _) => move_times(other, options),
    }
    Ok(NormalizedManifest { bytes: etf::encode(&term), scrubbed, unknown })
}

/// The options with every time that Mix records within the window.
fn any_time<'a>(options: &NormalizeOptions<'a>) -> NormalizeOptions<'a> {
    NormalizeOptions { windows: [(EARLIEST, i64::MAX); 2], ..*options }
}

/// Sets integers within the times of the step to the modification time of the tree.
fn move_times(term: &mut Term, options: &NormalizeOptions) {
    match term {
        Term::Int(time) if options.windows.iter().any(|(from, to)| (from..=to).contains(&&*time)) => {
            *time = options.mtime;
        }
        Term::Tuple(fields) => fields.iter_mut().for_each(|field| move_times(field, options)),
        Term::List(items, tail) => {
            for item in items {
                move_times(item, options);
            }
            move_times(tail, options);
        }
        Term::Map(pairs) => pairs.iter_mut().for_each(|(_, value)| move_times(value, options)),
        _ => {}
    }
}

fn normalize_elixir(fields: &mut [Term], layout: &ElixirLayout, options: &NormalizeOptions) {
    for (name, field) in layout.manifest.iter().zip(fields) {
        match *name {
            "modules" => each_record(field, layout.module.len(), |module| {
                if let Some(time) = position(layout.module, "timestamp").and_then(|at| module.get_mut(at)) {
                    move_times(time, &any_time(options));
                }
            }),
            "sources" => each_record(field, layout.source.len(), |source| normalize_source(source, layout, options)),
            "project_mtime" | "config_mtime" | "protocols_and_impls" => move_times(field, &any_time(options)),
            _ => {}
        }
    }
}

/// Calls `settle` for each record of a map by name or path. Up to Elixir 1.15 it is a list in the order in which they were
/// compiled, which is sorted.
fn each_record(records: &mut Term, arity: usize, mut settle: impl FnMut(&mut [Term])) {
    let mut settle = |record: &mut Term| {
        if let Term::Tuple(fields) = record
            && fields.len() == arity
        {
            settle(fields);
        }
    };
    match records {
        Term::Map(pairs) => pairs.iter_mut().for_each(|(_, record)| settle(record)),
        Term::List(items, _) => items.iter_mut().for_each(settle),
        _ => {}
    }
    sort_list(records);
}

/// Size 0 and time 0 mean a missing file to Mix, and are kept.
fn normalize_source(source: &mut [Term], layout: &ElixirLayout, options: &NormalizeOptions) {
    for (at, name) in layout.source.iter().enumerate() {
        let is_missing = at > 0 && source[at - 1..=at] == [Term::Int(0), Term::Int(0)];
        let field = &mut source[at];
        match *name {
            "mtime" if !is_missing => *field = Term::Int(options.mtime),
            "external" => normalize_external(field, options),
            name if WARNINGS.contains(&name) => counters::normalize(field),
            _ => {}
        }
        if SETS.contains(name) {
            sort_list(field);
        }
    }
}

/// External resources: `{Path, {Mtime, Size}, Digest}` from Elixir 1.17 on, before that without times.
fn normalize_external(external: &mut Term, options: &NormalizeOptions) {
    let Term::List(files, _) = external else { return };
    for file in files {
        if let Term::Tuple(parts) = file
            && let Some(Term::Tuple(stat)) = parts.get_mut(1)
            && matches!(stat[..], [Term::Int(_), Term::Int(_)])
            && stat[..] != [Term::Int(0), Term::Int(0)]
        {
            stat[0] = Term::Int(options.mtime);
        }
    }
}

fn sort_list(term: &mut Term) {
    if let Term::List(items, tail) = term
        && **tail == Term::Nil
    {
        etf::sort(items);
    }
}

/// Removes the parent's configuration from the manifest of a dependency; Mix compares it only if the dependency's own files are
/// newer. It is found by its keys, so that no secret stays in a manifest of an unknown version.
fn scrub(fields: &mut [Term], options: &NormalizeOptions) -> bool {
    let mut scrubbed = false;
    for field in fields.iter_mut().filter(|_| options.part == Part::Deps) {
        if let Term::Map(pairs) = field
            && is_deps_config(pairs)
        {
            scrubbed |= empty_deps_config(pairs);
        }
    }
    scrubbed
}

/// Whether a map is `%{local: .., lock: .., config: .., dbg: ..}`: the configuration of the parent project.
fn is_deps_config(pairs: &[(Term, Term)]) -> bool {
    ["local", "lock", "config"].iter().all(|name| pairs.iter().any(|(key, _)| key.is_atom(name)))
}

fn empty_deps_config(pairs: &mut [(Term, Term)]) -> bool {
    let mut changed = false;
    for (key, value) in pairs {
        if ["local", "lock", "config"].iter().any(|name| key.is_atom(name)) && *value != Term::Nil {
            *value = Term::Nil;
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
mod tests;
