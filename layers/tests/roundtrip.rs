//! A tree packed and unpacked is the same tree, for us and for others; what a layer cannot hold is refused.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use phial_layers::{Compression, EntryMetadata, EntryPath, Limits, Metadata, pack, unpack};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::golden::{options, tree};
use crate::skipped::skipped;
use crate::tars::{TarBytes, listing};

#[test]
fn a_tree_survives_packing_and_unpacking_in_every_compression() {
    let from = tempfile::tempdir().unwrap();
    let metadata = tree(from.path());
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let mut blob = Vec::new();
        let packed = pack(from.path(), &metadata, &options(compression, 2), &mut blob).unwrap();
        let to = tempfile::tempdir().unwrap();
        let unpacked = unpack(&blob[..], compression, to.path(), &Limits::GENEROUS).unwrap();
        let sums = (&unpacked.diff_id, &unpacked.digest, unpacked.size, unpacked.entries);
        assert_eq!(sums, (&packed.diff_id, &packed.digest, packed.size, packed.entries));
        assert_eq!(unpacked.metadata, metadata);
        assert_eq!(listing(to.path()), listing(from.path()));
        let inode = |name: &str| fs::metadata(to.path().join(name)).unwrap().ino();
        assert_eq!(inode("app/mix.exs"), inode("app/mix.link"));
        for name in ["app", "app/bin/again", "app/mix.exs", "app/priv/numbers", "app/pipe"] {
            assert_eq!(fs::symlink_metadata(to.path().join(name)).unwrap().mtime(), 1_700_000_000, "{name}");
        }
        let again = pack(to.path(), &unpacked.metadata, &options(compression, 3), &mut io::sink()).unwrap();
        assert_eq!(again, packed);
    }
}

#[test]
fn what_a_layer_cannot_hold_is_refused_by_name() {
    let code = |make: &dyn Fn(&Path), metadata: &Metadata| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        make(&dir.path().join("d"));
        let error = pack(dir.path(), metadata, &options(Compression::Gzip, 1), &mut io::sink()).unwrap_err();
        (error.code(), error.to_string())
    };
    let none = Metadata::default();
    let socket = code(&|dir| drop(UnixListener::bind(dir.join("s")).unwrap()), &none);
    assert_eq!(socket, ("layer.special-file", "`d/s` is a socket, which a layer cannot hold".into()));
    let reserved = code(&|dir| fs::write(dir.join(".wh.x"), "").unwrap(), &none);
    assert_eq!(reserved, ("layer.reserved-name", "the name of `d/.wh.x` is reserved for whiteouts".into()));
    let record = EntryMetadata { xattrs: [("user.a=b".to_owned(), vec![])].into(), ..EntryMetadata::default() };
    let named = Metadata([(EntryPath::new(b"d"), record)].into());
    assert_eq!(code(&|_| {}, &named).0, "layer.xattr-name");
    let long = |dir: &Path| {
        let mut fd = rustix::fs::open(dir, rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
        let part = "n".repeat(250);
        for _ in 0..17 {
            rustix::fs::mkdirat(&fd, &part, Mode::RWXU).unwrap();
            fd = rustix::fs::openat(&fd, &part, rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
        }
    };
    assert_eq!(code(&long, &none).0, "layer.name-too-long");
}

#[test]
fn a_device_is_refused_and_so_is_a_missing_root() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev");
    let options = options(Compression::None, 1);
    for (kind, name) in [(FileType::CharacterDevice, "character"), (FileType::BlockDevice, "block")] {
        if mknodat(CWD, &path, kind, Mode::RWXU, rustix::fs::makedev(1, 3)).is_ok() {
            let error = pack(dir.path(), &Metadata::default(), &options, &mut io::sink()).unwrap_err();
            assert_eq!(error.to_string(), format!("`dev` is a {name} device, which a layer cannot hold"));
            fs::remove_file(&path).unwrap();
        } else {
            skipped("roundtrip::a_device_is_refused_and_so_is_a_missing_root", "needs root: a device");
        }
    }
    let error = pack(&dir.path().join("absent"), &Metadata::default(), &options, &mut io::sink()).unwrap_err();
    assert_eq!(error.code(), "layer.read");
}

#[test]
fn a_tree_deeper_than_the_held_directories_is_walked_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().to_path_buf();
    for _ in 0..300 {
        fs::write(path.join("z"), "").unwrap();
        path.push("d");
        fs::create_dir(&path).unwrap();
    }
    let mut blob = Vec::new();
    let packed = pack(dir.path(), &Metadata::default(), &options(Compression::Gzip, 1), &mut blob).unwrap();
    assert_eq!(packed.entries, 600);
    let to = tempfile::tempdir().unwrap();
    unpack(&blob[..], Compression::Gzip, to.path(), &Limits::GENEROUS).unwrap();
    let again = pack(to.path(), &Metadata::default(), &options(Compression::Gzip, 1), &mut io::sink()).unwrap();
    assert_eq!(again.diff_id, packed.diff_id);
}

