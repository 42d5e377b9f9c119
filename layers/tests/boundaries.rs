//! Limits to the byte, and sources and trees that are legal but unusual.

use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use phial_layers::{Compression, Digest, Limits, Metadata, UnpackError, Unpacked, list, pack, unpack};
use rustix::fs::XattrFlags;

use crate::golden::options;
use crate::tars::{Fields, TarBytes, is_opaque, listing};

/// Returns one byte at a time, and an interruption before each.
struct Stutter<'a> {
    bytes: &'a [u8],
    interrupted: bool,
}

impl Read for Stutter<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = out.len().min(1);
        self.bytes.read(&mut out[..n])
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn unpacked(blob: &[u8], compression: Compression) -> Result<Unpacked, UnpackError> {
    let root = tempfile::tempdir().unwrap();
    unpack(blob, compression, root.path(), &Limits::GENEROUS)
}

fn tree_of(tar: &mut TarBytes) -> Result<(tempfile::TempDir, Unpacked), &'static str> {
    let root = tempfile::tempdir().unwrap();
    let unpacked = unpack(&tar.end()[..], Compression::None, root.path(), &Limits::GENEROUS);
    unpacked.map(|unpacked| (root, unpacked)).map_err(|error| error.code())
}

#[test]
fn a_slow_and_interrupted_source_is_read_whole() {
    let mut tar = TarBytes::default();
    let tar = tar.file("a", b"content").end();
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
    let skippable = [&[0x5f, 0x2a, 0x4d, 0x18, 2, 0, 0, 0][..], b"ab"].concat();
    for (compression, blob) in [
        (Compression::None, tar.clone()),
        (Compression::Gzip, [gzip(&tar[..700]), gzip(&tar[700..])].concat()),
        (Compression::Zstd, [skippable.clone(), zstd(&tar[..700]), skippable, zstd(&tar[700..])].concat()),
    ] {
        let root = tempfile::tempdir().unwrap();
        let source = Stutter { bytes: &blob, interrupted: false };
        let unpacked = unpack(source, compression, root.path(), &Limits::GENEROUS).unwrap();
        assert_eq!((unpacked.diff_id.0, unpacked.digest), (Digest::of(&tar), Digest::of(&blob)), "{compression}");
        assert_eq!((unpacked.size, unpacked.entries), (blob.len() as u64, 1));
        assert_eq!(fs::read(root.path().join("a")).unwrap(), b"content");
    }
}

#[test]
fn chunks_and_buffers_of_every_size_are_the_same_bytes() {
    // Around the size of a chunk, 256 KiB, and above the number of chunks in the queue.
    for size in [0, 1, (256 << 10) - 513, (256 << 10) - 512, (256 << 10) - 511, 256 << 10, 5 << 20] {
        let body: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[n as usize % 3]).collect();
        let mut tar = TarBytes::default();
        let tar = tar.file("f", &body).end();
        for (compression, blob) in [(Compression::None, tar.clone()), (Compression::Gzip, gzip(&tar))] {
            let root = tempfile::tempdir().unwrap();
            let unpacked = unpack(&blob[..], compression, root.path(), &Limits::GENEROUS).unwrap();
            assert_eq!((unpacked.diff_id.0, unpacked.digest), (Digest::of(&tar), Digest::of(&blob)), "{size}");
            assert!(fs::read(root.path().join("f")).unwrap() == body, "{size}");
        }
    }
}

#[test]
fn a_member_may_end_where_a_chunk_ends_and_one_may_be_empty() {
    let body = vec![7; 1 << 20];
    let mut tar = TarBytes::default();
    let tar = tar.file("f", &body).file("g", b"").end();
    let chunk = 256 << 10;
    let blob =
        [gzip(&tar[..chunk]), gzip(b""), gzip(&tar[chunk..3 * chunk]), gzip(&tar[3 * chunk..]), gzip(b"")].concat();
    let unpacked = unpacked(&blob, Compression::Gzip).unwrap();
    assert_eq!((unpacked.diff_id.0, unpacked.entries), (Digest::of(&tar), 2));
}

