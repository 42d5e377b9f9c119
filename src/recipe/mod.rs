//! Which steps an app needs, and which files the deps step may see. Nothing here does input or output.
//!
//! The cache key of the deps step names the files that the step may see, and its sandbox has no others: a change that the
//! key does not show cannot change the result.

mod app_dir;
mod app_files;
mod deps_inputs;
mod diagnosis;
mod environments;
mod mix_paths;
mod source_tree;
mod versions;

use std::collections::BTreeMap;

use phial_layers::Digest;

pub use self::app_dir::AppDir;
pub use self::app_files::AppFiles;
use self::deps_inputs::Project;
pub use self::deps_inputs::{DepsInputs, is_below};
pub use self::diagnosis::{Diagnosis, StepIds};
pub use self::environments::{CONFIG_FILE, EnvironmentFile, environment_files};
use self::source_tree::{Found, SourceTree};
pub use self::source_tree::{SourceFile, SourceKind};
pub use self::versions::{Agreement, Tool, VERSION_FILES, WantedVersion, agrees, wanted_versions};

use crate::error::{ExitKind, UserError};
use crate::image::DEFAULT_PATH;

/// The built-in script `prepare_code`, for Mix.
pub const BUILT_IN: &str = include_str!("prepare_code.sh");

/// Where a script of the repository finds [`BUILT_IN`], to be called by `sh`.
pub const BUILT_IN_PATH: &str = "/run/phial/prepare_code";

/// Version of the image format: raised with every change that changes bytes of images. Part of every cache key and of the
/// image's record.
pub const FORMAT: u32 = 4;

/// The directory of the repository in images and sandboxes, of which the app's own is [`AppDir::workdir`]. Compilers write it
/// into their output.
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
pub const PASSED: [&str; 24] = [
    "ALL_PROXY",
    "HEX_API_KEY",
    "HEX_BUILDS_URL",
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
    /// The directory of the app in the repository. Paths of the settings are relative to it, except those of `include`.
    pub app: AppDir,
    /// Files and directories of the repository outside of that directory that the app needs besides its path dependencies.
    pub include: Vec<String>,
    /// The script.
    pub script: Script,
    /// The Mix environments to compile for, in the order of their layers.
    pub envs: Vec<String>,
    /// Paths that the deps step may see besides those that Mix reads; a directory includes everything below it.
    pub inputs: Vec<String>,
    /// The lock file of Mix, if it is not `mix.lock`.
    pub lockfile: Option<String>,
    /// The version of Hex to download if the base image has none; else the newest.
    pub hex: Option<String>,
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
    #[error("the commit has no `{0}`, and `phial.toml` names no `prepare.script`")]
    NoProject(String),
    /// The app's directory is not a directory.
    #[error("the app's directory is `{dir}`, but {why}")]
    AppDir {
        /// Its path.
        dir: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A child of an umbrella is asked for alone.
    #[error(
        "`{child}` is a child of the umbrella in {}, which has its dependencies and its lock file",
        in_repository(umbrella)
    )]
    Umbrella {
        /// The path of the child.
        child: String,
        /// The umbrella's path.
        umbrella: String,
    },
    /// A dependency outside of the app's directory is not in the commit.
    #[error("`{mix_exs}` has a dependency at `{path}`, which is not in the commit")]
    PathDependency {
        /// The file that names it.
        mix_exs: String,
        /// Its path from there.
        path: String,
    },
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
    /// A link that the deps step needs leads to nothing.
    #[error("the deps step needs the symbolic link `{link}`, and its target `{target}` is {}", outside(*is_outside))]
    Link {
        /// The path of the link.
        link: String,
        /// Its target, as it is in the commit.
        target: String,
        /// Whether it leads out of the commit; else there is nothing.
        is_outside: bool,
    },
    /// Links that multiply the paths of the commit.
    #[error("the commit's symbolic links to directories make too many paths")]
    TooManyLinks,
    /// Mix's configuration for an environment is not in the commit.
    #[error(
        "the environment `{env}` has no configuration: config/config.exs imports `{path}`, which is not in the commit"
    )]
    NoConfig {
        /// The environment.
        env: String,
        /// The file.
        path: String,
    },
    /// Mix keeps files where nothing looks for them.
    #[error("`{file}` has `{key}: \"{value}\"`, and the built-in script knows `{known}`")]
    MixPath {
        /// The project's file.
        file: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The path that is known.
        known: String,
    },
    /// Mix keeps files above the app's directory.
    #[error("`{file}` has `{key}: \"{value}\"`, which is above the app's directory")]
    MixPathAbove {
        /// The project's file.
        file: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The path of the directory that it leads to, if that has a project.
        owner: Option<String>,
    },
    /// What Mix compiles is in the commit.
    #[error("the commit has `{0}`: files that an earlier build compiled would be in the image in place of new ones")]
    Compiled(String),
}

/// A directory of the repository; the root has an empty path.
fn in_repository(dir: &str) -> String {
    if dir.is_empty() { "the root".to_owned() } else { format!("`{dir}`") }
}

/// A directory of the repository as `--app` takes it.
fn app_flag(dir: &str) -> &str {
    if dir.is_empty() { "." } else { dir }
}

fn outside(is_outside: bool) -> &'static str {
    if is_outside { "outside of it" } else { "not in it" }
}

