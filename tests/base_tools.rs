//! Programs that the base image lacks, downloads each day again, or has where the image's user does not reach them. Mix is a
//! script here.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::busybox::busybox_base_with;
use crate::harness::edit_image::edit_config;
use crate::harness::{Output, Repo, TestEnv, run};

/// Downloads what `HEX_BUILDS_URL` ends with, as if that were the newest Hex of the day; a version that is named comes before it.
const MIX: &str = r#"#!/bin/sh
set -eu
case "$1" in
local.hex)
    version=${HEX_BUILDS_URL##*/}
    case "$2" in --*) ;; *) version=$2 ;; esac
    mkdir -p "$MIX_HOME/archives/hex-$version-otp-27/ebin"
    echo "$version" >"$MIX_HOME/archives/hex-$version-otp-27/ebin/hex.app" ;;
local.rebar)
    mkdir -p "$MIX_HOME/elixir/1-18-otp-27"
    echo rebar3 >"$MIX_HOME/elixir/1-18-otp-27/rebar3"
    chmod 755 "$MIX_HOME/elixir/1-18-otp-27/rebar3" ;;
deps.get) mkdir -p deps/a; echo >deps/a/rebar.config ;;
deps.compile | compile) mkdir -p "_build/$MIX_ENV"; echo "$1" >"_build/$MIX_ENV/$1" ;;
esac
"#;

fn base_with_mix(env: &TestEnv, mix: &str) -> PathBuf {
    busybox_base_with(env, &[("bin/erl", "#!/bin/sh\n"), ("bin/mix", mix)])
}

/// An app with a package of Hex that rebar3 compiles.
fn app(env: &TestEnv, prepare: &str) -> Repo {
    let repo = env.shell_app();
    repo.write("mix.exs", "");
    repo.write("mix.lock", "%{\"a\": {:hex, :a, \"1.0.0\"}}\n");
    settings(&repo, prepare);
    repo
}

fn settings(repo: &Repo, prepare: &str) {
    let image = "[image]\nenvs = [\"prod\"]\ncmd = [\"cat\", \"mix.exs\"]\n";
    repo.write("phial.toml", format!("{image}\n[prepare]\n{prepare}\n"));
    repo.commit("The settings");
}

/// A build on a day on which `newest` is the newest Hex.
fn build(env: &TestEnv, repo: &Repo, base: &Path, newest: &str) -> Output {
    let (from, to) = (format!("oci:{}", base.display()), format!("oci:{}", env.path("out")));
    let mut build = env.phial(["build", repo.source(), "--base", &from, "--to", &to, "--json", "--progress", "plain"]);
    build.env("HEX_BUILDS_URL", format!("http://localhost/{newest}"));
    run(build)
}

/// What stderr says, and the report.
fn report(built: Output) -> (String, serde_json::Value) {
    let stderr = built.stderr.clone();
    (stderr, serde_json::from_str(&built.ok()).expect("a report"))
}

#[test]
fn a_hex_that_is_downloaded_is_reported_and_can_be_pinned() {
    let env = TestEnv::with_empty_cache();
    let base = base_with_mix(&env, MIX);
    let repo = app(&env, "");
    let (stderr, json) = report(build(&env, &repo, &base, "2.0.7"));
    assert!(stderr.contains("Hex 2.0.7 was downloaded") && stderr.contains("`prepare.hex = \"2.0.7\"`"), "{stderr}");
    assert!(stderr.contains("rebar3 (`sha256:"), "{stderr}");
    assert_eq!(json["downloads"]["hex"], "2.0.7", "{json}");
    let rebar3 = phial_layers::Digest::of(b"rebar3\n").to_string();
    assert_eq!(json["downloads"]["rebar3"], rebar3.as_str(), "{json}");
    let (stderr, json) = report(build(&env, &repo, &base, "2.0.8"));
    assert!(!stderr.contains("downloaded") && json["downloads"] == serde_json::json!({}), "cached: {stderr}");

    settings(&repo, "hex = \"2.0.6\"");
    let (stderr, json) = report(build(&env, &repo, &base, "2.0.7"));
    assert!(!stderr.contains("Hex 2.0.6 was downloaded"), "{stderr}");
    assert_eq!(json["downloads"]["hex"], "2.0.6", "{json}");
    assert_eq!(json["layers"][0]["key"]["inputs"]["hex"], "2.0.6", "{json}");
    let digest = json["digest"].clone();
    let mut again = env.phial(["build", repo.source(), "--base", &format!("oci:{}", base.display()), "--no-cache"]);
    again.env("HEX_BUILDS_URL", "http://localhost/2.0.9");
    assert!(run(again).ok().ends_with(digest.as_str().expect("a digest")), "another day");
}

