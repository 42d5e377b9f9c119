//! The built-in `prepare_code` says what is missing, and otherwise does what mix says. Mix itself is a script here: what
//! the real one does with real apps is shown by the build's tests.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/recipe/prepare_code.sh");

/// An app with the given mix.lock, on a machine that has a shell, a few tools and a `mix` that runs the lines given.
struct ScriptTest {
    dir: tempfile::TempDir,
}

impl ScriptTest {
    fn new(mix: &str, lock: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let test = Self { dir };
        fs::create_dir_all(test.path("bin")).expect("bin");
        fs::create_dir_all(test.path("app/deps")).expect("app");
        fs::create_dir_all(test.path("tmp")).expect("tmp");
        for tool in ["sh", "cat", "cp", "mkdir", "grep"] {
            let found = ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.exists());
            symlink(found.expect("every machine has it"), test.path("bin").join(tool)).expect("a link");
        }
        test.tool("erl", "exit 0");
        test.tool("mix", &format!("echo \"mix $* MIX_ENV=$MIX_ENV MIX_REBAR3=$MIX_REBAR3\"\n{mix}"));
        fs::write(test.path("app/mix.exs"), "").expect("mix.exs");
        if let Some(lock) = lock {
            fs::write(test.path("app/mix.lock"), lock).expect("mix.lock");
        }
        test
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn tool(&self, name: &str, body: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a tool");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    /// Exit code, stdout, stderr.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = Command::new("/bin/sh")
            .arg(SCRIPT)
            .args(args)
            .current_dir(self.path("app"))
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .output()
            .expect("a shell");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (status.code().expect("no signal"), text(stdout), text(stderr))
    }
}

#[test]
fn each_call_runs_its_commands_of_mix() {
    let test = ScriptTest::new("", Some("%{\"a\": {:hex, :a, \"1.0.0\"}}"));
    let (code, out, err) = test.run(&["deps"]);
    let expected = "mix local.hex --force --if-missing MIX_ENV=prod MIX_REBAR3=\n\
        mix deps.get --check-locked MIX_ENV=prod MIX_REBAR3=\n";
    assert_eq!((code, out.as_str(), err.as_str()), (0, expected, ""));
    let (code, out, _) = test.run(&["deps", "staging"]);
    let expected = "mix deps.compile --skip-local-deps --skip-umbrella-children MIX_ENV=staging MIX_REBAR3=\n";
    assert_eq!((code, out.as_str()), (0, expected));
    let (code, out, _) = test.run(&["build", "staging"]);
    assert_eq!((code, out.as_str()), (0, "mix compile MIX_ENV=staging MIX_REBAR3=\n"));
    fs::create_dir_all(test.path("app/deps/a")).expect("a dependency");
    assert!(!test.run(&["deps"]).1.contains("deps.get"), "all are committed");
    let list = "case \"$*\" in \"deps --all\") echo 'the dependency is out of date, run \"mix deps.get\"' ;; esac";
    let test = ScriptTest::new(list, Some("%{}"));
    fs::create_dir_all(test.path("app/deps/a")).expect("a dependency");
    assert!(test.run(&["deps"]).1.contains("mix deps.get --check-locked"), "one is not as the lock has it");
    fs::remove_file(test.path("tmp/phial-deps")).expect("the list");
    assert_eq!(fs::read_dir(test.path("tmp")).expect("listed").count(), 0, "it leaves nothing");
}

#[test]
fn rebar3_is_taken_from_the_base_and_installed_only_if_a_dependency_needs_it() {
    let test = ScriptTest::new("", Some("%{}"));
    assert!(!test.run(&["deps"]).1.contains("local.rebar"));
    fs::create_dir_all(test.path("app/deps/jiffy")).expect("a dependency");
    fs::write(test.path("app/deps/jiffy/rebar.config"), "").expect("rebar.config");
    assert!(test.run(&["deps"]).1.contains("mix local.rebar --force --if-missing"));
    test.tool("rebar3", "exit 0");
    assert!(!test.run(&["deps"]).1.contains("local.rebar"));
    let on_path = test.path("bin/rebar3");
    assert!(test.run(&["deps", "prod"]).1.ends_with(&format!("MIX_REBAR3={}\n", on_path.display())));
    let of_mix = test.path("home/.mix/elixir/1-18/rebar3");
    fs::create_dir_all(of_mix.parent().expect("inside")).expect("MIX_HOME");
    fs::copy(on_path, &of_mix).expect("copied");
    assert!(test.run(&["deps", "prod"]).1.ends_with(&format!("MIX_REBAR3={}\n", of_mix.display())));
}

