//! `phial build` with real apps over a real Elixir base: one digest, whatever the circumstances; nothing done twice.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::busybox::busybox_base;
use crate::harness::git_http::GitServer;
use crate::harness::prebuilt::elixir_base;
use crate::harness::skip::skip;
use crate::harness::{self, Repo, TestEnv, User, hex_registry, run};

/// The base, as the command line names it.
fn elixir() -> String {
    format!("oci:{}", elixir_base().display())
}

fn digest_of(line: &str) -> String {
    line.rsplit_once('@').expect("TARGET@digest").1.to_owned()
}

/// Builds `repo` to a layout of its own; the digest.
fn build(env: &TestEnv, repo: &Repo, name: &str, more: &[&str]) -> (String, String) {
    build_with(env, repo, name, more, |command| command)
}

fn build_with(
    env: &TestEnv,
    repo: &Repo,
    name: &str,
    more: &[&str],
    adjust: impl FnOnce(&mut Command) -> &mut Command,
) -> (String, String) {
    let (base, to) = (elixir(), format!("oci:{}", env.path(name)));
    let mut command = env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--progress", "plain"]);
    command.args(more);
    adjust(&mut command);
    let ran = run(command);
    let output = ran.stderr.clone();
    (digest_of(&ran.ok()), output)
}

/// Builds the app; the image. `build_matrix` shows that its digest is the same in whatever way it is built.
fn built(app: &str) -> (TestEnv, String) {
    let env = TestEnv::new();
    let repo = env.app(app);
    build(&env, &repo, "image.oci", &[]);
    let image = format!("oci:{}", env.path("image.oci"));
    (env, image)
}

#[test]
fn versions_that_the_project_asks_for_are_compared_with_those_of_the_base() {
    let env = TestEnv::new();
    let repo = env.app("hello");
    repo.write(".tool-versions", "elixir 1.17.3-otp-27\nerlang 27.0\n");
    repo.commit("The versions of the team");
    let base = format!("oci:{}", elixir_base().display());
    let build = |more: &[&str]| {
        let arguments = ["build", repo.source(), "--base", &base, "--to", "oci:out"];
        run(env.phial([&arguments, more].concat()))
    };
    let built = build(&["--no-cache"]);
    let elixir = "`.tool-versions` asks for Elixir 1.17.3, and the base image has 1.18.";
    assert!(built.stderr.contains(elixir), "{}", built.stderr);
    assert!(!built.stderr.contains("asks for Erlang"), "27 is 27: {}", built.stderr);
    built.ok();
    let refused = build(&["--strict-versions"]).failed(2);
    assert!(refused.contains(&format!("error: {elixir}")) && refused.contains("hint: "), "{refused}");
    repo.write(".tool-versions", "elixir 1.18\nerlang 27\n");
    repo.commit("The versions of the base");
    build(&["--strict-versions"]).ok();
}

#[test]
fn an_app_without_packages_starts_without_compiling() {
    let (env, image) = built("hello");
    let output = run(env.phial(["run", &image, "--", "mix", "compile"]));
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), ""), "mix has nothing to compile: {}", output.stderr);
    let shown = "ls -ld _build && id -u && mix run --no-start -e 'IO.puts(Mix.env())'";
    let output = run(env.phial(["run", &image, "--read-only", "--", "sh", "-c", shown])).ok();
    assert!(output.ends_with("65532\nprod"), "{output}");
}

#[test]
fn an_umbrella_with_a_path_dependency_and_a_nif_runs() {
    let (env, image) = built("umbrella");
    let ran = run(env.phial(["run", &image]));
    assert!(!ran.stdout.contains("Compiling"), "{}", ran.stdout);
    let output = ran.ok();
    assert!(output.contains("left"), "{output}");
}

#[test]
fn an_app_with_a_script_of_its_own_loses_what_the_script_deleted() {
    let (env, image) = built("shell");
    let shown = "cat /etc/issue; test -e /etc/issue.net || echo gone; stat -c %h /opt/shell-app/note; ls -b out/prod";
    let output = run(env.phial(["run", &image, "--", "sh", "-c", shown])).ok();
    assert_eq!(output, "made by shell-app\ngone\n2\ncaf\\351\ndangling\npart\nserver.sh");
}