#[test]
fn a_mix_that_takes_no_version_of_hex_is_an_error() {
    let env = TestEnv::with_empty_cache();
    let base = base_with_mix(&env, &MIX.replace("version=$2", ":"));
    let repo = app(&env, "hex = \"2.0.6\"");
    let stderr = build(&env, &repo, &base, "2.0.7").failed(2);
    assert!(stderr.contains("error: `prepare.hex` is 2.0.6, and Mix downloaded Hex 2.0.7"), "{stderr}");
    assert!(stderr.contains("hint: ") && stderr.contains("a base image that has Hex 2.0.6"), "{stderr}");
    assert!(!Path::new(&env.path("out")).exists());
}

#[test]
fn what_is_copied_from_the_home_of_the_base_is_no_download() {
    let env = TestEnv::with_empty_cache();
    let missing = MIX.replace("local.hex)", "local.hex) exit 0 ;;\nother)");
    let files = [
        ("bin/cp", "#!/bin/sh\nexec busybox cp \"$@\"\n"),
        ("bin/erl", "#!/bin/sh\n"),
        ("bin/mix", missing.as_str()),
        ("root/.mix/archives/hex-2.0.5/ebin/hex.app", ""),
        ("root/.mix/elixir/1-18-otp-27/rebar3", "#!/bin/sh\n"),
    ];
    for (path, _) in files {
        let path = env.dir().join("rootfs").join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    }
    let base = busybox_base_with(&env, &files);
    let (stderr, json) = report(build(&env, &app(&env, ""), &base, "2.0.7"));
    assert!(!stderr.contains("downloaded") && json["downloads"] == serde_json::json!({}), "{stderr}{json}");
}

#[test]
fn hex_in_the_home_of_the_bases_user_is_found_also_beside_a_mix_home_without_it() {
    // Mix with Hex, where it looks for it, and no way to download one.
    let mix = MIX.replace(
        "local.hex)",
        "local.hex) ls \"$MIX_HOME\"/archives/hex-* >&2 && exit 0; echo 'Could not install Hex' >&2; exit 1 ;;\nother)",
    );
    for (name, user, home) in
        [("named", "app", "home/app"), ("numbered", "1000:1000", "home/app"), ("root", "", "root")]
    {
        let env = TestEnv::with_empty_cache();
        let hex = format!("{home}/.mix/archives/hex-2.0.5/ebin/hex.app");
        let files = [
            ("bin/cp", "#!/bin/sh\nexec busybox cp \"$@\"\n"),
            ("bin/erl", "#!/bin/sh\n"),
            ("bin/mix", mix.as_str()),
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"),
            (hex.as_str(), "the user's"),
            ("opt/mix/elixir/1-18-otp-27/rebar3", "#!/bin/sh\n"),
        ];
        for (path, _) in files {
            let path = env.dir().join("rootfs").join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        }
        let base = busybox_base_with(&env, &files);
        edit_config(&base, |config| config["config"]["User"] = user.into());
        let (stderr, json) = report(build(&env, &app(&env, ""), &base, "2.0.7"));
        assert!(!stderr.contains("downloaded") && json["downloads"] == serde_json::json!({}), "{name}: {stderr}{json}");
        let inside = ["run", "oci:out", "--", "cat", "/opt/mix/archives/hex-2.0.5/ebin/hex.app"];
        assert_eq!(run(env.phial(inside)).ok(), "the user's", "{name}");
    }
}

