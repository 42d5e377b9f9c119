//! One row per kind of bad layer: either it unpacks to what is stated, or it is refused by its code; and nothing outside the
//! root changes, whatever it holds.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use phial_layers::{Compression, Limits, UnpackError, Unpacked, unpack};

use crate::tars::{Fields, TarBytes, canary_state, listing, make_canary, record};

struct Case {
    name: &'static str,
    tar: Vec<u8>,
    /// The listing of the tree, or the code of the error.
    expected: Result<&'static str, &'static str>,
}

fn ok(name: &'static str, tar: &mut TarBytes, listing: &'static str) -> Case {
    Case { name, tar: tar.end(), expected: Ok(listing) }
}

fn refused(name: &'static str, tar: &mut TarBytes, code: &'static str) -> Case {
    Case { name, tar: tar.end(), expected: Err(code) }
}

fn new() -> TarBytes {
    TarBytes::default()
}

fn unpacked(tar: &[u8], compression: Compression, root: &Path) -> Result<Unpacked, UnpackError> {
    let limits = Limits { max_bytes: 1 << 30, max_entries: 200_000 };
    unpack(tar, compression, root, &limits)
}

fn check(cases: Vec<Case>) {
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
fn names_never_lead_out_of_the_root() {
    let named = |name| Fields { name, ..Fields::default() };
    let deep = "d/".repeat(3000);
    check(vec![
        refused("B001 dots", new().file("../../../../canary/pwn", b"x"), "layer.entry-path"),
        refused("B001 dots inside", new().file("a/../../canary/pwn", b"x"), "layer.entry-path"),
        ok("B002 absolute", new().file("/canary/pwn", b"x"), "40755 canary\n100644 canary/pwn x"),
        refused("B032 dots by pax", new().pax(&[("path", b"../canary/pwn")]).file("a", b"x"), "layer.entry-path"),
        refused("B040 empty name", new().entry(&named(b""), b"x"), "layer.root-replaced"),
        refused("C05 root as file", new().file("./", b"x"), "layer.root-replaced"),
        refused("C05 root as symlink", new().symlink(".", "../canary"), "layer.root-replaced"),
        refused("C05 slash as symlink", new().symlink("/", "../canary"), "layer.root-replaced"),
        ok("B041 control bytes", new().file("\u{1b}[31m\u{7}\n", b"x"), "100644 \\x1b[31m\\x07\\n x"),
        ok("B042 no UTF-8", new().entry(&named(b"\xff\xfe"), b"x"), "100644 \\xff\\xfe x"),
        refused("B044 3000 deep", new().pax(&[("path", deep.as_bytes())]).file("a", b""), "layer.name-too-long"),
        refused("C18 256 bytes", new().pax(&[("path", &[b'a'; 256])]).file("a", b""), "layer.name-too-long"),
        refused("B063 long target", new().pax(&[("linkpath", &[b'a'; 5000])]).symlink("a", "b"), "layer.name-too-long"),
        refused("an empty target", new().symlink("a", ""), "layer.symlink-target"),
        ok("B074 long name with a NUL", new().extension(b'L', b"first\0second").file("a", b"x"), "100644 first x"),
    ]);
}

#[test]
fn symlinks_are_followed_inside_the_root_only() {
    check(vec![
        ok(
            "C02 absolute",
            new().symlink("ln", "/canary").file("ln/f", b"x"),
            "40755 canary\n100644 canary/f x\n120777 ln -> /canary",
        ),
        ok(
            "B004 relative",
            new().symlink("ln", "../../canary").file("ln/f", b"x"),
            "40755 canary\n100644 canary/f x\n120777 ln -> ../../canary",
        ),
        ok(
            "merged usr",
            new().dir("usr/").dir("usr/lib/").symlink("lib", "usr/lib").file("lib/x", b"1").file("lib/y/z", b"2"),
            "120777 lib -> usr/lib\n40755 usr\n40755 usr/lib\n100644 usr/lib/x 1\n40755 usr/lib/y\n100644 usr/lib/y/z 2",
        ),
        ok(
            "a symlink of symlinks",
            new().symlink("a/b", "../c").symlink("c", "./d/../e").file("a/b/f", b"x"),
            "40755 a\n120777 a/b -> ../c\n120777 c -> ./d/../e\n40755 d\n40755 e\n100644 e/f x",
        ),
        refused("B064 loop", new().symlink("a", "b").symlink("b", "a").file("a/f", b""), "layer.symlink-loop"),
        ok(
            "B009 directory over symlink",
            new().symlink("d", "../canary").dir("d/").file("d/f", b"x"),
            "40755 d\n100644 d/f x",
        ),
        ok("a file over a symlink", new().symlink("f", "../canary/secret").file("f", b"x"), "100644 f x"),
        ok(
            "a held directory is forgotten when its symlink goes",
            new().dir("one/").dir("two/").symlink("ln", "one").file("ln/a", b"").symlink("ln", "two").file("ln/b", b""),
            "120777 ln -> two\n40755 one\n100644 one/a\n40755 two\n100644 two/b",
        ),
        ok("B054 dev", new().symlink("dev", "/canary"), "120777 dev -> /canary"),
        refused("B036 file as parent", new().file("f", b"").file("f/g", b""), "layer.not-a-directory"),
        refused(
            "a file behind a symlink as parent",
            new().file("f", b"").symlink("l", "f").file("l/g", b""),
            "layer.not-a-directory",
        ),
    ]);
}

#[test]
fn hard_links_point_to_earlier_files_inside_the_root() {
    check(vec![
        refused("B005 absolute", new().hardlink("h", "/canary/secret"), "layer.hardlink-target"),
        refused("B006 relative", new().hardlink("h", "../../canary/secret"), "layer.hardlink-target"),
        refused("C03 as from a working directory", new().hardlink("h", "Cargo.toml"), "layer.hardlink-target"),
        ok(
            "B007 to a symlink, then over it",
            new().symlink("s", "../canary/secret").hardlink("h", "s").file("h", b"x"),
            "100644 h x\n120777 s -> ../canary/secret",
        ),
        refused(
            "through a symlink to outside",
            new().symlink("ln", "../canary").hardlink("h", "ln/secret"),
            "layer.hardlink-target",
        ),
        refused("B051 later", new().hardlink("h", "later").file("later", b""), "layer.hardlink-target"),
        refused("B052 directory", new().dir("d/").hardlink("h", "d"), "layer.hardlink-target"),
        refused("a whiteout's device", new().file(".wh.x", b"").hardlink("h", "x"), "layer.hardlink-target"),
        refused("the root", new().hardlink("h", "/"), "layer.hardlink-target"),
        ok("to itself", new().file("f", b"x").hardlink("f", "./f"), "100644 f x"),
        ok("clamped", new().file("f", b"x").hardlink("h", "/f"), "100644 f x\n100644 h x"),
        ok(
            "an overwritten link leaves the other alone",
            new().file("f", b"x").hardlink("h", "f").file("f", b"y"),
            "100644 f y\n100644 h x",
        ),
    ]);
}

#[test]
fn whiteouts_concern_the_layers_below_and_nothing_else() {
    check(vec![
        refused("B010", new().file(".wh...", b""), "layer.whiteout-name"),
        refused("B011", new().dir("etc/").file("etc/.wh...", b""), "layer.whiteout-name"),
        refused("B012", new().file(".wh..", b""), "layer.whiteout-name"),
        refused("C06 bare", new().dir("etc/").file("etc/.wh.", b""), "layer.whiteout-name"),
        refused("B020 directory", new().dir(".wh.x/"), "layer.whiteout-name"),
        refused("B065 with children", new().file(".wh.etc/passwd", b""), "layer.whiteout-name"),
        ok(
            "B014 through a symlink",
            new().symlink("ln", "../canary").file("ln/.wh.secret", b""),
            "40755 canary\n20000 canary/secret device 0\n120777 ln -> ../canary",
        ),
        ok(
            "B015 opaque through a symlink",
            new().symlink("ln", "../canary").file("ln/.wh..wh..opq", b""),
            "40755 canary opaque\n120777 ln -> ../canary",
        ),
        ok("B016 of nothing", new().file("d/.wh.x", b""), "40755 d\n20000 d/x device 0"),
        ok("B017 file first", new().file("x", b"new").file(".wh.x", b""), "100644 x new"),
        ok("B017 whiteout first", new().file(".wh.x", b"").file("x", b"new"), "100644 x new"),
        ok("twice", new().file(".wh.x", b"").file(".wh.x", b""), "20000 x device 0"),
        ok("B019 with content", new().file(".wh.x", b"content").file("y", b""), "20000 x device 0\n100644 y"),
        ok("a directory and its whiteout", new().dir("d/").file(".wh.d", b""), "40755 d opaque"),
        ok("a whiteout and its directory", new().file(".wh.d", b"").dir("d/"), "40755 d opaque"),
        ok("a whiteout and a file below it", new().file(".wh.d", b"").file("d/f", b""), "40755 d opaque\n100644 d/f"),
        ok(
            "C08 opaque after its siblings",
            new().file("d/f", b"x").file("d/.wh..wh..opq", b""),
            "40755 d opaque\n100644 d/f x",
        ),
        ok(
            "B066 left by AUFS",
            new().dir(".wh..wh.plnk/").file(".wh..wh.plnk/1.2", b"x").file(".wh..wh.aufs", b""),
            "",
        ),
    ]);
}

#[test]
fn types_change_and_the_last_entry_wins() {
    let entry = |flag, name: &'static [u8]| Fields { flag, name, ..Fields::default() };
    let device = |flag, device| Fields { flag, name: b"dev", device, ..Fields::default() };
    check(vec![
        ok("B035 duplicate", new().file("f", b"one").file("f", b"2"), "100644 f 2"),
        ok(
            "B075 directory, then file",
            new().file("usr/a/b", b"").file("usr/c", b"").file("usr", b"x"),
            "100644 usr x",
        ),
        ok("file, then directory", new().file("usr", b"").dir("usr/").file("usr/f", b"x"), "40755 usr\n100644 usr/f x"),
        ok("directory, then symlink", new().file("a/b/c", b"").symlink("a", "x"), "120777 a -> x"),
        ok("B021 character device", new().entry(&device(b'3', (1, 1)), b"").file("f", b""), "100644 f"),
        ok("C09 a forged whiteout", new().entry(&device(b'3', (0, 0)), b"").file("f", b""), "100644 f"),
        ok("B022 block device", new().entry(&device(b'4', (8, 0)), b"").file("f", b""), "100644 f"),
        ok("B024 FIFO", new().entry(&entry(b'6', b"pipe"), b""), "10600 pipe"),
        refused("B047 unknown type", new().entry(&entry(b'Z', b"z"), b""), "layer.entry-type"),
        ok("a contiguous file", new().entry(&entry(b'7', b"f"), b"x"), "100644 f x"),
        ok(
            "a directory of the oldest kind",
            new().entry(&entry(0, b"d/"), b"").file("d/f", b"x"),
            "40744 d\n100644 d/f x",
        ),
    ]);
}

#[test]
fn headers_are_read_as_others_read_them_or_refused() {
    let inner = new().file("smuggled", b"evil").take();
    let outer = Fields { name: b"outer", ..Fields::default() };
    let sized = |size| Fields { size: Some(size), ..outer.clone() };
    let mut no_sum = new();
    no_sum.file("f", b"x").0[0] = b'g';
    check(vec![
        ok(
            "B029 pax size over ustar 0",
            new().pax(&[("size", b"1024")]).entry(&sized(0), &inner.0),
            "100644 outer 1024 bytes",
        ),
        ok(
            "B030 pax size 0 over ustar",
            new().pax(&[("size", b"0")]).entry(&sized(1024), &inner.0),
            "100644 outer\n100644 smuggled evil",
        ),
        refused(
            "B031 pax, then GNU",
            new().pax(&[("size", b"1024")]).extension(b'L', b"long\0").file("a", b""),
            "layer.pax",
        ),
        refused("GNU, then pax", new().extension(b'L', b"long\0").pax(&[("path", b"p")]).file("a", b""), "layer.pax"),
        refused("pax twice", new().pax(&[("path", b"p")]).pax(&[("path", b"q")]).file("a", b""), "layer.pax"),
        refused("B034 global path", new().extension(b'g', &record("path", b"p")).file("a", b""), "layer.pax"),
        ok("a global comment", new().extension(b'g', &record("comment", b"c")).file("a", b"x"), "100644 a x"),
        refused(
            "B059 huge pax",
            new().extension(b'x', &record("comment", &vec![b'c'; 2 << 20])).file("a", b""),
            "layer.pax",
        ),
        refused("B060 wrong length", new().extension(b'x', b"12 path=p\n").file("a", b""), "layer.pax"),
        refused("a NUL in a path", new().pax(&[("path", b"a\0b")]).file("a", b""), "layer.pax"),
        refused("B037 negative size", new().raw(&outer, b"", |h| h.as_old_mut().size = [0xff; 12]), "layer.tar-header"),
        refused(
            "size without digits",
            new().raw(&outer, b"", |h| h.as_old_mut().size = *b"00000000009\0"),
            "layer.tar-header",
        ),
        refused(
            "size over 2^63",
            new().raw(&outer, b"", |h| h.as_old_mut().size = [0x80, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]),
            "layer.tar-header",
        ),
        refused("B039 bad sum", &mut no_sum, "layer.tar-header"),
        refused("B046 mtime", new().pax(&[("mtime", b"-100000000000000000000")]).file("a", b""), "layer.pax"),
        ok("a time before 1970", new().pax(&[("mtime", b"-1.5")]).file("a", b"x"), "100644 a x"),
        ok("B073 without magic", new().raw(&outer, b"x", |h| h.as_mut_bytes()[257..265].fill(0)), "100644 outer x"),
        ok(
            "a link with a size has no body",
            new()
                .file("f", b"")
                .entry(&Fields { flag: b'1', name: b"h", link: b"f", size: Some(512), ..outer.clone() }, b"")
                .file("g", b""),
            "100644 f\n100644 g\n100644 h",
        ),
        refused(
            "B061 huge attribute",
            new().pax(&[("SCHILY.xattr.user.x", &vec![1; 70_000])]).file("a", b""),
            "layer.xattr-size",
        ),
        refused("an extension of nothing", new().file("a", b"").pax(&[("path", b"p")]), "layer.truncated"),
        Case { name: "B049 no end", tar: new().file("a", b"x").take().0, expected: Ok("100644 a x") },
        Case {
            name: "B050 garbage after the end",
            tar: [new().file("a", b"x").end(), vec![7; 700]].concat(),
            expected: Ok("100644 a x"),
        },
        Case {
            name: "a lone zero block",
            tar: [&new().file("a", b"x").take().0[..], &[0; 512], &[1; 512]].concat(),
            expected: Err("layer.tar-header"),
        },
        Case {
            name: "C15 cut in a body",
            tar: new().file("a", &[b'x'; 2000]).take().0[..1000].to_vec(),
            expected: Err("layer.truncated"),
        },
        Case {
            name: "B072 cut in the padding",
            tar: new().file("a", b"x").take().0[..600].to_vec(),
            expected: Err("layer.truncated"),
        },
        Case {
            name: "cut in a header",
            tar: new().file("a", b"x").take().0[..100].to_vec(),
            expected: Err("layer.truncated"),
        },
    ]);
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
    let records = unpacked(&tar, Compression::None, root.path()).unwrap().records;
    let expected = serde_json::json!({
        "": {"mode": 0},
        "closed": {"mode": 0},
        "mail": {"gid": 8, "mode": 0o2055},
        "mail/box": {"uid": 7},
        "ping": {"xattrs": {"security.capability": [1, 0, 10]}},
        "su": {"uid": 1_u32 << 31, "gid": u32::MAX, "mode": 0o6755},
        "su2": {"uid": 1_u32 << 31, "gid": u32::MAX, "mode": 0o6755},
    });
    assert_eq!(serde_json::to_value(&records).unwrap(), expected);
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
    assert_eq!(unpacked(&tar, Compression::None, root.path()).unwrap().records.0.len(), 0);
}

#[test]
fn sparse_files_of_all_formats_have_their_holes() {
    let mut expected = vec![0_u8; 1 << 20];
    expected[4096..4101].copy_from_slice(b"first");
    expected[900_000..900_600].fill(b'z');
    let stored = [&b"first"[..], &[b'z'; 600]].concat();
    let name = Fields { name: b"GNUSparseFile.0/s", ..Fields::default() };
    let old = |header: &mut tar::Header| {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.realsize = *b"00004000000\0";
        gnu.sparse[0].offset = *b"00000010000\0";
        gnu.sparse[0].numbytes = *b"00000000005\0";
        gnu.sparse[1].offset = *b"00003335640\0";
        gnu.sparse[1].numbytes = *b"00000001130\0";
    };
    let map = [&b"2\n4096\n5\n900000\n600\n"[..], &[0; 492]].concat();
    let common: [(&str, &[u8]); 2] = [("GNU.sparse.name", b"s"), ("GNU.sparse.size", b"1048576")];
    let tars = [
        new().raw(&Fields { flag: b'S', name: b"s", ..Fields::default() }, &stored, old).end(),
        new()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", b"1048576"),
            ])
            .entry(&name, &[map, stored.clone()].concat())
            .end(),
        new().pax(&[common[0], common[1], ("GNU.sparse.map", b"4096,5,900000,600")]).entry(&name, &stored).end(),
    ];
    for tar in tars {
        let root = tempfile::tempdir().unwrap();
        unpacked(&tar, Compression::None, root.path()).unwrap();
        assert!(fs::read(root.path().join("s")).unwrap() == expected);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_map_that_lies_is_refused() {
    let huge = |h: &mut tar::Header| {
        let gnu = h.as_gnu_mut().unwrap();
        gnu.realsize = [0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]; // 1 TiB
    };
    let past = |h: &mut tar::Header| {
        let gnu = h.as_gnu_mut().unwrap();
        gnu.realsize = *b"00000000005\0";
        gnu.sparse[0].offset = *b"00000000004\0";
        gnu.sparse[0].numbytes = *b"00000000002\0";
    };
    let sparse = Fields { flag: b'S', name: b"s", ..Fields::default() };
    check(vec![
        refused("C15 1 TiB of hole", new().raw(&sparse, b"", huge), "layer.too-large"),
        refused("past the end", new().raw(&sparse, b"xx", past), "layer.sparse"),
        refused("no data", new().raw(&sparse, b"", past), "layer.sparse"),
        refused(
            "endless map",
            new()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.size", b"9")])
                .file("s", b"99999999\n"),
            "layer.sparse",
        ),
        refused(
            "unknown version",
            new()
                .pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.size", b"9")])
                .file("s", b""),
            "layer.sparse",
        ),
    ]);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_compressed_stream_is_read_to_its_end_and_nothing_may_follow() {
    let tar = new().file("a", b"x").end();
    let (head, tail) = tar.split_at(700);
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
    let skippable = |size: u32| [&[0x50, 0x2a, 0x4d, 0x18][..], &size.to_le_bytes()].concat();
    let mut bad_sum = gzip(&tar);
    let at = bad_sum.len() - 8;
    bad_sum[at] ^= 1;
    let wide = {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    };
    let (gz, zst, none) = (Compression::Gzip, Compression::Zstd, Compression::None);
    let cases: Vec<(&str, Compression, Vec<u8>, Result<(), &str>)> = vec![
        ("C16 members", gz, [gzip(head), gzip(tail)].concat(), Ok(())),
        ("C16 frames", zst, [zstd(head), zstd(tail)].concat(), Ok(())),
        ("a small skippable frame", zst, [zstd(head), skippable(3), b"abc".to_vec(), zstd(tail)].concat(), Ok(())),
        ("C16 garbage", gz, [gzip(&tar), b"garbage".to_vec()].concat(), Err("layer.trailing")),
        ("zeros behind", gz, [gzip(&tar), vec![0; 512]].concat(), Err("layer.trailing")),
        ("garbage behind frames", zst, [zstd(&tar), b"garbage".to_vec()].concat(), Err("layer.trailing")),
        ("B071 wrong sum after the end of the tar", gz, bad_sum, Err("layer.corrupt")),
        ("cut", gz, gzip(&tar)[..60].to_vec(), Err("layer.truncated")),
        ("cut frame", zst, zstd(&tar)[..30].to_vec(), Err("layer.truncated")),
        ("not gzip", gz, tar.clone(), Err("layer.compression")),
        ("not zstd", zst, gzip(&tar), Err("layer.compression")),
        ("not plain", none, gzip(&tar), Err("layer.compression")),
        ("nothing", gz, Vec::new(), Err("layer.compression")),
        ("B068 gzip in gzip", gz, gzip(&gzip(&tar)), Err("layer.truncated")),
        ("B069 wide window", zst, wide, Err("layer.zstd-window")),
        ("B070 skippable", zst, [zstd(&tar), skippable(1 << 30)].concat(), Err("layer.zstd-skippable")),
    ];
    for (name, compression, blob, expected) in cases {
        let root = tempfile::tempdir().unwrap();
        let result = unpacked(&blob, compression, root.path());
        assert_eq!(result.as_ref().map(|_| ()).map_err(UnpackError::code), expected, "{name}: {result:?}");
        if let Ok(unpacked) = result {
            assert_eq!(unpacked.diff_id.0, phial_layers::Digest::of(&tar), "{name}");
            assert_eq!(
                (unpacked.digest, unpacked.size),
                (phial_layers::Digest::of(&blob), blob.len() as u64),
                "{name}"
            );
        }
    }
}

#[test]
fn limits_end_a_bomb() {
    let root = tempfile::tempdir().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let size = Some(10 << 30);
    encoder.write_all(&new().entry(&Fields { name: b"zeros", size, ..Fields::default() }, b"").take().0).unwrap();
    for _ in 0..64 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let limits = Limits { max_bytes: 16 << 20, max_entries: 10 };
    let error = unpack(&bomb[..], Compression::Gzip, root.path(), &limits).unwrap_err();
    assert_eq!(error.code(), "layer.too-large");
    let root = tempfile::tempdir().unwrap();
    let many = (0..11).fold(new(), |mut tar, n| tar.file(&n.to_string(), b"").take()).end();
    let error = unpack(&many[..], Compression::None, root.path(), &limits).unwrap_err();
    assert_eq!(error.code(), "layer.too-many-entries");
}

#[test]
fn more_links_than_the_file_system_takes_become_copies() {
    let root = tempfile::tempdir().unwrap();
    let mut tar = new();
    tar.file("f", b"content");
    for n in 0..65_100 {
        tar.hardlink(&format!("links/{n}"), "f");
    }
    let unpacked = unpacked(&tar.end(), Compression::None, root.path()).unwrap();
    assert_eq!(unpacked.entries, 65_101);
    assert_eq!(fs::read(root.path().join("links/65099")).unwrap(), b"content");
}

#[test]
fn a_source_that_fails_is_not_blamed_on_the_layer() {
    struct Broken(Vec<u8>);
    impl std::io::Read for Broken {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            let n = out.len().min(self.0.len());
            out[..n].copy_from_slice(&self.0.drain(..n).collect::<Vec<_>>());
            Ok(n)
        }
    }
    let blob = gzip(&new().file("a", &[b'x'; 3000]).end());
    for compression in [Compression::Gzip, Compression::None] {
        let root = tempfile::tempdir().unwrap();
        let blob = if compression == Compression::Gzip { &blob[..] } else { &[b'a'; 2] };
        let error = unpack(Broken(blob[..blob.len() / 2].to_vec()), compression, root.path(), &Limits::GENEROUS);
        assert_eq!(error.unwrap_err().code(), "layer.read");
    }
}

#[test]
fn a_root_that_is_not_empty_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("f"), "").unwrap();
    let error = unpacked(&new().end(), Compression::None, root.path()).unwrap_err();
    assert_eq!(error.code(), "layer.root-not-empty");
}
