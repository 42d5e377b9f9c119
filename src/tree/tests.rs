//! A canary directory beside the tree, and everything in the tree that could lead there.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use super::*;

/// What can stand in the place of a file or of a directory above it.
const REPLACEMENTS: [&str; 10] = [
    "absolute link",
    "relative link",
    "link to a link",
    "link to itself",
    "dangling link",
    "FIFO",
    "socket",
    "directory",
    "link to /dev/zero",
    "holes",
];

struct Canary {
    dir: tempfile::TempDir,
    tree: TreeDir,
}

/// A directory with `tree/` and `canary/a/b/file`, which is the same as below `tree/`.
fn canary() -> Canary {
    let dir = tempfile::tempdir().unwrap();
    for root in ["tree", "canary"] {
        fs::create_dir_all(dir.path().join(root).join("a/b")).unwrap();
        fs::write(dir.path().join(root).join("a/b/file"), root).unwrap();
    }
    let tree = TreeDir::open(&dir.path().join("tree")).unwrap();
    Canary { dir, tree }
}

impl Canary {
    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Puts something else in the place of an entry of the tree.
    fn replace(&self, path: &str, by: &str) {
        let (at, canary) = (self.path("tree").join(path), self.path("canary").join(path));
        if at.is_dir() {
            fs::remove_dir_all(&at).unwrap();
        } else {
            fs::remove_file(&at).unwrap();
        }
        let up = "../".repeat(path.split('/').count());
        match by {
            "absolute link" => symlink(canary, at).unwrap(),
            "relative link" => symlink(format!("{up}canary/{path}"), at).unwrap(),
            "link to a link" => {
                symlink(canary, self.path("other")).unwrap();
                symlink(self.path("other"), at).unwrap();
            }
            "link to itself" => symlink(at.file_name().unwrap(), &at).unwrap(),
            "dangling link" => symlink(self.path("canary/new"), at).unwrap(),
            "FIFO" => rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap(),
            "socket" => drop(UnixListener::bind(at).unwrap()),
            "directory" => fs::create_dir(at).unwrap(),
            "link to /dev/zero" => symlink("/dev/zero", at).unwrap(),
            "holes" => fs::File::create(at).unwrap().set_len(4 << 30).unwrap(),
            other => unreachable!("{other}"),
        }
    }

    fn is_untouched(&self) -> bool {
        let mut found: Vec<String> = walkdir::WalkDir::new(self.path("canary"))
            .into_iter()
            .map(|entry| {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                format!("{} {:o}", entry.path().strip_prefix(self.dir.path()).unwrap().display(), meta.mode())
            })
            .collect();
        found.sort();
        found == ["canary 40755", "canary/a 40755", "canary/a/b 40755", "canary/a/b/file 100644"]
            && fs::read(self.path("canary/a/b/file")).unwrap() == b"canary"
            && fs::metadata(self.path("canary/a/b/file")).unwrap().mtime() > 1_700_000_000
    }
}

#[test]
fn what_a_tree_has_is_read() {
    let canary = canary();
    let tree = &canary.tree;
    assert_eq!(tree.read_text("a/b/file", 100).unwrap().as_deref(), Some("tree"));
    assert_eq!(tree.dir("a").unwrap().unwrap().read("b/file", 4).unwrap().as_deref(), Some(&b"tree"[..]));
    assert_eq!(tree.read("a/b/file", 3).unwrap_err().source.kind(), io::ErrorKind::FileTooLarge);
    assert!(tree.read("a/b/none", 9).unwrap().is_none() && tree.read("a/none/file", 9).unwrap().is_none());
    assert!(tree.read("a/b", 9).unwrap().is_none() && tree.dir("a/b/file").unwrap().is_none());
    assert_eq!(tree.stat("a/b/file").unwrap().map(|stat| (stat.kind(), stat.size())), Some((FileKind::File, 4)));
    assert_eq!(tree.names().unwrap(), ["a"]);
    symlink("b/file", canary.path("tree/a/link")).unwrap();
    assert_eq!(tree.read_link("a/link").unwrap().unwrap(), "b/file");
    assert_eq!(tree.read_link("a/b/file").unwrap(), None);
    let mut seen = vec![];
    tree.walk(|entry| {
        seen.push(format!("{} {:?}", entry.path.display(), entry.stat.kind()));
        Ok::<_, IoError>(Enter::Yes)
    })
    .unwrap();
    assert_eq!(seen, ["a Dir", "a/b Dir", "a/b/file File", "a/link Symlink"]);
}

