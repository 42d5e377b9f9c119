//! What is built equal still works: Mix finds it up to date, sees edits, and shows documentation and stack traces.

use std::fs;

use crate::harness::prebuilt::elixir_base;
use crate::harness::{Output, TestEnv, run};

/// The image of `hello`, built once for both tests.
fn hello() -> (TestEnv, String) {
    let env = TestEnv::new();
    let repo = env.app("hello");
    let (from, to) = (format!("oci:{}", elixir_base().display()), format!("oci:{}", env.path("out")));
    run(env.phial(["build", repo.source(), "--base", &from, "--to", &to])).ok();
    (env, to)
}

fn sh(env: &TestEnv, image: &str, script: &str) -> Output {
    run(env.phial(["run", image, "--user", "0", "--progress", "quiet", "--", "sh", "-c", script]))
}

#[test]
fn in_the_image_mix_compiles_nothing_and_after_an_edit_only_stale_files() {
    let (env, image) = hello();
    for script in ["mix run --no-start -e ':ok'", "MIX_ENV=staging mix run --no-start -e ':ok'", "mix compile"] {
        let ran = sh(&env, &image, script);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{script}: {}", ran.stderr);
    }
    let touched = "touch /tmp/now; mix compile; find /app -newer /tmp/now";
    assert_eq!(sh(&env, &image, touched).ok(), "", "nothing is written");
    for mix_env in ["staging", "prod"] {
        let output = sh(&env, &image, &format!("MIX_ENV={mix_env} mix test --only line:8 --only line:12 2>&1")).ok();
        assert!(!output.contains("Compiling") && output.contains(" 0 failures"), "{mix_env}: {output}");
    }
    let router = fs::read_to_string(crate::harness::testdata("apps/hello/lib/hello/router.ex")).expect("a source");
    assert!(router.contains("no such page"));
    let edit = "sed -i 's/no such page/no such Page/' lib/hello/router.ex && mix compile && \
                mix run --no-start -e 'IO.inspect(Hello.Router.route(\"/x\").body)'";
    let output = sh(&env, &image, edit).ok();
    assert_eq!(output, "Compiling 1 file (.ex)\nGenerated hello app\n\"no such Page\\n\"", "a same-size edit is seen");
}

#[test]
fn documentation_and_stack_traces_work() {
    let (env, image) = hello();
    let docs = "mix run --no-start -e 'require IEx.Helpers; IEx.Helpers.h(Hello.Router.about)'";
    let output = sh(&env, &image, docs).ok();
    assert!(output.contains("What this build was compiled for."), "{output}");
    let raises = "mix run --no-start -e 'Hello.Render.response(1)' 2>&1";
    let ran = sh(&env, &image, raises);
    assert!(ran.stdout.contains("lib/hello/render.ex:"), "{}", ran.stdout);
}
