//! A deps step that is given sources of an earlier one: one digest, and only what changed is fetched.

use std::fs;

use crate::harness::prebuilt::elixir_base;
use crate::harness::{HexRegistry, Registry, Repo, Static, TestEnv, fixtures_dir, hex_registry, in_rootfs, run};

/// The package of which Hex has two versions.
const MOVING: &str = "earmark_parser";

/// The app with packages of every kind, its commits made as they are wanted.
struct App {
    repo: Repo,
    hex: HexRegistry,
    /// `mix.exs` as it is with the newest versions of all, and without the C of jiffy, which takes longest.
    mix: String,
    _git: Static,
}

impl App {
    fn new(env: &TestEnv) -> Self {
        let hex = hex_registry();
        let (repo, git) = env.deps_app_and_git(&hex);
        let mix = fs::read_to_string(repo.dir().join("mix.exs")).expect("mix.exs");
        let lines: Vec<&str> = mix.lines().filter(|line| !line.contains("c_src")).collect();
        let mix = format!("{}\n", lines.join("\n"));
        Self { repo, hex, mix, _git: git }
    }

    /// The requirement of the package that moves, and a lock by Mix.
    fn lock(&self, requirement: &str) {
        let newest = format!("{{:{MOVING}, \"~> 1.4\"}}");
        assert!(self.mix.contains(&newest), "{}", self.mix);
        self.repo.write("mix.exs", self.mix.replace(&newest, &format!("{{:{MOVING}, \"{requirement}\"}}")));
        let mix = |task: &[&str]| run(in_rootfs(self.repo.dir(), [&["mix"], task].concat(), &self.hex.env())).ok();
        mix(&["deps.unlock", MOVING]);
        mix(&["deps.get"]);
        self.repo.commit(requirement);
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
    app.lock(&format!("== {old}"));
    let (_, fetched, output) = app.build(&first, "old", &write);
    assert!(fetched.len() > 5 && !output.contains("packages of `mix.lock`"), "{fetched:?} {output}");

    app.lock("~> 1.4");
    let tarball = format!("/tarballs/{MOVING}-{new}.tar");
    // jiffy is compiled in its own directory, and so is not what was fetched any more.
    let check = |fetched: &[String], output: &str, origin: &str| {
        let line = output.lines().find(|line| line.contains("packages of `mix.lock`")).unwrap_or_default();
        assert!(line.contains(origin), "{output}");
        let (moved, rest): (Vec<_>, Vec<_>) = fetched.iter().partition(|path| **path == tarball);
        assert_eq!(moved.len(), 1, "{fetched:?}");
        assert!(rest.iter().all(|path| path.starts_with("/tarballs/jiffy-")), "{fetched:?}");
    };
    let (far, fetched, output) = app.build(&second, "far", &read);
    check(&fetched, &output, "-feature-x-");
    lose_layer(&registry, &cache);
    let (cold, fetched, output) = app.build(&third, "cold", &read);
    assert!(fetched.len() > 5 && output.contains("are not available"), "{fetched:?} {output}");
    let (near, fetched, output) = app.build(&first, "near", &write);
    check(&fetched, &output, "the last deps layer on this machine");
    assert_eq!([&far, &near], [&cold, &cold]);
    // Both tags have moved to the entry; nothing was listed to find one.
    let puts = registry.requests().into_iter().filter(|line| line.starts_with("PUT ") && line.contains("-near-"));
    assert_eq!(puts.count(), 4);
    assert!(!registry.requests().iter().any(|line| line.contains("/tags/list")));
    let entries = run(first.phial(["cache", "ls", "--in", &cache])).ok();
    assert!(entries.ends_with("in 2 entries"), "{entries}");

    // Lines of the lock that nothing asks for any more are not in the layer, though the earlier layer has their packages.
    let stale = [MOVING, "makeup"].map(|package| format!("{{:{package}, "));
    let left = app.mix.lines().filter(|line| !stale.iter().any(|dependency| line.contains(dependency)));
    app.repo.write("mix.exs", left.collect::<Vec<_>>().join("\n"));
    app.repo.commit("Stale lines");
    let (near, _, output) = app.build(&first, "stale", &[]);
    assert!(output.contains("packages of `mix.lock`"), "{output}");
    assert_eq!(near, app.build(&first, "stale-cold", &["--no-cache"]).0);
}
