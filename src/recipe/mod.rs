//! Which steps an app needs, and which files the deps step may see. Nothing here does input or output.
//!
//! The cache key of the deps step names the files that the step may see, and its sandbox has no others: a change that the
//! key does not show cannot change the result.

use std::collections::BTreeMap;

use phial_layers::Digest;

use crate::error::{ExitKind, UserError};
use crate::image::DEFAULT_PATH;

/// The built-in script `prepare_code`, for Mix.
pub const BUILT_IN: &str = include_str!("prepare_code.sh");

/// Version of the image format: raised with every change that changes bytes of images. Part of every cache key and of the
/// image's record.
pub const FORMAT: u32 = 3;

/// The directory of the app in images and sandboxes. Compilers write it into their output.
pub const WORKDIR: &str = "/app";

/// The same, relative to the root of a tree.
pub const APP: &str = WORKDIR.split_at(1).1;

/// `MIX_HOME`, the directory of Hex and rebar3, in base images that do not set it: every user of the image can read it.
pub const MIX_HOME: &str = "/opt/mix";

/// The earliest modification time that Phial writes, 2000-01-01 in seconds since 1970: Mix takes an earlier time for "the
/// file is missing" and compiles again on every start.
pub const EPOCH: i64 = 946_684_800;

/// Environment variables of the caller that steps may see: how Hex and git reach their servers. Their values are in no
/// cache key and in no record.
pub const PASSED: [&str; 23] = [
    "ALL_PROXY",
    "HEX_API_KEY",
    "HEX_CACERTS_PATH",
    "HEX_HTTP_CONCURRENCY",
    "HEX_HTTP_TIMEOUT",
    "HEX_MIRROR",
    "HEX_MIRROR_URL",
    "HEX_NO_VERIFY_REPO_ORIGIN",
    "HEX_OFFLINE",
    "HEX_REPOS_KEY",
    "HEX_TRUSTED_MIRROR",
    "HEX_TRUSTED_MIRROR_URL",
    "HEX_UNSAFE_HTTPS",
    "HEX_UNSAFE_REGISTRY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "npm_config_registry",
];

/// The script that the steps call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// [`BUILT_IN`].
    BuiltIn,
    /// An executable file of the repository, by its path there.
    InRepository(String),
}

/// How an app is fetched and compiled.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The script.
    pub script: Script,
    /// The Mix environments to compile for, in the order of their layers.
    pub envs: Vec<String>,
    /// Paths that the deps step may see besides those that Mix reads; a directory includes everything below it.
    pub inputs: Vec<String>,
    /// Environment variables from the settings; part of the cache keys.
    pub env: BTreeMap<String, String>,
}

/// One call of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The name in output: `deps`, `deps prod`, `build prod`.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `MIX_ENV`; `None` for the step that fetches.
    pub env: Option<String>,
}

/// Why a commit cannot be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecipeError {
    /// Neither a Mix project nor a script.
    #[error("the commit has no `mix.exs`, and `phial.toml` names no `prepare.script`")]
    NoProject,
    /// A file that the settings name is not in the commit.
    #[error("`{key}` names `{path}`, which is not in the commit")]
    Missing {
        /// The setting.
        key: &'static str,
        /// The path.
        path: String,
    },
    /// The script lacks the executable bit.
    #[error("`{0}` is not executable in the commit")]
    NotExecutable(String),
}

impl UserError for RecipeError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoProject => "add `script = \"path/in/the/repository\"` under `[prepare]`".into(),
            Self::Missing { .. } => "commit the file, or correct the path".into(),
            Self::NotExecutable(path) => format!("run `git update-index --chmod=+x {path}` and commit"),
        })
    }
}

/// A file of the app's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path in the repository.
    pub path: Vec<u8>,
    /// Whether it has the executable bit.
    pub executable: bool,
}

impl Recipe {
    /// Checks that the commit's files have what the recipe names.
    pub fn check(&self, files: &[SourceFile]) -> Result<(), RecipeError> {
        let find = |path: &str| files.iter().find(|file| file.path == path.as_bytes());
        match &self.script {
            Script::BuiltIn if find("mix.exs").is_none() => return Err(RecipeError::NoProject),
            Script::BuiltIn => {}
            Script::InRepository(path) => match find(path) {
                None => return Err(RecipeError::Missing { key: "prepare.script", path: path.clone() }),
                Some(script) if !script.executable => return Err(RecipeError::NotExecutable(path.clone())),
                Some(_) => {}
            },
        }
        for input in &self.inputs {
            if !files.iter().any(|file| is_below(&file.path, input)) {
                return Err(RecipeError::Missing { key: "prepare.inputs", path: input.clone() });
            }
        }
        Ok(())
    }

    /// Whether the deps step may see the file `path`; `files` are all files of the source.
    pub fn deps_see(&self, files: &[SourceFile], path: &[u8]) -> bool {
        let is_read_by_script = match &self.script {
            Script::BuiltIn => is_mix_input(files, path),
            Script::InRepository(script) => path == script.as_bytes(),
        };
        is_read_by_script || self.inputs.iter().any(|input| is_below(path, input))
    }

    /// The steps of the dependencies. The first fetches. Each of the others, if any, compiles for one environment on top of
    /// the first one's changes and with its own upper directory; these may run in parallel.
    pub fn deps_steps(&self) -> Vec<Step> {
        let mut steps = vec![self.step("deps", None)];
        if self.script == Script::BuiltIn {
            steps.extend(self.envs.iter().map(|env| self.step("deps", Some(env))));
        }
        steps
    }

