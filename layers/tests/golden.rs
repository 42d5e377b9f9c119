//! Digests of fixed trees. A change here is a new format: images built before get other digests.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use phial_layers::{Compression, Digest, EntryMetadata, EntryPath, Metadata, PackOptions, Packed, pack};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::tars::{make_opaque, make_whiteout};

const DIFF_ID: &str = "sha256:572bc18ee8c79e134b9622c0e07d90676f5f5f22b8b97032a9ace240ea2bac1f";
const GZIP: &str = "sha256:a94b3b644ef98e0c56d8c6f8ffe588f90a46a58de5aa075f1eb87247fdeb09c2";
const ZSTD: &str = "sha256:441d3e2d6fbdb86db96c675f6fe61d7c57c4545d741774840273a995676f53a5";

/// A little of everything, and three blocks' worth of content.
pub(crate) fn tree(root: &Path) -> Metadata {
    let file = |name: &str, body: &[u8], mode| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, body).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    file("app/mix.exs", b"defmodule Phial.MixProject do\nend\n", 0o644);
    file("app/bin/start", b"#!/bin/sh\n", 0o755);
    file("app-data/empty", b"", 0o600);
    file("app/lib/naïve.ex", "é".as_bytes(), 0o644);
    let numbers: Vec<u8> = (0..700_000_u32).flat_map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes()).collect();
    file("app/priv/numbers", &numbers, 0o644);
    let long = format!("app/{}/{}/{}", "d".repeat(90), "e".repeat(90), "f".repeat(120));
    file(&long, b"long", 0o644);
    fs::hard_link(root.join("app/mix.exs"), root.join("app/mix.link")).unwrap();
    symlink("../app/bin/start", root.join("app/bin/again")).unwrap();
    symlink(format!("/{}", "t".repeat(120)), root.join("far")).unwrap();
    mknodat(CWD, root.join("app/pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    make_whiteout(&root.join("app/gone"));
    make_opaque(&root.join("app-data"));
    for dir in ["app", "app/bin", "app/lib", "app/priv", "app-data"] {
        fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for dir in [long.rsplit_once('/').unwrap().0, &long[..94]] {
        fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut metadata = Metadata::default();
    let capability = ("security.capability".to_owned(), vec![1, 0, 0, 2, 0, b'\n', 0xff]);
    let start = EntryMetadata { uid: 1000, gid: 3_000_000, mode: Some(0o4755), xattrs: [capability].into() };
    metadata.0.insert(EntryPath::new(b"app/bin/start"), start);
    metadata.0.insert(EntryPath::new(b"app-data"), EntryMetadata { uid: u32::MAX, ..EntryMetadata::default() });
    metadata
}

pub(crate) fn options(compression: Compression, workers: usize) -> PackOptions {
    PackOptions { compression, mtime: 1_700_000_000, workers: NonZeroUsize::new(workers).unwrap() }
}

fn packed(root: &Path, metadata: &Metadata, compression: Compression, workers: usize) -> (Packed, Vec<u8>) {
    let mut blob = Vec::new();
    let packed = pack(root, metadata, &options(compression, workers), &mut blob).unwrap();
    assert_eq!((packed.size, &packed.digest), (blob.len() as u64, &Digest::of(&blob)));
    (packed, blob)
}

#[test]
fn a_fixed_tree_has_a_fixed_digest() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = tree(dir.path());
    for (compression, digest) in [(Compression::None, DIFF_ID), (Compression::Gzip, GZIP), (Compression::Zstd, ZSTD)] {
        let (packed, _) = packed(dir.path(), &metadata, compression, 2);
        assert_eq!((packed.diff_id.0.as_str(), packed.digest.as_str(), packed.entries), (DIFF_ID, digest, 19));
    }
}

#[test]
fn the_digest_is_the_same_however_many_workers_pack_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = tree(dir.path());
    for (compression, digest) in [(Compression::None, DIFF_ID), (Compression::Gzip, GZIP), (Compression::Zstd, ZSTD)] {
        for workers in [1, 2, 7] {
            for _ in 0..20 {
                let (packed, _) = packed(dir.path(), &metadata, compression, workers);
                let sums = (packed.diff_id.0.as_str(), packed.digest.as_str(), packed.entries);
                assert_eq!(sums, (DIFF_ID, digest, 19), "{compression:?}, {workers} workers");
            }
        }
    }
}

#[test]
fn gnu_tar_and_python_read_the_same_entries() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = tree(dir.path());
    let blob = tempfile::NamedTempFile::new().unwrap();
    blob.as_file().write_all(&packed(dir.path(), &metadata, Compression::Gzip, 2).1).unwrap();
    let gnu = Command::new("tar").args(["--numeric-owner", "-tvzf"]).arg(blob.path()).output().unwrap();
    assert!(gnu.status.success(), "{}", String::from_utf8_lossy(&gnu.stderr));
    let gnu = String::from_utf8(gnu.stdout).unwrap();
    for line in ["-rwsr-xr-x 1000/3000000 ", "drwxr-xr-x 4294967295/0 ", "prw------- 0/0 "] {
        assert!(gnu.contains(line), "{line} in\n{gnu}");
    }
    let script = "import sys, tarfile\nfor m in tarfile.open(sys.argv[1], encoding='utf-8', errors='surrogateescape'):\n \
                  print(m.name + ('/' if m.isdir() else ''), m.linkname, sep='|')";
    let python = Command::new("python3").args(["-c", script]).arg(blob.path()).env("PYTHONUTF8", "1").output().unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let (d, e, f) = ("d".repeat(90), "e".repeat(90), "f".repeat(120));
    let expected = [
        "app-data/|",
        "app-data/.wh..wh..opq|",
        "app-data/empty|",
        "app/|",
        "app/.wh.gone|",
        "app/bin/|",
        "app/bin/again|../app/bin/start",
        "app/bin/start|",
        &format!("app/{d}/|"),
        &format!("app/{d}/{e}/|"),
        &format!("app/{d}/{e}/{f}|"),
        "app/lib/|",
        "app/lib/naïve.ex|",
        "app/mix.exs|",
        "app/mix.link|app/mix.exs",
        "app/pipe|",
        "app/priv/|",
        "app/priv/numbers|",
        &format!("far|/{}", "t".repeat(120)),
    ];
    assert_eq!(String::from_utf8(python.stdout).unwrap().lines().collect::<Vec<_>>(), expected);
    assert_eq!(gnu.lines().count(), expected.len());
}

#[test]
fn a_full_disk_is_the_error_and_no_thread_waits_for_ever() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let large: Vec<u8> =
        (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(0x9e37_79b1).rotate_left(9).to_le_bytes()).collect();
    fs::write(dir.path().join("large"), large).unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for room in [0, 1 << 20] {
            for workers in [1, 3] {
                let options = options(compression, workers);
                let error = pack(dir.path(), &Metadata::default(), &options, &mut Full(room)).unwrap_err();
                assert_eq!(error.code(), "layer.write");
                let source = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<io::Error>()).unwrap();
                assert_eq!(source.kind(), io::ErrorKind::StorageFull);
            }
        }
    }
}
