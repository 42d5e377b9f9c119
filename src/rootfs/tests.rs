//! Overlay and copy give the same tree for the same changes.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};

use phial_layers::{EntryPath, Metadata};

use super::*;
use crate::store::TreeInfo;

/// A tree with these files; `path -> "text"`, `path/` a directory, `path -> "!"` a whiteout.
fn tree(dir: &Path, files: &[(&str, &str)]) -> Tree {
    write(dir, files);
    Tree { root: TreeRoot::new(dir), metadata: Metadata::default(), info: TreeInfo::default() }
}

fn write(dir: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(dir).unwrap();
    for (name, text) in files {
        let path = dir.join(name.trim_end_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else if *text == "!" {
            let kind = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::empty(), 0).unwrap();
        } else {
            fs::write(&path, text).unwrap();
        }
    }
}

fn opaque(dir: &Path) {
    rustix::fs::lsetxattr(dir, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
}

/// The entries of a tree: path to text, `!` for a whiteout, `/` for a directory, `@TARGET` for a symbolic link.
fn shown(dir: &Path) -> BTreeMap<String, String> {
    walkdir::WalkDir::new(dir)
        .min_depth(1)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.path().symlink_metadata().unwrap();
            let what = if meta.is_dir() {
                "/".into()
            } else if meta.file_type().is_char_device() && meta.rdev() == 0 {
                "!".into()
            } else if meta.is_symlink() {
                format!("@{}", fs::read_link(entry.path()).unwrap().display())
            } else {
                fs::read_to_string(entry.path()).unwrap()
            };
            (entry.path().strip_prefix(dir).unwrap().display().to_string(), what)
        })
        .collect()
}

fn expect(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned())).collect()
}

struct Bench {
    dir: tempfile::TempDir,
    lowers: Vec<Tree>,
}

impl Bench {
    fn new(base: &[(&str, &str)], above: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lowers = vec![tree(&dir.path().join("above"), above), tree(&dir.path().join("base"), base)];
        Self { dir, lowers }
    }

