//! A term as a value.

/// An Erlang term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// An integer that fits 64 bits.
    Int(i64),
    /// Any other integer: sign byte, and the magnitude in little-endian bytes.
    Big(u8, Vec<u8>),
    /// The big-endian bytes of an IEEE 754 double, so that every float is kept as it is.
    Float([u8; 8]),
    /// An atom: its text in UTF-8, which is not checked.
    Atom(Vec<u8>),
    /// A tuple.
    Tuple(Vec<Term>),
    /// A list that is not empty: its elements and its tail, which is [`Term::Nil`] for a proper list.
    List(Vec<Term>, Box<Term>),
    /// A list of bytes: what Erlang calls a string.
    Str(Vec<u8>),
    /// The empty list.
    Nil,
    /// A binary.
    Bin(Vec<u8>),
    /// A bit string: bytes, and how many bits of the last one count.
    Bits(Vec<u8>, u8),
    /// A map.
    Map(Vec<(Term, Term)>),
    /// A pid, port, reference, fun or old float: its encoding, tag included.
    Opaque(Vec<u8>),
}

impl Term {
    /// The atom `name`.
    pub fn atom(name: &str) -> Self {
        Self::Atom(name.as_bytes().to_vec())
    }

    /// Whether this is the atom `name`.
    pub fn is_atom(&self, name: &str) -> bool {
        matches!(self, Self::Atom(text) if text == name.as_bytes())
    }

    /// The terms that this one is made of: the elements of a tuple or a list, and a list's tail; keys and values of a map.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        let (items, tail, pairs): (&[Self], Option<&Self>, &[(Self, Self)]) = match self {
            Self::Tuple(items) => (items, None, &[]),
            Self::List(items, tail) => (items, Some(tail), &[]),
            Self::Map(pairs) => (&[], None, pairs),
            _ => (&[], None, &[]),
        };
        items.iter().chain(tail).chain(pairs.iter().flat_map(|(key, value)| [key, value]))
    }
}
