//! Writes tar headers (POSIX.1-2001: ustar with pax extensions) in one canonical form.
//!
//! What fits into the ustar fields is there. The rest (long names, names that are not ASCII, large numbers, extended
//! attributes) is in one `x` header whose own fields are constant and which holds no time. User names, group names and
//! device numbers are empty.
//!
//! The `tar` crate writes long names as entries of GNU, and its bytes may change with its version: they reach digests.

use std::collections::BTreeMap;

use tar::EntryType;

use crate::tar_block::BLOCK;

/// The largest number that fits into seven octal digits.
const MAX_USTAR_ID: u64 = 0o7_777_777;
/// The largest number that fits into eleven octal digits: 8 GiB less one.
const MAX_USTAR_SIZE: u64 = 0o77_777_777_777;
const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// The content of one entry's header.
pub(super) struct Header<'a> {
    /// The path in the tar: relative, with a trailing slash for a directory.
    pub(super) path: &'a [u8],
    pub(super) kind: EntryType,
    /// The target of a symlink, or the earlier name of a hard link.
    pub(super) link: &'a [u8],
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) xattrs: Option<&'a BTreeMap<String, Vec<u8>>>,
}

impl Header<'_> {
    /// The blocks of the header, with an `x` header before it if needed.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut records = PaxRecords::default();
        for (name, value) in self.xattrs.into_iter().flatten() {
            records.push(format!("{XATTR_PREFIX}{name}").as_bytes(), value);
        }
        // pax records are sorted by key, after the attributes.
        let gid = records.number("gid", u64::from(self.gid), MAX_USTAR_ID);
        if !fits_ustar(self.link) {
            records.push(b"linkpath", self.link);
        }
        let ustar_mtime = u64::try_from(self.mtime).ok().filter(|time| *time <= MAX_USTAR_SIZE);
        let mtime = ustar_mtime.unwrap_or_else(|| {
            records.push(b"mtime", self.mtime.to_string().as_bytes());
            0
        });
        let split = split_path(self.path);
        if split.is_none() {
            records.push(b"path", self.path);
        }
        let size = records.number("size", self.size, MAX_USTAR_SIZE);
        let uid = records.number("uid", u64::from(self.uid), MAX_USTAR_ID);

        let mut header = tar::Header::new_ustar();
        if let Some(fields) = header.as_ustar_mut() {
            if let Some((prefix, name)) = split {
                fields.prefix[..prefix.len()].copy_from_slice(prefix);
                fields.name[..name.len()].copy_from_slice(name);
            } else {
                fill_ascii(&mut fields.name, self.path);
            }
            fill_ascii(&mut fields.linkname, self.link);
        }
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_size(size);
        header.set_mtime(mtime);
        header.set_cksum();
        let mut blocks = records.encode();
        blocks.extend_from_slice(header.as_bytes());
        blocks
    }
}

/// The records of an `x` header.
#[derive(Default)]
struct PaxRecords(Vec<u8>);

impl PaxRecords {
    /// Adds `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record, its own digits included.
    fn push(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// Adds a number if its ustar field cannot hold it; returns what that field holds: the number, or 0.
    fn number(&mut self, key: &str, value: u64, max: u64) -> u64 {
        if value <= max {
            return value;
        }
        self.push(key.as_bytes(), value.to_string().as_bytes());
        0
    }

    /// The `x` header with the records as its body; nothing if there are none.
    fn encode(self) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut header = tar::Header::new_ustar();
        if let Some(fields) = header.as_ustar_mut() {
            fill_ascii(&mut fields.name, b"././@PaxHeader");
        }
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(self.0.len() as u64);
        header.set_mtime(0);
        header.set_cksum();
        let mut blocks = [&header.as_bytes()[..], &self.0].concat();
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        blocks
    }
}

/// Whether a ustar field of 100 bytes can hold `text`.
fn fits_ustar(text: &[u8]) -> bool {
    text.len() <= 100 && text.is_ascii()
}

/// The ustar prefix and name of `path`, split at the first slash that leaves a name of at most 100 bytes; none if ustar
/// cannot hold the path.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if fits_ustar(path) {
        return Some((b"", path));
    }
    if !path.is_ascii() {
        return None;
    }
    let from = path.len() - 101;
    let slash = from + path[from..path.len() - 1].iter().position(|b| *b == b'/')?;
    (1..=155).contains(&slash).then(|| (&path[..slash], &path[slash + 1..]))
}