impl UserError for RecipeError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoProject(_) => {
                "name the app's directory by `--app DIR`; an app that is not a Mix project has `script = \"PATH\"` under `[prepare]`".into()
            }
            Self::AppDir { .. } => {
                "`--app DIR` and `image.root` name a directory of the commit by its path from the root".into()
            }
            Self::Umbrella { umbrella, .. } => {
                format!("build the umbrella by `--app {}`: its image has all of its children", app_flag(umbrella))
            }
            Self::PathDependency { .. } => {
                "commit it; what no `mix.exs` names by a written path is named in `image.include`".into()
            }
            Self::Missing { .. } => "commit the file, or correct the path".into(),
            Self::NotExecutable(path) => format!("run `git update-index --chmod=+x {path}` and commit"),
            Self::Link { .. } => "commit what it stands for, and let it be relative".into(),
            Self::NoConfig { path, .. } => format!(
                "commit `{path}`, or name the environments that there are: `envs = [\"prod\"]` under `[image]` in `phial.toml`"
            ),
            Self::MixPath { key: "lockfile", value, .. } => {
                format!("name it: `lockfile = \"{value}\"` under `[prepare]` in `phial.toml`")
            }
            Self::MixPath { key, .. } => {
                format!("remove `{key}:`, or build by a script of the repository: `prepare.script`")
            }
            Self::MixPathAbove { owner: Some(owner), .. } => {
                format!("build the project that it belongs to by `--app {}`", app_flag(owner))
            }
            Self::MixPathAbove { key, .. } => format!("remove `{key}:`: an app keeps it in its own directory"),
            Self::TooManyLinks => "commit fewer links to directories that have links themselves".into(),
            Self::Compiled(path) => {
                let dir = path.find("_build").map_or(path.as_str(), |at| &path[..at + "_build".len()]);
                format!("run `git rm -r --cached {dir}`, commit, and name it in `.gitignore`")
            }
        })
    }
}

impl Recipe {
    /// The path of Mix's lock file in the repository.
    pub fn lock_path(&self) -> String {
        self.app.file(self.lockfile.as_deref().unwrap_or("mix.lock"))
    }

    /// The file that `path` leads to, links followed; `None` if it leads to none.
    pub fn find(files: &[SourceFile], path: &str) -> Option<Vec<u8>> {
        let resolved = SourceTree::new(files).resolve(path.as_bytes());
        (resolved.found == Found::File).then_some(resolved.path)
    }

    /// Whether the project has assets that the steps do not build: an alias of mix.exs, as Phoenix writes it.
    pub fn leaves_assets_out(&self, mix: &str) -> bool {
        let mut lines = mix.lines().map(|line| line.split('#').next().unwrap_or_default());
        self.script == Script::BuiltIn && lines.any(|line| line.contains("\"assets.deploy\":"))
    }

    /// Checks that the commit's files have what the recipe names, and nothing that a step compiles.
    pub fn check(&self, files: &[SourceFile]) -> Result<(), RecipeError> {
        let tree = SourceTree::new(files);
        let kind = |path: &str| tree.kind(&tree.resolve(self.app.file(path).as_bytes()).path);
        let has = |path: &str| kind(path).is_some() || tree.kind(self.app.file(path).as_bytes()).is_some();
        match &self.script {
            Script::BuiltIn if !has("mix.exs") => return Err(RecipeError::NoProject(self.app.file("mix.exs"))),
            Script::BuiltIn => {}
            Script::InRepository(path) => match kind(path) {
                None => return Err(RecipeError::Missing { key: "prepare.script", path: path.clone() }),
                Some(SourceKind::Executable) => {}
                Some(_) => return Err(RecipeError::NotExecutable(path.clone())),
            },
        }
        for input in &self.inputs {
            if !tree.exists(self.app.file(input).as_bytes()) && !has(input) {
                return Err(RecipeError::Missing { key: "prepare.inputs", path: input.clone() });
            }
        }
        if let Some(path) = self.lockfile.as_ref().filter(|path| !has(path)) {
            return Err(RecipeError::Missing { key: "prepare.lockfile", path: path.clone() });
        }
        let compiled = files.iter().find(|file| is_compiled(&tree, &file.path));
        compiled.map_or(Ok(()), |file| Err(RecipeError::Compiled(file.path.escape_ascii().to_string())))
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
            Script::InRepository(path) => vec![format!("{}/{path}", self.app.workdir())],
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
        env.extend(self.lockfile.iter().map(|path| ("PHIAL_LOCKFILE".to_owned(), path.clone())));
        env.extend(self.hex.iter().map(|version| ("PHIAL_HEX".to_owned(), version.clone())));
        env.extend(self.env.clone());
        env
    }
}

/// Whether a file is what Mix compiles: below the `_build` of a project, or a manifest of Mix in a directory of another name
/// (`build_path` in mix.exs).
fn is_compiled(tree: &SourceTree<'_>, path: &[u8]) -> bool {
    let in_project = Project::of(tree, path);
    let is_manifest = || {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        matches!(*parts.as_slice(), [.., b"lib", _, b".mix", name] if name.starts_with(b"compile."))
    };
    in_project.map_or_else(is_manifest, |found| !found.in_deps)
}

#[cfg(test)]
mod tests;