    fn overlay(&self, change: impl FnOnce(&Path)) -> (BTreeMap<String, String>, TreeDiff) {
        let (upper, dest) = (self.dir.path().join("upper"), self.dir.path().join("dest"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&dest).unwrap();
        change(&upper);
        let out = diff(&DiffSource::UpperDirs(vec![Tree::bare(&upper)]), &self.lowers, &TreeRoot::new(&dest)).unwrap();
        (shown(&dest), out)
    }

    fn copy(&self, change: impl FnOnce(&Path)) -> (BTreeMap<String, String>, TreeDiff) {
        let (scratch, dest) = (self.dir.path().join("scratch"), self.dir.path().join("dest2"));
        fs::create_dir(&scratch).unwrap();
        fs::create_dir(&dest).unwrap();
        let rootfs = assemble(Isolation::Copy, &self.lowers, &scratch).unwrap();
        let DiffSource::FullCopy { dir, .. } = &rootfs.diff_source else { panic!("not a copy") };
        change(dir.as_path());
        let out = diff(&rootfs.diff_source, &self.lowers, &TreeRoot::new(&dest)).unwrap();
        (shown(&dest), out)
    }
}

#[test]
fn overlay_and_copy_give_the_same_tree() {
    let bench = Bench::new(
        &[
            ("etc/passwd", "root"),
            ("etc/old", "old"),
            ("usr/lib/a", "a"),
            ("usr/lib/b", "b"),
            ("srv/x/y", "y"),
            ("root/", ""),
        ],
        &[("app/mix.exs", "mix"), ("etc/old2", "2"), ("srv/x/z", "z")],
    );
    let expected = expect(&[
        ("app", "/"),
        ("app/_build", "/"),
        ("app/_build/m", "beam"),
        ("etc", "/"),
        ("etc/old", "!"),
        ("etc/passwd", "root app"),
        ("srv", "/"),
        ("srv/x", "/"),
        ("srv/x/w", "w"),
        ("srv/x/z", "!"),
        ("usr", "/"),
        ("usr/lib", "!"),
    ]);
    let overlay = bench.overlay(|upper| {
        let files = [
            ("app/_build/m", "beam"),
            ("etc/passwd", "root app"),
            ("etc/old", "!"),
            ("etc/old2", "2"),
            ("usr/lib", "!"),
            ("srv/x/w", "w"),
            ("srv/x/y", "y"),
            ("tmp/junk", "junk"),
            ("root/.hex/cache", "junk"),
        ];
        write(upper, &files);
        opaque(&upper.join("srv/x"));
    });
    let copy = bench.copy(|root| {
        write(root, &[("app/_build/m", "beam"), ("etc/passwd", "root app"), ("srv/x/w", "w"), ("tmp/junk", "junk")]);
        fs::remove_file(root.join("etc/old")).unwrap();
        fs::write(root.join("etc/old2"), "2").unwrap();
        fs::remove_dir_all(root.join("usr/lib")).unwrap();
        fs::remove_file(root.join("srv/x/z")).unwrap();
        fs::write(root.join("srv/x/y"), "y").unwrap();
    });
    assert_eq!(overlay.0, expected);
    assert_eq!(copy, overlay);
}

#[test]
fn a_change_of_kind_or_mode_is_a_change_and_a_touch_is_none() {
    let bench = Bench::new(&[("a/file", "x"), ("a/dir/f", "f"), ("a/touched", "t"), ("a/mode", "m")], &[]);
    let change = |root: &Path| {
        fs::set_permissions(root.join("a/mode"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::File::open(root.join("a/touched")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    let copy = bench.copy(|root| {
        fs::remove_dir_all(root.join("a/dir")).unwrap();
        symlink("elsewhere", root.join("a/dir")).unwrap();
        fs::remove_file(root.join("a/file")).unwrap();
        fs::create_dir(root.join("a/file")).unwrap();
        change(root);
    });
    let overlay = bench.overlay(|upper| {
        write(upper, &[("a/file/", ""), ("a/touched", "t"), ("a/mode", "m")]);
        symlink("elsewhere", upper.join("a/dir")).unwrap();
        change(upper);
    });
    assert_eq!(copy.0, expect(&[("a", "/"), ("a/dir", "@elsewhere"), ("a/file", "/"), ("a/mode", "m")]));
    assert_eq!(overlay, copy);
}

#[test]
fn a_changed_file_keeps_the_owner_recorded_for_the_base() {
    let mut bench = Bench::new(&[("etc/shadow", "secret")], &[]);
    let record = phial_layers::EntryMetadata { gid: 42, mode: Some(0o640), ..Default::default() };
    bench.lowers[1].metadata.0.insert(EntryPath::new(b"etc/shadow"), record.clone());
    let (_, out) = bench.overlay(|upper| write(upper, &[("etc/shadow", "other!")]));
    assert_eq!(out.metadata.of(&EntryPath::new(b"etc/shadow")), record);
}

#[test]
fn two_upper_directories_are_merged_and_conflicts_are_reported() {
    let bench = Bench::new(&[("base", "b")], &[]);
    let (first, second, dest) =
        (bench.dir.path().join("u1"), bench.dir.path().join("u2"), bench.dir.path().join("dest3"));
    write(&first, &[("app/same", "s"), ("app/differs", "1"), ("app/only1", "1")]);
    write(&second, &[("app/same", "s"), ("app/differs", "2"), ("app/only2", "2"), ("app/only1", "!")]);
    fs::create_dir(&dest).unwrap();
    let out = diff(
        &DiffSource::UpperDirs(vec![Tree::bare(&second), Tree::bare(&first)]),
        &bench.lowers,
        &TreeRoot::new(&dest),
    )
    .unwrap();
    let expected = [("app", "/"), ("app/differs", "2"), ("app/only2", "2"), ("app/same", "s")];
    assert_eq!(shown(&dest), expect(&expected));
    assert_eq!(out.conflicts, [EntryPath::new(b"app/differs")]);
}

#[test]
fn a_name_that_means_deleted_is_refused() {
    let bench = Bench::new(&[], &[]);
    let upper = bench.dir.path().join("u");
    write(&upper, &[("app/.wh.x", "")]);
    let out = diff(&DiffSource::UpperDirs(vec![Tree::bare(&upper)]), &bench.lowers, &TreeRoot::new(bench.dir.path()));
    assert!(matches!(out, Err(RootfsError::Reserved(_))));
}

#[test]
fn a_directory_that_nobody_may_read_keeps_its_mode() {
    let bench = Bench::new(&[], &[]);
    let (tree, out) = bench.overlay(|upper| {
        write(upper, &[("closed/f", "f")]);
        fs::set_permissions(upper.join("closed"), fs::Permissions::from_mode(0o050)).unwrap();
    });
    assert_eq!(tree, expect(&[("closed", "/"), ("closed/f", "f")]));
    assert_eq!(out.metadata.of(&EntryPath::new(b"closed")).mode, Some(0o050));
}

#[test]
fn a_diff_of_diffs_keeps_their_metadata() {
    let bench = Bench::new(&[("base", "b")], &[]);
    let (first, dest) = (bench.dir.path().join("first"), bench.dir.path().join("dest4"));
    let mut first = tree(&first, &[("bin/su", "x")]);
    let record = phial_layers::EntryMetadata { uid: 7, mode: Some(0o4755), ..Default::default() };
    first.metadata.0.insert(EntryPath::new(b"bin/su"), record.clone());
    fs::create_dir(&dest).unwrap();
    let out = diff(&DiffSource::UpperDirs(vec![first]), &bench.lowers, &TreeRoot::new(&dest)).unwrap();
    assert_eq!(out.metadata.of(&EntryPath::new(b"bin/su")), record);
}

/// An ACL (acl(5)) of entries of type, permissions and id. Ids that stand for none are all ones.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |(kind, permissions, id): &(u16, u16, u32)| {
        [&kind.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2_u32.to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat()
}

#[test]
fn without_its_acl_nobody_may_do_more_with_a_file() {
    let none = u32::MAX;
    // The mode that each has with its ACL, whose mask is the group's part, and without it.
    let narrow = [(1, 6, none), (2, 6, 0), (4, 0, none), (0x10, 6, none), (0x20, 0, none)];
    let masked = [(1, 7, none), (2, 7, 0), (4, 7, none), (0x10, 5, none), (0x20, 4, none)];
    let bench = Bench::new(&[("srv/old", "o")], &[]);
    let change = |root: &Path| {
        write(root, &[("srv/key", "k"), ("srv/masked", "m"), ("srv/old", "o"), ("srv/plain", "p"), ("in/f", "f")]);
        fs::set_permissions(root.join("srv/plain"), fs::Permissions::from_mode(0o660)).unwrap();
        let set = |name: &str, attribute: &str, entries| {
            rustix::fs::lsetxattr(root.join(name), attribute, &acl(entries), rustix::fs::XattrFlags::empty()).unwrap();
        };
        set("srv/key", "system.posix_acl_access", &narrow);
        set("srv/masked", "system.posix_acl_access", &masked);
        set("in", "system.posix_acl_default", &masked);
        // Nothing else of it changes: it is in no layer, and its ACL is neither.
        fs::set_permissions(root.join("srv/old"), fs::Permissions::from_mode(0o644)).unwrap();
        set(
            "srv/old",
            "system.posix_acl_access",
            &[(1, 6, none), (2, 6, 0), (4, 4, none), (0x10, 6, none), (0x20, 4, none)],
        );
        assert_eq!(fs::metadata(root.join("srv/key")).unwrap().mode() & 0o777, 0o660);
    };
    for (kind, (_, out)) in [("overlay", bench.overlay(change)), ("copy", bench.copy(change))] {
        let dest = bench.dir.path().join(if kind == "overlay" { "dest" } else { "dest2" });
        let mode = |name: &str| fs::metadata(dest.join(name)).unwrap().mode() & 0o777;
        assert_eq!([mode("srv/key"), mode("srv/masked"), mode("srv/plain")], [0o600, 0o754, 0o660], "{kind}");
        let shown: Vec<String> = out.acls.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["in", "srv/key", "srv/masked", "srv/old"], "{kind}");
        assert!(!dest.join("srv/old").exists(), "{kind}");
        assert!(out.metadata.0.values().all(|metadata| metadata.xattrs.is_empty()), "{kind}");
        for (name, attribute) in [("srv/key", "system.posix_acl_access"), ("in", "system.posix_acl_default")] {
            let left = rustix::fs::lgetxattr(dest.join(name), attribute, &mut [0; 100][..]);
            assert!(left.is_err(), "{kind}: the tree is the one that its layer is unpacked to");
        }
    }
}

#[test]
fn an_attribute_whose_name_is_not_utf_8_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let bench = Bench::new(&[], &[]);
    let upper = bench.dir.path().join("u");
    write(&upper, &[("app/f", "")]);
    let name = std::ffi::OsStr::from_bytes(b"user.\xff");
    rustix::fs::lsetxattr(upper.join("app/f"), name, b"v", rustix::fs::XattrFlags::empty()).unwrap();
    let out = diff(&DiffSource::UpperDirs(vec![Tree::bare(&upper)]), &bench.lowers, &TreeRoot::new(bench.dir.path()));
    assert_eq!(out.unwrap_err().to_string(), r"`app/f` has an extended attribute whose name is not UTF-8: `user.\xff`");
}
