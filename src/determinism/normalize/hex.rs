//! Hex's marker in a fetched package, `deps/*/.hex`, in canonical form: the order of its maps depends on the Erlang VM
//! that wrote it.

use crate::elixir::etf::{self, EtfError};

/// The same term in canonical bytes. Hex before 2.0 wrote plain text, which is an error here: that file stays as it is.
pub(super) fn normalized(bytes: &[u8]) -> Result<Vec<u8>, EtfError> {
    Ok(etf::encode(&etf::decode(bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elixir::etf::Term;

    #[test]
    fn a_marker_is_the_same_however_its_map_was_ordered() {
        let pair = |key: &str| (Term::atom(key), Term::Bin(key.as_bytes().to_vec()));
        let version = Term::Tuple(vec![Term::atom("hex"), Term::Int(2), Term::Int(0)]);
        let marker = |pairs| Term::Tuple(vec![version.clone(), Term::Map(pairs)]);
        let expected = etf::encode(&marker(vec![pair("name"), pair("repo")]));
        // term_to_binary in the other order: {tuple 2, version, map 2, repo, name}
        let mut bytes = etf::encode(&Term::Tuple(vec![version.clone()]));
        bytes[2] = 2;
        bytes.extend_from_slice(&[116, 0, 0, 0, 2]);
        for key in ["repo", "name"] {
            bytes.extend_from_slice(&etf::encode(&Term::atom(key))[1..]);
            bytes.extend_from_slice(&etf::encode(&Term::Bin(key.as_bytes().to_vec()))[1..]);
        }
        assert_ne!(bytes, expected);
        assert_eq!(normalized(&bytes), Ok(expected));
    }

    #[test]
    fn a_marker_of_old_hex_is_not_a_term() {
        assert!(normalized(b"jason,1.2.0,abc,hexpm\n").is_err());
    }
}
