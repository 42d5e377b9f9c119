//! Every hostile layer either unpacks to the listing in its row or is refused with the code there, and nothing outside the
//! root changes.

use std::fs;
use std::path::Path;
use std::time::Instant;

use phial_layers::{Compression, Limits, UnpackError, Unpacked, unpack};

use crate::hostile_cases::{self as cases, Case, new};
use crate::tars::{Fields, canary_state, listing, make_canary};

pub(crate) fn unpacked(tar: &[u8], compression: Compression, root: &Path) -> Result<Unpacked, UnpackError> {
    let limits = Limits { max_bytes: 1 << 30, max_entries: 200_000 };
    unpack(tar, compression, root, &limits)
}

pub(crate) fn check(cases: Vec<Case>) {
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        let (root, canary) = (dir.path().join("root"), dir.path().join("canary"));
        fs::create_dir(&root).unwrap();
        make_canary(&canary);
        let before = canary_state(&canary);
        let start = Instant::now();
        let result = unpacked(&case.tar, Compression::None, &root);
        assert!(start.elapsed().as_secs() < 10, "{} took {:?}", case.name, start.elapsed());
        assert_eq!(canary_state(&canary), before, "{}: the canary", case.name);
        match (&result, case.expected) {
            (Ok(_), Ok(expected)) => {
                let expected: Vec<&str> = expected.lines().map(str::trim).collect();
                assert_eq!(listing(&root), expected.join("\n"), "{}", case.name);
            }
            (Err(error), Err(code)) => {
                assert_eq!(error.code(), code, "{}: {error}", case.name);
                assert!(!error.to_string().contains(|c: char| c.is_control()), "{}: {error}", case.name);
            }
            (result, _) => panic!("{}: {result:?}", case.name),
        }
    }
}

#[test]
fn paths_that_are_deep_in_turn_end_soon() {
    check(vec![cases::deep_paths()]);
}

#[test]
fn names_never_lead_out_of_the_root() {
    check(cases::names());
}

#[test]
fn symlinks_are_followed_inside_the_root_only() {
    check(cases::symlinks());
}

#[test]
fn hard_links_point_to_earlier_files_inside_the_root() {
    check(cases::hard_links());
}

#[test]
fn whiteouts_concern_the_layers_below_and_nothing_else() {
    check(cases::whiteouts());
}

#[test]
fn types_change_and_the_last_entry_wins() {
    check(cases::types());
}

#[test]
fn headers_are_read_as_others_read_them_or_refused() {
    check(cases::headers());
}

#[test]
fn owners_modes_and_attributes_are_kept_beside_the_tree() {
    let root = tempfile::tempdir().unwrap();
    let tar = new()
        .entry(&Fields { flag: b'5', name: b"./", mode: 0, ..Fields::default() }, b"")
        .entry(&Fields { name: b"su", mode: 0o6755, uid: 1 << 31, gid: u64::from(u32::MAX), ..Fields::default() }, b"x")
        .pax(&[
            ("SCHILY.xattr.security.capability", b"\x01\0\n"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.whiteout", b"y"),
            ("SCHILY.xattr.security.selinux", b"label"),
        ])
        .file("ping", b"")
        .entry(&Fields { name: b"closed", mode: 0o000, ..Fields::default() }, b"")
        .entry(&Fields { flag: b'5', name: b"tmp", mode: 0o1777, ..Fields::default() }, b"")
        .entry(&Fields { flag: b'5', name: b"mail", mode: 0o2055, gid: 8, ..Fields::default() }, b"")
        .symlink("lib", "mail")
        .entry(&Fields { name: b"lib/box", uid: 7, ..Fields::default() }, b"")
        .hardlink("su2", "su")
        .file("plain", b"")
        .end();
    let metadata = unpacked(&tar, Compression::None, root.path()).unwrap().metadata;
    let expected = serde_json::json!({
        "": {"mode": 0},
        "closed": {"mode": 0},
        "mail": {"gid": 8, "mode": 0o2055},
        "mail/box": {"uid": 7},
        "ping": {"xattrs": {"security.capability": [1, 0, 10]}},
        "su": {"uid": 1_u32 << 31, "gid": u32::MAX, "mode": 0o6755},
        "su2": {"uid": 1_u32 << 31, "gid": u32::MAX, "mode": 0o6755},
    });
    assert_eq!(serde_json::to_value(&metadata).unwrap(), expected);
    let expected = "100600 closed\n120777 lib -> mail\n40755 mail\n100644 mail/box\n100644 ping\n100644 plain\n100755 su x\n\
                    100755 su2 x\n41777 tmp";
    assert_eq!(listing(root.path()), expected);
}

#[test]
fn a_record_goes_with_the_entry_that_is_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let owned = |name| Fields { name, uid: 5, ..Fields::default() };
    let tar = new()
        .entry(&owned(b"f"), b"")
        .file("f", b"")
        .entry(&owned(b"d/f"), b"")
        .file("d", b"")
        .entry(&Fields { flag: b'5', name: b"e", uid: 5, mode: 0o755, ..Fields::default() }, b"")
        .dir("e/")
        .end();
    assert_eq!(unpacked(&tar, Compression::None, root.path()).unwrap().metadata.0.len(), 0);
}
