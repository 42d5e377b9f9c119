//! Which steps there are, what they see, and what is refused.

use super::source_tree::tests::files;
use super::*;

fn recipe(script: Script) -> Recipe {
    let envs = vec!["staging".into(), "prod".into()];
    Recipe {
        app: AppDir::default(),
        include: vec![],
        script,
        envs,
        inputs: vec![],
        lockfile: None,
        hex: None,
        env: BTreeMap::new(),
    }
}

fn seen(recipe: &Recipe, paths: &[&str]) -> Vec<String> {
    let visible = recipe.deps_inputs(&files(paths)).complete().unwrap();
    visible.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
}

#[test]
fn the_deps_step_of_a_mix_app_sees_what_mix_reads_to_resolve_dependencies() {
    let paths = [
        "mix.exs",
        "mix.lock",
        "config/config.exs",
        "config/env/prod.exs",
        "config/runtime.exs",
        "lib/app.ex",
        "apps/web/mix.exs",
        "apps/web/config/config.exs",
        "apps/web/lib/web.ex",
        "priv/config/x",
        "deps/x/mix.exs",
    ];
    let expected = [
        "apps/web/config/config.exs",
        "apps/web/mix.exs",
        "config/config.exs",
        "config/env/prod.exs",
        "deps/x/mix.exs",
        "mix.exs",
        "mix.lock",
    ];
    assert_eq!(seen(&recipe(Script::BuiltIn), &paths), expected);
}

#[test]
fn a_script_of_the_repository_sees_itself_and_its_inputs() {
    let mut custom = recipe(Script::InRepository("script/prepare_code".into()));
    custom.inputs = vec!["package.json".into(), "vendor/".into()];
    let paths = ["script/prepare_code*", "script/ci.sh", "package.json", "vendor/a/b", "vendored", "mix.exs"];
    assert_eq!(seen(&custom, &paths), ["package.json", "script/prepare_code", "vendor/a/b"]);
}

#[test]
fn what_the_settings_name_must_be_in_the_commit() {
    assert_eq!(recipe(Script::BuiltIn).check(&files(&["README.md"])), Err(RecipeError::NoProject("mix.exs".into())));
    let custom = recipe(Script::InRepository("run".into()));
    assert_eq!(custom.check(&files(&["run"])), Err(RecipeError::NotExecutable("run".into())));
    assert!(matches!(custom.check(&[]), Err(RecipeError::Missing { key: "prepare.script", .. })));
    let mut inputs = recipe(Script::BuiltIn);
    inputs.inputs = vec!["VERSION".into()];
    assert!(matches!(inputs.check(&files(&["mix.exs"])), Err(RecipeError::Missing { key: "prepare.inputs", .. })));
}

#[test]
fn a_script_of_the_repository_is_called_once_for_deps_and_once_for_each_environment() {
    let custom = recipe(Script::InRepository("script/prepare_code".into()));
    let commands: Vec<_> = custom.deps_steps().into_iter().chain(custom.build_steps()).map(|step| step.argv).collect();
    let script = "/app/script/prepare_code";
    assert_eq!(commands, [vec![script, "deps"], vec![script, "build", "staging"], vec![script, "build", "prod"]]);
}

#[test]
fn only_a_config_beside_a_mix_exs_is_read() {
    let read =
        [".tool-versions", "a/config/b/config/x", "a/mix.exs", "a/rebar.config", "config/config/x.exs", "mix.exs"];
    let unread = [
        "myconfig/config.exs",
        "config.d/x",
        "lib/config/x",
        "a/config/runtime.exs",
        "b/_build/mix.exs",
        "assets/node_modules/rebar.lock",
        "a/lib/config",
    ];
    assert_eq!(seen(&recipe(Script::BuiltIn), &[&read[..], &unread].concat()), read);
}

#[test]
fn a_mix_app_is_compiled_by_a_step_for_each_environment() {
    let recipe = recipe(Script::BuiltIn);
    let steps: Vec<Step> = recipe.deps_steps().into_iter().chain(recipe.build_steps()).collect();
    let called: Vec<_> = steps.iter().map(|step| (step.name.as_str(), step.env.as_deref(), &step.argv[4..])).collect();
    assert_eq!(called[0], ("deps", None, &["deps".to_owned()][..]));
    let named: Vec<_> = called[1..].iter().map(|(name, env, argv)| (*name, *env, argv.join(" "))).collect();
    let expected = ["deps staging", "deps prod", "build staging", "build prod"].map(|name| {
        let env = name.split_once(' ').map(|(_, env)| env);
        (name, env, name.to_owned())
    });
    assert_eq!(named, expected);
    assert!(steps.iter().all(|step| step.argv[..4] == ["/bin/sh", "-c", BUILT_IN, "prepare_code"]));
}