#[test]
fn hex_rebar3_and_git_dependencies_make_one_deps_layer_that_later_commits_take_from_the_cache() {
    let env = TestEnv::new();
    let hex = hex_registry();
    let repo = env.deps_app(&hex);
    let with_hex = |name: &str, more: &[&str]| build_with(&env, &repo, name, more, |c| c.envs(hex.env()));
    let (digest, _) = with_hex("first.oci", &[]);
    assert_eq!(with_hex("again.oci", &[]).0, digest);

    let image = format!("oci:{}", env.path("first.oci"));
    let output = run(env.phial(["run", &image])).ok();
    assert!(!output.contains("Compiling"), "{output}");

    let asked = hex.requests().len();
    repo.write("lib/more.ex", "defmodule Parts.More do\n  def more, do: :more\nend\n");
    repo.commit("Only the source");
    let (_, output) = with_hex("second.oci", &[]);
    assert!(output.lines().any(|line| line.starts_with("deps ") && line.contains("cached")), "{output}");
    assert_eq!(hex.requests().len(), asked, "a source-only change asks Hex nothing");
    let layers = |name: &str| layers(&env, name);
    let (before, after) = (layers("first.oci"), layers("second.oci"));
    assert_eq!(before[..2], after[..2], "base and deps are the same layers");
    assert_ne!(before[2], after[2]);
}

/// The digests of an image's layers, by skopeo.
fn layers(env: &TestEnv, name: &str) -> Vec<String> {
    let digests = skopeo_inspect(&["--format", "{{range .Layers}}{{.}} {{end}}"], &env.path(name));
    digests.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn without_a_network_an_app_without_packages_has_the_same_layers_and_its_deps_are_cached() {
    let env = TestEnv::new();
    let repo = env.app("hello");
    build(&env, &repo, "online.oci", &[]);
    let empty = TestEnv::with_elixir_base_in_cache();
    let (digest, _) = build(&empty, &repo, "offline.oci", &["--network", "none"]);
    let (again, _) = build(&env, &repo, "again.oci", &["--network", "none", "--no-cache"]);
    assert_eq!(again, digest);
    assert_eq!(layers(&empty, "offline.oci"), layers(&env, "online.oci"), "only the record names the network");

    repo.write("lib/more.ex", "defmodule Hello.More do\n  def more, do: :more\nend\n");
    repo.commit("Only the source");
    let (_, output) = build(&empty, &repo, "more.oci", &["--network", "none"]);
    assert!(output.lines().any(|line| line.starts_with("deps ") && line.contains("cached")), "{output}");
    let image = format!("oci:{}", empty.path("more.oci"));
    let output =
        run(empty.phial(["run", &image, "--", "mix", "run", "--no-start", "-e", "IO.puts(Hello.More.more())"]));
    assert_eq!(output.ok(), "more");
}

#[test]
fn without_a_network_no_package_is_requested_and_a_deps_layer_that_was_fetched_is_not_used() {
    let env = TestEnv::with_elixir_base_in_cache();
    let hex = hex_registry();
    let (repo, git) = env.deps_app_and_git(&hex);
    let offline = || {
        let (base, to) = (elixir(), format!("oci:{}", env.path("none.oci")));
        let mut build = env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--network", "none"]);
        build.envs(hex.env());
        run(build).failed(1)
    };
    let asked = || (hex.requests().len(), git.requests().len());
    let before = asked();
    assert!(offline().contains("the step `deps` failed"));
    assert_eq!(asked(), before, "servers on this machine are out of reach, too");
    build_with(&env, &repo, "online.oci", &[], |command| command.envs(hex.env()));
    let before = asked();
    assert!(offline().contains("the step `deps` failed"), "the network is an input of the deps layer");
    assert_eq!(asked(), before);
}

#[test]
fn without_a_network_a_step_sees_loopback_alone() {
    let env = TestEnv::new();
    let repo = env.app("shell");
    repo.script(
        "script/prepare_code",
        "#!/bin/sh\nset -eu\n[ \"$1\" = deps ] || exit 0\ncat /proc/net/dev /proc/net/route\n",
    );
    repo.commit("What there is of a network");
    let (_, output) = build(&env, &repo, "out.oci", &["--no-cache", "--network", "none"]);
    let seen: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix("deps | ")).collect();
    let devices: Vec<&str> = seen.iter().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    assert_eq!(devices, ["lo"], "{output}");
    assert!(seen.last().is_some_and(|line| line.starts_with("Iface")), "no route: {output}");
}

