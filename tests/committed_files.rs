//! What is compiled is what is in the image, whatever a commit holds where a step writes, and through whatever links a step
//! finds its files.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::busybox::{busybox_base, busybox_base_with};
use crate::harness::prebuilt::elixir_base;
use crate::harness::skip::skip;
use crate::harness::{HexRegistry, Output, Repo, TestEnv, hex_registry, in_rootfs, run};

/// An app with two packages of Hex, `nimble_parsec` with a module added by hand.
struct App {
    repo: Repo,
    hex: HexRegistry,
}

const MIX: &str = r#"defmodule Patched.MixProject do
  use Mix.Project

  def project do
    [app: :patched, version: "0.1.0", deps: [{:nimble_parsec, "~> 1.4"}, {:earmark_parser, "~> 1.4"}]]
  end
end
"#;

/// A module of the committed package, compiled with a value of the configuration.
fn part(value: &str) -> String {
    format!(
        "defmodule Part do\n  @of Application.compile_env(:nimble_parsec, :of, :nothing)\n  def it, do: {{:{value}, @of}}\nend\n"
    )
}

impl App {
    fn new(env: &TestEnv) -> Self {
        let repo = Repo::at(&env.dir().join("patched"));
        fs::create_dir(repo.dir()).expect("a directory");
        repo.git(["init", "-q", "-b", "main"]);
        repo.write("mix.exs", MIX);
        repo.write("lib/patched.ex", "defmodule Patched do\nend\n");
        let hex = hex_registry();
        run(in_rootfs(repo.dir(), ["mix", "deps.get"], &hex.env())).ok();
        fs::remove_dir_all(repo.dir().join("_build")).expect("what Mix compiled");
        repo.write("deps/nimble_parsec/lib/part.ex", part("first"));
        Self { repo, hex }
    }

    fn build(&self, env: &TestEnv, more: &[&str]) -> Output {
        let (from, to) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
        let mut build = env.phial(["build", self.repo.source(), "--base", &from, "--to", &to, "--env", "prod"]);
        build.args(["--progress", "plain"]).args(more).envs(self.hex.env());
        run(build)
    }
}

fn sh(env: &TestEnv, script: &str) -> String {
    let image = format!("oci:{}", env.path("out"));
    run(env.phial(["run", &image, "--user", "0", "--progress", "quiet", "--", "sh", "-c", script])).ok()
}

/// What the module says, compiled into the image, and whether Mix would compile anything.
const SAYS: &str = "mix run --no-start -e 'IO.inspect(Part.it())'";

#[test]
fn committed_dependencies_are_compiled_and_nothing_is_fetched() {
    let env = TestEnv::with_elixir_base_in_cache();
    let app = App::new(&env);
    fs::create_dir_all(app.repo.dir().join("infra/settings")).expect("a directory");
    symlink("infra/settings", app.repo.dir().join("config")).expect("a link");
    app.repo.write("infra/settings/config.exs", "import Config\nconfig :nimble_parsec, of: :one\n");
    app.repo.commit("With all dependencies");
    let asked = app.hex.requests().len();
    app.build(&env, &["--network", "none"]).ok();
    assert_eq!(sh(&env, SAYS), "{:first, :one}", "and Mix compiles nothing");
    assert_eq!(
        sh(&env, "cat deps/nimble_parsec/lib/part.ex; ls -d deps/*/.hex | wc -l").replace("2\n", ""),
        format!("{}2", part("first"))
    );

    // The source of a committed dependency, and a file behind a link, are in the key.
    app.repo.write("deps/nimble_parsec/lib/part.ex", part("other"));
    app.repo.commit("Another patch of the same size");
    app.build(&env, &["--network", "none"]).ok();
    assert_eq!(sh(&env, SAYS), "{:other, :one}");
    app.repo.write("infra/settings/config.exs", "import Config\nconfig :nimble_parsec, of: :two\n");
    app.repo.commit("Another configuration");
    app.build(&env, &["--network", "none"]).ok();
    assert_eq!(sh(&env, SAYS), "{:other, :two}");
    assert_eq!(app.hex.requests().len(), asked);
}

