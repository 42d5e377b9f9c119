//! Hostile tars, one per row. The tests of this crate unpack them; the fuzz targets start from them.

use crate::tars::{Fields, TarBytes, record};

/// A hostile tar and what happens to it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) tar: Vec<u8>,
    /// The listing of the tree, or the code of the error.
    pub(crate) expected: Result<&'static str, &'static str>,
}

fn ok(name: &'static str, tar: &mut TarBytes, listing: &'static str) -> Case {
    Case { name, tar: tar.end(), expected: Ok(listing) }
}

pub(crate) fn refused(name: &'static str, tar: &mut TarBytes, code: &'static str) -> Case {
    Case { name, tar: tar.end(), expected: Err(code) }
}

pub(crate) fn new() -> TarBytes {
    TarBytes::default()
}

pub(crate) fn names() -> Vec<Case> {
    let named = |name| Fields { name, ..Fields::default() };
    let deep = "d/".repeat(3000);
    vec![
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
    ]
}

/// Two chains of directories in turn, so that the descriptors of one are of no use for the next entry.
pub(crate) fn deep_paths() -> Case {
    let mut tar = new();
    for nth in 0..20_000 {
        let path = format!("{}/{}", ["a", "b"][nth % 2], "d/".repeat(1900));
        tar.pax(&[("path", format!("{path}x").as_bytes())]).file("x", b"");
    }
    refused("two deep chains", &mut tar, "layer.deep-paths")
}

pub(crate) fn symlinks() -> Vec<Case> {
    vec![
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
    ]
}

pub(crate) fn hard_links() -> Vec<Case> {
    vec![
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
    ]
}

pub(crate) fn whiteouts() -> Vec<Case> {
    vec![
        refused("B010", new().file(".wh...", b""), "layer.whiteout-name"),
        refused("B011", new().dir("etc/").file("etc/.wh...", b""), "layer.whiteout-name"),
        refused("B012", new().file(".wh..", b""), "layer.whiteout-name"),
        refused("C06 bare", new().dir("etc/").file("etc/.wh.", b""), "layer.whiteout-name"),
        refused("B020 directory", new().dir(".wh.x/"), "layer.whiteout-name"),
        refused("B020 by a link", new().symlink("link", "/.wh.x").file("link/file", b""), "layer.whiteout-name"),
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
    ]
}

pub(crate) fn types() -> Vec<Case> {
    let entry = |flag, name: &'static [u8]| Fields { flag, name, ..Fields::default() };
    let device = |flag, device| Fields { flag, name: b"dev", device, ..Fields::default() };
    vec![
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
    ]
}

#[expect(clippy::too_many_lines, reason = "one table, one row per case")]
pub(crate) fn headers() -> Vec<Case> {
    let inner = new().file("smuggled", b"evil").take();
    let outer = Fields { name: b"outer", ..Fields::default() };
    let sized = |size| Fields { size: Some(size), ..outer.clone() };
    let mut no_sum = new();
    no_sum.file("f", b"x").0[0] = b'g';
    vec![
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
    ]
}

/// The cases of all tables.
#[allow(dead_code, reason = "for the fuzz targets")]
pub(crate) fn all() -> Vec<Case> {
    [names(), symlinks(), hard_links(), whiteouts(), types(), headers()].into_iter().flatten().collect()
}