#[test]
fn the_environments_do_not_see_what_the_deps_step_may_not_see() {
    let env = TestEnv::new();
    let repo = env.app("hello");
    let mix = fs::read_to_string(repo.dir().join("mix.exs")).unwrap();
    repo.write("VERSION", "0.7.0\n");
    repo.write("mix.exs", mix.replace("version: \"0.1.0\"", "version: String.trim(File.read!(\"VERSION\"))"));
    repo.commit("The version from a file");
    let (base, to) = (elixir(), format!("oci:{}", env.path("out")));
    let args = ["build", repo.source(), "--base", &base, "--to", &to, "--progress", "plain"];
    let error = run(env.phial(args)).failed(1);
    assert!(error.contains("prepare.inputs"), "{error}");
    assert!(!Path::new(&env.path("out")).exists());
    repo.write("phial.toml", "[prepare]\ninputs = [\"VERSION\"]\n");
    repo.commit("Named");
    build(&env, &repo, "out", &[]);
}

#[test]
fn a_dirty_tree_is_built_from_its_commit_with_a_notice() {
    let env = TestEnv::new();
    let repo = env.app("shell");
    let (digest, _) = build(&env, &repo, "clean.oci", &[]);
    repo.write("VERSION", "9.9.9\n");
    let (dirty, output) = build(&env, &repo, "dirty.oci", &[]);
    assert_eq!(dirty, digest);
    assert!(output.contains("note: ") && output.contains("VERSION"), "{output}");
}

#[test]
fn an_ordinary_user_without_a_range_of_ids_builds_the_same_digest() {
    if !rustix::process::geteuid().is_root() {
        skip!("needs root: for an ordinary user every other test of this module is this one");
    }
    let env = TestEnv::new();
    let repo = env.app("shell");
    let (digest, _) = build(&env, &repo, "root.oci", &[]);
    let nobody = User::new(65534, &repo, &elixir_base());
    let ran = run(nobody.phial(&["build", "app", "--base", "oci:base", "--to", "oci:out"]));
    assert_eq!(digest_of(&ran.ok()), digest);
}

#[test]
fn a_url_and_a_bare_repository_give_the_digest_of_the_working_tree() {
    let env = TestEnv::new();
    let repo = env.shell_app();
    let from = format!("oci:{}", busybox_base().display());
    let digest = |source: &str| {
        let to = format!("oci:{}", env.path("out"));
        digest_of(&run(env.phial(["build", source, "--rev", "main", "--base", &from, "--to", &to])).ok())
    };
    let first = digest(repo.source());
    let served = env.dir().join("served");
    fs::create_dir(&served).expect("a folder");
    let bare = served.join("app.git");
    repo.git(["clone".as_ref(), "-q".as_ref(), "--bare".as_ref(), ".".as_ref(), bare.as_os_str()]);
    assert_eq!(digest(bare.to_str().expect("UTF-8")), first);
    let server = GitServer::start(&served);
    assert_eq!(digest(&format!("{}/app.git", server.url)), first);
}

#[test]
fn zstd_has_other_blobs_of_the_same_tars() {
    let env = TestEnv::new();
    let repo = env.shell_app();
    let from = format!("oci:{}", busybox_base().display());
    let build = |name: &str, compression: &str| {
        let to = format!("oci:{}", env.path(name));
        let args = ["build", repo.source(), "--base", &from, "--to", &to, "--compression", compression];
        run(env.phial(args)).ok();
        skopeo_inspect(&["--config", "--format", "{{.RootFS.DiffIDs}}"], &env.path(name))
    };
    assert_eq!(build("zstd", "zstd"), build("gzip", "gzip"));
    assert_eq!(run(env.phial(["run", &format!("oci:{}", env.path("zstd"))])).ok(), "prod of 1.0");
    assert_ne!(layers(&env, "zstd")[1..], layers(&env, "gzip")[1..]);
}

/// Gives a file another owner, which needs ids beyond one.
const CHOWN: &str =
    "#!/bin/sh\nset -eu\ncase \"$1\" in\nbuild) echo x >/root/x; chown 5:6 /root/x 2>/dev/null || : ;;\nesac\n";