#[test]
fn one_committed_dependency_is_compiled_and_the_others_are_fetched() {
    let env = TestEnv::with_elixir_base_in_cache();
    let app = App::new(&env);
    app.repo.write(".gitignore", "/deps\n");
    app.repo.git(["add", "--force", "deps/nimble_parsec"]);
    app.repo.commit("With one dependency");
    let asked = app.hex.requests().len();
    app.build(&env, &[]).ok();
    let tarballs: Vec<String> =
        app.hex.requests().split_off(asked).into_iter().filter(|p| p.contains("/tarballs/")).collect();
    assert!(matches!(&tarballs[..], [one] if one.contains("earmark_parser")), "{tarballs:?}");
    assert_eq!(sh(&env, SAYS), "{:first, :nothing}");

    // Without it, Hex's package is in the image: the patched one is not taken from the deps layer before.
    app.repo.git(["rm", "-r", "-q", "--cached", "deps/nimble_parsec"]);
    app.repo.write("mix.exs", MIX.replace("0.1.0", "0.2.0"));
    app.repo.commit("Without it");
    app.build(&env, &[]).ok();
    assert_eq!(
        sh(&env, "mix run --no-start -e 'IO.inspect(Code.ensure_loaded?(Part))'; ls deps"),
        "false\nearmark_parser\nnimble_parsec"
    );
}

#[test]
fn a_committed_dependency_that_mix_fetches_over_is_refused_by_name() {
    let env = TestEnv::with_elixir_base_in_cache();
    let app = App::new(&env);
    fs::remove_file(app.repo.dir().join("deps/nimble_parsec/.hex")).expect("the marker of Hex");
    app.repo.commit("Without the marker of Hex");
    let stderr = app.build(&env, &[]).failed(2);
    assert!(stderr.contains("the deps step changed `deps/nimble_parsec/"), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
}

#[test]
fn what_mix_compiled_earlier_is_refused_by_name() {
    let env = TestEnv::new();
    let repo = env.app("hello");
    repo.write("_build/prod/lib/hello/ebin/Elixir.Hello.beam", "stale");
    repo.git(["add", "--force", "_build"]);
    repo.commit("With _build");
    let base = format!("oci:{}", elixir_base().display());
    let stderr = run(env.phial(["build", repo.source(), "--base", &base, "--to", "oci:out"])).failed(2);
    assert!(stderr.contains("`_build/prod/lib/hello/ebin/Elixir.Hello.beam`"), "{stderr}");
    assert!(stderr.contains("`git rm -r --cached _build`"), "{stderr}");
}

fn build_shell(env: &TestEnv, repo: &Repo) -> Output {
    let base = format!("oci:{}", busybox_base().display());
    let to = format!("oci:{}", env.path("out"));
    run(env.phial(["build", repo.source(), "--base", &base, "--to", &to]))
}

const SCRIPT: &str = "#!/bin/sh\nset -eu\ncase \"$1\" in\ndeps) DEPS ;;\nbuild) BUILD ;;\nesac\n";

fn script(deps: &str, build: &str) -> String {
    SCRIPT.replace("DEPS", deps).replace("BUILD", build)
}

#[test]
fn a_committed_file_that_the_deps_step_writes_or_removes_is_refused_by_name() {
    let env = TestEnv::with_empty_cache();
    for (deps, changed) in [
        ("mkdir -p node_modules; echo new >node_modules/a", "node_modules/a"),
        ("echo 2.0 >VERSION", "VERSION"),
        ("rm VERSION", "VERSION"),
        ("chmod +x VERSION", "VERSION"),
        ("mkdir -p priv; ln -s /dev/null priv/static", "priv/static"),
        ("mkdir -p file/below; echo x >file/below/it", "file"),
    ] {
        let dir = tempfile::tempdir_in(env.dir()).expect("a directory");
        let repo = Repo::at(dir.path());
        repo.git(["init", "-q", "-b", "main"]);
        repo.write("phial.toml", "[image]\nenvs = [\"prod\"]\n[prepare]\nscript = \"code\"\ninputs = [\"VERSION\"]\n");
        repo.script("code", &script("true", "true"));
        repo.write("VERSION", "1.0\n");
        repo.write("node_modules/a", "old\n");
        repo.write("priv/static/app.js", "old\n");
        repo.write("file", "old\n");
        repo.commit("The first commit");
        build_shell(&env, &repo).ok();
        repo.script("code", &script(deps, "true"));
        repo.commit("A step that writes");
        let stderr = build_shell(&env, &repo).failed(2);
        assert!(stderr.contains(&format!("the deps step changed `{changed}")), "{deps}: {stderr}");
        assert!(stderr.contains("`prepare.inputs`"), "{stderr}");
    }
}

#[test]
fn a_file_that_is_committed_later_than_its_deps_layer_is_cached_is_refused_too() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    build_shell(&env, &repo).ok();
    repo.write("vendor/part", "1.0\n");
    repo.commit("As the step writes it");
    build_shell(&env, &repo).ok();
    repo.write("vendor/part", "another\n");
    repo.commit("Otherwise");
    let stderr = build_shell(&env, &repo).failed(2);
    assert!(stderr.contains("`vendor/part`"), "{stderr}");
}

