//! Erlang's external term format: decodes bytes to a [`Term`], and encodes a term to its canonical bytes.
//!
//! Source: the chapter "External Term Format" of the ERTS manual. The decoder accepts every tag that `term_to_binary`
//! writes, compressed or not, never panics, and has limits ([`MAX_BYTES`], [`MAX_DEPTH`], [`MAX_TERMS`]). The encoding
//! depends on the term alone: uncompressed, the shortest tag for each value, maps sorted by the encoded bytes of their
//! keys.
//!
//! The codec is ours because its bytes reach the digests of images: they must not change with the version of a crate.

mod term;

use std::io::Read as _;

pub use term::Term;

/// The most bytes of a term, compressed or not.
pub const MAX_BYTES: usize = 64 << 20;
/// The deepest nesting of terms; a manifest of Mix has about a dozen levels.
const MAX_DEPTH: usize = 400;
/// The most terms in a term: each takes more memory than the one byte that may encode it.
const MAX_TERMS: usize = 4 << 20;
/// The most characters of an atom (OTP, "Advanced", system limits).
const MAX_ATOM: usize = 255;

/// Which terms are decoded: raise it whenever the same bytes decode to another term. Part of the cache key of a
/// toolchain.
pub const VERSION_OF_READER: &str = "etf 2";

const VERSION: u8 = 131;
const COMPRESSED: u8 = 80;

/// The bytes are not a term that is read here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtfError {
    /// The bytes end within the term.
    #[error("the term ends too early")]
    Short,
    /// There are bytes after the term.
    #[error("bytes after the term")]
    Trailing,
    /// A tag that `term_to_binary` does not write.
    #[error("unknown tag {0}")]
    Tag(u8),
    /// The compressed data cannot be inflated to the size it names.
    #[error("damaged compression")]
    Compression,
    /// One of the limits is exceeded.
    #[error("too large or too deep")]
    Limit,
}

/// Whether `bytes` start with the version byte of the format.
pub fn looks_like_term(bytes: &[u8]) -> bool {
    bytes.first() == Some(&VERSION)
}

/// Decodes `bytes`, which must hold one term and nothing else.
pub fn decode(bytes: &[u8]) -> Result<Term, EtfError> {
    if bytes.len() > MAX_BYTES {
        return Err(EtfError::Limit);
    }
    match bytes {
        [VERSION, COMPRESSED, rest @ ..] => read_whole(&inflate(rest)?),
        [VERSION, rest @ ..] => read_whole(rest),
        [other, ..] => Err(EtfError::Tag(*other)),
        [] => Err(EtfError::Short),
    }
}

/// The canonical bytes of `term`, with the version byte.
pub fn encode(term: &Term) -> Vec<u8> {
    let mut out = vec![VERSION];
    write(term, &mut out);
    out
}

/// Sorts terms by their canonical bytes. This is not Erlang's term order.
pub fn sort(terms: &mut [Term]) {
    terms.sort_by_cached_key(|term| {
        let mut bytes = Vec::new();
        write(term, &mut bytes);
        bytes
    });
}

fn inflate(rest: &[u8]) -> Result<Vec<u8>, EtfError> {
    let (size, packed) = rest.split_first_chunk::<4>().ok_or(EtfError::Short)?;
    let size = u32::from_be_bytes(*size) as usize;
    if size > MAX_BYTES {
        return Err(EtfError::Limit);
    }
    let mut plain = Vec::new();
    let mut reader = flate2::read::ZlibDecoder::new(packed).take(size as u64 + 1);
    reader.read_to_end(&mut plain).map_err(|_| EtfError::Compression)?;
    if plain.len() == size { Ok(plain) } else { Err(EtfError::Compression) }
}

