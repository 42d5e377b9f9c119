//! Fixtures that take long to make and are kept below `target/fixtures`: bases, their files, a registry of Hex packages.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Static, fixtures_dir, run, search_path, testdata};

/// Holds a lock below `target/fixtures` until it is dropped: other tests and other runs wait.
pub(crate) fn lock(name: &str) -> File {
    let file = File::create(fixtures_dir().join(format!("{name}.lock"))).expect("a lock file");
    file.lock().expect("a lock");
    file
}

/// A script of `testdata/`, which keeps what it makes below the fixtures.
pub(crate) fn script(name: &str) -> Command {
    let mut script = Command::new(testdata(name));
    script
        .env_clear()
        .env("PATH", search_path())
        .env("HOME", fixtures_dir())
        .env("PHIAL_CACHE_DIR", fixtures_dir().join("cache"));
    script
}

/// What a script of `testdata/` makes with our program: OCI layouts, kept under its name.
#[track_caller]
fn layouts(name: &str) -> PathBuf {
    let dir = fixtures_dir().join(name);
    let mut make = script(name);
    make.arg(env!("CARGO_BIN_EXE_phial")).arg(&dir);
    run(make).ok();
    dir
}

/// The Elixir base as an OCI layout, made by `phial base debian` when it is not there. Takes under a minute then.
#[track_caller]
pub(crate) fn elixir_base() -> PathBuf {
    layouts("elixir-base")
}

/// OCI layouts with `PostgreSQL` 17 (`postgres`) and Redis (`redis`), made by `phial base debian` when they are not there.
#[track_caller]
pub(crate) fn service_images() -> PathBuf {
    layouts("service-images")
}

/// The base of the Node app as an OCI layout, made by `phial base debian` when it is not there.
#[track_caller]
pub(crate) fn node_base() -> PathBuf {
    layouts("node-base")
}

/// Debian's oras, unpacked by `testdata/foreign` when it is not there.
#[track_caller]
pub(crate) fn oras() -> PathBuf {
    let dir = fixtures_dir().join("oras");
    let mut make = script("foreign");
    make.args(["oras", "trixie"]).arg(&dir);
    run(make).ok();
    dir.join("oras")
}

/// Puts a cache there that has the files of the Elixir base and nothing else: hard links to those that were unpacked once, or
/// copies on another file system.
#[track_caller]
pub(crate) fn copy_base_cache(to: &Path) {
    let base = elixir_base();
    let lock = lock("base-cache");
    let (cache, made_from) = (fixtures_dir().join("base-cache"), fixtures_dir().join("base-cache.made-from"));
    let index = fs::read_to_string(base.join("index.json")).expect("the index of the base");
    if fs::read_to_string(&made_from).ok().as_ref() != Some(&index) {
        let mut remove = Command::new("rm");
        remove.arg("-rf").arg(&cache).arg(&made_from);
        run(remove).ok();
        let mut unpack = Command::new(env!("CARGO_BIN_EXE_phial"));
        unpack.args(["run", &format!("oci:{}", base.display()), "--", "true"]);
        unpack.env_clear().env("PATH", search_path()).env("PHIAL_CACHE_DIR", &cache);
        run(unpack).ok();
        fs::write(&made_from, &index).expect("a note");
    }
    drop(lock);
    fs::DirBuilder::new().mode(0o700).recursive(true).create(to).expect("a cache");
    fs::copy(cache.join("version"), to.join("version")).expect("the format of the cache");
    // The store knows a tree that was copied for one that it did not make: links lead to its own.
    fs::create_dir(to.join("trees")).expect("a directory for the trees");
    for tree in fs::read_dir(cache.join("trees")).expect("the trees") {
        let tree = tree.expect("a tree").path();
        symlink(&tree, to.join("trees").join(tree.file_name().expect("its name"))).expect("a link");
    }
}

/// The same base unpacked by GNU tar, to make fixtures in: see `testdata/in-rootfs`.
#[track_caller]
pub(crate) fn elixir_rootfs() -> PathBuf {
    let layout = elixir_base();
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).expect("a document of the layout")).expect("JSON")
    };
    let blob = |digest: &serde_json::Value| {
        layout.join("blobs").join(digest.as_str().expect("a digest").replacen(':', "/", 1))
    };
    let index = read(&layout.join("index.json"));
    let manifest_digest = &index["manifests"][0]["digest"];
    let manifest = read(&blob(manifest_digest));

    let _lock = lock("rootfs");
    let (root, made_from) = (fixtures_dir().join("rootfs"), fixtures_dir().join("rootfs.made-from"));
    if fs::read_to_string(&made_from).is_ok_and(|text| Some(text.as_str()) == manifest_digest.as_str()) {
        return root;
    }
    let mut remove = Command::new("rm");
    remove.arg("-rf").arg(&root).arg(&made_from);
    run(remove).ok();
    fs::create_dir(&root).expect("a directory for the root file system");
    for layer in manifest["layers"].as_array().expect("layers") {
        let mut unpack = Command::new("tar");
        unpack.args([
            "--extract",
            "--auto-compress",
            "--no-same-owner",
            "--preserve-permissions",
            "--delay-directory-restore",
        ]);
        unpack.arg("--exclude=./dev/*").arg("--directory").arg(&root).arg("--file").arg(blob(&layer["digest"]));
        run(unpack).ok();
    }
    fs::write(&made_from, manifest_digest.as_str().expect("a digest")).expect("a note");
    root
}

/// A command in the base, with `dir` as its working directory and this environment besides: none of Phial's code runs.
pub(crate) fn in_rootfs<A: AsRef<OsStr>>(
    dir: &Path,
    command: impl IntoIterator<Item = A>,
    env: &BTreeMap<&str, String>,
) -> Command {
    let mut call = script("in-rootfs");
    call.arg(elixir_rootfs()).arg(dir).args(command).envs(env);
    call.env("IN_ROOTFS_PASS", env.keys().copied().collect::<Vec<_>>().join(" "));
    call
}

/// A registry of real Hex packages on loopback; it answers as long as this is held.
pub(crate) struct HexRegistry(Static);

impl HexRegistry {
    /// What points Mix at it. The packages are signed with a key of their own, hence the second variable.
    pub(crate) fn env(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("HEX_MIRROR", self.0.url()), ("HEX_UNSAFE_REGISTRY", "1".to_owned())])
    }

    /// The paths that were asked for so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.0.requests()
    }
}

/// Starts the Hex registry, made by `testdata/hex-registry` when it is not there.
#[track_caller]
pub(crate) fn hex_registry() -> HexRegistry {
    let dir = fixtures_dir().join("hex");
    let mut make = script("hex-registry");
    make.arg(elixir_rootfs()).arg(&dir);
    run(make).ok();
    HexRegistry(Static::start(&dir.join("public")))
}
