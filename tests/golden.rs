//! The bytes of fixed fixtures, for each format version. Whoever moves them raises `FORMAT` and runs `just golden`; images
//! made before keep their digests by keeping their Phial.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use phial::determinism::normalize::{NormalizeOptions, Part, normalize};
use phial::host::Host;
use phial::recipe::FORMAT;
use phial::tree::TreeDir;
use phial_layers::Digest;
use serde_json::Value;

use crate::harness::busybox::busybox_base;
use crate::harness::{TestEnv, run, testdata};

#[test]
fn bytes_move_only_with_the_format() {
    let found = format!("{}{}", image(), manifests());
    let path = testdata("golden").join(format!("format-{FORMAT}"));
    if Host::read().var("PHIAL_GOLDEN") == Some("write") {
        assert!(!path.exists(), "format {FORMAT} has golden digests: raise `FORMAT` in src/recipe/mod.rs first");
        fs::write(&path, &found).expect("golden digests");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, golden, "bytes moved: raise `FORMAT` in src/recipe/mod.rs and run `just golden`");
}

/// The small app: its layers, and all that its image says, with what comes from the base (a busybox of this machine) taken
/// out.
fn image() -> String {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let (base, out) = (busybox_base(), env.dir().join("out"));
    let (from, to) = (format!("oci:{}", base.display()), format!("oci:{}", out.display()));
    let line = run(env.phial(["build", repo.source(), "--base", &from, "--to", &to, "--json"])).ok();
    let json: Value = serde_json::from_str(&line).expect("JSON");
    let mut text = String::new();
    for layer in json["layers"].as_array().expect("layers") {
        let _ = writeln!(text, "{} {}", layer["name"], layer["layer"]["digest"]);
    }
    let document = |layout: &Path, digest: &Value| {
        let path = layout.join("blobs").join(digest.as_str().expect("a digest").replacen(':', "/", 1));
        let text = fs::read_to_string(path).expect("a document");
        (serde_json::from_str::<Value>(&text).expect("JSON"), text)
    };
    let index: Value = serde_json::from_slice(&fs::read(base.join("index.json")).expect("an index")).expect("JSON");
    let (base_manifest, _) = document(&base, &index["manifests"][0]["digest"]);
    let (base_config, _) = document(&base, &base_manifest["config"]["digest"]);
    let (manifest, manifest_text) = document(&out, &json["digest"]);
    let (_, config_text) = document(&out, &manifest["config"]["digest"]);
    let foreign = [
        &index["manifests"][0]["digest"],
        &base_manifest["layers"][0]["digest"],
        &base_manifest["layers"][0]["size"],
        &base_config["rootfs"]["diff_ids"][0],
        &base_config["architecture"],
        &manifest["config"]["digest"],
        &manifest["config"]["size"],
        // The entry's config has the key, and so the base and the machine.
        &manifest["annotations"]["dev.phial.deps-cache"],
    ];
    let own = |text: &str| {
        let without = |text: String, value: &&Value| {
            let value = value.as_str().map_or_else(|| format!(":{value}"), str::to_owned);
            text.replace(&value, "BASE")
        };
        Digest::of(foreign.iter().fold(text.to_owned(), without).as_bytes())
    };
    let _ = writeln!(text, "manifest {}\nconfig {}", own(&manifest_text), own(&config_text));
    text
}

/// A file of each kind that is rewritten after a step.
fn manifests() -> String {
    let dir = tempfile::tempdir().expect("a directory");
    // {26, 1795000001, #{b => 1, a => 2}}, as `term_to_binary` writes it.
    let term = [
        &[131, 104, 3, 97, 26, 98][..],
        &1_795_000_001_i32.to_be_bytes(),
        &[116, 0, 0, 0, 2, 119, 1, b'b', 97, 1, 119, 1, b'a', 97, 2],
    ]
    .concat();
    let files = ["_build/prod/lib/a/.mix/compile.elixir", "_build/prod/lib/a/.mix/compile.protocols", "deps/d/.hex"];
    for name in files {
        let path = dir.path().join("app").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, &term).expect("a file");
    }
    let windows = [(1_795_000_000, 1_795_000_100); 2];
    let options = NormalizeOptions { mtime: 1_700_000_000, windows, part: Part::Deps, lock: "" };
    normalize(&TreeDir::open(dir.path()).expect("open"), "app", &options).expect("a normal form");
    let line =
        |name: &str| format!("{name} {}\n", Digest::of(&fs::read(dir.path().join("app").join(name)).expect("a file")));
    files.map(line).concat()
}
