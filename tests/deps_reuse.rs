//! A deps step that is given sources of an earlier one: one digest, and only what changed is fetched.

use std::fs;

use crate::harness::prebuilt::elixir_base;
use crate::harness::{HexRegistry, Registry, Repo, TestEnv, fixtures_dir, hex_registry, in_rootfs, run};

/// The package of which Hex has two versions.
const MOVING: &str = "earmark_parser";

/// A project: its dependencies, and its aliases.
const MIX: &str = r#"defmodule Kept.MixProject do
  use Mix.Project

  def project, do: [app: :kept, version: "0.1.0", deps: deps(), aliases: aliases()]

  defp deps do
    @DEPS@
  end

  defp aliases, do: @ALIASES@
end
"#;

/// Packages whose sources alone are in the layer: nothing of them is compiled.
fn sources(names: &[&str]) -> String {
    let package = |name: &&str| format!("{{:{name}, \">= 0.0.0\", override: true, app: false, compile: false}}");
    format!("[{}]", names.iter().map(package).collect::<Vec<_>>().join(", "))
}

/// Dependencies that are others once `mix.lock` has the comment `moved`.
fn moved(before: &[&str], after: &[&str]) -> String {
    let is_moved = "File.read!(\"mix.lock\") =~ \"# moved\"";
    format!("if {is_moved}, do: {}, else: {}", sources(after), sources(before))
}

/// An app with packages of Hex, its commits made as they are wanted.
struct App {
    repo: Repo,
    hex: HexRegistry,
}

impl App {
    fn new(env: &TestEnv) -> Self {
        let dir = env.dir().join("app");
        fs::create_dir(&dir).expect("a directory for the app");
        let repo = Repo::at(&dir);
        repo.git(["init", "-q", "-b", "main"]);
        repo.write(".gitignore", "/_build\n/deps\n");
        Self { repo, hex: hex_registry() }
    }

    fn write_mix(&self, deps: &str, aliases: &str) {
        self.repo.write("mix.exs", MIX.replace("@DEPS@", deps).replace("@ALIASES@", aliases));
    }

    /// Has Mix write `mix.lock` for these dependencies.
    fn lock(&self, deps: &str) {
        self.write_mix(deps, "[]");
        let lock = self.repo.dir().join("mix.lock");
        if lock.exists() {
            fs::remove_file(lock).expect("the lock");
        }
        run(in_rootfs(self.repo.dir(), ["mix", "deps.get"], &self.hex.env())).ok();
    }

    /// Adds a line to `mix.lock` that Mix does not see.
    fn move_lock(&self, comment: &str) {
        let lock = fs::read_to_string(self.repo.dir().join("mix.lock")).expect("mix.lock");
        self.repo.write("mix.lock", format!("{lock}# {comment}\n"));
        self.repo.commit(comment);
    }

    /// Builds it: the digest, the tarballs that were fetched for it, and stderr.
    fn build(&self, env: &TestEnv, name: &str, more: &[&str]) -> (String, Vec<String>, String) {
        let before = self.hex.requests().len();
        let (from, to) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path(name)));
        let mut build = env.phial(["build", self.repo.source(), "--base", &from, "--to", &to, "--env", "prod"]);
        build.args(["--progress", "plain"]).args(more).envs(self.hex.env()).env("BUILDKITE_BRANCH", "feature/x");
        let ran = run(build);
        let output = ran.stderr.clone();
        let digest = ran.ok().rsplit_once('@').expect("TARGET@digest").1.to_owned();
        let asked = self.hex.requests().split_off(before);
        (digest, asked.into_iter().filter(|path| path.contains("/tarballs/")).collect(), output)
    }

    /// Builds it with what the cache has, which gives the digest of a build without a cache; stderr.
    fn build_as_without_cache(&self, env: &TestEnv) -> String {
        let (digest, _, output) = self.build(env, "out", &[]);
        assert_eq!(digest, self.build(env, "cold", &["--no-cache"]).0, "{output}");
        for layout in ["out", "cold"] {
            fs::remove_dir_all(env.path(layout)).expect("the image");
        }
        output
    }
}

/// The two versions that Hex has, the lower first.
fn versions() -> [String; 2] {
    let folder = fs::read_dir(fixtures_dir().join("hex/public/tarballs")).expect("tarballs");
    let names = folder.map(|entry| entry.expect("a tarball").file_name().into_string().expect("UTF-8"));
    let mut found: Vec<semver::Version> = names
        .filter_map(|name| name.strip_prefix(MOVING)?.strip_prefix('-')?.strip_suffix(".tar")?.parse().ok())
        .collect();
    found.sort();
    found.into_iter().map(|version| version.to_string()).collect::<Vec<_>>().try_into().expect("two versions")
}

/// Takes away the layer of the one entry, as a registry does that cleans up too much.
fn lose_layer(registry: &Registry, cache: &str) {
    let puts = registry.requests();
    let tag = puts.iter().find_map(|line| line.strip_prefix("PUT ")?.rsplit_once("/deps-")).expect("a tag").1;
    let mut inspect = std::process::Command::new("skopeo");
    // Without `--raw` skopeo lists the tags.
    inspect.args(["inspect", "--tls-verify=false", "--raw"]).arg(format!("docker://{cache}:deps-{tag}"));
    let manifest: serde_json::Value = serde_json::from_str(&run(inspect).ok()).expect("JSON");
    let hex =
        manifest["layers"][0]["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
    let blob = registry.store().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex);
    fs::remove_dir_all(blob).expect("the layer");
}

