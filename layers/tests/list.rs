//! Listing the entries of a layer without unpacking it.

use phial_layers::{Compression, Digest, EntryKind, LayerEntry, Limits, Listed, UnpackError, list, unpack};

use crate::tars::{Fields, TarBytes};

fn listed(bytes: &[u8], limits: &Limits) -> Result<(Listed, Vec<LayerEntry>), UnpackError> {
    let mut entries = Vec::new();
    let keep = |name: &phial_layers::EntryPath, size| name.as_bytes().ends_with(b".beam") && size < 10;
    let listed = list(bytes, Compression::None, limits, &keep, &mut |entry| entries.push(entry))?;
    Ok((listed, entries))
}

#[test]
fn entries_come_in_their_order_with_all_that_their_headers_say() {
    let mut tar = TarBytes::default();
    tar.dir("app").file("app/a.beam", b"bytes").file("app/b.beam", b"more bytes").file("app/c", b"");
    tar.symlink("app/link", "../c").hardlink("app/again", "app/c").file("app/.wh.gone", b"");
    tar.entry(
        &Fields { flag: b'3', name: b"dev", device: (1, 3), mode: 0o4600, uid: 7, gid: 9, ..Fields::default() },
        b"",
    );
    let (listing, entries) = listed(&tar.0, &Limits::GENEROUS).unwrap();
    let found: Vec<_> = entries.iter().map(|entry| (format!("{:?}", entry.path), entry.kind, entry.size)).collect();
    let found: Vec<_> = found.iter().map(|(name, kind, size)| (name.as_str(), *kind, *size)).collect();
    assert_eq!(
        found,
        [
            ("app", EntryKind::Directory, 0),
            ("app/a.beam", EntryKind::File, 5),
            ("app/b.beam", EntryKind::File, 10),
            ("app/c", EntryKind::File, 0),
            ("app/link", EntryKind::Symlink, 0),
            ("app/again", EntryKind::Hardlink, 0),
            ("app/.wh.gone", EntryKind::File, 0),
            ("dev", EntryKind::CharDevice { major: 1, minor: 3 }, 0),
        ]
    );
    assert_eq!(entries[1].bytes.as_deref(), Some(&b"bytes"[..]));
    assert_eq!((&entries[2].bytes, &entries[2].content), (&None, &Some(Digest::of(b"more bytes"))));
    assert_eq!((entries[4].link.as_slice(), &entries[4].content), (&b"../c"[..], &None));
    assert_eq!((entries[7].mode, entries[7].uid, entries[7].gid, entries[7].mtime), (0o4600, 7, 9, (1_700_000_000, 0)));
    assert_eq!((listing.entries, listing.diff_id.0), (8, Digest::of(&tar.0)));
}

#[test]
fn unpacking_and_listing_return_the_same_digests() {
    let body = vec![7; 3 << 20];
    let mut tar = TarBytes::default();
    tar.dir("app").file("app/a", &body);
    let (listing, entries) = listed(&tar.0, &Limits::GENEROUS).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let unpacked = unpack(tar.0.as_slice(), Compression::None, dir.path(), &Limits::GENEROUS).unwrap();
    assert_eq!(
        (listing.diff_id, listing.digest, listing.size, listing.entries),
        (unpacked.diff_id, unpacked.digest, unpacked.size, unpacked.entries)
    );
    assert_eq!(entries[1].content, Some(Digest::of(&body)));
}

#[test]
fn holes_are_zeros_and_count_against_the_limit() {
    // GNU's format 0.1: the map in the records, 4 bytes at 2 MiB of a file of 3 MiB.
    let (size, at) = (3_u64 << 20, 2_u64 << 20);
    let map = format!("{at},4");
    let mut tar = TarBytes::default();
    tar.pax(&[
        ("GNU.sparse.size", size.to_string().as_bytes()),
        ("GNU.sparse.numblocks", b"1"),
        ("GNU.sparse.map", map.as_bytes()),
        ("GNU.sparse.name", b"hole"),
    ]);
    tar.file("made-up", b"data");
    let (_, entries) = listed(&tar.0, &Limits::GENEROUS).unwrap();
    let mut whole = vec![0; 3 << 20];
    whole[2 << 20..(2 << 20) + 4].copy_from_slice(b"data");
    assert_eq!((format!("{:?}", entries[0].path).as_str(), entries[0].size), ("hole", size));
    assert_eq!(entries[0].content, Some(Digest::of(&whole)));
    let error = listed(&tar.0, &Limits { max_bytes: 1 << 20, ..Limits::GENEROUS }).unwrap_err();
    assert_eq!(error.code(), "layer.too-large");
}

#[test]
fn what_is_cut_or_too_much_is_an_error() {
    let mut tar = TarBytes::default();
    tar.file("a", &[1; 2000]).file("b", b"");
    for (bytes, limits, code) in [
        (&tar.0[..1500], Limits::GENEROUS, "layer.truncated"),
        (&tar.0[..100], Limits::GENEROUS, "layer.truncated"),
        (&tar.0, Limits { max_entries: 1, ..Limits::GENEROUS }, "layer.too-many-entries"),
        (&[b'x'; 1024], Limits::GENEROUS, "layer.tar-header"),
    ] {
        assert_eq!(listed(bytes, &limits).unwrap_err().code(), code);
    }
}
