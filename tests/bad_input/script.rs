//! The script of the repository, and what the base lacks for it.

use insta::assert_snapshot;

use super::{Scene, run};
use crate::harness::busybox::busybox_base_with;

#[test]
fn a_script_that_fails_is_shown_with_its_code_and_its_last_lines() {
    let scene = Scene::with_script(
        "#!/bin/sh\nn=0; while [ $n -lt 40 ]; do n=$((n + 1)); echo \"line $n\"; done\n\
         printf '\\033[31mred\\033[0m\\n'; echo 'no such part' >&2; exit 7\n",
    );
    let output = scene.refused(1, scene.build([]));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines[..3],
        ["error: the step `deps` failed with exit code 7; its last lines:", "  | line 18", "  | line 19"]
    );
    assert_eq!(lines[lines.len() - 2..], ["  | red", "  | no such part"]);
}

#[test]
fn a_script_that_fails_for_one_environment_names_it_and_leaves_the_other_unbuilt() {
    let scene =
        Scene::with_script("#!/bin/sh\n[ \"${2:-}\" != staging ] || { echo 'no stage' >&2; exit 9; }\necho x >made\n");
    let output = scene.refused(1, scene.build(["--env", "prod", "--env", "staging"]));
    assert_snapshot!(output, @r"
    error: the step `build staging` failed with exit code 9; its last lines:
      | no stage
    ");
}

#[test]
fn a_script_that_is_killed_is_shown_with_the_signal() {
    let scene = Scene::with_script("#!/bin/sh\necho working\nkill -9 $$\n");
    assert_snapshot!(scene.refused(1, scene.build([])), @r"
    error: the step `deps` was ended by signal 9 (SIGKILL); its last lines:
      | working
    hint: the machine may be out of memory
    ");
    let scene = Scene::with_script("#!/bin/sh\nkill -SEGV $$\n");
    assert_snapshot!(scene.refused(1, scene.build([])), @"error: the step `deps` was ended by signal 11 (SIGSEGV)");
}

#[test]
fn a_script_that_cannot_be_started_says_what_it_lacks() {
    let scene = Scene::with_script("#!/usr/bin/python3\n");
    assert_snapshot!(scene.refused(3, scene.build([])), @r"
    error: `/app/script/prepare_code` needs `/usr/bin/python3`, which is not in the root filesystem
    hint: install it in the base image, or name another base
    ");
    let scene = Scene::with_script("echo 'no first line'\n");
    assert_snapshot!(scene.refused(3, scene.build([])), @r"
    error: cannot start `/app/script/prepare_code`: Exec format error (os error 8)
    hint: a script must begin with a line such as `#!/bin/sh`, and a program must be built for this CPU architecture
    ");
}

#[test]
fn a_script_must_be_in_the_commit_and_executable() {
    let scene = Scene::with(|repo| {
        repo.git(["update-index", "--chmod=-x", "script/prepare_code"]);
        repo.git(["config", "core.fileMode", "false"]);
    });
    assert_snapshot!(scene.refused(2, scene.build([])), @r"
    error: `script/prepare_code` is not executable in the commit
    hint: run `git update-index --chmod=+x script/prepare_code` and commit
    ");
    let scene = Scene::with(|repo| {
        repo.git(["mv", "script/prepare_code", "prepare"]);
    });
    assert_snapshot!(scene.refused(2, scene.build([])), @r"
    error: `prepare.script` names `script/prepare_code`, which is not in the commit
    hint: commit the file, or correct the path
    ");
    let settings = "[prepare]\nscript = \"../prepare\"\n";
    let scene = Scene::with(|repo| repo.write("phial.toml", settings));
    assert_snapshot!(scene.refused(2, scene.build([])), @"error: `prepare.script` is `../prepare`, but it must be a path inside the repository, without `..`");
    let settings = "[prepare]\nscript = \"script/prepare_code\"\ninputs = [\"package.json\"]\n";
    let scene = Scene::with(|repo| repo.write("phial.toml", settings));
    assert_snapshot!(scene.refused(2, scene.build([])), @r"
    error: `prepare.inputs` names `package.json`, which is not in the commit
    hint: commit the file, or correct the path
    ");
}

#[test]
fn a_whiteout_name_cannot_be_written_or_committed() {
    let scene = Scene::with_script("#!/bin/sh\nmkdir -p lib; touch lib/.wh.a\n");
    assert_snapshot!(scene.refused(1, scene.build([])), @r"
    error: the step left a file named `app/lib/.wh.a`: names that begin with `.wh.` are reserved for whiteouts in layers
    hint: remove the file at the end of the script
    ");
    for isolation in ["copy", "overlay"] {
        let output = scene.refused(1, scene.build(["--isolation", isolation]));
        assert!(output.contains("`app/lib/.wh.a`"), "{output}");
    }
    let scene = Scene::with(|repo| repo.write("lib/.wh.a", ""));
    assert_snapshot!(scene.refused(3, scene.build([])), @r"
    error: the name of `app/lib/.wh.a` is reserved for whiteouts
    hint: names that begin with `.wh.` mean deletions in a layer; rename the file
    ");
}

#[test]
fn what_is_passed_to_a_script_is_not_in_the_error_or_the_cache() {
    let scene = Scene::with(|repo| {
        let settings =
            "[image]\nenvs = [\"prod\"]\n[prepare]\nscript = \"script/prepare_code\"\npass = [\"SHOP_KEY\"]\n";
        repo.write("phial.toml", settings);
        repo.script("script/prepare_code", "#!/bin/sh\n[ -n \"$SHOP_KEY\" ] && echo 'the key is there'; exit 4\n");
    });
    let mut build = scene.build([]);
    build.env("SHOP_KEY", "open sesame").env("SHOP_OTHER", "unasked");
    let output = scene.refused(1, build);
    assert!(output.contains("the key is there") && !output.contains("sesame"), "{output}");
    let mut grep = std::process::Command::new("grep");
    grep.args(["--recursive", "--files-with-matches", "sesame"]).arg(scene.env.cache());
    assert_eq!(run(grep).stdout, "");
}

/// What a build of a Mix app with a git dependency says on a base with these programs.
#[track_caller]
fn error_on(programs: &[(&str, &str)]) -> String {
    let scene = Scene::with(|repo| {
        repo.write("phial.toml", "");
        repo.write("mix.exs", "[]");
        repo.write("mix.lock", "%{\"stamp\": {:git, \"https://localhost/stamp.git\", \"0123\", []}}\n");
    });
    let base = format!("oci:{}", busybox_base_with(&scene.env, programs).display());
    scene.refused(1, scene.build_on(&base, &format!("oci:{}", scene.out().display()), ["--network", "none"]))
}

#[test]
fn a_tool_that_the_base_lacks_is_named() {
    assert_snapshot!(error_on(&[]), @r"
    error: the step `deps` failed with exit code 1; its last lines:
      | error: the base image has no `erl`, which mix needs
      | hint: add `erl` to the base image
    ");
    assert_snapshot!(error_on(&[("bin/erl", "#!/bin/sh\n")]), @r"
    error: the step `deps` failed with exit code 1; its last lines:
      | error: the base image has no `mix`, which a Mix project needs
      | hint: add `mix` to the base image
    ");
    assert_snapshot!(error_on(&[("bin/erl", "#!/bin/sh\n"), ("bin/mix", "#!/bin/sh\n")]), @r"
    error: the step `deps` failed with exit code 1; its last lines:
      | error: the base image has no `git`, which a git dependency needs
      | hint: add `git` to the base image
    ");
    assert_snapshot!(run_missing(), @r"
    error: there is no command `mix` in the root filesystem
    hint: install it in the base image, or name another base
    ");
}

fn run_missing() -> String {
    let scene = Scene::new();
    let image = format!("oci:{}", crate::harness::busybox::busybox_base().display());
    scene.error(run(scene.env.phial(["run", &image, "--progress", "quiet", "--", "mix"])), 3)
}

#[test]
fn a_step_that_takes_too_long_or_writes_too_much_is_stopped_and_the_setting_named() {
    let settings = |limit: &str| {
        format!(
            "[image]\nenvs = [\"prod\"]\n[prepare]\nscript = \"script/prepare_code\"\ninputs = [\"VERSION\"]\n{limit}\n"
        )
    };
    let cases = [
        ("timeout = '1s'", "echo up; sleep 100", "it did not end within 1 s", "prepare.timeout"),
        (
            "max_output = '100kB'",
            "while :; do echo 0123456789; done",
            "it wrote more than 100000 bytes",
            "prepare.max_output",
        ),
        (
            "max_memory = '60MB'",
            "x=$(head -c 80000000 /dev/zero | tr '\\0' x); sleep 100",
            "it took more than 60000000 bytes of memory",
            "prepare.max_memory",
        ),
    ];
    for (limit, script, why, setting) in cases {
        let scene = Scene::with(|repo| {
            repo.script("script/prepare_code", &format!("#!/bin/sh\n{script}\n"));
            repo.write("phial.toml", settings(limit));
        });
        let error = scene.refused(1, scene.build([]));
        assert!(error.contains(&format!("error: the step `deps` was stopped: {why}")), "{error}");
        assert!(error.contains("hint: ") && error.contains(setting), "{error}");
    }
    let scene = Scene::with(|repo| repo.write("phial.toml", settings("max_processes = 3")));
    let error = scene.refused(2, scene.build([]));
    assert!(error.contains("prepare.max_processes"), "{error}");
}

/// A Mix project with a configuration of its own for `prod` alone.
fn project_with_prod_only() -> Scene {
    Scene::with(|repo| {
        repo.write("phial.toml", "");
        repo.write("mix.exs", "[]");
        repo.write("config/config.exs", "import Config\nimport_config \"#{config_env()}.exs\"\n");
        repo.write("config/prod.exs", "import Config\n");
    })
}

#[test]
fn an_environment_without_its_configuration_is_found_before_the_first_step() {
    let scene = project_with_prod_only();
    assert_snapshot!(scene.refused(2, scene.build(["--env", "prod", "--env", "staging"])), @r#"
    error: the environment `staging` has no configuration: config/config.exs imports `config/staging.exs`, which is not in the commit
    hint: commit `config/staging.exs`, or name the environments that there are: `envs = ["prod"]` under `[image]` in `phial.toml`
    "#);
}

#[test]
fn without_a_setting_the_environments_are_those_that_have_a_configuration() {
    let scene = project_with_prod_only();
    let mix = "#!/bin/sh\ntest \"$1\" != compile || mkdir -p _build/$MIX_ENV\n";
    let base = busybox_base_with(&scene.env, &[("bin/erl", "#!/bin/sh\n"), ("bin/mix", mix)]);
    let (base, to) = (format!("oci:{}", base.display()), format!("oci:{}", scene.out().display()));
    let output = run(scene.env.phial(["build", scene.repo.source(), "--base", &base, "--to", &to]));
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains("compiled for `prod` only"), "{}", output.stderr);
    let list = scene.env.phial(["run", "--progress", "quiet", &to, "--", "ls", "_build"]);
    assert_eq!(run(list).ok(), "prod");
}
