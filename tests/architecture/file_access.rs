//! Who opens files by path. What a step, an image or a commit left is opened by `tree` alone; a file of `src/` that opens a
//! path itself stands here with the paths that it opens, which are Phial's own or the caller's.

use std::collections::BTreeSet;

use super::paths::{code, without_tests};
use super::{read, rust, shown};

/// What opens, lists or looks at a path.
const ACCESS: [&str; 19] = [
    " fs::",
    "(fs::",
    "std::fs",
    "::fs::File",
    "File::open",
    "File::create",
    "OpenOptions",
    "WalkDir",
    "walkdir",
    ".symlink_metadata(",
    ".read_dir(",
    ".canonicalize(",
    ".exists()",
    ".is_dir()",
    ".is_file()",
    "rustix::fs::open(",
    " CWD",
    "(CWD",
    "NamedTempFile",
];

/// Files, or directories of files, that open paths, and whose paths these are.
const OWN_PATHS: [(&str, &str); 24] = [
    ("src/app_test/artifacts.rs", "logs of Phial in the scratch directory"),
    ("src/app_test/log.rs", "logs of Phial in the scratch directory"),
    ("src/base_image", "what a tool of the host made in the scratch directory, before anything foreign ran in it"),
    ("src/build/chroot_binds.rs", "the sources of binds: shims in the scratch directory, the caller's certificates"),
    ("src/build/git_trace.rs", "the new file of git's events, in the scratch directory"),
    ("src/build/rebuild_check.rs", "files of /proc, and the cache directory of the second build"),
    ("src/build/step_env.rs", "the directory of the shims, in the scratch directory"),
    ("src/build/step_runner.rs", "directories in the scratch directory, and the caller's certificates"),
    ("src/config/file.rs", "the caller's settings file"),
    ("src/determinism/shims/mod.rs", "the files of the shims, in the scratch directory"),
    ("src/diff.rs", "the caller's layer files"),
    ("src/host.rs", "the uptime in /proc"),
    ("src/layout", "layouts and archives, which open files by rules of their own"),
    ("src/lock.rs", "the settings in the caller's working tree"),
    ("src/registry", "the caller's logins, certificates and settings of registries; records of uploads in the store"),
    ("src/release/inspect.rs", "whether the caller's directory is a layout"),
    ("src/rootfs/copy.rs", "the time stamp file, in the scratch directory"),
    ("src/rootfs/mod.rs", "directories in the scratch directory"),
    ("src/runtime/mod.rs", "resolv.conf of the host"),
    ("src/runtime/resolved_image.rs", "the empty directory that a layer is unpacked into"),
    ("src/sandbox", "files of /proc and /dev; roots by descriptor"),
    ("src/source", "the caller's repository, and mirrors in the store"),
    ("src/store", "the store"),
    ("src/tree", "the access itself, and the caller's output files"),
];

#[test]
fn only_the_door_opens_what_is_in_a_tree() {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for path in rust(&["src"]).into_iter().filter(|path| !path.ends_with("tests.rs")) {
        let (name, text) = (shown(&path), code(without_tests(&read(&path))));
        let text = text.replace("rustix::fs::{", "").replace("use rustix::fs", "");
        let Some(access) = ACCESS.iter().find(|access| text.contains(**access)) else { continue };
        match OWN_PATHS.iter().find(|(own, _)| name == *own || name.starts_with(&format!("{own}/"))) {
            Some((own, _)) => drop(used.insert(*own)),
            None => wrong.push(format!("{name}: `{}`", access.trim())),
        }
    }
    assert!(wrong.is_empty(), "these open a path; what is in a tree is opened by `tree`:\n{}", wrong.join("\n"));
    let unused: Vec<_> = OWN_PATHS.iter().map(|(own, _)| *own).filter(|own| !used.contains(own)).collect();
    assert!(unused.is_empty(), "these open none any more: {unused:?}");
}

/// Who asks a tree for the path of its directory, and why that path is not joined with another.
const ROOT_PATHS: [(&str, &str); 4] = [
    ("src/build/step_runner.rs", "the crate `layers` packs it; the store moves it as a whole"),
    ("src/rootfs/diff.rs", "a whole copy is a tree without records"),
    ("src/rootfs/mod.rs", "lower directories, which the kernel mounts"),
    ("src/runtime/userns_helper.rs", "the messages of errors"),
];

#[test]
fn the_path_of_a_tree_is_asked_for_where_only_the_whole_is_meant() {
    let callers: BTreeSet<String> = rust(&["src"])
        .iter()
        .filter(|path| !path.ends_with("tests.rs") && !shown(path).starts_with("src/tree/"))
        .filter(|path| {
            let text = code(without_tests(&read(path)));
            text.contains("root.as_path()") || text.contains("dir.as_path()") || text.contains("dest.as_path()")
        })
        .map(|path| shown(path))
        .collect();
    let expected: BTreeSet<String> = ROOT_PATHS.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(callers, expected);
}
