//! What is built equal still works: Mix finds it up to date, sees what is edited, and tells what it always told.

use std::fs;

use crate::world::parts::base;
use crate::world::{Ran, World, run};

/// The image of `hello`, built once for both tests.
fn hello() -> (World, String) {
    let world = World::new();
    let repo = world.app("hello");
    let (from, to) = (format!("oci:{}", base().display()), format!("oci:{}", world.path("out")));
    run(world.phial(["build", repo.source(), "--base", &from, "--to", &to])).ok();
    (world, to)
}

fn sh(world: &World, image: &str, script: &str) -> Ran {
    run(world.phial(["run", image, "--user", "0", "--progress", "quiet", "--", "sh", "-c", script]))
}

#[test]
fn in_the_image_mix_compiles_nothing_and_after_an_edit_only_what_is_stale() {
    let (world, image) = hello();
    for script in ["mix run --no-start -e ':ok'", "MIX_ENV=staging mix run --no-start -e ':ok'", "mix compile"] {
        let ran = sh(&world, &image, script);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{script}: {}", ran.err);
    }
    let touched = "touch /tmp/now; mix compile; find /app -newer /tmp/now";
    assert_eq!(sh(&world, &image, touched).ok(), "", "nothing is written");
    for env in ["staging", "prod"] {
        let said = sh(&world, &image, &format!("MIX_ENV={env} mix test --only line:8 --only line:12 2>&1")).ok();
        assert!(!said.contains("Compiling") && said.contains(" 0 failures"), "{env}: {said}");
    }
    let router = fs::read_to_string(crate::world::testdata("apps/hello/lib/hello/router.ex")).expect("a source");
    assert!(router.contains("no such page"));
    let edit = "sed -i 's/no such page/no such Page/' lib/hello/router.ex && mix compile && \
                mix run --no-start -e 'IO.inspect(Hello.Router.route(\"/x\").body)'";
    let said = sh(&world, &image, edit).ok();
    assert_eq!(said, "Compiling 1 file (.ex)\nGenerated hello app\n\"no such Page\\n\"", "a same-size edit is seen");
}

#[test]
fn documentation_and_stack_traces_are_as_ever() {
    let (world, image) = hello();
    let docs = "mix run --no-start -e 'require IEx.Helpers; IEx.Helpers.h(Hello.Router.about)'";
    let said = sh(&world, &image, docs).ok();
    assert!(said.contains("What this build was compiled for."), "{said}");
    let raises = "mix run --no-start -e 'Hello.Render.response(1)' 2>&1";
    let ran = sh(&world, &image, raises);
    assert!(ran.out.contains("lib/hello/render.ex:"), "{}", ran.out);
}
