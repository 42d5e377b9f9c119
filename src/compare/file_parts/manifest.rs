//! The parts of Mix's manifests and of boot files.

use super::{FoundParts, name_of};
use crate::elixir::etf::Term;
use crate::elixir::mix_manifest::{self, ElixirLayout};

/// Names of the fields of a manifest whose layout is not known.
fn nth(position: usize) -> String {
    if position == 0 { "version".into() } else { format!("field {}", position + 1) }
}

/// Fields of a manifest by name: of a module or source with its own name, of a list with the number of the entry.
pub(super) fn find(manifest: &Term, parts: &mut FoundParts) {
    let layout = mix_manifest::version(manifest).and_then(mix_manifest::elixir_layout);
    match (manifest, layout) {
        (Term::Tuple(fields), Some(layout)) if fields.len() == layout.manifest.len() => {
            for (name, field) in layout.manifest.iter().zip(fields) {
                elixir_field(name, field, layout, parts);
            }
        }
        (Term::Tuple(fields), _) => {
            for (position, field) in fields.iter().enumerate() {
                entries(&nth(position), field, parts);
            }
        }
        // `compile.protocols` is `[1 | Entries]` or `[3 | {ConfigMtime, {Protocols, Impls}}]`.
        (Term::List(items, tail), _) => match (&items[..], &**tail) {
            ([version, listed @ ..], Term::Nil) => {
                parts.add_term("version", version);
                listed
                    .iter()
                    .enumerate()
                    .for_each(|(at, entry)| parts.add_term(&entry_name("entry", entry, at), entry));
            }
            ([version], Term::Tuple(fields)) => {
                parts.add_term("version", version);
                protocols(fields, parts);
            }
            _ => parts.add_term("content", manifest),
        },
        _ => parts.add_term("content", manifest),
    }
}

fn protocols(fields: &[Term], parts: &mut FoundParts) {
    let [config_mtime, Term::Tuple(sets)] = fields else {
        return fields.iter().enumerate().for_each(|(at, field)| entries(&nth(at + 1), field, parts));
    };
    parts.add_term("config_mtime", config_mtime);
    for (name, set) in ["protocol", "implementation"].into_iter().zip(sets) {
        entries(name, set, parts);
    }
}

fn elixir_field(name: &str, field: &Term, layout: &ElixirLayout, parts: &mut FoundParts) {
    let kind = match name {
        "modules" => ("module", layout.module),
        "sources" => ("source", layout.source),
        _ => return entries(name, field, parts),
    };
    let (kind, names) = kind;
    match field {
        Term::Map(pairs) => {
            for (key, record) in pairs {
                let of = name_of(key).unwrap_or_default();
                record_fields(&format!("{kind} {of}"), record, names, parts);
            }
        }
        // Up to Elixir 1.15 the record has the name.
        Term::List(items, _) => {
            parts.add(&format!("order of {name}"), &names_in_order(items));
            for record in items {
                let Term::Tuple(fields) = record else { continue };
                let of = fields.get(1).and_then(name_of).unwrap_or_default();
                record_fields(&format!("{kind} {of}"), record, names, parts);
            }
        }
        other => parts.add_term(name, other),
    }
}

fn names_in_order(records: &[Term]) -> Vec<u8> {
    let names = records.iter().map(|record| match record {
        Term::Tuple(fields) => fields.get(1).and_then(name_of).unwrap_or_default(),
        _ => String::new(),
    });
    names.collect::<Vec<_>>().join("\n").into_bytes()
}

fn record_fields(of: &str, record: &Term, names: &[&str], parts: &mut FoundParts) {
    match record {
        Term::Tuple(fields) if fields.len() == names.len() => {
            for (name, field) in names.iter().zip(fields).skip(1) {
                entries(&format!("{of}: {name}"), field, parts);
            }
        }
        other => parts.add_term(of, other),
    }
}

/// The entries of a map by key, those of a list by number, else the whole.
fn entries(name: &str, field: &Term, parts: &mut FoundParts) {
    match field {
        Term::Map(pairs) => {
            for (at, (key, value)) in pairs.iter().enumerate() {
                let key = name_of(key).unwrap_or_else(|| format!("entry {}", at + 1));
                parts.add_term(&format!("{name} {key}"), value);
            }
        }
        Term::List(items, tail) if **tail == Term::Nil => {
            items.iter().enumerate().for_each(|(at, item)| parts.add_term(&entry_name(name, item, at), item));
        }
        Term::Nil => {}
        other => parts.add_term(name, other),
    }
}

/// An entry of a list: by its own name if it is a tuple that begins with one, else by its number.
fn entry_name(name: &str, entry: &Term, at: usize) -> String {
    let own = if let Term::Tuple(fields) = entry { fields.first().and_then(name_of) } else { name_of(entry) };
    own.map_or_else(|| format!("{name} {}", at + 1), |own| format!("{name} {own}"))
}

/// `{script, {Name, Version}, Commands}`.
pub(super) fn find_boot(script: &Term, parts: &mut FoundParts) {
    let Term::Tuple(fields) = script else { return };
    let [_, name, Term::List(commands, _)] = &fields[..] else { return parts.add_term("content", script) };
    parts.add_term("name", name);
    for (at, command) in commands.iter().enumerate() {
        parts.add_term(&entry_name(&format!("command {}", at + 1), command, at), command);
    }
}
