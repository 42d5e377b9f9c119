//! Reads the records of extended headers (POSIX.1-2001, pax; GNU tar's `GNU.sparse.*`) strictly: what is malformed is
//! refused, never skipped, so no two readers see different entries.

use std::collections::BTreeMap;

use super::error::{UnpackError, Violation};

/// The largest extended header in bytes.
pub(super) const MAX_EXTENSION: u64 = 1 << 20;
/// The bytes of all extended attributes of an entry, names included.
const MAX_XATTRS: usize = 1 << 20;
/// The bytes of one attribute's value; the limit of xattr(7).
const MAX_XATTR: usize = 64 << 10;
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// One record of an extended header.
struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
}

/// The content of an `x` header, which describes the next entry.
#[derive(Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    /// Values of `GNU.sparse.KEY` by KEY, but for those below.
    pub(super) sparse: BTreeMap<String, String>,
    /// The name of a sparse file in format 1.0 and 0.1; its `path` is a placeholder.
    pub(super) sparse_name: Option<Vec<u8>>,
    /// Offsets and lengths in turn: the map of a sparse file in format 0.0.
    pub(super) sparse_pairs: Vec<u64>,
}

impl Pax {
    /// Reads the body of an `x` header.
    pub(super) fn parse(body: &[u8]) -> Result<Self, UnpackError> {
        let mut pax = Self::default();
        let mut xattrs = 0;
        for Record { key, value } in records(body)? {
            if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                let name = std::str::from_utf8(name).map_err(|_| malformed())?;
                if name.is_empty() {
                    return Err(malformed());
                }
                xattrs += name.len() + value.len();
                if value.len() > MAX_XATTR || xattrs > MAX_XATTRS {
                    return Err(UnpackError::stream(Violation::XattrSize));
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
                // An empty value deletes an earlier one. There is none, and readers differ on what to do.
                b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" => Err(malformed()),
                _ => Ok(()),
            };
        }
        if value.contains(&0) {
            return Err(malformed());
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.linkpath = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(u32::try_from(number(value)?).map_err(|_| malformed())?),
            b"gid" => self.gid = Some(u32::try_from(number(value)?).map_err(|_| malformed())?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                if self.sparse_pairs.len() % 2 != usize::from(key == b"GNU.sparse.numbytes") {
                    return Err(malformed());
                }
                self.sparse_pairs.push(number(value)?);
            }
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    let (Ok(key), Ok(value)) = (std::str::from_utf8(key), std::str::from_utf8(value)) else {
                        return Err(malformed());
                    };
                    self.sparse.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        Ok(())
    }
}

/// Checks a `g` header. Go ignores its records and Python applies them, so none may describe entries.
pub(super) fn check_global(body: &[u8]) -> Result<(), UnpackError> {
    let describes_entries = |key: &[u8]| match key {
        b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" | b"hdrcharset" => true,
        _ => key.starts_with(b"SCHILY.") || key.starts_with(b"GNU.sparse."),
    };
    if records(body)?.iter().any(|record| describes_entries(record.key)) { Err(malformed()) } else { Ok(()) }
}

/// The records of an extended header: `LENGTH KEY=VALUE\n`, repeated to its last byte.
fn records(mut body: &[u8]) -> Result<Vec<Record<'_>>, UnpackError> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let digits = body.iter().take(10).position(|b| *b == b' ').ok_or_else(malformed)?;
        let length = usize::try_from(number(&body[..digits])?).map_err(|_| malformed())?;
        if length < digits + 4 || length > body.len() || body[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &body[digits + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return Err(malformed());
        }
        records.push(Record { key, value });
        body = &body[length..];
    }
    Ok(records)
}

/// Whether an attribute is dropped: it would forge whiteouts of overlayfs, or is only valid on the machine that set it.
fn is_dropped(name: &str) -> bool {
    const LOCAL: [&str; 3] = ["security.selinux", "security.ima", "security.evm"];
    name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") || LOCAL.contains(&name)
}

