//! Mutations without coverage, for the seconds that `cargo test` has: bytes changed, copied, removed, inserted, and spliced
//! with another input.

use fastrand::Rng;

/// Bytes that mean something to the parsers: separators, digits, types of tar entries, limits of integers.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"/",
    b".",
    b"..",
    b"=",
    b"\n",
    b" ",
    b"0",
    b"1",
    b"9",
    b"5",
    b"L",
    b"S",
    b"x",
    b".wh.",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"99999999999",
    b"-1",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"%",
    b"\\",
    b"'",
    b"#",
    b"<",
    b">",
    b"&",
    b"@",
    b"\x83h\x02",
    b"\xc3\xa9",
    b"null",
];

/// A changed copy of one of `inputs`, which must not be empty.
pub fn mutated(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = inputs[rng.usize(..inputs.len())].clone();
    for _ in 0..=rng.usize(..6) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..8) {
            0..3 => {
                let token = TOKENS[rng.usize(..TOKENS.len())];
                let end = bytes.len().min(at + token.len());
                bytes.splice(at..end, token.iter().copied());
            }
            3 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            4 if at < bytes.len() => bytes[at] = rng.u8(..),
            5 => {
                let end = bytes.len().min(at + rng.usize(..600));
                bytes.drain(at..end);
            }
            6 => {
                let end = bytes.len().min(at + rng.usize(..600));
                let copy = bytes[at..end].to_vec();
                let to = rng.usize(..=bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => {
                let other = &inputs[rng.usize(..inputs.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
            }
        }
        bytes.truncate(64 << 10);
    }
    bytes
}
