//! The functions of a compiled module, as its debug information (`Dbgi`) has them, and its attributes.
//!
//! Elixir stores `{elixir_v1, #{definitions := [{{Name, Arity}, Kind, Meta, Clauses}]}, _}` (`elixir_erl:debug_info/4`), Erlang
//! its abstract code: `{function, Anno, Name, Arity, Clauses}`. A module without debug information has no parts.

use std::borrow::Cow;

use super::{FoundParts, name_of};
use crate::compare::beam::MAX_PLAIN;
use crate::elixir::beam;
use crate::elixir::etf::{self, Term};

pub(super) fn find(bytes: &[u8], parts: &mut FoundParts) {
    let Ok(plain) = beam::unzipped(bytes, MAX_PLAIN) else { return };
    let Some(chunks) = beam::chunks(&plain) else { return };
    for chunk in chunks.map_while(Result::ok) {
        match &chunk.name {
            b"Dbgi" => {
                if let Ok(term) = etf::decode(chunk.data) {
                    debug_info(&term, parts);
                }
            }
            b"Attr" => {
                if let Ok(Term::List(pairs, _)) = etf::decode(chunk.data) {
                    for pair in &pairs {
                        attribute(pair, parts);
                    }
                }
            }
            _ => {}
        }
    }
}

fn attribute(pair: &Term, parts: &mut FoundParts) {
    if let Term::Tuple(fields) = pair
        && let [name, value] = &fields[..]
        && let Some(name) = name_of(name)
        // The version is a hash of all else.
        && name != "vsn"
    {
        parts.add_term(&format!("attribute {name}"), value);
    }
}

/// `{debug_info_v1, Backend, Data}`.
fn debug_info(info: &Term, parts: &mut FoundParts) {
    let Term::Tuple(fields) = info else { return };
    let Some(Term::Tuple(data)) = fields.get(2) else { return };
    match &data[..] {
        [version, Term::Map(pairs), ..] if version.is_atom("elixir_v1") => {
            for (key, value) in pairs {
                match value {
                    Term::List(definitions, _) if key.is_atom("definitions") => {
                        for definition in definitions {
                            elixir_function(definition, parts);
                        }
                    }
                    _ => parts.add_term(&format!("debug information {}", name_of(key).unwrap_or_default()), value),
                }
            }
        }
        [Term::List(forms, _), ..] => {
            for form in forms {
                erlang_function(form, parts);
            }
        }
        _ => {}
    }
}

fn elixir_function(definition: &Term, parts: &mut FoundParts) {
    if let Term::Tuple(fields) = definition
        && let Some(Term::Tuple(name)) = fields.first()
        && let [name, arity] = &name[..]
    {
        parts.add_term(&function(name, arity), definition);
    }
}

fn erlang_function(form: &Term, parts: &mut FoundParts) {
    if let Term::Tuple(fields) = form
        && let [kind, _, name, arity, _] = &fields[..]
        && kind.is_atom("function")
    {
        parts.add_term(&function(name, arity), form);
    }
}

fn function(name: &Term, arity: &Term) -> String {
    let text = |term: &Term| name_of(term).map_or(Cow::Borrowed("?"), Cow::Owned);
    format!("function {}/{}", text(name), text(arity))
}