#[test]
fn the_settings_win_over_fixed_variables_and_those_over_the_base() {
    let variables = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut recipe = recipe(Script::BuiltIn);
    recipe.env = variables(&[("TZ", "CET"), ("OWN", "1")]);
    let env = recipe.env(&variables(&[("PATH", "/opt/bin"), ("LANG", "de"), ("ELIXIR", "1")]), EPOCH);
    let get = |name: &str| env.get(name).map(String::as_str);
    let expected = [("PATH", "/opt/bin"), ("MIX_HOME", MIX_HOME), ("LANG", "C.UTF-8"), ("ELIXIR", "1"), ("TZ", "CET")];
    let more = [("OWN", "1"), ("SOURCE_DATE_EPOCH", "946684800"), ("PHIAL_ENVS", "staging prod"), ("HOME", "/root")];
    for (name, value) in expected.into_iter().chain(more) {
        assert_eq!(get(name), Some(value), "{name}");
    }
}

#[test]
fn a_script_is_named_by_its_digest_or_its_path() {
    let built_in = recipe(Script::BuiltIn).script_digest();
    assert_eq!(built_in, format!("built-in {}", Digest::of(BUILT_IN.as_bytes())));
    assert_eq!(recipe(Script::InRepository("a/run".into())).script_digest(), "a/run");
}

#[test]
fn every_error_is_one_of_usage_and_has_a_remedy() {
    let missing = RecipeError::Missing { key: "prepare.inputs", path: "a".into() };
    for (error, remedy) in [
        (RecipeError::NoProject("mix.exs".into()), "`[prepare]`"),
        (missing, "commit the file"),
        (RecipeError::NotExecutable("bin/x".into()), "--chmod=+x bin/x"),
    ] {
        assert_eq!(error.exit_kind(), ExitKind::Usage);
        assert!(error.hint().is_some_and(|hint| hint.contains(remedy)), "{error}");
    }
}

#[test]
fn the_hint_for_a_committed_build_names_its_directory() {
    for (path, dir) in [
        ("apps/shop/_build/prod/lib/shop/ebin/Elixir.Shop.beam", "apps/shop/_build"),
        ("_build/dev/lib/x/.mix/compile.elixir", "_build"),
        ("out/prod/lib/x/.mix/compile.elixir", "out/prod/lib/x/.mix/compile.elixir"),
    ] {
        let hint = RecipeError::Compiled(path.into()).hint().unwrap();
        assert!(hint.starts_with(&format!("run `git rm -r --cached {dir}`, ")), "{hint}");
    }
}

#[test]
fn mix_keeps_its_files_where_they_are_looked_for() {
    let built_in = recipe(Script::BuiltIn);
    let check = |text: &str| built_in.check_mix_paths(text, |_| false).map_err(|error| error.to_string());
    for fine in [
        "",
        "[deps_path: \"deps\", build_path: \"./_build/\", lockfile: \"mix.lock\"]",
        "# deps_path: \"vendor\"",
        "[my_deps_path: \"vendor\", lockfile: lock()]",
    ] {
        assert_eq!(check(fine), Ok(()), "{fine}");
    }
    for (text, key) in [
        ("[deps_path: \"vendor\"]", "deps_path"),
        ("[deps_path:\n  \"../../deps\"]", "deps_path"),
        ("[build_path: \"out\"]", "build_path"),
        ("[lockfile: \"locks/mix.lock\"]", "lockfile"),
    ] {
        let error = built_in.check_mix_paths(text, |_| false).unwrap_err();
        assert!(error.to_string().contains(&format!("`{key}: \"")), "{error}");
        let wanted = if text.contains("..") { "remove `deps_path:`" } else { "prepare" };
        assert!(error.hint().is_some_and(|hint| hint.contains(wanted)), "{error}");
    }
    let named = Recipe { lockfile: Some("locks/mix.lock".into()), ..recipe(Script::BuiltIn) };
    assert_eq!(named.check_mix_paths("[lockfile: \"locks/mix.lock\"]", |_| false), Ok(()));
    assert_eq!(
        recipe(Script::InRepository("run".into())).check_mix_paths("[deps_path: \"vendor\"]", |_| false),
        Ok(())
    );
}

#[test]
fn what_a_project_keeps_above_its_directory_belongs_to_the_project_there() {
    for (app, value, above, flag) in [
        ("services/cart", "../../mix.lock", "mix.exs", Some(".")),
        ("back/services/cart", "../../mix.lock", "back/mix.exs", Some("back")),
        ("services/cart", "./..//mix.lock", "services/mix.exs", Some("services")),
        ("services/cart", "../../mix.lock", "other/mix.exs", None),
        ("cart", "../../mix.lock", "mix.exs", None),
    ] {
        let recipe = Recipe { app: AppDir::new(app), ..recipe(Script::BuiltIn) };
        for key in ["deps_path", "build_path", "lockfile"] {
            let error = recipe.check_mix_paths(&format!("[{key}: \"{value}\"]"), |path| path == above).unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{app}/mix.exs` has `{key}: \"{value}\"`")), "{error}");
            let hint = error.hint().unwrap();
            match flag {
                Some(dir) => assert!(hint.ends_with(&format!("`--app {dir}`")), "{hint}"),
                None => assert!(hint.starts_with(&format!("remove `{key}:`")), "{hint}"),
            }
        }
    }
}
