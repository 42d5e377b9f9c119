//! What a compiler counts over all of its processes, in the warnings that Mix keeps: names of temporary modules, pids, ports,
//! references. They depend on the order in which files were compiled. Mix prints a warning again and reads it for nothing else,
//! so each becomes zero.
//!
//! Elixir evaluates the body of a module in a temporary one, `elixir_compiler_N`, which is in the stack trace of a warning that
//! the body or a macro emits (`elixir_compiler:retrieve_compiler_module/0`).

use crate::elixir::etf::Term;

const MODULE: &[u8] = b"elixir_compiler_";
/// How `inspect` writes what has a number: the text up to the number, what is written instead of it, and what follows it. The
/// numbers of a function are its index and a hash of its module's code, and so of the temporary module's name.
const INSPECTED: [(&[u8], &[u8], &[u8]); 4] = [
    (b"#PID<", b"0.0.0", b">"),
    (b"#Reference<", b"0.0.0.0", b">"),
    (b"#Port<", b"0.0", b">"),
    (b"#Function<", b"0.0", b"/ "),
];

/// Sets the numbers in a term to zero.
pub(super) fn normalize(term: &mut Term) {
    match term {
        Term::Atom(text) | Term::Bin(text) | Term::Str(text) => {
            if let Some(normal) = text_without_numbers(text) {
                *text = normal;
            }
        }
        Term::Tuple(items) => items.iter_mut().for_each(normalize),
        Term::List(items, tail) => {
            items.iter_mut().for_each(normalize);
            normalize(tail);
        }
        Term::Map(pairs) => pairs.iter_mut().for_each(|(key, value)| {
            normalize(key);
            normalize(value);
        }),
        Term::Opaque(bytes) => without_numbers(bytes),
        Term::Int(_) | Term::Big(..) | Term::Float(_) | Term::Nil | Term::Bits(..) => {}
    }
}

/// The text with zeros; `None` if nothing changes.
fn text_without_numbers(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if let Some(number) = rest.strip_prefix(MODULE) {
            out.extend_from_slice(MODULE);
            let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
            out.extend_from_slice(if digits > 0 { b"0" } else { b"" });
            rest = &number[digits..];
        } else if let Some((prefix, zero, end)) = inspected(rest) {
            out.extend_from_slice(prefix);
            out.extend_from_slice(zero);
            rest = &rest[end..];
        } else {
            out.push(*first);
            rest = after;
        }
    }
    (out != text).then_some(out)
}

/// What `text` begins with, if `inspect` writes it with a number: its prefix, the zeros, and where the number ends.
fn inspected(text: &[u8]) -> Option<(&'static [u8], &'static [u8], usize)> {
    let (prefix, zeros, next) = INSPECTED.into_iter().find(|(prefix, ..)| text.starts_with(prefix))?;
    let number = &text[prefix.len()..];
    let count = number.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    let is_number = count > 0 && number.get(count).is_some_and(|byte| next.contains(byte));
    is_number.then_some((prefix, zeros, prefix.len() + count))
}

/// Sets the numbers of an encoded pid, port or reference to zero: they follow its node, which is an atom.
fn without_numbers(bytes: &mut [u8]) {
    let node = match bytes.first() {
        Some(88 | 89 | 120 | 102 | 103) => 1, // NEW_PID, NEW_PORT, V4_PORT, PORT, PID
        Some(90 | 114) => 3,                  // NEWER_REFERENCE, NEW_REFERENCE: the number of words comes first
        _ => return,
    };
    let length = match bytes.get(node..) {
        Some([100 | 118, high, low, ..]) => 3 + usize::from(u16::from_be_bytes([*high, *low])),
        Some([115 | 119, length, ..]) => 2 + usize::from(*length),
        _ => return,
    };
    if let Some(numbers) = bytes.get_mut(node + length..) {
        numbers.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elixir::etf;

    #[test]
    fn numbers_in_texts_and_atoms_become_zero() {
        for (text, expected) in [
            ("elixir_compiler_45", "elixir_compiler_0"),
            ("(app) elixir_compiler_7.__MODULE__/1", "(app) elixir_compiler_0.__MODULE__/1"),
            ("#PID<0.123.0> and #Reference<0.1.2.3>, #Port<0.5>", "#PID<0.0.0> and #Reference<0.0.0.0>, #Port<0.0>"),
            ("#Function<7.1234/1 in :elixir_compiler_7.f/1>", "#Function<0.0/1 in :elixir_compiler_0.f/1>"),
            ("with #Function<1.79595390 in file:lib/m1.ex>", "with #Function<0.0 in file:lib/m1.ex>"),
        ] {
            let mut terms = [Term::atom(text), Term::Bin(text.into()), Term::Str(text.into())];
            terms.iter_mut().for_each(normalize);
            let expected = [Term::atom(expected), Term::Bin(expected.into()), Term::Str(expected.into())];
            assert_eq!(terms, expected);
        }
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for text in [
            "elixir_compiler_",
            "#PID<a>",
            "#PID<0.1",
            "#Function<0.1234",
            "#Function<&Mine.f/1>",
            "7 #Port",
            "#Function<",
        ] {
            let mut term = Term::Bin(text.into());
            normalize(&mut term);
            assert_eq!(term, Term::Bin(text.into()));
        }
    }

    #[test]
    fn pids_and_references_keep_their_node_alone() {
        for (node, numbers) in [
            (&[131, 88, 119, 1, b'n'][..], &[0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 5][..]), // NEW_PID
            (&[131, 88, 118, 0, 1, b'n'][..], &[0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 5][..]),
            (&[131, 90, 0, 1, 119, 1, b'n'][..], &[0, 0, 0, 4, 0, 0, 0, 7][..]), // NEWER_REFERENCE
        ] {
            let mut term = Term::Tuple(vec![etf::decode(&[node, numbers].concat()).unwrap()]);
            normalize(&mut term);
            let Term::Tuple(items) = term else { panic!("a tuple") };
            assert_eq!(etf::encode(&items[0]), [node, &vec![0; numbers.len()]].concat());
        }
    }
}
