//! Encodings of text that `working-tree-encoding` names (gitattributes(5)): git stores UTF-8, and files have another.
//!
//! The crate `encoding_rs` writes no UTF-16, has no UTF-32, and takes ISO 8859-1 for Windows-1252, as browsers do.

use std::fmt;

/// The encoding of a file whose blob is UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// One byte for each of the first 256 characters (ISO 8859-1).
    Latin1,
    /// Units of two bytes.
    Utf16(ByteOrder),
    /// Units of four bytes.
    Utf32(ByteOrder),
}

/// The order of the bytes of a unit, and whether a byte order mark is before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ByteOrder {
    /// Lowest first, with a mark: what git writes for a name without an order, with the C library of GNU.
    Marked,
    /// Lowest first.
    Little,
    /// Highest first.
    Big,
    /// Lowest first, with a mark, by a name that says so.
    LittleMarked,
    /// Highest first, with a mark.
    BigMarked,
}

/// What `working-tree-encoding` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// The file is UTF-8, as its blob is.
    Utf8,
    /// Another encoding.
    Other(Encoding),
    /// An encoding that is not known here.
    Unknown,
}

const MARK: char = '\u{feff}';

/// The encoding of a name, in any case, and `UTF16` for `UTF-16` as in git.
pub(super) fn named(name: &str) -> Named {
    let upper = name.to_ascii_uppercase();
    let unicode = upper.strip_prefix("UTF").map(|rest| rest.strip_prefix('-').unwrap_or(rest));
    let order = |text: &str| match text {
        "" => Some(ByteOrder::Marked),
        "LE" => Some(ByteOrder::Little),
        "BE" => Some(ByteOrder::Big),
        "LE-BOM" => Some(ByteOrder::LittleMarked),
        "BE-BOM" => Some(ByteOrder::BigMarked),
        _ => None,
    };
    let found = match unicode {
        Some("8") => return Named::Utf8,
        Some(text) => text
            .strip_prefix("16")
            .and_then(order)
            .map(Encoding::Utf16)
            .or_else(|| text.strip_prefix("32").and_then(order).map(Encoding::Utf32)),
        None => matches!(upper.as_str(), "ISO-8859-1" | "ISO8859-1" | "LATIN1" | "LATIN-1").then_some(Encoding::Latin1),
    };
    found.map_or(Named::Unknown, Named::Other)
}

impl ByteOrder {
    fn is_big(self) -> bool {
        matches!(self, Self::Big | Self::BigMarked)
    }

    fn has_mark(self) -> bool {
        matches!(self, Self::Marked | Self::LittleMarked | Self::BigMarked)
    }
}

impl Encoding {
    /// The file of a blob; `None` if the blob is no UTF-8, or holds a character that the encoding has not.
    pub(super) fn encode(self, blob: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(blob).ok()?;
        let mark = |order: ByteOrder| (order.has_mark() && !text.is_empty()).then_some(MARK);
        match self {
            Self::Latin1 => text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect(),
            Self::Utf16(order) => {
                let mut units = [0; 2];
                let chars = mark(order).into_iter().chain(text.chars());
                let mut bytes = Vec::with_capacity(2 * text.len() + 2);
                for c in chars {
                    for unit in c.encode_utf16(&mut units) {
                        bytes.extend(if order.is_big() { unit.to_be_bytes() } else { unit.to_le_bytes() });
                    }
                }
                Some(bytes)
            }
            Self::Utf32(order) => {
                let chars = mark(order).into_iter().chain(text.chars()).map(u32::from);
                Some(chars.flat_map(|c| if order.is_big() { c.to_be_bytes() } else { c.to_le_bytes() }).collect())
            }
        }
    }

