//! `phial diff`: what differs between two images or layers, and why.

mod cause;
mod errors;
pub(crate) mod handmade_images;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use insta::assert_snapshot;
use phial::image::ImageOptions;
use phial_layers::Compression;
use serde_json::Value;

use self::handmade_images::{Entry, image, layer, packed, plain, tar, texts};
use crate::harness::busybox::busybox_base;
use crate::harness::{Registry, TestEnv, in_rootfs, run};

/// What `phial diff` prints of a difference.
#[track_caller]
fn different(env: &TestEnv, args: &[&str]) -> String {
    let ran = run(env.phial([&["diff"], args].concat()));
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

#[test]
fn every_way_in_which_a_file_can_differ_is_named() {
    let env = TestEnv::new();
    let one = tar(&[
        Entry::dir("app"),
        Entry::file("app/content", "one"),
        Entry::file("app/mode", "x"),
        Entry::file("app/owner", "x"),
        Entry::file("app/time", "x"),
        Entry::file("app/xattr", "x").xattr("user.note", "a"),
        Entry::file("app/kind", "x"),
        Entry::link("app/link", "content"),
        Entry::file("app/gone", "of the first alone"),
        Entry::file("app/hidden", "x"),
        Entry::dir("app/opaque"),
        Entry::file("app/same", "x"),
        Entry::file("app/n\u{e9}\n", "x"),
    ]);
    let other = tar(&[
        Entry::dir("app"),
        Entry::file("app/content", "other"),
        Entry::file("app/mode", "x").mode(0o4755),
        Entry::file("app/owner", "x").owner(65532, 7),
        Entry::file("app/time", "x").mtime(1_700_000_001),
        Entry::file("app/xattr", "x").xattr("user.note", "b"),
        Entry::link("app/kind", "x"),
        Entry::link("app/link", "/app/content"),
        Entry::file("app/.wh.hidden", ""),
        Entry::dir("app/opaque"),
        Entry::file("app/opaque/.wh..wh..opq", ""),
        Entry::file("app/same", "x"),
        Entry::file("app/n\u{e9}\n", "y").mode(0o600),
        Entry::file("app/new", "of the second alone"),
    ]);
    let of = |name: &str, tar: &[u8]| image(&env, name, &[layer("phial app", tar)], &plain());
    let (one, other) = (of("one", &one), of("other", &other));
    assert_snapshot!(different(&env, &[&one, &other]), @r"
    layer app changed: 12 files
      ~ app/content  content (3 -> 5 bytes)
      - app/gone
      ~ app/hidden  whiteout added
      ~ app/kind  type file -> symlink
      ~ app/link  link `content` -> `/app/content`
      ~ app/mode  mode 0644 -> 4755
      + app/new
      ~ app/n%c3%a9%0a  content (1 bytes), mode 0644 -> 0600
      ~ app/opaque  opaque whiteout added
      ~ app/owner  owner 0:0 -> 65532:7
      ~ app/xattr  xattr `user.note`
      ~ 1 file differs in its time alone
    ");
    let output = different(&env, &["--times", &one, &other]);
    assert!(output.contains("\n  ~ app/time  time 1700000000 -> 1700000001\n"), "{output}");
}

#[test]
fn the_same_image_is_the_same_wherever_it_is() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let base = format!("oci:{}", busybox_base().display());
    let (archive, pushed) = (format!("oci-archive:{}", env.path("base.tar")), registry.reference("base:1"));
    let app = env.shell_app();
    for to in [&archive, &pushed] {
        run(env.phial(["build", app.source(), "--base", &base, "--to", to])).ok();
    }
    assert_eq!(run(env.phial(["diff", &archive, &pushed])).ok(), "no difference");
    let blobs =
        registry.requests().iter().filter(|request| request.starts_with("GET") && request.contains("/blobs/")).count();
    assert_eq!(blobs, 1, "only the config is fetched: {:?}", registry.requests());
}

#[test]
fn two_commits_differ_in_the_layers_that_follow_from_what_changed() {
    let env = TestEnv::new();
    let base = format!("oci:{}", busybox_base().display());
    let app = env.shell_app();
    let mut built = vec![];
    for text in ["1.0\n", "1.1\n"] {
        app.write("VERSION", text);
        app.git(["commit", "-q", "-a", "--allow-empty", "-m", "A version"]);
        let to = format!("oci:{}", env.path(text.trim()));
        run(env.phial(["build", app.source(), "--base", &base, "--to", &to])).ok();
        built.push(to);
    }
    let output = different(&env, &[&built[0], &built[1]]);
    let layers: Vec<&str> = output.lines().filter(|line| line.starts_with("layer ")).collect();
    assert_eq!(
        layers,
        [
            "layer base same",
            "layer deps changed: 1 file",
            "layer app changed: 1 file",
            "layer build prod changed: 1 file"
        ]
    );
    for line in [
        "  ~ app/VERSION  content (4 bytes)",
        "  ~ app/vendor/part  content (4 bytes)",
        "  ~ app/out/prod/app  content (12 bytes)",
    ] {
        assert!(output.lines().any(|output| output.starts_with(line)), "{line}:\n{output}");
    }
    assert!(output.contains("manifest annotations.org.opencontainers.image.revision: "), "{output}");
    let record = output.lines().filter_map(|line| line.split_once(".dev.phial.record.")?.1.split_once(": "));
    let fields: Vec<&str> = record.map(|(field, _)| field).collect();
    assert_eq!(fields, ["commit", "deps_cache"], "what a label says in JSON is compared field by field: {output}");
}

#[test]
fn a_layer_that_both_have_is_not_read() {
    let env = TestEnv::with_empty_cache();
    let shared = layer("debian", &tar(&[Entry::file("etc/big", "the same")]));
    let of = |name: &str, text: &str| {
        image(&env, name, &[shared.clone(), layer("phial app", &tar(&[Entry::file("app/a", text)]))], &plain())
    };
    let (one, other) = (of("one", "1"), of("other", "2"));
    for name in ["one", "other"] {
        fs::remove_file(env.dir().join(name).join("blobs/sha256").join(shared.digest.hex())).unwrap();
    }
    let output = different(&env, &[&one, &other]);
    assert!(output.contains("layer 1 same\nlayer app changed: 1 file\n  ~ app/a  content (1 bytes)\n"), "{output}");
}

#[test]
fn layers_come_go_change_places_and_are_compressed_otherwise() {
    let env = TestEnv::new();
    let (low, high) = (tar(&[Entry::file("low", "1")]), tar(&[Entry::file("high", "2")]));
    let (moved, stays) = (Entry::file("app/moved", "the same bytes"), Entry::file("app/stays", "x"));
    let both = tar(&[moved.clone(), stays.clone()]);
    let one = [
        layer("low", &low),
        layer("high", &high),
        layer("phial deps", &both),
        layer("phial app", &tar(&[Entry::dir("app")])),
    ];
    let other = [
        layer("high", &high),
        packed("low", &low, Compression::Zstd),
        layer("phial deps", &tar(&[stays])),
        layer("phial build prod", &tar(&[moved, Entry::file("app/extra", "only here")])),
    ];
    let (one, other) = (image(&env, "one", &one, &plain()), image(&env, "other", &other, &plain()));
    assert_snapshot!(different(&env, &[&one, &other]), @r"
    config history[0].created_by: low -> high
    config history[1].created_by: high -> low
    config history[3].created_by: phial app -> phial build prod
    layer 1 same
    layer 2 same (the same files, compressed differently, another place in the order of layers, descriptor: mediaType: application/vnd.oci.image.layer.v1.tar+gzip -> application/vnd.oci.image.layer.v1.tar+zstd)
    layer deps changed: 1 file
      - app/moved  same content as `app/moved` in layer `build prod` of the second
    layer build prod added: 2 files
      + app/extra
      + app/moved  same content as `app/moved` in layer `deps` of the first
    layer app removed: 1 file
      - app
    ");
}

#[test]
fn config_and_manifest_are_compared_field_by_field_and_no_secret_is_printed() {
    let env = TestEnv::new();
    let app = [layer("phial app", &tar(&[Entry::file("a", "1")]))];
    let one = ImageOptions {
        env: texts([("MIX_ENV", "prod"), ("SECRET_KEY_BASE", "abcdef")]),
        labels: texts([("tier", "web")]),
        annotations: texts([("rev", "1")]),
        ..plain()
    };
    let other = ImageOptions {
        env: texts([("MIX_ENV", "staging"), ("SECRET_KEY_BASE", "fedcba")]),
        created: 1_700_000_001,
        cmd: Some(vec!["other".into(), "way".into()]),
        annotations: texts([("rev", "2")]),
        ..plain()
    };
    let (one, other) = (image(&env, "one", &app, &one), image(&env, "other", &app, &other));
    let output = different(&env, &[&one, &other]);
    assert_snapshot!(output, @r#"
    manifest annotations.rev: 1 -> 2
    config config.Cmd: ["run"] -> ["other","way"]
    config config.Env.MIX_ENV: prod -> staging
    config config.Env.SECRET_KEY_BASE: (not shown) -> (not shown)
    config config.Labels.tier: web -> nothing
    config created: 2023-11-14T22:13:20Z -> 2023-11-14T22:13:21Z, and so in 1 entry of the history
    layer app same
    "#);
    let json = different(&env, &["--json", &one, &other]);
    assert!(!json.contains("abcdef") && !json.contains("fedcba"), "{json}");
}

#[test]
fn dependencies_go_up_and_down() {
    let env = TestEnv::new();
    let lock = |jason: &str| {
        let text = format!(
            "%{{\n  \"jason\": {{:hex, :jason, \"{jason}\", \"aa\", [:mix], [], \"hexpm\", \"bb\"}},\n  \"plug\": {{:hex, :plug, \"1.0.0\", \"aa\", \
             [:mix], [], \"hexpm\", \"bb\"}},\n}}\n"
        );
        layer("phial app", &tar(&[Entry::file("app/mix.lock", &text)]))
    };
    let (one, other) =
        (image(&env, "one", &[lock("1.4.4")], &plain()), image(&env, "other", &[lock("1.4.5")], &plain()));
    assert!(different(&env, &[&one, &other]).ends_with("\ndependency jason 1.4.4 -> 1.4.5\n"));
    assert!(different(&env, &[&other, &one]).ends_with("\ndependency jason 1.4.5 -> 1.4.4 (down)\n"));
}

/// The module, compiled by the base's own `erlc` with these options.
fn beam(env: &TestEnv, name: &str, source: &str, options: &[&str]) -> Vec<u8> {
    let dir = env.dir().join(name);
    fs::create_dir(&dir).expect("a module");
    fs::write(dir.join("m.erl"), source).expect("a module");
    run(in_rootfs(&dir, [&["erlc", "+deterministic"], options, &["m.erl"]].concat(), &BTreeMap::new())).ok();
    fs::read(dir.join("m.beam")).expect("a module")
}

#[test]
fn of_a_beam_file_the_chunks_are_named_and_whether_the_code_is_the_same() {
    let env = TestEnv::new();
    let source = "-module(m).\n-export([f/0]).\nf() -> one.\n";
    let unlike = beam(&env, "plain", source, &[]);
    let cases = [
        ("debug", beam(&env, "debug", source, &["+debug_info"]), "chunk `Dbgi` (the code is the same)"),
        ("atom", beam(&env, "atom", &source.replace("one", "two"), &[]), "chunks `AtU8`, `Attr`"),
        (
            "packed",
            beam(&env, "packed", source, &["+compressed", "+debug_info"]),
            "chunk `Dbgi` (the code is the same)",
        ),
        ("torn", unlike[..unlike.len() - 8].to_vec(), "content ("),
    ];
    let of = |name: &str, beam: &[u8]| {
        image(
            &env,
            &format!("{name}.oci"),
            &[layer("phial build prod", &tar(&[Entry::file("app/m.beam", beam)]))],
            &plain(),
        )
    };
    let one = of("plain", &unlike);
    for (name, beam, expected) in cases {
        let output = different(&env, &[&one, &of(name, &beam)]);
        assert!(
            output.contains(&format!("layer build prod changed: 1 file\n  ~ app/m.beam  {expected}")),
            "{name}: {output}"
        );
    }
}

#[test]
fn one_layer_is_named_by_name_number_or_digest_or_is_a_file() {
    let env = TestEnv::new();
    let (low, one, other) =
        (tar(&[Entry::file("low", "")]), tar(&[Entry::file("a", "1")]), tar(&[Entry::file("a", "2")]));
    let upper = layer("phial app", &one);
    let (left, right) = (
        image(&env, "one", &[layer("low", &low), upper.clone()], &plain()),
        image(
            &env,
            "other",
            &[layer("low", &low), layer("phial deps", &other)],
            &ImageOptions { created: 1, ..plain() },
        ),
    );
    let expected = "layer deps changed: 1 file\n  ~ a  content (1 bytes)\n";
    for of_left in ["app", "2", upper.digest.as_str(), upper.diff_id.0.as_str()] {
        assert_eq!(
            different(&env, &[&left, &right, "--layer", of_left, "--other-layer", "deps"]),
            expected,
            "{of_left}"
        );
    }
    assert_eq!(run(env.phial(["diff", &left, &right, "--layer", "1"])).ok(), "no difference");
    fs::write(env.path("a.tar"), &one).unwrap();
    assert_eq!(
        different(&env, &[&left, "./a.tar", "--layer", "app"]),
        "layer ./a.tar same (the same files, compressed differently)\n"
    );
    fs::write(env.path("b.tar"), &other).unwrap();
    assert_eq!(different(&env, &["./a.tar", &env.path("b.tar")]).lines().nth(1), Some("  ~ a  content (1 bytes)"));
}

#[test]
fn the_same_files_in_another_order_or_with_other_headers_are_distinguished() {
    let env = TestEnv::new();
    let (a, b) = (Entry::file("a", "1"), Entry::file("b", "2"));
    for (name, entries) in [
        ("one", vec![a.clone(), b.clone()]),
        ("order", vec![b, a.clone()]),
        ("named", vec![a.user("root"), Entry::file("b", "2")]),
    ] {
        fs::write(env.path(name), tar(&entries)).unwrap();
    }
    let output = different(&env, &["./one", "./order"]);
    assert_eq!(output, "layer ./order changed (the same files in another order)\n");
    let output = different(&env, &["./one", "./named"]);
    assert!(output.contains("the encoding of the tar differs"), "{output}");
}

#[test]
fn memory_does_not_grow_with_the_size_of_a_file() {
    let env = TestEnv::new();
    let size = 256_u64 << 20;
    for (name, last) in [("one", b'1'), ("other", b'2')] {
        let mut header = tar::Header::new_ustar();
        header.set_path("big").unwrap();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        let file = fs::File::create(env.path(name)).unwrap();
        file.write_all_at(header.as_bytes(), 0).unwrap();
        file.write_all_at(&[last], 512 + size - 1).unwrap();
        file.set_len(512 + size + 1024).unwrap();
    }
    let mut diff = Command::new("sh");
    let phial = env.phial(["diff", "./one", "./other"]);
    // Private memory that can be written, in KiB: a third of one side.
    diff.args(["-c", "ulimit -d 80000; exec \"$0\" \"$@\""]).arg(phial.get_program()).args(phial.get_args());
    diff.env_clear().envs(phial.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(env.dir());
    let ran = run(diff);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(1), "layer ./other changed: 1 file\n  ~ big  content (268435456 bytes)\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn json_has_the_same_for_programs() {
    let env = TestEnv::new();
    let of = |name: &str, text: &str, mode| {
        image(&env, name, &[layer("phial app", &tar(&[Entry::file("app/a", text).mode(mode)]))], &plain())
    };
    let (one, other) = (of("one", "1", 1), of("other", "22", 2));
    let json: Value = serde_json::from_str(&different(&env, &["--json", &one, &other])).unwrap();
    assert_eq!(json["same"], false);
    assert_eq!(json["layers"][0]["status"], "changed");
    let file = &json["layers"][0]["files"][0];
    assert_eq!((&file["path"], &file["change"]), (&"app/a".into(), &"changed".into()));
    assert_eq!(
        file["why"].to_string(),
        r#"[{"left":1,"right":2,"what":"content"},{"left":1,"right":2,"what":"mode"}]"#
    );
    let same: Value = serde_json::from_str(&run(env.phial(["diff", "--json", &one, &one])).ok()).unwrap();
    assert_eq!(same["same"], true);
}
