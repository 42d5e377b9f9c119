//! Headers of a tar (POSIX.1-2001, "ustar" with "pax" extensions) written one way only.
//!
//! What fits in the ustar fields is there; what does not (long or non-ASCII names, large numbers, extended attributes) is in
//! one `x` header whose own fields never vary and which holds no time. User and group names, and device numbers, are empty.

use std::collections::BTreeMap;

use tar::{EntryType, Header};

/// The largest number that fits seven octal digits.
const LARGEST_ID: u32 = 0o7_777_777;
/// The largest number that fits eleven octal digits: 8 GiB less one.
const LARGEST_SIZE: u64 = 0o77_777_777_777;
const XATTR: &str = "SCHILY.xattr.";

/// What one entry's header says.
pub(crate) struct Head<'a> {
    /// As it stands in the tar: relative, with a trailing slash for a directory.
    pub(crate) path: &'a [u8],
    pub(crate) kind: EntryType,
    /// The target of a symlink, or the earlier name of a hard link.
    pub(crate) link: &'a [u8],
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) xattrs: Option<&'a BTreeMap<String, Vec<u8>>>,
}

/// Appends the header of `head` to `out`, with the `x` header before it if it needs one.
pub(crate) fn put(out: &mut Vec<u8>, head: &Head<'_>) {
    let mut pax = Vec::new();
    for (name, value) in head.xattrs.into_iter().flatten() {
        record(&mut pax, format!("{XATTR}{name}").as_bytes(), value);
    }
    let gid = number(&mut pax, "gid", head.gid, head.gid <= LARGEST_ID);
    if !fits(head.link) {
        record(&mut pax, b"linkpath", head.link);
    }
    let time = u64::try_from(head.mtime).ok().filter(|time| *time <= LARGEST_SIZE);
    if time.is_none() {
        record(&mut pax, b"mtime", head.mtime.to_string().as_bytes());
    }
    let split = split(head.path);
    if split.is_none() {
        record(&mut pax, b"path", head.path);
    }
    let size = number(&mut pax, "size", head.size, head.size <= LARGEST_SIZE);
    let uid = number(&mut pax, "uid", head.uid, head.uid <= LARGEST_ID);
    if !pax.is_empty() {
        put_pax(out, &pax);
    }
    let mut header = Header::new_ustar();
    let (prefix, name) = split.unwrap_or_default();
    if let Some(fields) = header.as_ustar_mut() {
        if split.is_some() {
            fields.prefix[..prefix.len()].copy_from_slice(prefix);
            fields.name[..name.len()].copy_from_slice(name);
        } else {
            plain(&mut fields.name, head.path);
        }
        plain(&mut fields.linkname, head.link);
    }
    header.set_entry_type(head.kind);
    header.set_mode(head.mode);
    header.set_uid(u64::from(uid));
    header.set_gid(u64::from(gid));
    header.set_size(size);
    header.set_mtime(time.unwrap_or(0));
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
}

fn put_pax(out: &mut Vec<u8>, records: &[u8]) {
    let mut header = Header::new_ustar();
    if let Some(fields) = header.as_ustar_mut() {
        plain(&mut fields.name, b"././@PaxHeader");
    }
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(records.len() as u64);
    header.set_mtime(0);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(records);
    out.resize(out.len() + padding(records.len() as u64), 0);
}

/// The number for the ustar field: itself if it fits, else 0 with the true one in a record.
fn number<N: ToString + Default>(pax: &mut Vec<u8>, key: &str, value: N, fits: bool) -> N {
    if fits {
        return value;
    }
    record(pax, key.as_bytes(), value.to_string().as_bytes());
    N::default()
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record with its own digits.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(length.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn fits(text: &[u8]) -> bool {
    text.len() <= 100 && text.is_ascii()
}

/// Prefix and name of a path that ustar can hold: cut at the first slash that leaves no more than 100 bytes.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if fits(path) {
        return Some((b"", path));
    }
    if !path.is_ascii() || path.len() > 256 {
        return None;
    }
    let from = path.len() - 101;
    let cut = from + path[from..path.len() - 1].iter().position(|b| *b == b'/')?;
    (1..=155).contains(&cut).then(|| (&path[..cut], &path[cut + 1..]))
}

/// As much of `text` as the field holds, for readers that know no pax; other bytes than ASCII as `_`.
fn plain(field: &mut [u8], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = if from.is_ascii() { *from } else { b'_' };
    }
}

/// How many zero bytes follow a body of `size` bytes.
pub(crate) fn padding(size: u64) -> usize {
    ((512 - size % 512) % 512) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_its_own_digits() {
        for (value, expected) in [(1, 7), (3, 9), (4, 11), (92, 99), (93, 101), (94, 102)] {
            let mut pax = Vec::new();
            record(&mut pax, b"kk", &vec![b'x'; value]);
            let said: usize = String::from_utf8_lossy(&pax).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, pax.len(), "{value}");
            assert_eq!(pax.len(), expected, "{value}");
        }
    }

    #[test]
    fn a_path_is_split_only_where_both_halves_fit() {
        let long = [&[b'a'; 150][..], b"/", &[b'b'; 100][..]].concat();
        assert_eq!(split(&long), Some((&[b'a'; 150][..], &[b'b'; 100][..])));
        assert_eq!(split(&[&[b'a'; 156][..], b"/b"].concat()), None);
        assert_eq!(split(&[&[b'a'; 10][..], b"/", &[b'b'; 101][..]].concat()), None);
        assert_eq!(split(&[&[b'a'; 120][..], b"/"].concat()), None, "the name would be empty");
        assert_eq!(split("é".as_bytes()), None);
    }
}
