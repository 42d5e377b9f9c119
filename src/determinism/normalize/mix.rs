//! Mix's manifests (`_build/*/lib/*/.mix/*`) in their normal form: times are the tree's, maps and sets have one order.
//!
//! Mix must go on reading them and find nothing to do, so only what is known to be a time or a set changes, and values of
//! the user's configuration never do. The layout is that of `Mix.Compilers.Elixir` in Elixir 1.15 to 1.20 (manifests 20 to
//! 35); where another version moves a field, its times are still found by the window of the step.

use super::NormalizeOptions;
use crate::determinism::etf::{self, EtfError, Term};

/// 2000-01-01: Mix records no earlier time for a configuration.
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

/// The normal form of the manifest called `name`, and whether the parent's configuration was taken out of it.
pub(super) fn normal(
    name: &str,
    bytes: &[u8],
    terms: &NormalizeOptions,
    scrub: bool,
) -> Result<(Vec<u8>, bool), EtfError> {
    let mut term = etf::decode(bytes)?;
    let mut scrubbed = false;
    match (name, &mut term) {
        ("compile.elixir", Term::Tuple(fields)) => {
            for field in fields.iter_mut().skip(1) {
                match field {
                    Term::Int(time) if *time >= EARLIEST => *time = terms.mtime,
                    Term::Map(pairs) if is_deps_config(pairs) => scrubbed |= scrub && empty_deps_config(pairs),
                    other => settle(other, terms),
                }
            }
        }
        ("compile.erlang" | "compile.yecc" | "compile.leex", Term::Tuple(fields)) => {
            for field in fields {
                settle(field, terms);
                sort_list(field);
            }
        }
        ("compile.protocols", protocols) => {
            settle(protocols, &NormalizeOptions { windows: [(EARLIEST, i64::MAX); 2], ..*terms })
        }
        (_, other) => settle(other, terms),
    }
    Ok((etf::encode(&term), scrubbed))
}

/// Turns times within the window and the known time fields into the tree's, and sorts the known sets.
fn settle(term: &mut Term, terms: &NormalizeOptions) {
    match term {
        Term::Int(time) if terms.windows.iter().any(|(from, to)| (from..=to).contains(&&*time)) => *time = terms.mtime,
        Term::Tuple(fields) if is_source(fields) => settle_source(fields, terms),
        Term::Tuple(fields) => {
            if fields.len() >= 6
                && fields[0].is_atom("module")
                && let Some(Term::Int(time)) = fields.last_mut()
                && *time >= EARLIEST
            {
                *time = terms.mtime;
            }
            for field in fields {
                settle(field, terms);
            }
        }
        Term::List(items, tail) => {
            for item in items {
                settle(item, terms);
            }
            settle(tail, terms);
        }
        Term::Map(pairs) => {
            for (_, value) in pairs {
                settle(value, terms);
            }
        }
        _ => {}
    }
}

fn is_source(fields: &[Term]) -> bool {
    fields.len() == source::ARITY && fields[0].is_atom("source") && matches!(fields[source::MTIME], Term::Int(_))
}

/// A file that is missing has size 0 and time 0, which is Mix's word for it and stays.
fn settle_source(fields: &mut [Term], terms: &NormalizeOptions) {
    if fields[source::SIZE..=source::MTIME] != [Term::Int(0), Term::Int(0)] {
        fields[source::MTIME] = Term::Int(terms.mtime);
    }
    if let Term::List(files, _) = &mut fields[source::EXTERNAL] {
        for file in files {
            if let Term::Tuple(parts) = file
                && let Some(Term::Tuple(stat)) = parts.get_mut(1)
                && matches!(stat[..], [Term::Int(_), Term::Int(_)])
                && stat[..] != [Term::Int(0), Term::Int(0)]
            {
                stat[0] = Term::Int(terms.mtime);
            }
        }
    }
    for (position, field) in fields.iter_mut().enumerate() {
        if position != source::COMPILE_ENV {
            settle(field, terms);
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

/// `%{local: .., lock: .., config: .., dbg: ..}`: what the manifest remembers of the project it was compiled for.
fn is_deps_config(pairs: &[(Term, Term)]) -> bool {
    ["local", "lock", "config"].iter().all(|name| pairs.iter().any(|(key, _)| key.is_atom(name)))
}

/// Takes the parent's configuration and lock out; Mix looks at them only if the dependency's own files are newer.
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