#[test]
fn mix_fetches_with_the_rebar3_of_the_base_and_does_not_download_one() {
    let test = ScriptTest::new("", Some("%{}"));
    test.tool("rebar3", "exit 0");
    let out = test.run(&["deps"]).1;
    let rebar3 = test.path("bin/rebar3");
    let expected = format!("mix deps.get --check-locked MIX_ENV=prod MIX_REBAR3={}\n", rebar3.display());
    assert!(out.ends_with(&expected), "{out}");
}

#[test]
fn the_exit_code_and_the_output_of_mix_are_passed_on() {
    let test = ScriptTest::new("echo oops >&2\nexit 42", None);
    let (code, out, err) = test.run(&["build", "prod"]);
    assert_eq!((code, err.as_str()), (42, "oops\n"));
    assert!(out.starts_with("mix compile"), "{out}");
}

#[test]
fn a_missing_tool_is_named() {
    let test = ScriptTest::new("", Some("%{\"g\": {:git, \"https://h/g.git\", \"abc\", []}}"));
    let (code, out, err) = test.run(&["deps"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("error: the base image has no `git`"), "{err}");
    fs::remove_file(test.path("bin/mix")).expect("removed");
    assert!(test.run(&["build", "prod"]).2.starts_with("error: the base image has no `mix`"));
}

#[test]
fn a_project_without_mix_is_pointed_to_prepare_script() {
    let test = ScriptTest::new("", None);
    fs::remove_file(test.path("app/mix.exs")).expect("removed");
    let (code, _, err) = test.run(&["deps"]);
    assert!(code == 1 && err.contains("there is no mix.exs") && err.contains("`prepare.script`"), "{err}");
}

#[test]
fn other_calls_are_a_usage_error() {
    let test = ScriptTest::new("", None);
    for args in [&[][..], &["build"], &["run", "prod"]] {
        assert_eq!(test.run(args).0, 2, "{args:?}");
    }
}

/// As `RUN mix local.hex --force && mix local.rebar --force` leaves a base image.
#[test]
fn hex_and_rebar3_in_the_home_of_the_base_are_used() {
    let test = ScriptTest::new("", Some("%{\"a\": {:hex, :a, \"1.0.0\"}}"));
    for file in ["archives/hex-2.1.1/hex-2.1.1/ebin/hex.app", "elixir/1-18-otp-27/rebar3"] {
        let path = test.path("home/.mix").join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, "x").expect("a file");
    }
    let mix_home = test.path("opt/mix");
    let run = || {
        let mut script = Command::new("/bin/sh");
        script.arg(SCRIPT).arg("deps").current_dir(test.path("app")).env_clear();
        script.env("PATH", test.path("bin")).env("HOME", test.path("home")).env("TMPDIR", test.path("tmp"));
        script.env("MIX_HOME", &mix_home).status().expect("a shell")
    };
    run();
    assert!(mix_home.join("archives/hex-2.1.1/hex-2.1.1/ebin/hex.app").is_file());
    assert!(mix_home.join("elixir/1-18-otp-27/rebar3").is_file());
    let (home, other) = (mix_home.join("archives/hex-2.1.1"), mix_home.join("archives/hex-2.0.0"));
    fs::remove_dir_all(mix_home.join("archives")).expect("removed");
    run();
    assert!(home.exists(), "a MIX_HOME that has rebar3 alone hides no Hex");
    fs::rename(&home, &other).expect("renamed");
    run();
    assert!(other.exists() && !home.exists(), "the Hex that the image has in MIX_HOME stays the only one");
}