#[test]
fn packages_still_in_the_lock_are_not_fetched_again_and_the_digest_is_that_of_a_cold_build() {
    let [first, second, third] = std::array::from_fn(|_| TestEnv::with_elixir_base_in_cache());
    let app = App::new(&first);
    let registry = Registry::start();
    let cache = registry.reference("team/cache");
    let write = ["--cache", "write", "--cache-repo", &cache];
    let read = ["--cache", "read", "--cache-repo", &cache];
    let [old, new] = versions();
    // It is compiled in its own directory, and so is not what was fetched any more.
    let touched =
        "compile: \"sh -ec 'mkdir -p ebin; erlc -I include -o ebin src/*.erl; cp src/*.app.src ebin/letters.app'\"";
    let deps = |requirement: &str| {
        format!(
            "[{{:{MOVING}, \"{requirement}\"}}, {{:slug, \"~> 1.0\"}}, {{:letters, \"~> 1.0\", override: true, {touched}}}]"
        )
    };
    app.lock(&deps(&format!("== {old}")));
    app.write_mix(&deps("~> 1.4"), "[]");
    app.repo.commit("The older version");
    let (_, fetched, output) = app.build(&first, "old", &write);
    assert!(fetched.len() == 3 && !output.contains("packages of `mix.lock`"), "{fetched:?} {output}");

    app.lock(&deps("~> 1.4"));
    app.repo.commit("The newer version, and no other change");
    let tarball = format!("/tarballs/{MOVING}-{new}.tar");
    let check = |fetched: &[String], output: &str, origin: &str| {
        let line = output.lines().find(|line| line.contains("packages of `mix.lock`")).unwrap_or_default();
        assert!(line.contains("1 of 3") && line.contains(origin), "{output}");
        let (moved, rest): (Vec<_>, Vec<_>) = fetched.iter().partition(|path| **path == tarball);
        assert_eq!(moved.len(), 1, "{fetched:?}");
        assert!(rest.iter().all(|path| path.starts_with("/tarballs/letters-")), "{fetched:?}");
    };
    let (far, fetched, output) = app.build(&second, "far", &read);
    check(&fetched, &output, "-feature-x-");
    lose_layer(&registry, &cache);
    let (cold, fetched, output) = app.build(&third, "cold", &read);
    assert!(fetched.len() == 3 && output.contains("are not available"), "{fetched:?} {output}");
    let (near, fetched, output) = app.build(&first, "near", &write);
    check(&fetched, &output, "the last deps layer on this machine");
    assert_eq!([&far, &near], [&cold, &cold]);
    // Both tags have moved to the entry; nothing was listed to find one.
    let puts = registry.requests().into_iter().filter(|line| line.starts_with("PUT ") && line.contains("-near-"));
    assert_eq!(puts.count(), 4);
    assert!(!registry.requests().iter().any(|line| line.contains("/tags/list")));
    let entries = run(first.phial(["cache", "ls", "--in", &cache])).ok();
    assert!(entries.ends_with("in 2 entries"), "{entries}");
}

#[test]
fn a_line_of_the_lock_that_nothing_asks_for_any_more_brings_no_package() {
    let env = TestEnv::with_elixir_base_in_cache();
    let app = App::new(&env);
    app.lock(&sources(&["letters", "nimble_parsec", "slug"]));
    app.write_mix(&moved(&["letters", "slug"], &["letters", "nimble_parsec"]), "[]");
    app.repo.commit("Two packages");
    let (_, fetched, _) = app.build(&env, "both", &[]);
    assert_eq!(fetched.len(), 2, "{fetched:?}");
    app.move_lock("moved");
    let output = app.build_as_without_cache(&env);
    assert!(output.contains("2 of 3 packages of `mix.lock` are reused"), "the earlier layer has both: {output}");
    assert!(!output.contains("no packages are reused"), "{output}");
}

#[test]
fn what_an_alias_does_after_fetching_is_done_once_and_by_the_commit_that_has_it() {
    let env = TestEnv::with_elixir_base_in_cache();
    let app = App::new(&env);
    app.lock(&sources(&["letters", "nimble_parsec", "slug"]));
    let deps = moved(&["letters", "slug"], &["letters", "nimble_parsec", "slug"]);
    let patch = "fn _ -> File.write!(\"deps/letters/src/letters.erl\", \"%% patched\\n\", [:append]); \
                 File.write!(\"deps/patched\", \"\") end";
    app.write_mix(&deps, &format!("[\"deps.get\": [\"deps.get\", {patch}]]"));
    app.repo.commit("A patch of a package");
    app.build(&env, "patched", &[]);
    app.move_lock("another lock of the same packages");
    let output = app.build_as_without_cache(&env);
    assert!(output.contains("Mix was not asked to fetch"), "{output}");
    app.move_lock("moved");
    let output = app.build_as_without_cache(&env);
    assert!(output.contains("the step changes them"), "{output}");
    app.write_mix(&deps, "[]");
    app.repo.commit("No patch");
    let output = app.build_as_without_cache(&env);
    assert!(!output.contains("reused"), "{output}");
}