#[test]
fn a_committed_file_that_the_build_step_writes_is_as_the_step_left_it() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    repo.write("out/prod/app", "committed\n");
    repo.write("priv/static/old.js", "old\n");
    repo.script(
        "script/prepare_code",
        &script("true", "echo built >out/prod/app; rm priv/static/old.js; echo new >priv/static/new.js"),
    );
    repo.commit("Results of the build step");
    build_shell(&env, &repo).ok();
    assert_eq!(sh(&env, "cat out/prod/app; ls priv/static"), "built\nnew.js");
}

#[test]
fn inputs_behind_links_are_seen_and_are_in_the_key() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let settings = fs::read_to_string(repo.dir().join("phial.toml"))
        .expect("settings")
        .replace("\"VERSION\"", "\"VERSION\", \"conf\"");
    repo.write("phial.toml", settings);
    repo.script("script/code", &script("cat VERSION conf/a conf/deep/b >part", "cat part >app"));
    fs::remove_file(repo.dir().join("script/prepare_code")).expect("the script");
    fs::remove_file(repo.dir().join("VERSION")).expect("a file");
    fs::create_dir(repo.dir().join("shared")).expect("a directory");
    for (target, link) in [
        ("code", "script/prepare_code"),
        ("versions/now", "VERSION"),
        ("shared/conf", "conf"),
        ("../real", "shared/conf"),
        ("../other", "real/deep"),
    ] {
        repo.write("real/a", "a\n");
        symlink(target, repo.dir().join(link)).expect("a link");
    }
    repo.write("versions/now", "1\n");
    repo.write("other/b", "b\n");
    repo.commit("Links");
    build_shell(&env, &repo).ok();
    assert_eq!(sh(&env, "cat app"), "1\na\nb");
    repo.write("other/b", "c\n");
    repo.commit("Another file behind two links");
    build_shell(&env, &repo).ok();
    assert_eq!(sh(&env, "cat app"), "1\na\nc");
    for target in ["../../outside", "/etc", "gone"] {
        fs::remove_file(repo.dir().join("conf")).expect("the link");
        symlink(target, repo.dir().join("conf")).expect("a link");
        repo.commit("A link to nothing of the commit");
        let stderr = build_shell(&env, &repo).failed(2);
        assert!(stderr.contains("`conf`") && stderr.contains(target), "{stderr}");
    }
}

