//! Arguments, `phial.toml`, `phial.lock`, and the repository itself.

use insta::assert_snapshot;

use super::{Scene, run};
use crate::harness::through_program;

#[test]
fn a_revision_that_is_not_there_names_where_it_was_looked_for() {
    let scene = Scene::new();
    assert_snapshot!(scene.refused(3, scene.build(["--rev", "v9"])), @r"
    error: `[DIR]/app` has no revision `v9` (searched refs/tags/v9, refs/heads/v9, refs/v9, refs/remotes/v9)
    hint: push it first; `git ls-remote` lists the branches and tags of the server
    ");
    assert_snapshot!(scene.refused(3, scene.build(["--rev", "0123456789012345678901234567890123456789"])), @r"
    error: `[DIR]/app` has no revision `0123456789012345678901234567890123456789` (searched the object itself)
    hint: a server may refuse to give a commit by its SHA when no branch or tag leads to it: push the commit, name its branch or tag, or set `uploadpack.allowAnySHA1InWant` on the server
    ");
    assert_snapshot!(scene.refused(2, scene.build(["--rev", "HEAD~1"])), @r"
    error: `HEAD~1` is not a revision: it is not a SHA or a valid name of a tag or branch
    hint: a revision is a full SHA, a tag, a branch, `refs/...` or `HEAD`
    ");
}

#[test]
fn a_source_that_is_no_repository_is_refused() {
    let scene = Scene::new();
    for source in ["/proc", "/nonexistent"] {
        let output = scene.refused(3, scene.env.phial(["build", source, "--base", "oci:x"]));
        assert!(output.contains(&format!("`{source}` is not in a git repository")), "{output}");
    }
    scene.repo.git(["init", "-q", &scene.env.path("empty")]);
    let empty = scene.env.path("empty");
    assert_snapshot!(scene.refused(3, scene.env.phial(["build", &empty, "--base", "oci:x"])), @r"
    error: `[DIR]/empty` has no commit to build
    hint: create a commit first
    ");
}

#[test]
fn a_build_without_a_base_says_where_to_name_one() {
    let scene = Scene::new();
    assert_snapshot!(scene.refused(2, scene.env.phial(["build", scene.repo.source(), "--progress", "quiet"])), @r"
    error: no base image is named
    hint: name one with `--base REF`, or with `base` under `[image]` in `phial.toml`
    ");
}

#[test]
fn an_environment_is_a_word_and_named_once() {
    let scene = Scene::new();
    assert_snapshot!(scene.refused(2, scene.build(["--env", "Prod"])), @"error: `env` is `Prod`, but an environment is a lower-case word such as `prod`");
    assert_snapshot!(scene.refused(2, scene.build(["--env", "prod", "--env", "prod"])), @"error: `env` is `prod`, and it is named twice");
}

#[test]
fn an_environment_that_the_app_does_not_know_is_its_scripts_to_refuse() {
    let scene = Scene::with_script(
        "#!/bin/sh\n[ \"$1 ${2:-}\" != 'build moon' ] || { echo 'there is no moon' >&2; exit 3; }\n",
    );
    assert_snapshot!(scene.refused(1, scene.build(["--env", "moon"])), @r"
    error: the step `build moon` failed with exit code 3; its last lines:
      | there is no moon
    ");
}

#[track_caller]
fn error_of(settings: &str) -> String {
    let scene = Scene::with(|repo| repo.write("phial.toml", settings));
    scene.refused(2, scene.build([]))
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    assert_snapshot!(error_of("[image]\nevns = [\"prod\"]\n"), @r"
    error: `phial.toml` has the unknown key `image.evns`
    hint: did you mean `image.envs`?
    ");
    assert_snapshot!(error_of("[imgae]\nenvs = [\"prod\"]\n"), @r"
    error: `phial.toml` has the unknown key `imgae`
    hint: did you mean `image`?
    ");
    assert_snapshot!(error_of("[image]\nscript = \"script/prepare_code\"\n"), @r"
    error: `phial.toml` has the unknown key `image.script`
    hint: did you mean `prepare.script`?
    ");
    assert_snapshot!(error_of("base = \"oci:base\"\n"), @r"
    error: `phial.toml` has the unknown key `base`
    hint: did you mean `image.base`?
    ");
    assert_snapshot!(error_of("[image]\ncolour = \"blue\"\n"), @"error: `phial.toml` has the unknown key `image.colour`");
}

#[test]
fn settings_that_are_no_toml_or_of_another_type_are_shown_with_their_place() {
    assert_snapshot!(error_of("[image\n"), @r"
    error: `phial.toml` cannot be read: line 1, column 7: unclosed table, expected `]`
      | [image
      |       ^
    ");
    assert_snapshot!(error_of("[image]\nenvs = 3\n"), @r"
    error: `phial.toml` cannot be read: line 2, column 8: invalid type: integer `3`, expected a sequence
      | envs = 3
      |        ^
    ");
    let scene = Scene::new();
    assert_snapshot!(scene.refused(2, scene.build(["--config", "nowhere.toml"])), @"error: cannot read `nowhere.toml`: No such file or directory (os error 2)");
}

#[test]
fn a_commit_that_nothing_can_prepare_is_refused_before_anything_runs() {
    let scene = Scene::with(|repo| repo.write("phial.toml", ""));
    assert_snapshot!(scene.refused(2, scene.build([])), @r#"
    error: the commit has no `mix.exs`, and `phial.toml` names no `prepare.script`
    hint: name the app's directory by `--app DIR`; an app that is not a Mix project has `script = "PATH"` under `[prepare]`
    "#);
}

#[test]
fn a_variable_that_names_certificates_which_are_not_there_is_named() {
    let scene = Scene::new();
    let mut build = scene.build([]);
    build.env("HEX_CACERTS_PATH", "/nowhere/ca.pem");
    assert_snapshot!(scene.refused(2, build), @"error: `HEX_CACERTS_PATH` is `/nowhere/ca.pem`, which is not a file");
}

#[test]
fn locked_wants_a_lock_for_this_base() {
    let scene = Scene::new();
    assert_snapshot!(scene.refused(2, scene.build(["--locked"])), @r"
    error: `--locked` requires a pinned base image, but `phial.lock` in the commit does not exist
    hint: run `phial lock` and commit `phial.lock`
    ");
    let other = Scene::with(|repo| repo.write("phial.lock", lock("oci:elsewhere")));
    assert_snapshot!(other.refused(2, other.build(["--locked"])), @r"
    error: `--locked` requires a pinned base image, but `phial.lock` in the commit pins `oci:elsewhere`, not `oci:[BASE]`
    hint: run `phial lock` and commit `phial.lock`
    ");
}

#[test]
fn a_lock_that_pins_a_digest_which_the_base_does_not_have_is_an_error() {
    let base = format!("oci:{}", crate::harness::busybox::busybox_base().display());
    let scene = Scene::with(|repo| repo.write("phial.lock", lock(&base)));
    let output = scene.refused(3, scene.build([]));
    assert_snapshot!(without_digest(&output), @r"
    error: the base image `sha256:1...` that `phial.lock` pins is not available: `[BASE]` has no image `sha256:1...`; it has `sha256:[HEX]`
    hint: to use the present digest, run `phial lock` and commit `phial.lock`
    ");
}

#[test]
fn a_lock_that_cannot_be_read_is_shown_with_its_place() {
    let scene = Scene::with(|repo| repo.write("phial.lock", "[base]\nnme = \"x\"\n"));
    assert_snapshot!(scene.refused(2, scene.build([])), @r#"
    error: `phial.lock` cannot be read: line 2, column 1: unknown field `nme`, expected `name` or `digest`
      | nme = "x"
      | ^
    "#);
}

#[test]
fn a_lock_is_written_into_a_working_tree_only() {
    let scene = Scene::new();
    assert_snapshot!(scene.refused(3, scene.env.phial(["lock", "/proc", "--base", "oci:x"])), @r"
    error: `/proc` is not in a git repository
    hint: name a directory inside a git repository, or a URL
    ");
    let base = format!("oci:{}", scene.env.path("nowhere"));
    let output = scene.refused(3, scene.env.phial(["lock", scene.repo.source(), "--base", &base]));
    assert_snapshot!(output, @r"
    error: there is no `[DIR]/nowhere`
    hint: correct the path, or create a base image there with `phial base`
    ");
    assert!(!scene.repo.dir().join("phial.lock").exists());
}

fn lock(name: &str) -> String {
    format!("[base]\nname = \"{name}\"\ndigest = \"sha256:{}\"\n", "1".repeat(64))
}

/// The base's own digest changes with the machine's busybox.
pub(super) fn without_digest(output: &str) -> String {
    let mut text = output.replace(&"1".repeat(64), "1...");
    while let Some(at) = hex(&text) {
        text.replace_range(at..at + 64, "[HEX]");
    }
    text
}

/// The positions of 64 hexadecimal digits.
fn hex(text: &str) -> Option<usize> {
    let windows = text.as_bytes().windows(64).enumerate();
    windows.filter(|(_, digits)| digits.iter().all(u8::is_ascii_hexdigit)).map(|(at, _)| at).next()
}

#[test]
fn settings_at_a_relative_path_are_a_regular_file() {
    let scene = Scene::new();
    for make in ["ln -s /dev/zero", "ln -s /etc/passwd", "mkfifo", "mkdir"] {
        let mut sh = std::process::Command::new("sh");
        sh.args(["-euc", &format!("rm -rf ci.toml; {make} ci.toml")]).current_dir(scene.repo.dir());
        run(sh).ok();
        let mut build = through_program(&["timeout", "60"], &scene.build(["--config", "ci.toml"]));
        build.current_dir(scene.repo.dir());
        let error = scene.error(run(build), 2);
        assert!(error.contains("cannot read `ci.toml`: it is not a regular file"), "{make}: {error}");
    }
    let large = scene.env.path("large.toml");
    std::fs::write(&large, " ".repeat((1 << 20) + 1)).expect("a file");
    let error = scene.refused(2, scene.build(["--config", &large]));
    assert!(error.contains("it has more than 1048576 bytes"), "{error}");
    let mut piped = through_program(&["sh", "-c", "echo '[nonsense]' | \"$@\"", "sh"], &scene.build([]));
    piped.args(["--config", "/dev/stdin"]);
    let error = scene.error(run(piped), 2);
    assert!(error.contains("nonsense"), "{error}");
}
