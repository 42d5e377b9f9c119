//! A base image of busybox alone, and an app of shell for it: whole builds in a second.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Repo, TestEnv, fixtures_dir, run};

const APPLETS: [&str; 22] = [
    "sh", "cat", "chmod", "dd", "echo", "env", "grep", "head", "kill", "ln", "ls", "mkdir", "mktemp", "printf", "rm",
    "sed", "sleep", "tee", "touch", "tr", "true", "wc",
];

/// What the app's `prepare_code` does, as it is in the first commit.
const PREPARE: &str = r#"#!/bin/sh
set -eu
case "$1" in
deps) mkdir -p vendor; cat VERSION >vendor/part ;;
build) mkdir -p "out/$2"; echo "$2 of $(cat vendor/part)" >"out/$2/app" ;;
esac
"#;

const SETTINGS: &str = r#"[image]
envs = ["prod"]
cmd = ["cat", "out/prod/app"]

[prepare]
script = "script/prepare_code"
inputs = ["VERSION"]
"#;

/// The base as an OCI layout, made once for all tests of a run.
#[track_caller]
pub(crate) fn busybox_base() -> PathBuf {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let _lock = super::prebuilt::lock("small-base");
        let env = TestEnv::with_empty_cache();
        let dir = fixtures_dir().join("small-base");
        import(&env, &[], &dir);
        dir
    };
    BASE.get_or_init(make).clone()
}

/// The same with more programs (path and text), as an OCI layout in the test's own directory.
#[track_caller]
pub(crate) fn busybox_base_with(env: &TestEnv, programs: &[(&str, &str)]) -> PathBuf {
    let dir = env.dir().join("base-with");
    import(env, programs, &dir);
    dir
}

/// The same with these files of the host (and their targets, for links) at the same paths.
#[track_caller]
pub(crate) fn busybox_base_with_files(env: &TestEnv, files: &[PathBuf]) -> PathBuf {
    for file in files {
        let to = env.dir().join("rootfs").join(file.strip_prefix("/").expect("an absolute path"));
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory of the base");
        fs::copy(file, to).expect("a file of the base");
    }
    busybox_base_with(env, &[])
}

#[track_caller]
fn import(env: &TestEnv, programs: &[(&str, &str)], to: &Path) {
    let root = env.dir().join("rootfs");
    for name in ["bin", "etc", "root", "tmp"] {
        fs::create_dir_all(root.join(name)).expect("a directory of the base");
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("busybox-static: run testdata/setup test"), root.join("bin/busybox")).expect("busybox");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("an applet");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("etc/passwd");
    for (path, text) in programs {
        let path = root.join(path);
        fs::write(&path, text).expect("a program of the base");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    let tar = env.path("rootfs.tar");
    let mut pack = Command::new("tar");
    pack.args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
    pack.args(["--mode=u+rwX,go+rX,go-w", "--directory"]).arg(&root).arg("--file").arg(&tar).arg(".");
    run(pack).ok();
    run(env.phial(["base", "import", &tar, "--to", &format!("oci:{}", to.display())])).ok();
}

impl TestEnv {
    /// The app for [`busybox_base`] as a git repository with one commit, always the same one.
    #[track_caller]
    pub(crate) fn shell_app(&self) -> Repo {
        let dir = self.dir().join("app");
        fs::create_dir(&dir).expect("a directory for the app");
        let repo = Repo::at(&dir);
        repo.git(["init", "-q", "-b", "main"]);
        repo.script("script/prepare_code", PREPARE);
        repo.write("phial.toml", SETTINGS);
        repo.write("VERSION", "1.0\n");
        repo.commit("The first commit");
        repo
    }
}

impl Repo {
    /// Writes a file that may be executed.
    pub(crate) fn script(&self, path: &str, text: &str) {
        self.write(path, text);
        fs::set_permissions(self.dir().join(path), fs::Permissions::from_mode(0o755)).expect("its mode");
    }
}