#[test]
fn the_files_of_mix_may_have_other_names() {
    let env = TestEnv::with_elixir_base_in_cache();
    let app = App::new(&env);
    let names = "version: \"0.1.0\", lockfile: \"locks/prod.lock\", config_path: \"conf/config.exs\"";
    app.repo.write("mix.exs", MIX.replace("version: \"0.1.0\"", names));
    app.repo.write("conf/config.exs", "import Config\nconfig :nimble_parsec, of: :one\n");
    app.repo.write(".gitignore", "/deps\n");
    fs::create_dir(app.repo.dir().join("locks")).expect("a directory");
    fs::rename(app.repo.dir().join("mix.lock"), app.repo.dir().join("locks/prod.lock")).expect("the lock");
    app.repo.commit("Other names");
    let stderr = app.build(&env, &[]).failed(2);
    assert!(stderr.contains("hint: ") && stderr.contains("`lockfile = \"locks/prod.lock\"`"), "{stderr}");
    app.repo.write("phial.toml", "[prepare]\nlockfile = \"locks/prod.lock\"\n");
    app.repo.commit("The lock");
    let stderr = app.build(&env, &[]).failed(1);
    assert!(stderr.contains("hint: ") && stderr.contains("`config_path:`"), "{stderr}");
    app.repo.write("phial.toml", "[prepare]\ninputs = [\"conf\"]\nlockfile = \"locks/prod.lock\"\n");
    app.repo.commit("The configuration");
    app.build(&env, &[]).ok();
    // The lock is read for the reuse of packages too.
    let lock = fs::read_to_string(app.repo.dir().join("locks/prod.lock")).expect("the lock");
    app.repo.write("locks/prod.lock", format!("{lock}# moved\n"));
    app.repo.commit("Another lock");
    let asked = app.hex.requests().len();
    let output = app.build(&env, &[]).stderr;
    assert!(output.contains("1 of 2 packages of `mix.lock` are reused"), "{output}"); // the other changes as it is compiled
    assert!(!app.hex.requests()[asked..].iter().any(|path| path.contains("/tarballs/nimble_parsec")), "{output}");
}

#[test]
fn owners_that_one_id_cannot_give_have_a_hint_and_ranges_give_them() {
    if !rustix::process::geteuid().is_root() {
        skip!("needs root: an ordinary user may have no range of ids");
    }
    let env = TestEnv::with_empty_cache();
    let base = busybox_base_with(&env, &[("bin/chown", "#!/bin/busybox sh\nexec busybox chown \"$@\"\n")]);
    let repo = env.shell_app();
    repo.script("script/prepare_code", &script("true", "echo x >owned; chown 33:33 owned"));
    repo.commit("Another owner");
    let (base, out) = (format!("oci:{}", base.display()), format!("oci:{}", env.path("out")));
    let stderr = run(env.phial(["build", repo.source(), "--base", &base, "--to", &out])).failed(1);
    assert!(stderr.contains("hint: ") && stderr.contains("`prepare.ranges = true`"), "{stderr}");
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
    repo.write("phial.toml", format!("{settings}ranges = true\n"));
    repo.commit("A range of ids");
    run(env.phial(["build", repo.source(), "--base", &base, "--to", &out])).ok();
    let shown = run(env.phial(["run", &out, "--", "sh", "-c", "cat owned"]));
    assert_eq!(shown.ok(), "x");
    let mut tar = std::process::Command::new("sh");
    tar.args(["-c", "for blob in out/blobs/sha256/*; do tar -tvzf $blob --numeric-owner 2>/dev/null; done; true"])
        .current_dir(env.dir());
    let listed = run(tar).ok();
    assert!(listed.lines().any(|line| line.contains(" 33/33 ") && line.ends_with("app/owned")), "{listed}");
}

#[test]
fn a_committed_dependency_that_is_patched_gives_the_digest_of_a_build_without_a_cache() {
    let env = TestEnv::with_elixir_base_in_cache();
    let app = App::new(&env);
    app.repo.write(".gitignore", "/deps\n");
    app.repo.git(["add", "--force", "deps/earmark_parser"]);
    app.repo.commit("With the one that changes as it is compiled");
    app.build(&env, &[]).ok();
    app.repo.write("deps/earmark_parser/lib/more.ex", "defmodule More do\nend\n");
    app.repo.git(["add", "--force", "deps/earmark_parser"]);
    app.repo.commit("A patch");
    let patched = app.build(&env, &[]);
    assert!(!patched.stderr.contains("are reused"), "more than the lock differs: {}", patched.stderr);
    assert_eq!(patched.ok(), app.build(&env, &["--no-cache"]).ok());
}

