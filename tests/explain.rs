//! `phial explain`: from what each layer of a build followed, and what differs from the build before.

use std::fs;

use serde_json::Value;

use crate::harness::busybox::{busybox_base, busybox_base_with};
use crate::harness::git_http::GitServer;
use crate::harness::{Repo, TestEnv, run};

const SETTINGS: &str =
    "[image]\nenvs = [\"prod\"]\n\n[prepare]\nscript = \"script/prepare_code\"\ninputs = [\"VERSION\", \"mix.lock\"]\n";

fn lock(jason: &str) -> String {
    format!("%{{\n  \"jason\": {{:hex, :jason, \"{jason}\", \"aa\", [:mix], [], \"hexpm\", \"bb\"}},\n}}\n")
}

/// The small app, with a lock that the deps step sees.
fn app(env: &TestEnv) -> Repo {
    let app = env.shell_app();
    app.write("phial.toml", SETTINGS);
    app.write("mix.lock", lock("1.4.4"));
    app.commit("A lock");
    app
}

#[track_caller]
fn build(env: &TestEnv, source: &str, flags: &[&str]) -> String {
    let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let base: &[&str] = if flags.contains(&"--base") { &[] } else { &["--base", &base] };
    let args = [&["build", source, "--to", &to], base, flags].concat();
    run(env.phial(args)).ok().rsplit_once('@').expect("a digest").1.to_owned()
}

#[track_caller]
fn explained(env: &TestEnv, args: &[&str]) -> String {
    run(env.phial([&["explain"], args].concat())).ok()
}

/// The lines below a layer's heading, but for the list of inputs.
#[track_caller]
fn of_layer<'a>(output: &'a str, layer: &str) -> Vec<&'a str> {
    let heading = format!("{layer}: ");
    let below = output.lines().skip_while(|line| !line.starts_with(&heading)).skip(2);
    below.map_while(|line| line.strip_prefix("  ")).collect()
}

fn cut(digest: &str) -> &str {
    &digest[..12]
}

#[test]
fn changes_are_explained_layer_by_layer() {
    let env = TestEnv::with_empty_cache();
    let app = app(&env);
    let first = app.git(["rev-parse", "HEAD"]);
    let one = build(&env, app.source(), &[]);
    let output = explained(&env, &["--source", app.source()]);
    assert!(output.starts_with(&format!("image {one} of commit {first} of {} (", app.source())), "{output}");
    assert!(output.contains("\nno earlier build of the repository is on record\n"), "{output}");
    assert!(
        output.contains(
            "\n  inputs: base, clock, compression, envs, format, mtime, network, script, strict, VERSION, mix.lock"
        ),
        "{output}"
    );

    app.write("mix.lock", lock("1.4.5"));
    app.write("lib/new.ex", "new");
    let second = app.commit("A dependency and a file");
    let two = build(&env, app.source(), &[]);
    assert_ne!(one, two);
    let mut explain = env.phial(["explain"]);
    explain.current_dir(app.dir());
    let output = run(explain).ok();
    assert!(output.contains(&format!("\nafter {one} of commit {first} of ")), "{output}");
    let commit = format!("commit {} -> {}: lib/new.ex added, mix.lock changed", cut(&first), cut(&second));
    assert_eq!(of_layer(&output, "deps"), ["mix.lock: jason 1.4.4 -> 1.4.5"]);
    assert_eq!(of_layer(&output, "app")[0], commit);
    let of_build = of_layer(&output, "build prod");
    assert!(of_build.contains(&commit.as_str()), "{output}");
    for layer in ["deps", "app", "build prod"] {
        assert!(output.contains(&format!("\n{layer}: built in ")), "{output}");
    }
}

