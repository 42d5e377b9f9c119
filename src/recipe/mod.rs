//! Which steps an app needs, which files each step may see, and the key that follows. Pure.
//!
//! The deps step sees the files its key names and no others (architecture, decision 1): the sandbox shows it nothing else,
//! so the key cannot lie.

use std::collections::BTreeMap;

use phial_layers::Digest;

use crate::error::{ExitKind, UserError};

/// The built-in `prepare_code` for Mix.
pub const BUILT_IN: &str = include_str!("prepare_code.sh");

/// Raised whenever anything changes that reaches the bytes of an image: part of every key and of the image's record.
pub const FORMAT: u32 = 3;

/// Where the app's source lies in the image and in the sandbox. Compilers write it into what they make.
pub const WORKDIR: &str = "/app";

/// The same below the root of a tree.
pub const APP: &str = WORKDIR.split_at(1).1;

/// Where Mix keeps hex and rebar3 if the base does not say: a place that every user of the image can read.
pub const MIX_HOME: &str = "/opt/mix";

/// No file of ours is older (2000-01-01): Mix takes any earlier time for "missing" and rebuilds on every start.
pub const EPOCH: i64 = 946_684_800;

/// Variables of the caller that the steps may see if they are set: how Hex and git reach their servers. Values are passed,
/// never recorded.
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

/// What prepares the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// The built-in one, for Mix.
    BuiltIn,
    /// One of the repository, by its path there.
    Own(String),
}

/// What the steps follow from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The script.
    pub script: Script,
    /// The environments to compile for, in the order of their layers.
    pub envs: Vec<String>,
    /// Further paths that the deps step may see; a directory stands for all below it.
    pub inputs: Vec<String>,
    /// Variables of the settings; they reach the build and so its key.
    pub env: BTreeMap<String, String>,
}

/// One call of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// As a user would name it: `deps`, `deps prod`, `build prod`.
    pub name: String,
    /// The command line.
    pub argv: Vec<String>,
    /// `MIX_ENV` for this call.
    pub env: Option<String>,
}

/// A repository that cannot be prepared as it is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecipeError {
    /// Neither Mix nor a script of its own.
    #[error("the commit has no `mix.exs`, and `phial.toml` names no `prepare.script`")]
    Nothing,
    /// A named file is not in the commit.
    #[error("`{key}` names `{path}`, which is not in the commit")]
    Missing {
        /// The setting.
        key: &'static str,
        /// The path.
        path: String,
    },
    /// The script cannot be called.
    #[error("`{0}` is not executable in the commit")]
    NotExecutable(String),
}

impl UserError for RecipeError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Nothing => "add `script = \"path/in/the/repository\"` under `[prepare]`".into(),
            Self::Missing { .. } => "commit the file, or correct the path".into(),
            Self::NotExecutable(path) => format!("run `git update-index --chmod=+x {path}` and commit"),
        })
    }
}

/// A file of the commit, as far as this room needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The path in the repository.
    pub path: Vec<u8>,
    /// Whether it may be executed.
    pub executable: bool,
}

impl Recipe {
    /// Checks the recipe against the files of the commit.
    pub fn check(&self, files: &[File]) -> Result<(), RecipeError> {
        let find = |path: &str| files.iter().find(|file| file.path == path.as_bytes());
        match &self.script {
            Script::BuiltIn if find("mix.exs").is_none() => return Err(RecipeError::Nothing),
            Script::BuiltIn => {}
            Script::Own(path) => match find(path) {
                None => return Err(RecipeError::Missing { key: "prepare.script", path: path.clone() }),
                Some(file) if !file.executable => return Err(RecipeError::NotExecutable(path.clone())),
                Some(_) => {}
            },
        }
        for input in &self.inputs {
            if !files.iter().any(|file| below(&file.path, input)) {
                return Err(RecipeError::Missing { key: "prepare.inputs", path: input.clone() });
            }
        }
        Ok(())
    }

    /// Whether the deps step may see this file.
    pub fn shows(&self, files: &[File], path: &[u8]) -> bool {
        let own = match &self.script {
            Script::BuiltIn => mix_input(files, path),
            Script::Own(script) => path == script.as_bytes(),
        };
        own || self.inputs.iter().any(|input| below(path, input))
    }

    /// The calls that fetch and compile dependencies. Each after the first runs over what the first left, in a writable
    /// layer of its own; they may run side by side.
    pub fn deps_steps(&self) -> Vec<Step> {
        let mut steps = vec![self.step("deps", None)];
        if self.script == Script::BuiltIn {
            steps.extend(self.envs.iter().map(|env| self.step("deps", Some(env))));
        }
        steps
    }