#[test]
fn nothing_leads_out_of_a_tree_and_nothing_is_waited_for() {
    for by in REPLACEMENTS {
        for replaced in ["a", "a/b", "a/b/file"] {
            let canary = canary();
            canary.replace(replaced, by);
            let tree = &canary.tree;
            let case = format!("{replaced} is a {by}");
            // Reading.
            match tree.read("a/b/file", 100) {
                Ok(found) => assert_eq!(found, None, "{case}"),
                Err(error) => assert_eq!(error.source.kind(), io::ErrorKind::FileTooLarge, "{case}"),
            }
            let is_holes = by == "holes" && replaced == "a/b/file";
            assert_eq!(tree.file("a/b/file").unwrap().is_some(), is_holes, "{case}");
            assert_eq!(tree.accessible_file("a/b/file").unwrap().is_some(), is_holes, "{case}");
            assert_eq!(tree.xattr("a/b/file", "user.none").unwrap_or(None), None, "{case}");
            assert!(tree.files_below("a").unwrap().len() <= usize::from(by == "holes"), "{case}");
            // Writing: whatever the result is, it is in the tree.
            let _ = tree.open_or_create("a/b/file", 0o600);
            let _ = tree.open_or_create("a/b/own", 0o600);
            let _ = tree.replace("a/b/file", b"new", 0o600);
            let _ = tree.write_new("a/b/new", b"new", 0o600);
            let _ = tree.create_dirs("a/b/c/d");
            let _ = tree.create_symlink("a/b/l", OsStr::new("x"));
            let _ = tree.set_mode("a/b/file", 0o777);
            let _ = tree.set_times("a/b/file", (1, 0));
            let _ =
                tree.set_owner("a/b/file", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let _ = tree.rename("a/b/file", tree, "a/b/moved");
            let _ = tree.accessible_dir("a/b");
            assert!(canary.is_untouched(), "{case}");
            tree.remove_all("a").unwrap();
            assert_eq!(tree.names().unwrap(), Vec::<OsString>::new(), "{case}");
            assert!(canary.is_untouched(), "{case}");
        }
    }
}

#[test]
fn a_file_is_replaced_and_not_overwritten() {
    let canary = canary();
    let (file, other) = (canary.path("tree/a/b/file"), canary.path("tree/a/b/other"));
    fs::hard_link(&file, &other).unwrap();
    // The name that an earlier version took for the new file.
    symlink(canary.path("canary/a/b/file"), canary.path("tree/a/b/file.phial-normal")).unwrap();
    canary.tree.replace("a/b/file", b"new", 0o640).unwrap();
    assert_eq!((fs::read(&file).unwrap(), fs::read(&other).unwrap()), (b"new".to_vec(), b"tree".to_vec()));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(canary.path("tree/a/b")).unwrap().count(), 3, "no other file is left");
    assert!(canary.is_untouched());
    assert!(canary.tree.write_new("a/b/file", b"x", 0o644).is_err(), "it exists");
}

#[test]
fn a_tree_with_closed_directories_and_very_deep_ones_is_removed() {
    let canary = canary();
    let mut deep = TreeDir::open(&canary.path("tree/a")).unwrap();
    for _ in 0..900 {
        deep = deep.create_dirs("d").unwrap();
    }
    fs::set_permissions(canary.path("tree/a/b"), fs::Permissions::from_mode(0o000)).unwrap();
    remove_tree(&canary.path("tree")).unwrap();
    assert!(!canary.path("tree").exists());
    remove_tree(&canary.path("tree")).unwrap();
}

#[test]
fn a_tree_deeper_than_any_path_is_removed() {
    let canary = canary();
    let name = "d".repeat(255);
    let mut deep = TreeDir::open(&canary.path("tree/a")).unwrap();
    for nth in 0..2000 {
        deep.write_new("file", b"", 0o600).unwrap();
        deep.create_dir("aside").unwrap();
        let inner = deep.create_dirs(&name).unwrap();
        if nth % 100 == 99 {
            deep.set_mode(&name, 0o000).unwrap();
        }
        deep = TreeDir { fd: inner.fd, shown: PathBuf::new() };
    }
    canary.tree.remove_all("a").unwrap();
    assert_eq!(canary.tree.names().unwrap(), Vec::<OsString>::new());
    assert!(canary.is_untouched());
}

#[test]
fn what_cannot_be_removed_is_named() {
    let proc = TreeDir::open(Path::new("/proc")).unwrap();
    assert!(proc.remove_all("self/task/none").is_ok(), "nothing is there");
    let own = std::process::id().to_string();
    let error = proc.remove_all(format!("{own}/fdinfo")).unwrap_err();
    assert_eq!(error.path, Path::new("/proc").join(own).join("fdinfo"));
}

#[test]
fn a_root_that_is_a_link_is_refused() {
    let canary = canary();
    symlink(canary.path("canary"), canary.path("link")).unwrap();
    assert!(TreeDir::open(&canary.path("link")).is_err());
    assert!(TreeRoot::new(canary.path("link")).open().is_err());
}

#[test]
fn a_file_that_is_there_keeps_its_bytes_when_it_is_opened() {
    let canary = canary();
    let file = canary.tree.open_or_create("new", 0o600).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
    canary.tree.open_or_create("a/b/file", 0o600).unwrap();
    assert_eq!(fs::read(canary.path("tree/a/b/file")).unwrap(), b"tree");
    for by in REPLACEMENTS.into_iter().filter(|by| *by != "holes") {
        let canary = self::canary();
        canary.replace("a/b/file", by);
        assert!(canary.tree.open_or_create("a/b/file", 0o600).is_err(), "{by}");
        assert!(canary.is_untouched(), "{by}");
    }
}