/// A decimal number without a sign, up to `i64::MAX`.
pub(super) fn number(text: &[u8]) -> Result<u64, UnpackError> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let value = digits.and_then(|digits| digits.parse::<u64>().ok());
    value.filter(|value| i64::try_from(*value).is_ok()).ok_or_else(malformed)
}

/// `[-]SECONDS[.FRACTION]` as seconds and nanoseconds after them.
fn time(text: &[u8]) -> Result<(i64, u32), UnpackError> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let mut halves = text.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(number(halves.next().unwrap_or_default())?).map_err(|_| malformed())?;
    let fraction = halves.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let nanos = fraction.iter().chain([b'0'; 9].iter()).take(9).fold(0, |sum, b| sum * 10 + u32::from(b - b'0'));
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

fn malformed() -> UnpackError {
    UnpackError::stream(Violation::Pax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_round_down() {
        assert_eq!(time(b"-1.5").unwrap(), (-2, 500_000_000));
        assert_eq!(time(b"12.000000001999").unwrap(), (12, 1));
        assert_eq!(time(b"-3").unwrap(), (-3, 0));
        assert_eq!(time(b"1.5").unwrap(), (1, 500_000_000));
        assert_eq!(time(b"0.123456789").unwrap(), (0, 123_456_789));
        assert_eq!(time(b"7.").unwrap(), (7, 0));
        assert_eq!(time(b"-0.25").unwrap(), (-1, 750_000_000));
        assert_eq!(time(b"9223372036854775807").unwrap(), (i64::MAX, 0));
        for bad in ["", "-", ".5", "1.x", "1.5x", "1.1.1", "1e9", "-100000000000000000000", "+1", "--1"] {
            assert_eq!(time(bad.as_bytes()).unwrap_err().code(), "layer.pax", "{bad}");
        }
    }

    fn parse(body: &[u8]) -> Result<Pax, &'static str> {
        Pax::parse(body).map_err(|error| error.code())
    }

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let length = (rest..rest + 9).find(|length| *length == rest + length.to_string().len()).unwrap();
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn malformed_records_are_refused_not_skipped() {
        for bad in [
            "6 a=b",
            "5 a=b\n",
            "7 a=b\n",
            "6 =bb\n",
            "6 abc\n",
            "x a=b\n",
            "-6 a=b\n",
            " a=b\n",
            "3 a\n",
            "4 a=\n",
            "6 a\0b=\n",
            "7 a\0=b\n",
            "0000000000006 a=b\n",
            "99999999999999999999 a=b\n",
            "6 a=b\n\n",
            "6 a=b\n6",
            "0 a=b\n",
        ] {
            assert_eq!(parse(bad.as_bytes()).err(), Some("layer.pax"), "{bad:?}");
        }
        for good in ["6 a=b\n", "5 a=\n", "07 a=b\n7 a=\n\n\n", "000000006 path=b\n", ""] {
            let expected = (good == "000000006 path=b\n").then_some("layer.pax");
            assert_eq!(parse(good.as_bytes()).err(), expected, "{good:?}");
        }
        assert_eq!(parse(b"9 path=b\n").unwrap().path.as_deref(), Some(&b"b"[..]));
        assert_eq!(parse(b"11 path==\n\n").unwrap().path.as_deref(), Some(&b"=\n"[..]));
    }

    #[test]
    fn each_keyword_has_its_field() {
        let max = i64::MAX.to_string();
        let body = [
            record("path", b"p"),
            record("linkpath", b"l"),
            record("size", max.as_bytes()),
            record("uid", b"4294967295"),
            record("gid", b"7"),
            record("mtime", b"9.25"),
            record("comment", b""),
            record("SCHILY.xattr.user.empty", b""),
            record("SCHILY.xattr.user.nul", b"\0"),
            record("GNU.sparse.name", b"s"),
            record("GNU.sparse.major", b"1"),
            record("GNU.sparse.offset", b"1"),
            record("GNU.sparse.numbytes", b"2"),
            record("GNU.sparse.offset", b"3"),
        ];
        let pax = parse(&body.concat()).unwrap();
        assert_eq!((pax.path.as_deref(), pax.linkpath.as_deref()), (Some(&b"p"[..]), Some(&b"l"[..])));
        assert_eq!((pax.size, pax.uid, pax.gid), (Some(i64::MAX.cast_unsigned()), Some(u32::MAX), Some(7)));
        assert_eq!((pax.mtime, pax.sparse_name.as_deref()), (Some((9, 250_000_000)), Some(&b"s"[..])));
        assert_eq!(pax.sparse, BTreeMap::from([("major".into(), "1".into())]));
        assert_eq!(pax.sparse_pairs, [1, 2, 3]);
        assert_eq!(pax.xattrs, BTreeMap::from([("user.empty".into(), vec![]), ("user.nul".into(), vec![0])]));
    }

    #[test]
    fn values_that_readers_disagree_on_are_refused() {
        for (key, value) in [
            ("path", ""),
            ("linkpath", ""),
            ("size", ""),
            ("uid", ""),
            ("gid", ""),
            ("mtime", ""),
            ("path", "a\0"),
            ("comment", "\0"),
            ("size", "-1"),
            ("size", "+1"),
            ("size", "1 "),
            ("size", "9223372036854775808"),
            ("uid", "4294967296"),
            ("gid", "4294967296"),
            ("gid", "x"),
            ("mtime", "x"),
            ("GNU.sparse.numbytes", "1"),
            ("GNU.sparse.offset", "x"),
        ] {
            assert_eq!(parse(&record(key, value.as_bytes())).err(), Some("layer.pax"), "{key}={value}");
        }
        let repeated = [record("GNU.sparse.offset", b"1"), record("GNU.sparse.offset", b"2")].concat();
        assert_eq!(parse(&repeated).err(), Some("layer.pax"));
        assert_eq!(parse(&record("GNU.sparse.map", b"\xff")).err(), Some("layer.pax"));
        assert_eq!(parse(b"21 SCHILY.xattr.\xff=v\n").err(), Some("layer.pax"));
        assert_eq!(parse(&record("SCHILY.xattr.", b"v")).err(), Some("layer.pax"), "no file system has an empty name");
    }

    #[test]
    fn attributes_are_limited_one_by_one_and_together() {
        let xattr = |name: &str, size: usize| record(&format!("SCHILY.xattr.{name}"), &vec![b'v'; size]);
        assert_eq!(parse(&xattr("user.a", 65_536)).unwrap().xattrs["user.a"].len(), 65_536);
        assert_eq!(parse(&xattr("user.a", 65_537)).err(), Some("layer.xattr-size"));
        // 16 attributes with names of 6 bytes.
        let many = |last: usize| {
            let all: Vec<_> =
                (0..16).map(|n| xattr(&format!("user.{n:x}"), if n == 15 { last } else { 65_536 })).collect();
            parse(&all.concat()).map(|pax| pax.xattrs.len())
        };
        assert_eq!(many(65_536 - 16 * 6), Ok(16));
        assert_eq!(many(65_536 - 16 * 6 + 1), Err("layer.xattr-size"));
    }

    #[test]
    fn attributes_of_this_machine_and_of_overlayfs_are_dropped() {
        for name in ["security.selinux", "security.ima", "security.evm", "trusted.overlay.opaque", "user.overlay.x"] {
            assert!(parse(&record(&format!("SCHILY.xattr.{name}"), b"v")).unwrap().xattrs.is_empty(), "{name}");
        }
        for name in ["security.capability", "security.selinux2", "user.overlay", "trusted.overlayx.a", "user.x"] {
            assert_eq!(parse(&record(&format!("SCHILY.xattr.{name}"), b"v")).unwrap().xattrs.len(), 1, "{name}");
        }
    }

    #[test]
    fn a_global_header_describes_no_entry() {
        for key in ["path", "linkpath", "size", "uid", "gid", "mtime", "hdrcharset", "SCHILY.x", "GNU.sparse.x"] {
            assert_eq!(check_global(&record(key, b"1")).unwrap_err().code(), "layer.pax", "{key}");
        }
        for key in ["comment", "pathx", "SCHILY", "atime", "uname"] {
            assert!(check_global(&record(key, b"1")).is_ok(), "{key}");
        }
        assert!(check_global(b"x").is_err());
    }
}
