//! An app in a directory of its repository: built from where one stands, with what it needs beside it and nothing else.

use std::fs;

use crate::harness::busybox::busybox_base;
use crate::harness::git_http::GitServer;
use crate::harness::prebuilt::elixir_base;
use crate::harness::{Output, Repo, TestEnv, run};

const SCRIPT: &str = "#!/bin/sh\npwd >&2\nmkdir -p out\nfind /app -type f >\"out/$1\"\n";

/// A repository with an app in the root and two in directories, one of which has a path dependency.
fn monorepo(env: &TestEnv) -> Repo {
    let repo = Repo::at(&env.dir().join("mono"));
    fs::create_dir(repo.dir()).expect("a directory");
    repo.git(["init", "-q", "-b", "main"]);
    for dir in ["", "services/cart/", "services/other/"] {
        repo.write(&format!("{dir}phial.toml"), "[prepare]\nscript = \"run\"\n");
        repo.write(&format!("{dir}run"), SCRIPT);
        repo.write(&format!("{dir}mix.exs"), "none\n");
    }
    repo.write("services/cart/mix.exs", "{:shared, path: \"../../libs/shared\"}\n");
    repo.write("services/cart/lib/cart.ex", "1\n");
    repo.write("libs/shared/mix.exs", "{:base, path: \"../base\"}\n");
    repo.write("libs/base/mix.exs", "none\n");
    repo.git(["add", "--all"]);
    repo.git(["update-index", "--chmod=+x", "run", "services/cart/run", "services/other/run"]);
    repo.git(["commit", "-q", "-m", "The first commit"]);
    for dir in ["", "services/cart/", "services/other/"] {
        let path = repo.dir().join(format!("{dir}run"));
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    }
    repo
}