fn read_whole(bytes: &[u8]) -> Result<Term, EtfError> {
    let mut reader = Reader { rest: bytes, left: MAX_TERMS };
    let term = reader.term(0)?;
    if reader.rest.is_empty() { Ok(term) } else { Err(EtfError::Trailing) }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Number of terms that may still be read.
    left: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], EtfError> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(EtfError::Short)?;
        self.rest = tail;
        Ok(head)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], EtfError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(EtfError::Short)?;
        self.rest = tail;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, EtfError> {
        Ok(self.chunk::<1>()?[0])
    }

    fn short(&mut self) -> Result<usize, EtfError> {
        Ok(usize::from(u16::from_be_bytes(self.chunk()?)))
    }

    fn long(&mut self) -> Result<usize, EtfError> {
        Ok(u32::from_be_bytes(self.chunk()?) as usize)
    }

    fn term(&mut self, depth: usize) -> Result<Term, EtfError> {
        if depth > MAX_DEPTH || self.left == 0 {
            return Err(EtfError::Limit);
        }
        self.left -= 1;
        let start = self.rest;
        let tag = self.byte()?;
        Ok(match tag {
            97 => Term::Int(i64::from(self.byte()?)),
            98 => Term::Int(i64::from(i32::from_be_bytes(self.chunk()?))),
            110 => self.byte().map(usize::from).and_then(|len| self.big(len))?,
            111 => self.long().and_then(|len| self.big(len))?,
            70 => Term::Float(self.chunk()?),
            100 => self.short().and_then(|len| self.latin1(len))?,
            115 => self.byte().map(usize::from).and_then(|len| self.latin1(len))?,
            118 => self.short().and_then(|len| self.take(len)).map(|text| Term::Atom(text.to_vec()))?,
            119 => self.byte().and_then(|len| self.take(usize::from(len))).map(|text| Term::Atom(text.to_vec()))?,
            104 => self.byte().map(usize::from).and_then(|count| self.terms(count, depth)).map(Term::Tuple)?,
            105 => self.long().and_then(|count| self.terms(count, depth)).map(Term::Tuple)?,
            106 => Term::Nil,
            107 => self.short().and_then(|len| self.take(len)).map(|text| Term::Str(text.to_vec()))?,
            108 => {
                let count = self.long()?;
                let (items, tail) = (self.terms(count, depth)?, self.term(depth + 1)?);
                self.list(items, tail)?
            }
            109 => self.long().and_then(|len| self.take(len)).map(|bytes| Term::Bin(bytes.to_vec()))?,
            77 => {
                let len = self.long()?;
                let bits = self.byte()?;
                Term::Bits(self.take(len)?.to_vec(), bits)
            }
            116 => {
                let count = self.long()?;
                let mut pairs = Vec::new();
                for _ in 0..count {
                    pairs.push((self.term(depth + 1)?, self.term(depth + 1)?));
                }
                Term::Map(pairs)
            }
            _ => {
                self.skip_opaque(tag, depth)?;
                Term::Opaque(start[..start.len() - self.rest.len()].to_vec())
            }
        })
    }

    fn terms(&mut self, count: usize, depth: usize) -> Result<Vec<Term>, EtfError> {
        let mut terms = Vec::new();
        for _ in 0..count {
            terms.push(self.term(depth + 1)?);
        }
        Ok(terms)
    }

    /// A list in the one form that it has here: none without elements, and no list as the tail of a list.
    fn list(&mut self, mut items: Vec<Term>, tail: Term) -> Result<Term, EtfError> {
        Ok(match tail {
            tail if items.is_empty() => tail,
            Term::List(more, tail) => {
                items.extend(more);
                Term::List(items, tail)
            }
            Term::Str(bytes) => {
                self.left = self.left.checked_sub(bytes.len()).ok_or(EtfError::Limit)?;
                items.extend(bytes.into_iter().map(|byte| Term::Int(byte.into())));
                Term::List(items, Box::new(Term::Nil))
            }
            tail => Term::List(items, Box::new(tail)),
        })
    }

    fn big(&mut self, len: usize) -> Result<Term, EtfError> {
        let sign = self.byte()?;
        let magnitude = self.take(len)?;
        let small = magnitude.iter().rev().try_fold(0_i64, |sum, byte| {
            let sum = sum.checked_mul(256)?;
            if sign == 0 { sum.checked_add(i64::from(*byte)) } else { sum.checked_sub(i64::from(*byte)) }
        });
        Ok(small.map_or_else(|| Term::Big(sign, magnitude.to_vec()), Term::Int))
    }

    /// An atom in Latin-1. Longer ones cannot exist, and would not fit the canonical form in UTF-8.
    fn latin1(&mut self, len: usize) -> Result<Term, EtfError> {
        if len > MAX_ATOM {
            return Err(EtfError::Limit);
        }
        let text: String = self.take(len)?.iter().copied().map(char::from).collect();
        Ok(Term::Atom(text.into_bytes()))
    }

    /// Skips a term of which only the bytes are kept.
    fn skip_opaque(&mut self, tag: u8, depth: usize) -> Result<(), EtfError> {
        let (words, rest) = match tag {
            99 => return self.take(31).map(drop),
            112 => {
                let size = self.long()?;
                return self.take(size.checked_sub(4).ok_or(EtfError::Short)?).map(drop);
            }
            113 => return (0..3).try_for_each(|_| self.term(depth + 1).map(drop)),
            101 | 102 => (0, 5),
            103 => (0, 9),
            88 | 120 => (0, 12),
            89 => (0, 8),
            114 => (self.short()?, 1),
            90 => (self.short()?, 4),
            other => return Err(EtfError::Tag(other)),
        };
        self.term(depth + 1)?; // the node's name
        self.take(words * 4 + rest).map(drop)
    }
}