#[test]
fn cached_layers_are_named_with_the_reason() {
    let env = TestEnv::with_empty_cache();
    let app = app(&env);
    build(&env, app.source(), &[]);
    build(&env, app.source(), &[]);
    let output = explained(&env, &["--source", app.source()]);
    for layer in ["deps", "app", "build prod"] {
        assert!(output.contains(&format!("\n{layer}: cached in ")), "{output}");
        assert_eq!(of_layer(&output, layer), ["no input changed"]);
    }
    build(&env, app.source(), &["--no-cache"]);
    let output = explained(&env, &["--source", app.source()]);
    assert_eq!(of_layer(&output, "deps"), ["no input changed; it was built again because of `--no-cache`"]);
    fs::remove_dir_all(env.cache().join("results")).unwrap();
    build(&env, app.source(), &[]);
    let output = explained(&env, &["--source", app.source()]);
    assert_eq!(
        of_layer(&output, "deps"),
        ["no input changed; it was built again because it was not in the cache any more"]
    );
    let first = app.git(["rev-parse", "HEAD"]);
    app.write("README", "new");
    app.commit("Another file");
    build(&env, app.source(), &[]);
    build(&env, app.source(), &["--rev", &first]);
    let output = explained(&env, &["--source", app.source()]);
    assert_eq!(of_layer(&output, "app").last(), Some(&"an earlier build had the same inputs"), "{output}");
}

#[test]
fn a_base_an_environment_and_a_variable_are_inputs_too() {
    let env = TestEnv::with_empty_cache();
    let app = app(&env);
    app.write("phial.toml", format!("{SETTINGS}env = {{ NAME = \"a value of 1\", GONE = \"x\" }}\n"));
    app.commit("Variables");
    build(&env, app.source(), &["--env", "prod"]);
    let other = format!("oci:{}", busybox_base_with(&env, &[("bin/more", "#!/bin/sh\n")]).display());
    app.write("phial.toml", format!("{SETTINGS}env = {{ NAME = \"a value of 2\" }}\n"));
    app.commit("Another value");
    build(&env, app.source(), &["--env", "prod", "--env", "test", "--base", &other]);
    let output = explained(&env, &["--source", app.source()]);
    let deps = of_layer(&output, "deps");
    assert!(deps[0].starts_with("base: sha256:") && deps[0].len() < 60, "{output}");
    assert_eq!(deps[1..], ["variable GONE: gone", "variable NAME: changed", "envs: prod -> prod test"]);
    assert_eq!(of_layer(&output, "build test"), ["new: the build before had no such layer"]);
    let kept: String = walkdir::WalkDir::new(env.cache().join("history"))
        .into_iter()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    let json = explained(&env, &["--source", app.source(), "--json"]);
    assert!(kept.contains("env NAME"), "{kept}");
    assert!(!kept.contains("a value of") && !json.contains("a value of"), "no value is kept or ran: {kept}");
}

#[test]
fn a_repository_is_the_same_by_url_and_its_mirror_knows_the_files() {
    let env = TestEnv::with_empty_cache();
    let app = app(&env);
    let first = app.git(["rev-parse", "HEAD"]);
    let server = GitServer::start(env.dir());
    let url = format!("{}/app/.git", server.url);
    build(&env, &url, &[]);
    app.write("mix.lock", lock("1.3.0"));
    let second = app.commit("A lower version");
    build(&env, &url, &[]);
    drop(server);
    let output = explained(&env, &["--source", &url]);
    assert_eq!(of_layer(&output, "deps"), ["mix.lock: jason 1.4.4 -> 1.3.0 (down)"], "{output}");
    assert_eq!(of_layer(&output, "app")[0], format!("commit {} -> {}: mix.lock changed", cut(&first), cut(&second)));
    fs::remove_dir_all(env.cache().join("git")).unwrap();
    let output = explained(&env, &["--source", &url]);
    assert_eq!(of_layer(&output, "app")[0], format!("commit {} -> {}", cut(&first), cut(&second)));
    assert!(of_layer(&output, "deps")[0].starts_with("mix.lock: "), "the ids are left: {output}");
}

#[test]
fn clones_of_one_origin_share_their_history_and_other_repositories_do_not() {
    let env = TestEnv::with_empty_cache();
    let app = app(&env);
    app.git(["remote", "add", "origin", "git@git.example:team/app.git"]);
    build(&env, app.source(), &[]);
    app.git(["clone", "-q", ".", &env.path("clone")]);
    let clone = Repo::at(&env.dir().join("clone"));
    clone.git(["remote", "set-url", "origin", "https://ann@git.example/team/app"]);
    let output = explained(&env, &["--source", clone.source()]);
    assert!(output.contains(app.source()), "{output}");
    clone.git(["remote", "set-url", "origin", "https://git.example/team/other"]);
    let ran = run(env.phial(["explain", "--source", clone.source()]));
    assert!(ran.failed(3).contains("error: no build of `https://git.example/team/other` is on record"));
}

