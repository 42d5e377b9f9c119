//! Metadata of extended headers (POSIX.1-2001, pax; GNU tar's `GNU.sparse.*`), read strictly: what is malformed is refused,
//! never skipped, so that no reader sees other entries than we do.

use std::collections::BTreeMap;

use super::error::{Rule, UnpackError};

/// No extended header is larger.
pub(super) const PAX_MAX: u64 = 1 << 20;
/// Attributes of one entry together; xattr(7) allows 64 KiB for one.
const XATTRS_MAX: usize = 1 << 20;
const XATTR_MAX: usize = 64 << 10;
const XATTR: &[u8] = b"SCHILY.xattr.";

type KeyValue<'a> = (&'a [u8], &'a [u8]);

/// What an `x` header says of the next entry.
#[derive(Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) sparse: BTreeMap<String, String>,
    /// The true name of a sparse file, whose `path` is made up.
    pub(super) sparse_name: Option<Vec<u8>>,
    /// Pairs of the 0.0 sparse format, in order.
    pub(super) pairs: Vec<u64>,
}

impl Pax {
    /// Reads the body of an `x` header.
    pub(super) fn parse(body: &[u8]) -> Result<Self, UnpackError> {
        let mut pax = Self::default();
        let mut xattrs = 0;
        for (key, value) in records(body)? {
            if let Some(name) = key.strip_prefix(XATTR) {
                let name = std::str::from_utf8(name).map_err(|_| refused())?;
                xattrs += name.len() + value.len();
                if value.len() > XATTR_MAX || xattrs > XATTRS_MAX {
                    return Err(UnpackError::stream(Rule::XattrSize));
                }
                if !is_dropped(name) {
                    pax.xattrs.insert(name.to_owned(), value.to_vec());
                }
            } else {
                pax.keyword(key, value)?;
            }
        }
        Ok(pax)
    }

    fn keyword(&mut self, key: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        if value.is_empty() {
            return match key {
                // "Delete the earlier value" has no meaning for a first one; readers differ on it.
                b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" => Err(refused()),
                _ => Ok(()),
            };
        }
        if value.contains(&0) {
            return Err(refused());
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.linkpath = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(u32::try_from(number(value)?).map_err(|_| refused())?),
            b"gid" => self.gid = Some(u32::try_from(number(value)?).map_err(|_| refused())?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                if self.pairs.len() % 2 != usize::from(key == b"GNU.sparse.numbytes") {
                    return Err(refused());
                }
                self.pairs.push(number(value)?);
            }
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    let (Ok(key), Ok(value)) = (std::str::from_utf8(key), std::str::from_utf8(value)) else {
                        return Err(refused());
                    };
                    self.sparse.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        Ok(())
    }
}

/// Checks a `g` header: Go ignores what it says and Python applies it, so it may say nothing about entries.
pub(super) fn check_global(body: &[u8]) -> Result<(), UnpackError> {
    const MEANT: [&[u8]; 9] =
        [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"hdrcharset", b"SCHILY.", b"GNU.sparse."];
    let clash = |key: &[u8]| MEANT.iter().any(|m| if m.ends_with(b".") { key.starts_with(m) } else { key == *m });
    if records(body)?.iter().any(|(key, _)| clash(key)) { Err(refused()) } else { Ok(()) }
}

/// `LENGTH KEY=VALUE\n` again and again, to the last byte.
fn records(mut body: &[u8]) -> Result<Vec<KeyValue<'_>>, UnpackError> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let digits = body.iter().take(10).position(|b| *b == b' ').ok_or_else(refused)?;
        let length = usize::try_from(number(&body[..digits])?).map_err(|_| refused())?;
        if length < digits + 4 || length > body.len() || body[length - 1] != b'\n' {
            return Err(refused());
        }
        let record = &body[digits + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(refused)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return Err(refused());
        }
        records.push((key, value));
        body = &body[length..];
    }
    Ok(records)
}

/// Attributes that would forge overlay entries, or that mean something only on the machine that set them.
fn is_dropped(name: &str) -> bool {
    const LOCAL: [&str; 3] = ["security.selinux", "security.ima", "security.evm"];
    name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") || LOCAL.contains(&name)
}

/// A decimal number without a sign, up to `i64::MAX`.
pub(super) fn number(text: &[u8]) -> Result<u64, UnpackError> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let value = digits.and_then(|digits| digits.parse::<u64>().ok());
    value.filter(|value| i64::try_from(*value).is_ok()).ok_or_else(refused)
}

/// `[-]SECONDS[.FRACTION]` as seconds and nanoseconds after them.
fn time(text: &[u8]) -> Result<(i64, u32), UnpackError> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let mut halves = text.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(number(halves.next().unwrap_or_default())?).map_err(|_| refused())?;
    let fraction = halves.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(refused());
    }
    let nanos = fraction.iter().chain([b'0'; 9].iter()).take(9).fold(0, |sum, b| sum * 10 + u32::from(b - b'0'));
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

fn refused() -> UnpackError {
    UnpackError::stream(Rule::Pax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_round_down() {
        assert_eq!(time(b"-1.5").unwrap(), (-2, 500_000_000));
        assert_eq!(time(b"12.000000001999").unwrap(), (12, 1));
        assert_eq!(time(b"-3").unwrap(), (-3, 0));
        for bad in ["", "1.x", "1e9", "-100000000000000000000", "+1", "--1"] {
            assert_eq!(time(bad.as_bytes()).unwrap_err().code(), "layer.pax", "{bad}");
        }
    }

    #[test]
    fn malformed_records_are_refused_not_skipped() {
        for bad in ["6 a=b", "5 a=b\n", "7 a=b\n", "6 =bb\n", "6 abc\n", "x a=b\n", "06a=b\n", "-6 a=b\n"] {
            assert!(Pax::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(Pax::parse(b"9 path=b\n").map(|p| p.path).ok().flatten().as_deref(), Some(&b"b"[..]));
    }
}