fn write(term: &Term, out: &mut Vec<u8>) {
    match term {
        Term::Int(value) => write_int(*value, out),
        Term::Big(sign, magnitude) => write_big(*sign, magnitude, out),
        Term::Float(bits) => write_bytes(&[70], bits, out),
        Term::Atom(text) => match u8::try_from(text.len()) {
            Ok(len) => write_bytes(&[119, len], text, out),
            Err(_) => write_bytes(&[&[118], &len_u32(text.len())[2..]].concat(), text, out),
        },
        Term::Tuple(items) => {
            match u8::try_from(items.len()) {
                Ok(count) => out.extend_from_slice(&[104, count]),
                Err(_) => write_bytes(&[105], &len_u32(items.len()), out),
            }
            write_all(items, out);
        }
        Term::List(items, tail) => write_list(items, tail, out),
        Term::Str(text) => write_list_of_bytes(text, out),
        Term::Nil => out.push(106),
        Term::Bin(bytes) => {
            write_bytes(&[109], &len_u32(bytes.len()), out);
            out.extend_from_slice(bytes);
        }
        Term::Bits(bytes, bits) => {
            write_bytes(&[77], &len_u32(bytes.len()), out);
            write_bytes(&[*bits], bytes, out);
        }
        Term::Map(pairs) => write_map(pairs, out),
        Term::Opaque(bytes) => out.extend_from_slice(bytes),
    }
}

fn write_all(terms: &[Term], out: &mut Vec<u8>) {
    for term in terms {
        write(term, out);
    }
}

fn write_bytes(head: &[u8], tail: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(head);
    out.extend_from_slice(tail);
}

/// A length as four bytes. It fits: every term was decoded from at most [`MAX_BYTES`].
fn len_u32(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}

fn write_int(value: i64, out: &mut Vec<u8>) {
    if let Ok(small) = u8::try_from(value) {
        out.extend_from_slice(&[97, small]);
    } else if let Ok(word) = i32::try_from(value) {
        write_bytes(&[98], &word.to_be_bytes(), out);
    } else {
        write_big(u8::from(value < 0), &value.unsigned_abs().to_le_bytes(), out);
    }
}

fn write_big(sign: u8, magnitude: &[u8], out: &mut Vec<u8>) {
    let len = magnitude.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if let Ok(short) = u8::try_from(len) {
        out.extend_from_slice(&[110, short, sign]);
    } else {
        write_bytes(&[111], &len_u32(len), out);
        out.push(sign);
    }
    out.extend_from_slice(&magnitude[..len]);
}

/// A proper list of bytes is encoded as a string, as `term_to_binary` does, whichever tag it was decoded from.
fn write_list(items: &[Term], tail: &Term, out: &mut Vec<u8>) {
    let byte = |item: &Term| if let Term::Int(value) = item { u8::try_from(*value).ok() } else { None };
    if *tail == Term::Nil
        && let Some(text) = items.iter().map(byte).collect::<Option<Vec<u8>>>()
    {
        return write_list_of_bytes(&text, out);
    }
    write_bytes(&[108], &len_u32(items.len()), out);
    write_all(items, out);
    write(tail, out);
}

fn write_list_of_bytes(text: &[u8], out: &mut Vec<u8>) {
    match u16::try_from(text.len()) {
        Ok(0) => out.push(106),
        Ok(len) => {
            write_bytes(&[107], &len.to_be_bytes(), out);
            out.extend_from_slice(text);
        }
        Err(_) => {
            write_bytes(&[108], &len_u32(text.len()), out);
            out.extend(text.iter().flat_map(|byte| [97, *byte]));
            out.push(106);
        }
    }
}

fn write_map(pairs: &[(Term, Term)], out: &mut Vec<u8>) {
    let mut written: Vec<(Vec<u8>, &Term)> = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let mut bytes = Vec::new();
        write(key, &mut bytes);
        written.push((bytes, value));
    }
    written.sort_by(|left, right| left.0.cmp(&right.0));
    write_bytes(&[116], &len_u32(pairs.len()), out);
    for (key, value) in written {
        out.extend_from_slice(&key);
        write(value, out);
    }
}

#[cfg(test)]
mod tests;
