//! Mix's manifests (`_build/*/lib/*/.mix/*`) in normal form: one time for all files, maps and sets in one order.
//!
//! Mix must read them and find nothing to do. So only what is known to be a time or a set is changed, and never a value
//! of the user's configuration. The layout is that of `Mix.Compilers.Elixir` in Elixir 1.15 to 1.20 (manifests 20 to
//! 35); where another version moves a field, its times are still found by the window of the step.

use super::options::{NormalizeOptions, Part};
use crate::elixir::etf::{self, EtfError, Term};

/// 2000-01-01, in seconds since 1970: Mix records no earlier time for a configuration.
const EARLIEST: i64 = 946_684_800;

/// The fields of `{source, Size, Mtime, Digest, ...}`, by position.
mod source {
    pub(super) const ARITY: usize = 12;
    pub(super) const SIZE: usize = 1;
    pub(super) const MTIME: usize = 2;
    pub(super) const COMPILE_ENV: usize = 7;
    pub(super) const EXTERNAL: usize = 8;
    /// References and warnings: their order is that of the compiler's processes.
    pub(super) const SETS: [usize; 5] = [4, 5, 6, 9, 10];
}

/// The normal form of the manifest of the file name `name`, and whether the parent's configuration was removed from it.
pub(super) fn normal(name: &str, bytes: &[u8], options: &NormalizeOptions) -> Result<(Vec<u8>, bool), EtfError> {
    let is_dep = options.part == Part::Deps;
    let mut term = etf::decode(bytes)?;
    let mut scrubbed = false;
    match (name, &mut term) {
        ("compile.elixir", Term::Tuple(fields)) => {
            for field in fields.iter_mut().skip(1) {
                match field {
                    Term::Int(time) if *time >= EARLIEST => *time = options.mtime,
                    Term::Map(pairs) if is_deps_config(pairs) => scrubbed |= is_dep && empty_deps_config(pairs),
                    other => normalize_term(other, options),
                }
            }
        }
        ("compile.erlang" | "compile.yecc" | "compile.leex", Term::Tuple(fields)) => {
            for field in fields {
                normalize_term(field, options);
                sort_list(field);
            }
        }
        ("compile.protocols", protocols) => {
            normalize_term(protocols, &NormalizeOptions { windows: [(EARLIEST, i64::MAX); 2], ..*options });
        }
        (_, other) => normalize_term(other, options),
    }
    Ok((etf::encode(&term), scrubbed))
}

/// Sets known time fields, and integers within the step's times, to the modification time of the tree; sorts known
/// sets.
fn normalize_term(term: &mut Term, options: &NormalizeOptions) {
    match term {
        Term::Int(time) if options.windows.iter().any(|(from, to)| (from..=to).contains(&&*time)) => {
            *time = options.mtime;
        }
        Term::Tuple(fields) if is_source(fields) => normalize_source(fields, options),
        Term::Tuple(fields) => {
            if fields.len() >= 6
                && fields[0].is_atom("module")
                && let Some(Term::Int(time)) = fields.last_mut()
                && *time >= EARLIEST
            {
                *time = options.mtime;
            }
            for field in fields {
                normalize_term(field, options);
            }
        }
        Term::List(items, tail) => {
            for item in items {
                normalize_term(item, options);
            }
            normalize_term(tail, options);
        }
        Term::Map(pairs) => {
            for (_, value) in pairs {
                normalize_term(value, options);
            }
        }
        _ => {}
    }
}

fn is_source(fields: &[Term]) -> bool {
    fields.len() == source::ARITY && fields[0].is_atom("source") && matches!(fields[source::MTIME], Term::Int(_))
}

/// Size 0 and time 0 mean a missing file to Mix, and are kept.
fn normalize_source(fields: &mut [Term], options: &NormalizeOptions) {
    if fields[source::SIZE..=source::MTIME] != [Term::Int(0), Term::Int(0)] {
        fields[source::MTIME] = Term::Int(options.mtime);
    }
    if let Term::List(files, _) = &mut fields[source::EXTERNAL] {
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
    for (position, field) in fields.iter_mut().enumerate() {
        if position != source::COMPILE_ENV {
            normalize_term(field, options);
        }
    }
    for position in source::SETS {
        sort_list(&mut fields[position]);
    }
}

fn sort_list(term: &mut Term) {
    if let Term::List(items, tail) = term
        && **tail == Term::Nil
    {
        etf::sort(items);
    }
}

/// Whether a map is `%{local: .., lock: .., config: .., dbg: ..}`: the configuration of the parent project.
fn is_deps_config(pairs: &[(Term, Term)]) -> bool {
    ["local", "lock", "config"].iter().all(|name| pairs.iter().any(|(key, _)| key.is_atom(name)))
}

/// Removes the parent's configuration and lock; Mix compares them only if the dependency's own files are newer.
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
#[path = "mix_tests.rs"]
mod tests;