    /// The calls that compile the app, one for each environment, each in a writable layer of its own.
    pub fn build_steps(&self) -> Vec<Step> {
        self.envs.iter().map(|env| self.step("build", Some(env))).collect()
    }

    fn step(&self, verb: &str, env: Option<&String>) -> Step {
        let mut argv = match &self.script {
            Script::BuiltIn => ["/bin/sh", "-c", BUILT_IN, "prepare_code"].map(String::from).to_vec(),
            Script::Own(path) => vec![format!("{WORKDIR}/{path}")],
        };
        argv.push(verb.into());
        argv.extend(env.cloned());
        let name = env.map_or_else(|| verb.to_owned(), |env| format!("{verb} {env}"));
        Step { name, argv, env: env.cloned() }
    }

    /// What the script is, for a key.
    pub fn script_digest(&self) -> String {
        match &self.script {
            Script::BuiltIn => format!("built-in {}", Digest::of(BUILT_IN.as_bytes())),
            Script::Own(path) => path.clone(),
        }
    }

    /// The environment of a step that is part of its key: everything but what is passed from the caller.
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
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
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

/// Mix and rebar3 read these to know what an app depends on. `config/runtime.exs` is for run time.
fn mix_input(files: &[File], path: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(path) else { return false };
    let (dir, name) = text.rsplit_once('/').unwrap_or(("", text));
    if dir.split('/').any(|part| part == "deps" || part == "_build" || part == "node_modules") {
        return false;
    }
    if matches!(name, "mix.exs" | "mix.lock" | "rebar.config" | "rebar.lock" | ".tool-versions") {
        return true;
    }
    // `config/` beside a mix.exs, and all below it.
    let mut home = dir;
    while let Some(at) = home.rfind("config") {
        let (before, after) = (&home[..at], &home[at + 6..]);
        if (after.is_empty() || after.starts_with('/')) && (before.is_empty() || before.ends_with('/')) {
            let mix = format!("{before}mix.exs");
            if files.iter().any(|file| file.path == mix.as_bytes()) {
                return name != "runtime.exs";
            }
        }
        home = before;
    }
    false
}

fn below(path: &[u8], input: &str) -> bool {
    let input = input.trim_end_matches('/').as_bytes();
    path.strip_prefix(input).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Vec<File> {
        paths.iter().map(|path| File { path: path.as_bytes().to_vec(), executable: path.ends_with("code") }).collect()
    }

    fn recipe(script: Script) -> Recipe {
        Recipe { script, envs: vec!["staging".into(), "prod".into()], inputs: vec![], env: BTreeMap::new() }
    }

    fn seen(recipe: &Recipe, paths: &[&str]) -> Vec<String> {
        let files = files(paths);
        let seen = files.iter().filter(|file| recipe.shows(&files, &file.path));
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
        let mut own = recipe(Script::Own("script/prepare_code".into()));
        own.inputs = vec!["package.json".into(), "vendor/".into()];
        let paths = ["script/prepare_code", "script/ci.sh", "package.json", "vendor/a/b", "vendored", "mix.exs"];
        assert_eq!(seen(&own, &paths), ["script/prepare_code", "package.json", "vendor/a/b"]);
    }

    #[test]
    fn what_the_settings_name_must_be_in_the_commit() {
        assert_eq!(recipe(Script::BuiltIn).check(&files(&["README.md"])), Err(RecipeError::Nothing));
        let own = recipe(Script::Own("run".into()));
        assert_eq!(own.check(&files(&["run"])), Err(RecipeError::NotExecutable("run".into())));
        assert!(matches!(own.check(&[]), Err(RecipeError::Missing { key: "prepare.script", .. })));
        let mut inputs = recipe(Script::BuiltIn);
        inputs.inputs = vec!["VERSION".into()];
        assert!(matches!(inputs.check(&files(&["mix.exs"])), Err(RecipeError::Missing { key: "prepare.inputs", .. })));
    }

    #[test]
    fn a_script_of_the_repository_is_called_once_for_deps_and_once_for_each_environment() {
        let own = recipe(Script::Own("script/prepare_code".into()));
        let calls: Vec<_> = own.deps_steps().into_iter().chain(own.build_steps()).map(|step| step.argv).collect();
        let script = "/app/script/prepare_code";
        assert_eq!(calls, [vec![script, "deps"], vec![script, "build", "staging"], vec![script, "build", "prod"]]);
    }
}
