//! An Elixir app with `PostgreSQL` and Redis, from the commit to the record.

use std::fs;
use std::time::Instant;

use super::records_of;
use crate::harness::prebuilt::{elixir_base, service_images};
use crate::harness::{HexRegistry, Output, Repo, TestEnv, hex_registry, run};

/// The app with its database, and the Hex registry.
struct Scene {
    env: TestEnv,
    hex: HexRegistry,
    repo: Repo,
}

impl Scene {
    fn new() -> Self {
        let env = TestEnv::new();
        std::os::unix::fs::symlink(service_images(), env.dir().join("services")).expect("a link");
        let hex = hex_registry();
        let repo = env.ledger(&hex);
        Self { env, hex, repo }
    }

    #[track_caller]
    fn build(&self) -> String {
        let base = format!("oci:{}", elixir_base().display());
        let mut build = self.env.phial(["build", self.repo.source(), "--base", &base, "--to", "oci:out"]);
        build.envs(self.hex.env());
        run(build).ok()
    }

    /// With the app's settings, named by the caller: the services are images of this machine.
    fn test(&self, more: &[&str]) -> Output {
        self.test_with("ledger/phial.toml", more)
    }

    fn test_with(&self, settings: &str, more: &[&str]) -> Output {
        run(self.env.phial([&["test", "oci:out", "--config", settings], more].concat()))
    }
}

#[test]
fn without_settings_mix_test_is_run_and_parts_of_it_are_parts() {
    let env = TestEnv::new();
    let repo = env.app("hello");
    let base = format!("oci:{}", elixir_base().display());
    run(env.phial(["build", repo.source(), "--base", &base, "--to", "oci:out", "--env", "prod"])).ok();
    let tests = |more: &[&str]| {
        let ran = run(env.phial([&["test", "oci:out"], more].concat()));
        let output = ran.stderr.clone();
        ran.ok();
        let note = output.lines().find(|line| line.contains("passed (exit code 0, ")).expect("counts").to_owned();
        let number = note.split("exit code 0, ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a number");
        number.parse::<u32>().expect("a number")
    };
    let all = tests(&[]);
    assert!(all >= 2, "{all}");
    assert_eq!(records_of(&env, "out").len(), 1);
    // There is one file of tests: it is in one part, and the other part has none, which Mix calls a failure.
    let halves = ["1/2", "2/2"].map(|part| run(env.phial(["test", "oci:out", "--partition", part])));
    let with_tests = halves.iter().filter(|ran| ran.stderr.contains(&format!("{all} tests, 0 failures"))).count();
    assert_eq!(with_tests, 1, "{halves:?}");
}

#[test]
fn dependencies_of_every_kind_are_compiled_beside_the_image_and_not_by_the_tests() {
    let env = TestEnv::new();
    let hex = hex_registry();
    let repo = env.deps_app(&hex);
    let base = format!("oci:{}", elixir_base().display());
    let mut build = env.phial(["build", repo.source(), "--base", &base, "--to", "oci:out", "--env", "prod"]);
    build.envs(hex.env());
    run(build).ok();
    let mut test = env.phial(["test", "oci:out"]);
    test.envs(hex.env());
    let ran = run(test);
    let by_the_tests: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("test | ")).collect();
    assert!(by_the_tests.iter().any(|line| line.contains("0 failures")), "{}", ran.stderr);
    let compiled = |line: &&str| line.contains("==> ") || line.contains("===> ");
    assert!(!by_the_tests.iter().any(compiled), "{by_the_tests:?}");
    ran.ok();
}

#[test]
fn the_apps_of_an_umbrella_are_counted_together() {
    let env = TestEnv::new();
    let repo = env.app("umbrella");
    let base = format!("oci:{}", elixir_base().display());
    run(env.phial(["build", repo.source(), "--base", &base, "--to", "oci:out", "--env", "prod"])).ok();
    let ran = run(env.phial(["test", "oci:out"]));
    let each: u32 = ran.stderr.matches(" test, 0 failures").count().try_into().expect("few");
    assert!(each >= 2, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("passed (exit code 0, {each} tests, 0 failures")), "{}", ran.stderr);
    ran.ok();
}

/// Whether Mix compiled a dependency, by what it says.
fn compiled(output: &str) -> bool {
    output.contains("==> p1_pgsql") || output.contains("==> nimble_parsec") || output.contains("Compiling p1_pgsql")
}

#[test]
fn an_app_is_tested_with_its_databases_and_its_dependencies_are_compiled_once() {
    let scene = Scene::new();
    let built = scene.build();
    let first = scene.test(&["--no-cache", "--junit", "junit.xml"]);
    assert!(first.stderr.contains("deps test"), "{}", first.stderr);
    let counts = "test               passed (exit code 0, 4 tests, 0 failures, 0 skipped)";
    assert!(first.stderr.contains(counts) && first.stderr.contains("lint               passed"), "{}", first.stderr);
    assert!(first.stderr.contains("test | migrated '002_no_debts.sql'"), "{}", first.stderr);
    assert_eq!(first.ok(), built);

    // Another commit that changes the app's sources alone.
    let sources = fs::read_to_string(scene.repo.dir().join("lib/ledger.ex")).expect("a source");
    scene.repo.write("lib/ledger.ex", sources.replace("nothing has changed", "nothing changes"));
    scene.repo.commit("Other words");
    assert_ne!(scene.build(), built);
    let second = scene.test(&["--progress", "plain"]);
    assert!(second.stderr.contains("deps test          cached") && !compiled(&second.stderr), "{}", second.stderr);
    assert!(second.stderr.contains("Compiling 6 files (.ex)"), "the app itself: {}", second.stderr);
    second.ok();

    let records = records_of(&scene.env, "out");
    assert!(records.iter().all(|record| record.passed && record.commands.len() == 2), "{records:?}");

    // A failure of the app's own.
    let test = fs::read_to_string(scene.repo.dir().join("test/ledger_test.exs")).expect("a test");
    scene.repo.write("test/ledger_test.exs", test.replace("== {3, 7}", "== {4, 6}"));
    scene.repo.commit("A wrong test");
    scene.build();
    let error = scene.test(&[]).failed(1);
    assert!(error.contains("error: tests failed: `test` (exit code 2)"), "{error}");
    assert!(error.contains("4 tests, 1 failure,"), "{error}");
    assert!(error.contains("db | ") && error.contains("ready to accept connections"), "{error}");
    assert!(!records_of(&scene.env, "out").pop().expect("a record").passed);
}

#[test]
fn a_second_test_reaches_the_apps_own_command_soon() {
    let scene = Scene::new();
    scene.build();
    let settings = scene.env.path("none.toml");
    fs::write(&settings, "[image]\nenvs = [\"prod\"]\n").expect("settings");
    scene.test_with(&settings, &["--", "true"]).ok();
    let took = (0..5).map(|_| {
        let begun = Instant::now();
        scene.test_with(&settings, &["--no-record", "--", "true"]).ok();
        begun.elapsed()
    });
    let best = took.min().expect("a time");
    assert!(best.as_millis() < 3000, "a third of a second on a machine with nothing else to do: {best:?}");
}