#[test]
fn skippable_frames_have_64_mib_together() {
    let mut tar = TarBytes::default();
    let frame = zstd::bulk::compress(&tar.file("a", b"").end(), 1).unwrap();
    let skippable =
        |size: u32| [&[0x50, 0x2a, 0x4d, 0x18][..], &(size - 8).to_le_bytes(), &vec![0; size as usize - 8]].concat();
    let whole = 64 << 20;
    let two = |last: u32| [skippable(whole - 1000), frame.clone(), skippable(last)].concat();
    assert!(unpacked(&two(1000), Compression::Zstd).is_ok());
    assert_eq!(unpacked(&two(1001), Compression::Zstd).unwrap_err().code(), "layer.zstd-skippable");
    for cut in [4, 7, 8, 11] {
        let blob = [frame.clone(), skippable(12)[..cut].to_vec()].concat();
        assert_eq!(unpacked(&blob, Compression::Zstd).unwrap_err().code(), "layer.truncated", "{cut}");
    }
    let blob = [frame, skippable(12)].concat();
    assert!(unpacked(&blob, Compression::Zstd).is_ok());
}

#[test]
fn a_window_of_128_mib_is_the_largest() {
    let mut tar = TarBytes::default();
    let tar = tar.file("a", b"").end();
    for (log, expected) in [(27, None), (28, Some("layer.zstd-window"))] {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&tar).unwrap();
        let blob = encoder.finish().unwrap();
        assert_eq!(unpacked(&blob, Compression::Zstd).err().map(|error| error.code()), expected);
    }
}

#[test]
fn the_limits_are_exact() {
    let mut tar = TarBytes::default();
    let bytes = tar.dir("d").file("d/a", &[1; 100]).file("d/b", b"").end();
    let size = bytes.len() as u64;
    for (max_bytes, max_entries, expected) in
        [(size, 3, None), (size - 1, 3, Some("layer.too-large")), (size, 2, Some("layer.too-many-entries"))]
    {
        let limits = Limits { max_bytes, max_entries };
        let root = tempfile::tempdir().unwrap();
        let unpacked = unpack(&bytes[..], Compression::None, root.path(), &limits);
        assert_eq!(unpacked.err().map(|error| error.code()), expected);
        let mut entries = 0;
        let listed = list(&bytes[..], Compression::None, &limits, &|_, _| false, &mut |_| entries += 1);
        assert_eq!(listed.err().map(|error| error.code()), expected);
    }
    let map: &[(&str, &[u8])] = &[("GNU.sparse.size", b"1000000"), ("GNU.sparse.map", b"9,1")];
    let sparse = tar.pax(map).file("s", b"x").end();
    let all = sparse.len() as u64 + 1_000_000;
    for (max_bytes, expected) in [(all, None), (all - 1, Some("layer.too-large"))] {
        let limits = Limits { max_bytes, max_entries: 1 };
        let root = tempfile::tempdir().unwrap();
        let unpacked = unpack(&sparse[..], Compression::None, root.path(), &limits);
        assert_eq!(unpacked.err().map(|error| error.code()), expected);
    }
    assert_eq!(Limits::GENEROUS, Limits { max_bytes: 53_687_091_200, max_entries: 5_000_000 });
}

#[test]
fn forty_symlinks_are_followed_and_no_more() {
    let chain = |links: usize| {
        let mut tar = TarBytes::default();
        for n in 0..links {
            tar.symlink(&format!("l{n}"), &format!("l{}", n + 1));
        }
        tar.dir(&format!("l{links}"));
        tree_of(tar.file("l0/f", b"")).map(|_| ())
    };
    assert_eq!((chain(40), chain(41)), (Ok(()), Err("layer.symlink-loop")));
}

#[test]
fn a_target_of_4095_bytes_and_a_path_of_4095_bytes_are_the_longest() {
    let target = |size: usize| tree_of(TarBytes::default().pax(&[("linkpath", &vec![b't'; size])]).symlink("l", "x"));
    assert!(target(4095).is_ok());
    assert_eq!(target(4096).unwrap_err(), "layer.name-too-long");
    // Through a symlink, a path becomes longer than its name.
    let long = ["n".repeat(249).as_str(); 16].join("/");
    let named = |size: usize| {
        let mut tar = TarBytes::default();
        tar.pax(&[("linkpath", long.as_bytes())]).symlink("l", "x");
        tree_of(tar.pax(&[("path", format!("l/{}/f", "m".repeat(size)).as_bytes())]).file("f", b"")).map(|_| ())
    };
    assert_eq!(long.len(), 3999);
    assert_eq!((named(95), named(96)), (Ok(()), Err("layer.name-too-long")));
}

