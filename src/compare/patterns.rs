//! Whether compiled modules differ in a compiled regular expression.

use super::beam::MAX_PLAIN;
use crate::elixir::beam;
use crate::elixir::etf::Term;

/// Whether the literals of two compiled modules have as many compiled regular expressions, and they differ.
pub(super) fn differ_by_pattern(left: &[u8], right: &[u8]) -> bool {
    let (left, right) = (patterns(left), patterns(right));
    left.len() == right.len() && left != right
}

/// What PCRE compiled: the binaries in `{re_pattern, Captures, Unicode, UseCrlf, Compiled}` (`re:compile/2` of OTP up to 27),
/// in the order of the literals.
fn patterns(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = vec![];
    let Ok(plain) = beam::unzipped(bytes, MAX_PLAIN) else { return found };
    for chunk in beam::chunks(&plain).into_iter().flatten().map_while(Result::ok) {
        if &chunk.name == b"LitT" {
            let _damaged = beam::each_literal(chunk.data, |term| add(term, &mut found));
        }
    }
    found
}

fn add(term: &Term, found: &mut Vec<Vec<u8>>) {
    if let Term::Tuple(items) = term
        && let [name, _, _, _, Term::Bin(compiled)] = &items[..]
        && name.is_atom("re_pattern")
    {
        found.push(compiled.clone());
    }
    term.children().for_each(|child| add(child, found));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elixir::etf;

    /// A module with one literal, a map as `~r/` makes it.
    fn module(name: &str, compiled: &[u8]) -> Vec<u8> {
        let integer = || Term::Int(0);
        let pattern =
            Term::Tuple(vec![Term::atom(name), integer(), integer(), integer(), Term::Bin(compiled.to_vec())]);
        let literal = etf::encode(&Term::Map(vec![(Term::atom("re_pattern"), pattern)]));
        let size = u32::try_from(literal.len()).unwrap().to_be_bytes();
        let table = [&[0; 4], &1_u32.to_be_bytes()[..], &size, &literal].concat();
        let mut body = [b"BEAMLitT", &u32::try_from(table.len()).unwrap().to_be_bytes()[..], &table].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        [b"FOR1", &u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    }

    #[test]
    fn only_a_compiled_regular_expression_counts() {
        let one = module("re_pattern", b"ERCP\0name\0\x07");
        assert!(differ_by_pattern(&one, &module("re_pattern", b"ERCP\0name\0\x08")));
        assert!(!differ_by_pattern(&one, &one));
        assert!(!differ_by_pattern(&module("other", b"1"), &module("other", b"2")));
        for end in 0..one.len() {
            assert!(!differ_by_pattern(&one[..end], b"no module"), "{end}");
        }
    }
}