    /// The blob of a file; `None` if the file does not have this encoding. A mark decides on the order.
    pub(super) fn decode(self, file: &[u8]) -> Option<Vec<u8>> {
        let text: String = match self {
            Self::Latin1 => file.iter().map(|byte| char::from(*byte)).collect(),
            Self::Utf16(order) => {
                let is_big = order.is_big() || (order == ByteOrder::Marked && file.starts_with(&[0xfe, 0xff]));
                let (pairs, []) = file.as_chunks::<2>() else { return None };
                let unit = |pair: &[u8; 2]| if is_big { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) };
                char::decode_utf16(pairs.iter().map(unit)).collect::<Result<_, _>>().ok()?
            }
            Self::Utf32(order) => {
                let is_big = order.is_big() || (order == ByteOrder::Marked && file.starts_with(&[0, 0, 0xfe, 0xff]));
                let (fours, []) = file.as_chunks::<4>() else { return None };
                let unit = |four: &[u8; 4]| if is_big { u32::from_be_bytes(*four) } else { u32::from_le_bytes(*four) };
                fours.iter().map(|four| char::from_u32(unit(four))).collect::<Option<_>>()?
            }
        };
        let has_mark = matches!(self, Self::Utf16(order) | Self::Utf32(order) if order.has_mark());
        Some(text.strip_prefix(MARK).filter(|_| has_mark).unwrap_or(&text).as_bytes().to_vec())
    }
}

/// Its name as git knows it.
impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, order) = match self {
            Self::Latin1 => return f.write_str("ISO-8859-1"),
            Self::Utf16(order) => (16, order),
            Self::Utf32(order) => (32, order),
        };
        let order = match order {
            ByteOrder::Marked => "",
            ByteOrder::Little => "LE",
            ByteOrder::Big => "BE",
            ByteOrder::LittleMarked => "LE-BOM",
            ByteOrder::BigMarked => "BE-BOM",
        };
        write!(f, "UTF-{units}{order}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Named, named};

    #[test]
    fn a_text_has_the_bytes_that_git_writes_and_is_read_back() {
        for (name, bytes) in [
            ("UTF-16", b"\xff\xfe\xe9\0\x3d\xd8\0\xde".to_vec()),
            ("utf16", b"\xff\xfe\xe9\0\x3d\xd8\0\xde".to_vec()),
            ("UTF-16LE", b"\xe9\0\x3d\xd8\0\xde".to_vec()),
            ("UTF-16BE", b"\0\xe9\xd8\x3d\xde\0".to_vec()),
            ("utf-16le-bom", b"\xff\xfe\xe9\0\x3d\xd8\0\xde".to_vec()),
            ("UTF-16BE-BOM", b"\xfe\xff\0\xe9\xd8\x3d\xde\0".to_vec()),
            ("UTF-32", b"\xff\xfe\0\0\xe9\0\0\0\0\xf6\x01\0".to_vec()),
            ("UTF-32BE", b"\0\0\0\xe9\0\x01\xf6\0".to_vec()),
        ] {
            let Named::Other(encoding) = named(name) else { panic!("{name}") };
            assert_eq!(encoding.encode("é😀".as_bytes()).unwrap(), bytes, "{name}");
            assert_eq!(encoding.decode(&bytes).unwrap(), "é😀".as_bytes(), "{name}");
            assert_eq!(named(&encoding.to_string()), Named::Other(encoding));
            assert_eq!((encoding.encode(b"\xff"), encoding.encode(b"")), (None, Some(vec![])));
            assert_eq!(encoding.decode(b"\xd8"), None);
        }
        let Named::Other(latin) = named("latin1") else { panic!() };
        assert_eq!(latin.encode("é".as_bytes()).unwrap(), b"\xe9");
        assert_eq!(latin.decode(b"\xe9").unwrap(), "é".as_bytes());
        assert_eq!(latin.encode("😀".as_bytes()), None);
        assert_eq!((named("utf-8"), named("UTF8")), (Named::Utf8, Named::Utf8));
        assert_eq!((named("SHIFT-JIS"), named("UTF-17"), named("")), (Named::Unknown, Named::Unknown, Named::Unknown));
    }

    #[test]
    fn a_mark_of_the_other_order_is_read() {
        let Named::Other(encoding) = named("UTF-16") else { panic!() };
        assert_eq!(encoding.decode(b"\xfe\xff\0a").unwrap(), b"a");
    }
}