#[test]
fn more_directories_than_are_held_open_are_found_again() {
    let mut tar = TarBytes::default();
    for round in 0..2 {
        for n in 0..450 {
            tar.file(&format!("d{n}/f{round}"), b"x");
        }
    }
    let (root, unpacked) = tree_of(&mut tar).unwrap();
    assert_eq!(unpacked.entries, 900);
    assert!(
        (0..450)
            .all(|n| root.path().join(format!("d{n}/f0")).exists() && root.path().join(format!("d{n}/f1")).exists())
    );
    assert_eq!(fs::metadata(root.path().join("d7")).unwrap().mtime(), 0, "a directory without an entry");
}

#[test]
fn devices_are_counted_and_whiteouts_are_not_files() {
    let mut tar = TarBytes::default();
    for n in 0..3 {
        tar.entry(&Fields { flag: b'3', name: format!("dev{n}").as_bytes(), ..Fields::default() }, b"");
    }
    tar.file(".wh.x", b"").file("y", b"");
    let (root, unpacked) = tree_of(&mut tar).unwrap();
    assert_eq!((unpacked.skipped_devices, unpacked.entries), (3, 5));
    assert_eq!(listing(root.path()), "20000 x device 0\n100644 y");
}

#[test]
fn nothing_is_created_for_the_target_of_a_hard_link() {
    for (target, left) in
        [("x/f", "20000 x device 0"), ("x/y/f", "20000 x device 0"), ("missing/f", "20000 x device 0")]
    {
        let root = tempfile::tempdir().unwrap();
        let tar = TarBytes::default().file(".wh.x", b"").hardlink("h", target).end();
        let error = unpack(&tar[..], Compression::None, root.path(), &Limits::GENEROUS).unwrap_err();
        assert_eq!((error.code(), listing(root.path()).as_str()), ("layer.hardlink-target", left));
    }
}

#[test]
fn the_opaque_marker_alone_of_the_names_of_aufs_has_a_meaning() {
    let mut tar = TarBytes::default();
    tar.file("d/.wh..wh..opq", b"").file("e/.wh..wh..opqx", b"junk").file("e/f", b"").file("d/.wh..wh.orph/x", b"junk");
    let (root, _) = tree_of(&mut tar).unwrap();
    assert_eq!(listing(root.path()), "40755 d opaque\n40755 e\n100644 e/f");
}

#[test]
fn a_replaced_directory_takes_its_times_and_metadata_along() {
    let owned = |flag, name: &'static [u8]| Fields { flag, name, uid: 5, mode: 0o755, ..Fields::default() };
    let mut tar = TarBytes::default();
    tar.entry(&owned(b'5', b"d/e"), b"").entry(&owned(b'0', b"d/e/f"), b"").entry(&owned(b'0', b"d-e"), b"");
    tar.file("d", b"").file("d", b"").dir("d").file("d/g", b"");
    let (root, unpacked) = tree_of(&mut tar).unwrap();
    assert_eq!(listing(root.path()), "40755 d\n100755 d-e\n100644 d/g");
    let left: Vec<_> = unpacked.metadata.0.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["d-e"]);
    assert_eq!(fs::metadata(root.path().join("d")).unwrap().mtime(), 1_700_000_000);
}

#[test]
fn the_root_has_its_own_mode_time_and_owner() {
    let mut tar = TarBytes::default();
    tar.entry(&Fields { flag: b'5', name: b"./", mode: 0o3070, uid: 9, ..Fields::default() }, b"").file("f", b"");
    let (root, unpacked) = tree_of(&mut tar).unwrap();
    let stat = fs::metadata(root.path()).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o1770, 1_700_000_000));
    let metadata = serde_json::json!({"": {"uid": 9, "mode": 0o3070}});
    assert_eq!(serde_json::to_value(unpacked.metadata).unwrap(), metadata);
}

#[test]
fn files_around_the_size_that_is_buffered_have_their_mode_and_time() {
    for size in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
        let mut tar = TarBytes::default();
        tar.entry(&Fields { name: b"f", mode: 0o4017, ..Fields::default() }, &vec![7; size]).file("g", b"after");
        let (root, _) = tree_of(&mut tar).unwrap();
        let stat = fs::metadata(root.path().join("f")).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.mtime(), stat.len()), (0o617, 1_700_000_000, size as u64));
        assert_eq!(fs::read(root.path().join("g")).unwrap(), b"after");
    }
}