#[test]
fn a_range_of_ids_keeps_owners_and_changes_nothing_else() {
    let env = TestEnv::new();
    let repo = env.shell_app();
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("phial.toml");
    let first = repo.git(["rev-parse", "HEAD"]);
    repo.script("script/prepare_code", CHOWN);
    repo.commit("Another owner");
    repo.write("range.toml", settings.replace("[prepare]\n", "[prepare]\nranges = true\n"));
    let root = rustix::process::geteuid().is_root();
    let user = User::new(
        if root { harness::user_with_subids() } else { rustix::process::getuid().as_raw() },
        &repo,
        &busybox_base(),
    );
    let build = |more: &[&str]| {
        let ran =
            run(user.phial(&[&["build", "app", "--base", "oci:base", "--to", "oci:out", "--no-cache"], more].concat()));
        let mapped = !ran.stderr.contains("one id is mapped");
        (digest_of(&ran.ok()), mapped)
    };
    let (one, _) = build(&["--rev", first.trim()]);
    let (range, mapped) = build(&["--rev", first.trim(), "--config", "app/range.toml"]);
    assert_eq!(range, one, "the same digest with a range and without");
    assert!(mapped || !root, "a user with a range gets it");

    build(&["--config", "app/range.toml"]);
    let manifest = skopeo_inspect(&["--format", "{{range .Layers}}{{.}} {{end}}"], &user.path("out"));
    let blob = manifest.trim().rsplit("sha256:").next().expect("a layer");
    let mut list = Command::new("tar");
    list.args(["-tvzf", &user.path(&format!("out/blobs/sha256/{blob}")), "--numeric-owner", "root/x"]);
    let line = run(list).ok();
    assert!(line.contains(if mapped { " 5/6 " } else { " 0/0 " }), "{line}");
    let left = fs::read_dir(user.path("cache/scratch")).expect("scratch").count();
    assert_eq!(left, 0, "nothing stays in the cache that its owner may not remove");
}

fn skopeo_inspect(more: &[&str], layout: &str) -> String {
    let mut skopeo = Command::new("skopeo");
    skopeo.arg("inspect").args(more).arg(format!("oci:{layout}"));
    run(skopeo).ok()
}

#[test]
fn the_digest_goes_to_a_file_and_json_has_the_keys_of_every_layer() {
    let env = TestEnv::new();
    let repo = env.app("shell");
    let file = env.path("digest");
    let (digest, _) = build(&env, &repo, "out.oci", &["--digest-file", &file]);
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), digest);
    let (base, to) = (elixir(), format!("oci:{}", env.path("out.oci")));
    let out = run(env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--json"])).ok();
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["digest"], digest);
    let deps = &json["layers"][0];
    assert_eq!((deps["name"].as_str(), deps["cached"].as_bool()), (Some("deps"), Some(true)));
    let inputs = deps["key"]["inputs"].as_object().unwrap();
    assert!(inputs.contains_key("file VERSION") && inputs.contains_key("base"), "{inputs:?}");
    assert!(!inputs.keys().any(|name| name.contains("server.sh")), "{inputs:?}");
}

#[test]
fn a_target_that_names_another_digest_is_refused() {
    let env = TestEnv::new();
    let repo = env.app("shell");
    let wrong = format!("oci:{}@sha256:{}", env.path("out"), "0".repeat(64));
    let error = run(env.phial(["build", repo.source(), "--base", &elixir(), "--to", &wrong])).failed(3);
    assert!(error.contains("requires `sha256:000"), "{error}");
    assert!(!Path::new(&env.path("out")).exists());
}

#[test]
fn a_script_of_the_repository_calls_the_built_in_one_and_adds_to_it() {
    let env = TestEnv::with_elixir_base_in_cache();
    let repo = env.app("hello");
    let mix = fs::read_to_string(repo.dir().join("mix.exs")).expect("mix.exs");
    assert!(mix.contains("deps: "), "{mix}");
    let alias = "aliases: [\"assets.deploy\": [fn _ -> File.write!(\"priv/#{Mix.env()}.css\", \"a{}\") end]], deps: ";
    repo.write("mix.exs", mix.replacen("deps: ", alias, 1));
    repo.write("priv/robots.txt", "");
    repo.commit("Assets");
    let to = format!("oci:{}", env.path("out"));
    let build = || run(env.phial(["build", repo.source(), "--base", &elixir(), "--to", &to]));
    let built = build();
    assert!(built.stderr.contains("`assets.deploy`, which is not run"), "{}", built.stderr);
    built.ok();
    let document =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).expect("a page");
    let script = document.split_once("```bash\n").and_then(|(_, rest)| rest.split_once("```")).expect("a script").0;
    repo.script("script/prepare_code", script);
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
    let prepare = "[prepare]\nscript = \"script/prepare_code\"\ninputs = [\"mix.exs\", \"config\"]";
    repo.write("phial.toml", settings.replace("[prepare]", prepare));
    repo.commit("A script");
    let built = build();
    assert!(!built.stderr.contains("assets.deploy"), "{}", built.stderr);
    built.ok();
    let list = "ls priv; mix run --no-compile --no-start -e 'IO.puts(Mix.env())'";
    let output = run(env.phial(["run", "--progress", "quiet", &to, "--", "sh", "-c", list])).ok();
    assert_eq!(output, "prod.css\nrobots.txt\nstaging.css\nprod");
}
