//! Whole trees, as a step leaves them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::elixir::etf::{Term, encode};

const T: i64 = 1_700_000_000;
const SHA: &str = "8d10bf0535b388ae53381fd4fb5bf534e19103b3";

fn options(part: Part) -> NormalizeOptions<'static> {
    NormalizeOptions { mtime: T, windows: [(1_795_000_000, 1_795_000_100); 2], part, lock: "" }
}

fn put(root: &Path, path: &str, bytes: &[u8]) -> PathBuf {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("inside")).expect("directories");
    fs::write(&path, bytes).expect("a file");
    path
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("exists").mode() & 0o7777
}

fn names(names: &[EntryPath]) -> Vec<String> {
    names.iter().cloned().map(String::from).collect()
}

#[test]
fn caches_go_and_the_rest_stays() {
    let root = tempfile::tempdir().expect("a directory");
    let gone = ["app/deps/r/_build/prod/x", "app/_build/prod/lib/a/.mix/.mix_test_failures"];
    let also = ["app/_build/prod/lib/a/.mix/compile.elixir.checkpoint", "app/.git/index"];
    let kept = ["app/_build/prod/lib/a/.mix/compile.lock", "app/_build/prod/lib/a/ebin/a.beam", "app/lib/_build.ex"];
    gone.iter().chain(&also).chain(&kept).for_each(|path| drop(put(root.path(), path, b"")));
    let report = normalize(&TreeDir::open(root.path()).expect("open"), "app", &options(Part::Deps)).expect("normal");
    let expected = ["app/.git", gone[1], also[0], "app/deps/r/_build"];
    assert_eq!(names(&report.removed), expected);
    assert!(kept.iter().all(|path| root.path().join(path).exists()));
    assert!(report.removed.iter().all(|name| !root.path().join(String::from(name.clone())).exists()));
}

#[test]
fn manifests_and_markers_are_rewritten_and_unreadable_ones_left() {
    let root = tempfile::tempdir().expect("a directory");
    let manifest = Term::Tuple(vec![Term::Int(26), Term::Int(1_795_000_001)]);
    let one = put(root.path(), "app/_build/prod/lib/a/.mix/compile.elixir", &encode(&manifest));
    let umbrella = put(root.path(), "app/_build/prod/.mix/compile.protocols", &encode(&manifest));
    let broken = put(root.path(), "app/_build/prod/lib/b/.mix/compile.elixir", &[131, 104, 9]);
    let text = put(root.path(), "app/_build/prod/lib/b/.mix/compile.phoenix", b"text");
    let marker = put(root.path(), "app/deps/d/.hex", &[131, 98, 0, 0, 0, 1]);
    let elsewhere = put(root.path(), "app/priv/.mix/compile.elixir", &encode(&manifest));
    let report = normalize(&TreeDir::open(root.path()).expect("open"), "app", &options(Part::Build)).expect("normal");
    let expected = encode(&Term::Tuple(vec![Term::Int(26), Term::Int(T)]));
    assert_eq!(fs::read(one).expect("read"), expected);
    assert_eq!(fs::read(umbrella).expect("read"), expected);
    assert_eq!(fs::read(marker).expect("read"), [131, 97, 1]);
    assert_eq!(fs::read(broken).expect("read"), [131, 104, 9]);
    assert_eq!(fs::read(text).expect("read"), b"text");
    assert_eq!(fs::read(elsewhere).expect("read"), encode(&manifest));
    assert_eq!((report.manifests, report.hex), (2, 1));
    let left = EntryPath::new(b"app/_build/prod/lib/b/.mix/compile.elixir");
    assert_eq!(report.skipped, [(left, "the term ends too early".to_owned())]);
}

