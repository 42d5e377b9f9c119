//! Layers that are bad as streams: compression, limits, sparse maps, failing sources, other writers, random bytes.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use phial_layers::{Compression, Limits, UnpackError, unpack};

use crate::hostile::{check, unpacked};
use crate::hostile_cases::{new, refused};
use crate::tars::{Fields, canary_state, make_canary};

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
fn a_map_that_does_not_fit_the_file_is_refused() {
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

type Row = (&'static str, Compression, Vec<u8>, Result<(), &'static str>);

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
    let cases: Vec<Row> = vec![
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
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        encoder.write_all(&zeros).unwrap();
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
    let stat = |name: &str| fs::metadata(root.path().join(name)).map(|stat| (stat.mode(), stat.mtime())).unwrap();
    assert_eq!(stat("links/65099"), stat("f"));
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

/// Changes bytes of a valid tar and corrects the checksums, so that the changes reach the parser.
#[test]
fn random_bytes_cause_no_panic_and_no_change_outside() {
    let tar = new()
        .dir("d/")
        .file("d/f", b"content")
        .symlink("ln", "../canary")
        .hardlink("h", "d/f")
        .pax(&[("path", b"ln/new"), ("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"v")])
        .file("a", b"body")
        .extension(b'L', b"ln/../long\0")
        .file("b", b"")
        .file("d/.wh.x", b"")
        .file("ln/.wh..wh..opq", b"")
        .end();
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("canary");
    make_canary(&canary);
    let before = canary_state(&canary);
    let mut state = 0x1234_5678_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let bytes = [0, b'.', b'/', b'1', b'2', b'5', b'6', b'L', b'S', b'x', 0x80, 0xff];
    for round in 0..1500 {
        let mut bad = tar.clone();
        for _ in 0..=random(4) {
            let at = random(bad.len() - 1024);
            bad[at] = bytes[random(bytes.len())];
        }
        for block in bad.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let root = dir.path().join(format!("root-{round}"));
        fs::create_dir(&root).unwrap();
        let _ = unpacked(&bad, Compression::None, &root);
        fs::remove_dir_all(&root).unwrap();
    }
    assert_eq!(canary_state(&canary), before);
}

#[test]
fn a_symlink_swapped_by_another_while_we_write_leads_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (root, canary) = (dir.path().join("root"), dir.path().join("canary"));
    fs::create_dir(&root).unwrap();
    make_canary(&canary);
    let before = canary_state(&canary);
    let mut tar = new();
    for n in 0..3000 {
        tar.file(&format!("d{}/f{n}", n % 300), b"x");
    }
    let tar = tar.end();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for n in 0..300 {
                    let _ = fs::rename(root.join(format!("d{n}")), root.join(format!("moved{n}")));
                    let _ = std::os::unix::fs::symlink("../canary", root.join(format!("d{n}")));
                }
            }
        });
        let _ = unpacked(&tar, Compression::None, &root); // refused or not: what matters is the canary
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(canary_state(&canary), before);
}