#[test]
fn entries_are_sorted_by_the_bytes_of_their_whole_names() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a/x", "a-b/x", "a0", "a.d", "a/b/c", "Z", "é"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let mut tar = Vec::new();
    pack(dir.path(), &Metadata::default(), &options(Compression::None, 1), &mut tar).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let names: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path_bytes().into_owned()).collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(names, sorted);
    assert_eq!(names.len(), 10);
}

#[test]
fn umoci_sees_the_files_that_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    tree(&from);
    let mut tar = Vec::new();
    pack(&from, &Metadata::default(), &options(Compression::None, 2), &mut tar).unwrap();
    fs::write(dir.path().join("layer.tar"), tar).unwrap();
    let line = "umoci init --layout layout && umoci new --image layout:t && \
                umoci raw add-layer --image layout:t layer.tar && umoci unpack --rootless --image layout:t bundle";
    let out = Command::new("sh").args(["-c", line]).current_dir(dir.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // Over nothing, a whiteout is no file and an opaque directory is a plain one.
    let ours = listing(&from).replace(" opaque", "");
    let ours: Vec<&str> = ours.lines().filter(|line| !line.starts_with("20000 ")).collect();
    assert_eq!(listing(&dir.path().join("bundle/rootfs")), ours.join("\n"));
}

#[test]
fn a_layer_made_by_gnu_tar_unpacks_like_with_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    let metadata = tree(&from);
    assert!(!metadata.0.is_empty());
    fs::remove_file(from.join("app/gone")).unwrap();
    for format in ["gnu", "pax"] {
        let mut gnu = Command::new("tar");
        gnu.arg(format!("--format={format}")).args(["-C", "from", "-cf", "t.tar", "."]);
        assert!(gnu.current_dir(dir.path()).status().unwrap().success());
        let to = dir.path().join(format);
        fs::create_dir(&to).unwrap();
        unpack(fs::File::open(dir.path().join("t.tar")).unwrap(), Compression::None, &to, &Limits::GENEROUS).unwrap();
        assert_eq!(listing(&to), listing(&from).replace(" opaque", ""), "{format}");
        let (a, b) = (from.join("app/mix.exs"), to.join("app/mix.exs"));
        let time = |path: &Path| fs::metadata(path).map(|stat| (stat.mtime(), stat.mtime_nsec())).unwrap();
        assert_eq!(time(&a).0, time(&b).0);
        assert_eq!(format == "pax", time(&a) == time(&b), "only pax holds fractions of a second");
    }
}

#[test]
fn a_small_file_written_twice_and_linked_has_its_last_content() {
    let root = tempfile::tempdir().unwrap();
    let mut tar = TarBytes::default();
    for round in 0..300 {
        tar.file("f", format!("content {round}").as_bytes()).hardlink(&format!("h{round}"), "f");
    }
    unpack(&tar.end()[..], Compression::None, root.path(), &Limits::GENEROUS).unwrap();
    for round in 0..300 {
        assert_eq!(fs::read_to_string(root.path().join(format!("h{round}"))).unwrap(), format!("content {round}"));
    }
}

/// Changes the size of `file` when the first bytes arrive. The bounded queue keeps the reader far from its end until then.
struct Resizer {
    file: std::path::PathBuf,
    size: u64,
}

impl Write for Resizer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fs::OpenOptions::new().write(true).open(&self.file)?.set_len(self.size)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    for (size, code) in [(1 << 20, Some("layer.changed")), (70 << 20, Some("layer.changed")), (64 << 20, None)] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("large");
        fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
        let mut out = Resizer { file, size };
        let result = pack(dir.path(), &Metadata::default(), &options(Compression::None, 1), &mut out);
        assert_eq!(result.err().map(|error| error.code()), code, "{size}");
    }
}

#[test]
fn an_error_says_after_which_entry_a_header_is_bad() {
    let root = tempfile::tempdir().unwrap();
    let mut tar = TarBytes::default();
    tar.file("good\n", b"").pax(&[("path", b"")]);
    let error = unpack(&tar.end()[..], Compression::None, root.path(), &Limits::GENEROUS).unwrap_err();
    let expected =
        "the layer's entry after `good\\n` is refused: the extended header is malformed or contradicts itself";
    assert_eq!((error.code(), error.to_string()), ("layer.pax", expected.to_owned()));
}