#[test]
fn modes_and_times_follow_rules_and_links_are_not_followed() {
    let root = tempfile::tempdir().expect("a directory");
    let outside = tempfile::tempdir().expect("a directory");
    let target = put(outside.path(), "target", b"x");
    let before = fs::metadata(&target).expect("exists").mtime();
    let script = put(root.path(), "app/bin/run", b"");
    let plain = put(root.path(), "app/lib/a.ex", b"");
    let foreign = put(root.path(), "root/.cache/x", b"");
    for (path, mode) in [(&script, 0o4700), (&plain, 0o600), (&foreign, 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    fs::set_permissions(root.path().join("app/lib"), fs::Permissions::from_mode(0o700)).expect("chmod");
    symlink(&target, root.path().join("app/link")).expect("a link");
    symlink(outside.path(), root.path().join("app/deps")).expect("a link");
    let report = normalize(&TreeDir::open(root.path()).expect("open"), "app", &options(Part::Build)).expect("normal");
    assert_eq!((mode(&script), mode(&plain), mode(&root.path().join("app/lib"))), (0o755, 0o644, 0o755));
    assert_eq!(mode(&foreign), 0o600, "only the app's modes have a rule here");
    assert_eq!(report.modes, 3);
    for entry in walkdir::WalkDir::new(root.path()) {
        let entry = entry.expect("listed");
        assert_eq!(entry.metadata().expect("exists").mtime(), T, "{}", entry.path().display());
    }
    assert_eq!(fs::metadata(&target).expect("exists").mtime(), before);
}

#[test]
fn a_git_dependency_keeps_its_commit_and_origin() {
    let root = tempfile::tempdir().expect("a directory");
    put(root.path(), "app/deps/g/.git/HEAD", format!("{SHA}\n").as_bytes());
    put(root.path(), "app/deps/g/.git/config", b"[remote \"origin\"]\n\turl = https://u:secret@h/g.git\n");
    put(root.path(), "app/deps/g/.git/objects/pack/p", b"pack");
    put(root.path(), "app/deps/partial/.git/index", b"stat");
    let report = normalize(&TreeDir::open(root.path()).expect("open"), "app", &options(Part::Deps)).expect("normal");
    let git = root.path().join("app/deps/g/.git");
    assert_eq!(fs::read_to_string(git.join("HEAD")).expect("read"), format!("{SHA}\n"));
    assert!(fs::read_to_string(git.join("config")).expect("read").ends_with("url = https://h/g.git\n"));
    assert_eq!(fs::read_dir(git.join("objects")).expect("listed").count(), 0);
    assert_eq!((report.git, report.urls_with_user.len(), report.skipped.len()), (1, 0, 1));
    assert!(root.path().join("app/deps/partial/.git/index").exists());
}

#[test]
fn a_second_time_changes_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let manifest = Term::Tuple(vec![Term::Int(26), Term::Int(1_795_000_001)]);
    put(root.path(), "app/_build/prod/lib/a/.mix/compile.elixir", &encode(&manifest));
    put(root.path(), "app/deps/g/.git/HEAD", format!("{SHA}\n").as_bytes());
    put(root.path(), "app/deps/g/.git/config", b"[remote \"origin\"]\nurl = \"https://h/g#x\"\n");
    put(root.path(), "app/deps/g/_build/x", b"");
    let snapshot = || {
        let entries = walkdir::WalkDir::new(root.path()).sort_by_file_name();
        let describe = |entry: walkdir::DirEntry| {
            let meta = entry.metadata().expect("exists");
            (entry.path().to_owned(), meta.mode(), meta.mtime(), fs::read(entry.path()).unwrap_or_default())
        };
        entries.into_iter().map(|entry| describe(entry.expect("listed"))).collect::<Vec<_>>()
    };
    normalize(&TreeDir::open(root.path()).expect("open"), "app", &options(Part::Deps)).expect("normal");
    let once = snapshot();
    let report = normalize(&TreeDir::open(root.path()).expect("open"), "app", &options(Part::Deps)).expect("normal");
    assert_eq!(once, snapshot());
    assert_eq!((report.modes, report.removed.len()), (0, 0));
}

#[test]
fn a_tree_without_an_app_only_gets_its_time() {
    let root = tempfile::tempdir().expect("a directory");
    put(root.path(), "root/.git/config", b"x");
    symlink("root", root.path().join("app")).expect("a link");
    let report = normalize(&TreeDir::open(root.path()).expect("open"), "app", &options(Part::Build)).expect("normal");
    assert_eq!(report, NormalizeReport::default());
    assert_eq!(fs::symlink_metadata(root.path().join("app")).expect("exists").mtime(), T);
}

#[test]
fn a_full_disk_is_the_machines_fault_and_has_a_remedy() {
    let failed =
        |action, path, kind: io::ErrorKind| NormalizeError::from(IoError::at(action, Path::new(path))(kind.into()));
    let error = failed("write", "app/x", io::ErrorKind::StorageFull);
    assert_eq!(error.to_string(), "cannot write `app/x`");
    assert_eq!(error.exit_kind().code(), 6);
    assert!(error.hint().is_some_and(|hint| hint.contains("free space")));
    assert_eq!(failed("list", "x", io::ErrorKind::NotADirectory).exit_kind().code(), 70);
}

#[test]
fn only_files_of_that_name_at_that_place_are_caches_and_markers() {
    let root = tempfile::tempdir().expect("a directory");
    let marker = [131, 98, 0, 0, 0, 1];
    let kept = [
        "app/lib/.git/x",
        "app/deps/r/_build_x/y",
        "app/deps/r/src/_build/y",
        "app/_build/prod/.mix_test_failures",
        "app/_build/prod/.mix/.mix_test_failures/x",
        "app/_build/prod/.mix/checkpoint",
        "app/_build/prod/.mix/x.checkpoint/y",
        "app/.hex",
        "app/deps/.hex",
        "app/deps/d/src/.hex",
        "app/deps/d/hex",
    ];
    for path in kept {
        put(root.path(), path, &marker);
    }
    let file = put(root.path(), "app/deps/plain/_build", &marker);
    let nested = put(root.path(), "app/apps/web/_build/prod/lib/w/.mix/compile.lock", &marker);
    let report = normalize(&TreeDir::open(root.path()).expect("open"), "app", &options(Part::Build)).expect("normal");
    assert_eq!((report.hex, report.removed.len(), report.manifests), (0, 0, 2));
    assert!(kept.iter().map(|path| root.path().join(path)).chain([file]).all(|path| path.exists()));
    assert_eq!(fs::read(nested).expect("read"), [131, 97, 1], "an umbrella child has manifests");
    assert_eq!(fs::read(root.path().join(kept[7])).expect("read"), marker);
}

#[test]
fn what_was_changed_or_could_not_be_is_reported() {
    let root = tempfile::tempdir().expect("a directory");
    let pair = |key: &str| (Term::atom(key), Term::Bin(b"secret".to_vec()));
    let config = Term::Map(["local", "lock", "config"].map(pair).into());
    let manifest = encode(&Term::Tuple(vec![Term::Int(26), config]));
    for name in ["a", "b"] {
        put(root.path(), &format!("app/_build/prod/lib/{name}/.mix/compile.elixir"), &manifest);
        put(root.path(), &format!("app/deps/{name}/.hex"), &[131, 98, 0, 0, 0, 1]);
        put(root.path(), &format!("app/deps/{name}/.git/HEAD"), format!("{SHA}\n").as_bytes());
        let url = format!("[remote \"origin\"]\n\turl = https://u:token@h/{name}.git\n");
        put(root.path(), &format!("app/deps/{name}/.git/config"), url.as_bytes());
    }
    let large = put(root.path(), "app/_build/prod/lib/c/.mix/compile.elixir", &[131]);
    fs::File::options().write(true).open(large).and_then(|file| file.set_len(MAX_TERM + 1)).expect("a sparse file");
    let lock = "\"a\": {:git, \"https://u:token@h/a.git\", \"8d\", []},";
    let options = NormalizeOptions { lock, ..options(Part::Deps) };
    let report = normalize(&TreeDir::open(root.path()).expect("open"), "app", &options).expect("normal");
    assert_eq!((report.manifests, report.scrubbed, report.hex, report.git), (2, 2, 2, 2));
    assert_eq!(names(&report.urls_with_user), ["app/deps/a"], "it has the user in the lock too");
    let skipped: Vec<_> = report.skipped.into_iter().map(|(path, why)| (String::from(path), why)).collect();
    assert_eq!(skipped, [("app/_build/prod/lib/c/.mix/compile.elixir".to_owned(), "too large or too deep".to_owned())]);
    let denied = NormalizeError::from(IoError::at("write", Path::new("x"))(io::ErrorKind::PermissionDenied.into()));
    assert_eq!(denied.exit_kind().code(), 6);
    assert!(denied.hint().is_some_and(|hint| hint.contains("user namespace")));
    let other = NormalizeError::from(IoError::at("write", Path::new("x"))(io::ErrorKind::NotFound.into()));
    assert_eq!(other.hint(), None);
}