#[test]
fn a_path_dependency_below_deps_is_compiled_from_the_commit() {
    let env = TestEnv::with_elixir_base_in_cache();
    let repo = env.app("hello");
    let mix = fs::read_to_string(repo.dir().join("mix.exs")).expect("mix.exs");
    repo.write("mix.exs", mix.replace("deps: []", "deps: [{:util, path: \"deps/util\"}]"));
    let util =
        "defmodule Util.MixProject do\n  use Mix.Project\n  def project, do: [app: :util, version: \"1.0.0\"]\nend\n";
    repo.write("deps/util/mix.exs", util);
    for number in ["1", "2"] {
        repo.write("deps/util/lib/util.ex", format!("defmodule Util do\n  def it, do: {number}\nend\n"));
        repo.git(["add", "--force", "deps"]);
        repo.commit(number);
        let (from, to) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
        run(env.phial(["build", repo.source(), "--base", &from, "--to", &to, "--env", "prod", "--network", "none"]))
            .ok();
        assert_eq!(
            sh(&env, "mix run --no-start -e 'IO.puts(Util.it())'; ls deps/util"),
            format!("{number}\nlib\nmix.exs")
        );
    }
}

#[test]
fn files_that_environments_leave_differently_are_named() {
    const SCRIPT: &str = r#"#!/bin/sh
set -eu
[ "$1" = build ] || exit 0
mkdir -p priv "_build/$2" shared
echo same >shared/same
echo "$2" >"priv/$2"
echo "$2" >"_build/$2/mode"
WRITES
"#;
    // What the steps do beside that, and what the notice names of it.
    let cases = [
        (r#"echo "$2" >priv/mode"#, Some("`app/priv/mode` differ")),
        (r#"[ "$2" != test ] || rm VERSION"#, Some("`app/VERSION` differ")),
        (r#"[ "$2" != prod ] || rm VERSION"#, Some("`app/VERSION` differ")),
        (r#"[ "$2" != prod ] || echo changed >VERSION"#, Some("`app/VERSION` differ")),
        (
            r#"for n in 1 2 3 4 5; do echo "$2" >"priv/$n"; done"#,
            Some("`app/priv/1`, `app/priv/2`, `app/priv/3` and 2 more differ"),
        ),
        ("echo changed >VERSION", None),
    ];
    for (writes, expected) in cases {
        let env = TestEnv::with_empty_cache();
        let repo = env.shell_app();
        repo.script("script/prepare_code", &SCRIPT.replace("WRITES", writes));
        repo.commit("Files of environments");
        let base = format!("oci:{}", busybox_base().display());
        for isolation in ["overlay", "copy"] {
            let to = format!("oci:{}", env.path(isolation));
            let build = |envs: &[&str]| {
                let mut build = env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--no-cache"]);
                build.args(["--isolation", isolation]).args(envs);
                let ran = run(build);
                let stderr = ran.stderr.clone();
                ran.ok();
                stderr
            };
            let stderr = build(&["--env", "prod", "--env", "test"]);
            let notices: Vec<&str> = stderr.lines().filter(|line| line.contains("between the environments")).collect();
            match expected {
                Some(expected) => {
                    let expected = format!("{expected} between the environments `prod` and `test`");
                    assert!(notices.len() == 1 && notices[0].contains(&expected), "{writes}, {isolation}: {stderr}");
                    assert!(notices[0].contains("(`--env prod`, `--env test`)"), "{stderr}");
                }
                None => assert_eq!(notices, [""; 0], "{writes}, {isolation}: {stderr}"),
            }
            assert!(!build(&["--env", "prod"]).contains("between the environments"), "{writes}");
        }
    }
}