/// Fills `field` with as much of `text` as it holds, for readers that do not know pax; `_` replaces bytes that are not ASCII.
fn fill_ascii(field: &mut [u8], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = if from.is_ascii() { *from } else { b'_' };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header<'static> {
        let kind = EntryType::Regular;
        Header { path: b"f", kind, link: b"", size: 0, mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: None }
    }

    /// The records of the `x` header that `header` needs, and the header that follows it.
    fn encoded(header: &Header<'_>) -> (String, tar::Header) {
        let blocks = header.encode();
        let own = tar::Header::from_byte_slice(&blocks[blocks.len() - 512..]).clone();
        if blocks.len() == 512 {
            return (String::new(), own);
        }
        let extension = tar::Header::from_byte_slice(&blocks[..512]);
        assert_eq!(extension.entry_type(), EntryType::XHeader);
        assert_eq!((extension.mode().unwrap(), extension.mtime().unwrap()), (0o644, 0));
        assert_eq!((extension.uid().unwrap(), extension.gid().unwrap()), (0, 0));
        assert_eq!(extension.path_bytes(), &b"././@PaxHeader"[..]);
        assert_eq!(blocks.len() % 512, 0);
        let size = usize::try_from(extension.size().unwrap()).unwrap();
        let (records, zeros) = blocks[512..blocks.len() - 512].split_at(size);
        assert!(zeros.len() < 512 && zeros.iter().all(|b| *b == 0));
        (records.escape_ascii().to_string(), own)
    }

    #[test]
    fn the_length_of_a_record_counts_its_own_digits() {
        for (value, expected) in [(1, 7), (3, 9), (4, 11), (92, 99), (93, 101), (94, 102)] {
            let mut records = PaxRecords::default();
            records.push(b"kk", &vec![b'x'; value]);
            let length: usize = String::from_utf8_lossy(&records.0).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, records.0.len(), "{value}");
            assert_eq!(records.0.len(), expected, "{value}");
        }
    }

    #[test]
    fn a_path_is_split_only_where_both_halves_fit() {
        let long = [&[b'a'; 150][..], b"/", &[b'b'; 100][..]].concat();
        assert_eq!(split_path(&long), Some((&[b'a'; 150][..], &[b'b'; 100][..])));
        let longest = [&[b'a'; 155][..], b"/", &[b'b'; 100][..]].concat();
        assert_eq!(split_path(&longest), Some((&[b'a'; 155][..], &[b'b'; 100][..])));
        let first = [&[b'a'; 60][..], b"/", &[b'b'; 60][..], b"/", &[b'c'; 30]].concat();
        assert_eq!(split_path(&first).map(|(prefix, _)| prefix), Some(&[b'a'; 60][..]), "the first slash that does");
        assert_eq!(split_path(&[b'a'; 100]), Some((&b""[..], &[b'a'; 100][..])));
        assert_eq!(split_path(&[b'a'; 101]), None);
        assert_eq!(split_path(&[&[b'a'; 156][..], b"/", &[b'b'; 100]].concat()), None);
        assert_eq!(split_path(&[&[b'a'; 156][..], b"/b"].concat()), None);
        assert_eq!(split_path(&[&[b'a'; 10][..], b"/", &[b'b'; 101][..]].concat()), None);
        assert_eq!(split_path(&[&b"/"[..], &[b'b'; 100]].concat()), None, "the prefix would be empty");
        assert_eq!(split_path(&[&[b'a'; 120][..], b"/"].concat()), None, "the name would be empty");
        assert_eq!(split_path("é".as_bytes()), None);
    }

    #[test]
    fn what_fits_ustar_needs_no_pax_header() {
        let link = [b'l'; 100];
        let ids = Header { uid: 0o7_777_777, gid: 0o7_777_777, mode: 0o7777, link: &link, ..header() };
        let full = Header { size: 0o77_777_777_777, mtime: 0o77_777_777_777, ..ids };
        let (records, own) = encoded(&full);
        assert_eq!(records, "");
        assert_eq!((own.uid().unwrap(), own.gid().unwrap()), (0o7_777_777, 0o7_777_777));
        assert_eq!((own.size().unwrap(), own.mtime().unwrap()), (0o77_777_777_777, 0o77_777_777_777));
        assert_eq!(own.link_name_bytes().unwrap(), &link[..]);
        assert_eq!(own.mode().unwrap(), 0o7777);
    }

    #[test]
    fn what_does_not_fit_is_in_sorted_records_and_zero_in_the_header() {
        let (path, link) = ([&[b'p'; 101][..], "é".as_bytes()].concat(), [b'l'; 101]);
        let xattrs = [("user.b".to_owned(), b"\n".to_vec()), ("user.a".to_owned(), b"1".to_vec())].into();
        let ids = Header { uid: 0o10_000_000, gid: u32::MAX, link: &link, path: &path, ..header() };
        let large = Header { size: 0o100_000_000_000, mtime: -1, xattrs: Some(&xattrs), ..ids };
        let (records, own) = encoded(&large);
        let expected = format!(
            "25 SCHILY.xattr.user.a=1\\n25 SCHILY.xattr.user.b=\\n\\n18 gid=4294967295\\n115 linkpath={}\\n12 mtime=-1\\n\
             113 path={}\\xc3\\xa9\\n19 size=8589934592\\n15 uid=2097152\\n",
            "l".repeat(101),
            "p".repeat(101),
        );
        assert_eq!(records, expected);
        assert_eq!((own.uid().unwrap(), own.gid().unwrap()), (0, 0));
        assert_eq!((own.size().unwrap(), own.mtime().unwrap()), (0, 0));
        assert_eq!(own.path_bytes(), &[b'p'; 100][..]);
        assert_eq!(own.link_name_bytes().unwrap(), &[b'l'; 100][..]);
        let (_, own) = encoded(&Header { path: "é".as_bytes(), ..header() });
        assert_eq!(own.path_bytes(), &b"__"[..]);
    }
}