fn build(env: &TestEnv, repo: &Repo, at: &str, more: &[&str]) -> Output {
    let (from, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let mut build = env.phial(["build", "--base", &from, "--to", &to, "--env", "prod", "--progress", "plain"]);
    build.args(more).current_dir(repo.dir().join(at));
    run(build)
}

#[test]
fn the_app_where_one_stands_is_built_with_its_path_dependencies_alone() {
    let env = TestEnv::with_empty_cache();
    let repo = monorepo(&env);
    repo.write("services/other/mix.exs", "changed\n");
    let built = build(&env, &repo, "services/cart/lib", &[]);
    assert!(
        built.stderr.contains("/app/services/cart") && !built.stderr.contains("changes of the working tree"),
        "{built:?}"
    );
    let digest = built.ok();
    assert_eq!(build(&env, &repo, "", &["--app", "services/cart"]).ok(), digest);
    let image = format!("oci:{}", env.path("out"));
    let list = run(env.phial(["run", &image, "--progress", "quiet", "--", "sh", "-c", "pwd; cat out/build"])).ok();
    assert!(list.starts_with("/app/services/cart\n"), "{list}");
    for needed in ["libs/shared/mix.exs", "libs/base/mix.exs", "services/cart/lib/cart.ex"] {
        assert!(list.contains(needed), "{list}");
    }
    assert!(!list.contains("services/other") && !list.contains("/app/mix.exs"), "{list}");
    let base = format!("oci:{}", busybox_base().display());
    run(env.phial(["verify", &image, "--source", repo.source(), "--base", &base])).ok();
    repo.write("services/cart/lib/cart.ex", "changed\n");
    let changed = build(&env, &repo, "services/cart", &[]);
    assert!(changed.stderr.contains("1 changed, 0 untracked, such as `services/cart/lib/cart.ex`"), "{changed:?}");
}

#[test]
fn what_is_no_directory_of_an_app_is_refused_by_name() {
    let env = TestEnv::new();
    let repo = monorepo(&env);
    std::os::unix::fs::symlink("services/cart", repo.dir().join("link")).expect("a link");
    repo.commit("A link");
    for (dir, text) in [
        ("../x", "`app` is `../x`"),
        ("/etc", "`app` is `/etc`"),
        ("gone", "the commit does not have it"),
        ("run", "it is a file"),
        ("link", "a symbolic link is on the way"),
    ] {
        let error = build(&env, &repo, "", &["--app", dir]).failed(2);
        assert!(error.contains(text), "{dir}: {error}");
    }
    repo.write("phial.toml", "[image]\nroot = \"services/cart\"\nuser = \"app\"\n");
    repo.commit("Settings that nobody reads");
    let error = build(&env, &repo, "", &[]).failed(2);
    assert!(
        error.contains("`image.root` is `services/cart`, but") && error.contains("services/cart/phial.toml"),
        "{error}"
    );
}

#[test]
fn in_a_bare_repository_the_app_is_named_by_the_flag() {
    let env = TestEnv::with_empty_cache();
    let repo = monorepo(&env);
    let digest = build(&env, &repo, "services/cart", &[]).ok();
    let bare = env.path("bare.git");
    repo.git(["clone", "-q", "--bare", ".", &bare]);
    let (from, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let of_bare = |at: &str, more: &[&str]| {
        let mut build = env.phial(["build", "--base", &from, "--to", &to, "--env", "prod", "--progress", "plain"]);
        build.args(more).current_dir(at);
        run(build)
    };
    let dir = env.dir().display().to_string();
    assert_eq!(of_bare(&dir, &[&bare, "--app", "services/cart"]).ok(), digest);
    assert_eq!(of_bare(&bare, &["--app", "services/cart"]).ok(), digest, "where one stands in it");
    let root = of_bare(&bare, &["--app", "."]).ok();
    assert_eq!(of_bare(&bare, &[]).ok(), root, "without the flag, it is the app in the root");
    let error = of_bare(&bare, &["--app", "services"]).failed(2);
    assert!(error.contains("hint: ") && error.contains("`--app DIR`"), "{error}");
}

#[test]
fn the_child_of_an_umbrella_is_built_with_it_or_refused_by_name() {
    let env = TestEnv::with_empty_cache();
    let repo = monorepo(&env);
    repo.write("services/cart/mix.exs", "apps_path: \"apps\"\n");
    repo.write("services/cart/apps/web/mix.exs", "none\n");
    repo.write("services/cart/apps/web/lib/web.ex", "1\n");
    repo.commit("An umbrella");
    let umbrella = build(&env, &repo, "services/cart", &[]).ok();
    assert_eq!(build(&env, &repo, "services/cart/apps/web/lib", &[]).ok(), umbrella, "where one stands");
    let error = build(&env, &repo, "", &["--app", "services/cart/apps/web"]).failed(2);
    assert!(error.contains("`services/cart/apps/web`") && error.contains("`services/cart`"), "{error}");
    assert!(error.contains("hint: build the umbrella by `--app services/cart`"), "{error}");
    assert_eq!(build(&env, &repo, "", &["--app", "services/cart"]).ok(), umbrella, "what the hint says");
}

#[test]
fn an_app_whose_files_of_mix_are_above_it_is_refused_with_the_project_to_build() {
    let env = TestEnv::with_empty_cache();
    let repo = monorepo(&env);
    // As `mix new` writes it in an umbrella, which this repository is not.
    let above = "[build_path: \"../../_build\", config_path: \"../../config/config.exs\", deps_path: \"../../deps\", \
                 lockfile: \"../../mix.lock\"]\n";
    repo.write("services/cart/mix.exs", above);
    repo.write("services/cart/phial.toml", "");
    repo.commit("Shared with the root");
    let error = build(&env, &repo, "services/cart", &[]).failed(2);
    let what = "`services/cart/mix.exs` has `deps_path: \"../../deps\"`, which is above the app's directory";
    assert!(error.contains(what), "{error}");
    assert!(error.contains("hint: build the project that it belongs to by `--app .`"), "{error}");
    build(&env, &repo, "services/cart", &["--app", "."]).ok();
}

#[test]
fn a_change_beside_the_app_leaves_the_layer_of_its_dependencies() {
    let env = TestEnv::with_empty_cache();
    let repo = monorepo(&env);
    repo.write("services/cart/phial.toml", "[prepare]\nscript = \"run\"\ninputs = [\"lib\"]\n");
    repo.commit("Inputs");
    let digests = || {
        let json = build(&env, &repo, "services/cart", &["--json"]).ok();
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let layers = json["layers"].as_array().expect("layers").clone();
        layers
            .into_iter()
            .map(|layer| (layer["cached"].as_bool(), layer["layer"]["digest"].clone()))
            .collect::<Vec<_>>()
    };
    let first = digests();
    repo.write("services/other/lib/other.ex", "2\n");
    repo.write("services/other/mix.exs", "2\n");
    repo.commit("Another app");
    let second = digests();
    assert!(first[0].1.is_string() && first[0].0 == Some(false), "{first:?}");
    assert_eq!(second[0], (Some(true), first[0].1.clone()), "{first:?} {second:?}");
    repo.write("services/cart/lib/cart.ex", "changed\n");
    repo.commit("An input");
    assert_eq!(digests()[0].0, Some(false));
}

/// A Mix project in `services/cart` with a path dependency in `libs/shared`, which has a configuration of its own.
fn mix_monorepo(env: &TestEnv) -> Repo {
    let repo = Repo::at(&env.dir().join("mono"));
    fs::create_dir(repo.dir()).expect("a directory");
    repo.git(["init", "-q", "-b", "main"]);
    let project = |module: &str, app: &str, deps: &str| {
        format!(
            "defmodule {module}.MixProject do\n  use Mix.Project\n  def project do\n    [app: :{app}, version: \"0.1.0\", deps: [{deps}]]\n  end\nend\n"
        )
    };
    repo.write("services/cart/mix.exs", project("Cart", "cart", "{:shared, path: \"../../libs/shared\"}"));
    repo.write("services/cart/phial.toml", "[image]\nenvs = [\"prod\"]\n");
    repo.write("services/cart/lib/cart.ex", "defmodule Cart do\n  def run, do: \"cart \" <> Shared.hello()\nend\n");
    repo.write("services/cart/test/test_helper.exs", "ExUnit.start()\n");
    repo.write(
        "services/cart/test/cart_test.exs",
        "defmodule CartTest do\n  use ExUnit.Case\n  test \"hello\", do: assert Cart.run() == \"cart shared\"\nend\n",
    );
    repo.write("libs/shared/mix.exs", project("Shared", "shared", ""));
    repo.write("libs/shared/lib/shared.ex", "defmodule Shared do\n  def hello, do: \"shared\"\nend\n");
    repo.write("services/other/mix.exs", project("Other", "other", ""));
    repo.commit("The first commit");
    repo
}

#[test]
fn a_mix_project_with_a_path_dependency_is_built_tested_and_verified_in_its_directory() {
    let env = TestEnv::with_elixir_base_in_cache();
    let repo = mix_monorepo(&env);
    let (base, to) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
    let mut build = env.phial(["build", "--base", &base, "--to", &to, "--twice"]);
    build.current_dir(repo.dir().join("services/cart"));
    run(build).ok();
    let script = "pwd; ls /app /app/services; mix compile; mix run --no-compile -e 'IO.puts(Cart.run())'";
    let output = run(env.phial(["run", "--progress", "quiet", "--user", "0", &to, "--", "sh", "-c", script])).ok();
    assert_eq!(
        output, "/app/services/cart\n/app:\nlibs\nservices\n\n/app/services:\ncart\ncart shared",
        "nothing is compiled"
    );
    let tested = run(env.phial(["test", &to, "--", "mix", "test"]));
    assert!(tested.stderr.contains("1 test, 0 failures"), "{}", tested.stderr);
    tested.ok();
    run(env.phial(["verify", &to, "--source", repo.source(), "--base", &base])).ok();

    // From a URL, the app is named by a flag or by the settings of the root.
    let server = GitServer::start(env.dir());
    let url = format!("{}/mono/.git", server.url);
    let image = format!("oci:{}", env.path("of-url"));
    let built = |more: &[&str]| {
        let arguments = ["build", &url, "--base", &base, "--to", &image];
        run(env.phial([&arguments, more].concat())).ok();
        run(env.phial(["run", "--progress", "quiet", &image, "--", "pwd"])).ok()
    };
    assert_eq!(built(&["--app", "services/cart"]), "/app/services/cart");
    repo.write("phial.toml", "[image]\nroot = \"services/cart\"\n");
    repo.commit("The app");
    assert_eq!(built(&[]), "/app/services/cart");
    let list = "ls /app/services";
    assert_eq!(run(env.phial(["run", "--progress", "quiet", &image, "--", "sh", "-c", list])).ok(), "cart");
}

#[test]
fn a_path_that_mix_computes_has_a_hint_and_is_named_in_the_settings() {
    let env = TestEnv::with_elixir_base_in_cache();
    let repo = mix_monorepo(&env);
    let mix = fs::read_to_string(repo.dir().join("services/cart/mix.exs")).expect("mix.exs");
    let computed = mix.replace("\"../../libs/shared\"", "Path.join([\"..\", \"..\", \"libs\", \"shared\"])");
    assert_ne!(mix, computed);
    repo.write("services/cart/mix.exs", computed);
    repo.commit("A computed path");
    let (base, to) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
    let built = || {
        let mut build = env.phial(["build", "--base", &base, "--to", &to]);
        build.current_dir(repo.dir().join("services/cart"));
        run(build)
    };
    let error = built().failed(1);
    assert!(error.contains("hint: ") && error.contains("`image.include`"), "{error}");
    repo.write("services/cart/phial.toml", "[image]\nenvs = [\"prod\"]\ninclude = [\"libs/shared\"]\n");
    repo.commit("The path");
    built().ok();
    let says = ["run", "--progress", "quiet", &to, "--", "mix", "run", "--no-compile", "-e", "IO.puts(Cart.run())"];
    assert_eq!(run(env.phial(says)).ok(), "cart shared");
}

#[test]
fn a_lock_is_beside_the_settings_of_the_app_where_one_stands() {
    let env = TestEnv::with_empty_cache();
    let repo = monorepo(&env);
    let base = format!("oci:{}", busybox_base().display());
    let mut lock = env.phial(["lock", "--base", &base]);
    lock.current_dir(repo.dir().join("services/cart/lib"));
    run(lock).ok();
    run(env.phial(["lock", repo.source(), "--app", "services/other", "--base", &base])).ok();
    for (dir, has_lock) in
        [("services/cart", true), ("services/other", true), ("services/cart/lib", false), ("", false)]
    {
        assert_eq!(repo.dir().join(dir).join("phial.lock").is_file(), has_lock, "`{dir}`");
    }
    repo.commit("Locks");
    build(&env, &repo, "services/cart", &["--locked"]).ok();
    let error = build(&env, &repo, "", &["--locked"]).failed(2);
    assert!(error.contains("phial lock"), "{error}");
}