#[test]
fn an_image_is_found_by_its_digest_wherever_it_is_and_ten_builds_are_kept() {
    let env = TestEnv::with_empty_cache();
    let app = app(&env);
    let mut digests = vec![];
    for n in 0..12 {
        app.write("VERSION", format!("{n}\n"));
        app.commit("A version");
        digests.push(build(&env, app.source(), &[]));
    }
    let output = explained(&env, &[&digests[5]]);
    assert!(output.starts_with(&format!("image {} ", digests[5])), "{output}");
    assert!(output.contains(&format!("\nafter {} ", digests[4])), "{output}");
    let output = explained(&env, &[&format!("nowhere.example/app@{}", digests[2])]);
    assert!(
        output.contains("\nno earlier build of the repository is on record\n"),
        "the oldest that is left: {output}"
    );
    let output = explained(&env, &[&format!("oci:{}", env.path("out"))]);
    assert!(output.starts_with(&format!("image {} ", digests[11])), "{output}");
    let ran = run(env.phial(["explain", &digests[1]]));
    let error = ran.failed(3);
    assert!(
        error.contains(&format!(
            "error: no build of `{}` is on record\nhint: only the cache directory of the build",
            digests[1]
        )),
        "{error}"
    );
}

#[test]
fn json_has_the_keys_the_times_and_the_words() {
    let env = TestEnv::with_empty_cache();
    let app = app(&env);
    build(&env, app.source(), &[]);
    app.write("VERSION", "2\n");
    app.commit("A version");
    let digest = build(&env, app.source(), &[]);
    let json: Value = serde_json::from_str(&explained(&env, &["--json", "--source", app.source()])).unwrap();
    assert_eq!(json["build"]["image"], digest);
    assert_eq!(json["layers"][0]["name"], "deps");
    assert_eq!(json["layers"][0]["changed"][0]["name"], "file VERSION");
    assert!(json["layers"][0]["millis"].as_u64().is_some_and(|millis| millis > 0));
    build(&env, app.source(), &["--env", "test", "--env", "prod"]);
    build(&env, app.source(), &["--env", "test", "--env", "prod"]);
    let output = explained(&env, &["--source", app.source()]);
    assert!(output.contains("\nbuild test, build prod: cached in "), "what one call made is printed once: {output}");
    assert!(json["build"]["layers"][2]["key"]["inputs"]["app"].as_str().unwrap().starts_with("sha256:"));
}

#[test]
fn without_a_record_there_is_one_clear_error() {
    let env = TestEnv::with_empty_cache();
    let app = env.shell_app();
    let error = run(env.phial(["explain", "--source", app.source()])).failed(3);
    assert_eq!(
        error,
        format!(
            "error: no build of `{}` is on record\nhint: run `phial build` first, with the same cache directory\n",
            fs::canonicalize(app.dir()).unwrap().display()
        )
    );
    let nowhere = tempfile::tempdir().unwrap();
    let mut explain = env.phial(["explain"]);
    explain.current_dir(nowhere.path());
    assert!(run(explain).failed(3).contains("is not in a git repository"));
    let gone = run(env.phial(["explain", &format!("oci:{}", env.path("nowhere"))])).failed(3);
    assert!(gone.starts_with("error: there is no `"), "{gone}");
    let never_built = format!("oci:{}", busybox_base().display());
    let error = run(env.phial(["explain", &never_built])).failed(3);
    assert!(error.contains(&format!("error: no build of `{never_built}` is on record")), "{error}");
}

#[test]
fn a_damaged_record_is_no_record_and_one_that_cannot_be_written_stops_no_build() {
    let env = TestEnv::with_empty_cache();
    let app = app(&env);
    build(&env, app.source(), &[]);
    let history = env.cache().join("history");
    let file = fs::read_dir(&history).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, "{").unwrap();
    run(env.phial(["explain", "--source", app.source()])).failed(3);
    build(&env, app.source(), &[]);
    explained(&env, &["--source", app.source()]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let (base, to) = (format!("oci:{}", busybox_base().display()), format!("oci:{}", env.path("out")));
    let ran = run(env.phial(["build", app.source(), "--base", &base, "--to", &to]));
    assert!(ran.stderr.contains("note: `phial explain` cannot explain this build"), "{}", ran.stderr);
    ran.ok();
}