#[test]
fn another_hex_on_another_day_is_the_reason_that_an_image_is_not_verified() {
    let env = TestEnv::with_empty_cache();
    let base = format!("oci:{}", base_with_mix(&env, MIX).display());
    let repo = app(&env, "");
    report(build(&env, &repo, Path::new(&base["oci:".len()..]), "2.0.6"));
    let to = format!("oci:{}", env.path("out"));
    let mut verify = env.phial(["verify", &to, "--source", repo.source(), "--base", &base]);
    verify.env("HEX_BUILDS_URL", "http://localhost/2.0.7");
    let stderr = run(verify).failed(8);
    assert!(stderr.contains("hint: Hex and rebar3 that the base image lacks are downloaded"), "{stderr}");
    assert!(stderr.contains("`prepare.hex`"), "{stderr}");
}

#[test]
fn a_program_that_elixir_does_not_find_in_the_base_is_named() {
    let env = TestEnv::with_empty_cache();
    let trace = r#"deps.compile)
        echo "** (ErlangError) Erlang error: :enoent" >&2
        echo "    (elixir 1.18.3) lib/system.ex:1114: System.cmd(\"make\", [\"-s\"], [cd: \"/app/deps/a/c_src\"])" >&2
        exit 1 ;;
    never"#;
    let base = base_with_mix(&env, &MIX.replace("deps.compile", trace));
    let stderr = build(&env, &app(&env, ""), &base, "2.0.7").failed(1);
    let hint = "hint: add `make` to the base image: it has none, and a dependency needs it; one of `phial base debian --for elixir` has it";
    assert!(stderr.contains(hint), "{stderr}");
}

/// A base with `serve` in `/root/tools/bin` and a link to it in `/bin`, where only root may enter `/root`, as asdf and mise
/// leave it.
fn base_with_closed_home(env: &TestEnv) -> PathBuf {
    let root = env.dir().join("rootfs");
    fs::create_dir_all(root.join("root/tools/bin")).expect("a directory");
    busybox_base_with(env, &[("root/tools/bin/serve", "#!/bin/sh\necho serving\n")]);
    std::os::unix::fs::symlink("/root/tools/bin/serve", root.join("bin/linked")).expect("a link");
    let mut open = Command::new("chmod");
    open.args(["-R", "go+rX,go-w"]).arg(&root);
    run(open).ok();
    fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700)).expect("its mode");
    let (tar, base) = (env.path("closed.tar"), env.dir().join("closed"));
    let mut pack = Command::new("tar");
    pack.args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--directory"]);
    pack.arg(&root).arg("--file").arg(&tar).arg(".");
    run(pack).ok();
    run(env.phial(["base", "import", &tar, "--to", &format!("oci:{}", base.display())])).ok();
    base
}

#[test]
fn a_command_that_the_images_user_does_not_reach_is_refused() {
    let env = TestEnv::with_empty_cache();
    let base = base_with_closed_home(&env);
    let repo = env.shell_app();
    let script = "[prepare]\nscript = \"script/prepare_code\"\ninputs = [\"VERSION\"]\n";
    let set = |image: &str| {
        repo.write("phial.toml", format!("[image]\nenvs = [\"prod\"]\n{image}\n{script}"));
        repo.commit("The settings");
    };
    let path = "env = { PATH = \"/root/tools/bin:/bin\" }";
    let (by_path, linked) = (format!("cmd = [\"serve\"]\n{path}"), "cmd = [\"linked\"]".to_owned());
    for image in [by_path.clone(), linked, "entrypoint = [\"/bin/linked\"]".into()] {
        set(&image);
        for state in ["built", "cached"] {
            let stderr = build(&env, &repo, &base, "2.0.7").failed(2);
            let error = "error: the image cannot start: its user `65532:65532` may not enter `/root` (mode 0700), which is on the way to `/";
            assert!(stderr.contains(error), "{image} {state}: {stderr}");
            assert!(stderr.contains("hint: ") && stderr.contains("`chmod 755 /root`"), "{stderr}");
            assert!(!Path::new(&env.path("out")).exists(), "nothing goes to a target");
        }
    }
    for image in [format!("user = \"0\"\n{by_path}"), format!("cmd = [\"cat\"]\n{path}"), "cmd = [\"mounted\"]".into()]
    {
        set(&image);
        let ran = build(&env, &repo, &base, "2.0.7");
        assert_eq!(ran.code, Some(0), "{image}: {}", ran.stderr);
    }
}