    /// The steps that compile the app, one for each environment, each with its own upper directory.
    pub fn build_steps(&self) -> Vec<Step> {
        self.envs.iter().map(|env| self.step("build", Some(env))).collect()
    }

    fn step(&self, verb: &str, env: Option<&String>) -> Step {
        let mut argv = match &self.script {
            Script::BuiltIn => ["/bin/sh", "-c", BUILT_IN, "prepare_code"].map(String::from).to_vec(),
            Script::InRepository(path) => vec![format!("{WORKDIR}/{path}")],
        };
        argv.push(verb.into());
        argv.extend(env.cloned());
        let name = env.map_or_else(|| verb.to_owned(), |env| format!("{verb} {env}"));
        Step { name, argv, env: env.cloned() }
    }

    /// The script's identity in cache keys and records: `built-in DIGEST`, or a path. The contents of a script of the
    /// repository are in the key of the deps step by its inputs, and in the others' by the commit.
    pub fn script_digest(&self) -> String {
        match &self.script {
            Script::BuiltIn => format!("built-in {}", Digest::of(BUILT_IN.as_bytes())),
            Script::InRepository(path) => path.clone(),
        }
    }

    /// The environment variables of a step that are part of its cache key: all but those of the caller. `base` are the
    /// variables of the base image.
    pub fn env(&self, base: &BTreeMap<String, String>, mtime: i64) -> BTreeMap<String, String> {
        let fixed = [
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("ERL_COMPILER_OPTIONS", "deterministic"),
            ("GIT_CEILING_DIRECTORIES", WORKDIR),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("PHIAL", "1"),
        ];
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
            ("MIX_HOME".to_owned(), MIX_HOME.to_owned()),
        ]);
        env.extend(base.clone());
        env.extend(fixed.map(|(key, value)| (key.to_owned(), value.to_owned())));
        env.insert("SOURCE_DATE_EPOCH".into(), mtime.to_string());
        env.insert("PHIAL_ENVS".into(), self.envs.join(" "));
        env.extend(self.env.clone());
        env
    }
}

/// Whether Mix or rebar3 reads the file to resolve dependencies. `config/runtime.exs` is read at run time only.
fn is_mix_input(files: &[SourceFile], path: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(path) else { return false };
    let (dir, name) = text.rsplit_once('/').unwrap_or(("", text));
    if dir.split('/').any(|part| part == "deps" || part == "_build" || part == "node_modules") {
        return false;
    }
    if matches!(name, "mix.exs" | "mix.lock" | "rebar.config" | "rebar.lock" | ".tool-versions") {
        return true;
    }
    // Everything below a `config/` that is next to a `mix.exs`.
    let mut rest = dir;
    while let Some(at) = rest.rfind("config") {
        let (before, after) = (&rest[..at], &rest[at + "config".len()..]);
        if (after.is_empty() || after.starts_with('/')) && (before.is_empty() || before.ends_with('/')) {
            let mix = format!("{before}mix.exs");
            if files.iter().any(|file| file.path == mix.as_bytes()) {
                return name != "runtime.exs";
            }
        }
        rest = before;
    }
    false
}

fn is_below(path: &[u8], input: &str) -> bool {
    let input = input.trim_end_matches('/').as_bytes();
    path.strip_prefix(input).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Vec<SourceFile> {
        paths
            .iter()
            .map(|path| SourceFile { path: path.as_bytes().to_vec(), executable: path.ends_with("code") })
            .collect()
    }

    fn recipe(script: Script) -> Recipe {
        Recipe { script, envs: vec!["staging".into(), "prod".into()], inputs: vec![], env: BTreeMap::new() }
    }

    fn seen(recipe: &Recipe, paths: &[&str]) -> Vec<String> {
        let files = files(paths);
        let seen = files.iter().filter(|file| recipe.deps_see(&files, &file.path));
        seen.map(|file| String::from_utf8(file.path.clone()).unwrap()).collect()
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
            "mix.exs",
            "mix.lock",
            "config/config.exs",
            "config/env/prod.exs",
            "apps/web/mix.exs",
            "apps/web/config/config.exs",
        ];
        assert_eq!(seen(&recipe(Script::BuiltIn), &paths), expected);
    }

    #[test]
    fn a_script_of_the_repository_sees_itself_and_its_inputs() {
        let mut custom = recipe(Script::InRepository("script/prepare_code".into()));
        custom.inputs = vec!["package.json".into(), "vendor/".into()];
        let paths = ["script/prepare_code", "script/ci.sh", "package.json", "vendor/a/b", "vendored", "mix.exs"];
        assert_eq!(seen(&custom, &paths), ["script/prepare_code", "package.json", "vendor/a/b"]);
    }

    #[test]
    fn what_the_settings_name_must_be_in_the_commit() {
        assert_eq!(recipe(Script::BuiltIn).check(&files(&["README.md"])), Err(RecipeError::NoProject));
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
        let commands: Vec<_> =
            custom.deps_steps().into_iter().chain(custom.build_steps()).map(|step| step.argv).collect();
        let script = "/app/script/prepare_code";
        assert_eq!(commands, [vec![script, "deps"], vec![script, "build", "staging"], vec![script, "build", "prod"]]);
    }
}