#[test]
fn a_list_keeps_the_content_of_selected_files_alone() {
    let mut tar = TarBytes::default();
    tar.file("keep", b"yes").file("drop", b"no").dir("dir").symlink("link", "keep");
    let map: &[(&str, &[u8])] = &[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"2,3,7,1")];
    tar.pax(map).file("sparse", b"abcd");
    tar.entry(&Fields { flag: b'4', name: b"disk", device: (8, 1), ..Fields::default() }, b"");
    let mut found = Vec::new();
    let keep = |path: &phial_layers::EntryPath, _| path.as_bytes() != b"drop";
    let bytes = tar.end();
    let listed = list(&bytes[..], Compression::None, &Limits::GENEROUS, &keep, &mut |entry| {
        found.push((entry.path.to_string(), entry.size, entry.content, entry.bytes));
    });
    assert_eq!(listed.unwrap().entries, 6);
    let path = |text: &str| text.to_owned();
    assert_eq!(
        found,
        [
            (path("keep"), 3, Some(Digest::of(b"yes")), Some(b"yes".to_vec())),
            (path("drop"), 2, Some(Digest::of(b"no")), None),
            (path("dir"), 0, None, None),
            (path("link"), 0, None, None),
            (path("sparse"), 9, Some(Digest::of(b"\0\0abc\0\0d\0")), None),
            (path("disk"), 0, None, None),
        ]
    );
}

fn packed(root: &Path) -> Result<Vec<u8>, &'static str> {
    let mut tar = Vec::new();
    let packed = pack(root, &Metadata::default(), &options(Compression::None, 1), &mut tar).map_err(|e| e.code())?;
    assert_eq!(packed.tar_size, tar.len() as u64);
    Ok(tar)
}

#[test]
fn only_the_value_y_makes_a_directory_opaque() {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in [("yes", &b"y"[..]), ("no", b"n"), ("empty", b""), ("long", b"yyyyyyyy"), ("two", b"yy")] {
        fs::create_dir(dir.path().join(name)).unwrap();
        rustix::fs::lsetxattr(dir.path().join(name), "user.overlay.opaque", value, XattrFlags::empty()).unwrap();
    }
    let tar = packed(dir.path()).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let names: Vec<_> =
        archive.entries().unwrap().map(|e| e.unwrap().path_bytes().escape_ascii().to_string()).collect();
    assert_eq!(names, ["empty/", "long/", "no/", "two/", "yes/", "yes/.wh..wh..opq"]);
}

#[test]
fn the_longest_path_leaves_room_for_a_whiteout() {
    for (last, expected) in [(91, None), (92, Some("layer.name-too-long"))] {
        let dir = tempfile::tempdir().unwrap();
        let mut fd = rustix::fs::open(dir.path(), rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        // 16 components of 249 bytes, each with its slash, are 4000 bytes.
        for part in std::iter::repeat_n("n".repeat(249), 16).chain(["n".repeat(last)]) {
            rustix::fs::mkdirat(&fd, &part, rustix::fs::Mode::RWXU).unwrap();
            fd = rustix::fs::openat(&fd, &part, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        }
        assert_eq!(packed(dir.path()).err(), expected, "{last}");
    }
}

#[test]
fn modes_are_those_on_disk_and_links_and_fifos_have_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("file"), "x").unwrap();
    fs::set_permissions(path("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::create_dir(path("dir")).unwrap();
    fs::set_permissions(path("dir"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::hard_link(path("file"), path("link")).unwrap();
    symlink("file", path("symlink")).unwrap();
    let fifo = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, fifo, 0).unwrap();
    let tar = packed(dir.path()).unwrap();
    let mut found = Vec::new();
    list(&tar[..], Compression::None, &Limits::GENEROUS, &|_, _| false, &mut |entry| {
        found.push((entry.path.to_string(), entry.mode, entry.link.escape_ascii().to_string()));
    })
    .unwrap();
    let expected = [
        ("dir", 0o1777, ""),
        ("fifo", 0o600, ""),
        ("file", 0o4751, ""),
        ("link", 0o4751, "file"),
        ("symlink", 0o777, "file"),
    ];
    assert_eq!(found, expected.map(|(path, mode, link)| (path.to_owned(), mode, link.to_owned())));
    assert!(!is_opaque(&path("dir")));
}

#[test]
fn file_contents_of_every_length_are_padded_to_whole_blocks() {
    for size in [0, 1, 511, 512, 513, (1 << 20) - 512, (1 << 20) - 511, 1 << 20, (2 << 20) - 512] {
        let dir = tempfile::tempdir().unwrap();
        let body: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[1]).collect();
        fs::write(dir.path().join("f"), &body).unwrap();
        let tar = packed(dir.path()).unwrap();
        assert_eq!(tar.len(), 512 + body.len().next_multiple_of(512) + 1024);
        assert!(tar[512..512 + body.len()] == body && tar[512 + body.len()..].iter().all(|b| *b == 0), "{size}");
    }
}
