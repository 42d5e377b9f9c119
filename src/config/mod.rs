//! Settings: `phial.toml` and flags may leave everything out; in a [`Plan`] nothing is missing.

mod file;
mod keys;
mod lock;
mod test;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use phial_layers::Compression;

pub use file::{FileConfig, Image, Prepare, Release, parse, read};
pub use keys::{KEYS, Key, Kind, NAME};
pub use lock::{Base as LockedBase, Lock};
pub use test::{Probe, Service, ServiceConfig, Test, TestFlags, TestPlan, What};

use crate::error::{ExitKind, UserError};
use crate::image::{ImageError, Reference, Target, canonical_json};
use crate::recipe::Script;

/// What the command line asks for; everything here stands above `phial.toml`.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--base`.
    pub base: Option<String>,
    /// `--to`, in order.
    pub to: Vec<String>,
    /// `--env`, in order.
    pub envs: Vec<String>,
    /// `--network`.
    pub network: Option<Network>,
    /// `--compression`.
    pub compression: Option<Compression>,
    /// `--locked`.
    pub locked: bool,
}

/// Whether steps reach the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The caller's network.
    Host,
    /// Loopback only.
    None,
}

/// What the time is while the app and its dependencies are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// It stands still, an hour after the modification time of the sources.
    Fixed,
    /// The machine's; code that asks for it makes other bytes each time.
    Real,
}

/// A build as it will be done. Nothing in it is optional that matters.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The image to build on.
    pub base: Reference,
    /// The digest that `phial.lock` pins it to.
    pub pinned: Option<phial_layers::Digest>,
    /// Where the image goes.
    pub targets: Vec<Target>,
    /// The environments, in the order of their layers.
    pub envs: Vec<String>,
    /// What prepares the app.
    pub script: Script,
    /// More files for the deps step.
    pub inputs: Vec<String>,
    /// Variables of the steps.
    pub env: BTreeMap<String, String>,
    /// Names of the caller's variables that the steps may see besides the built-in list.
    pub pass: Vec<String>,
    /// Whether steps reach the network.
    pub network: Network,
    /// What the time is while the app is compiled.
    pub clock: Clock,
    /// Whether everything is compiled twice, the second time with all names known that the first time made up.
    pub strict: bool,
    /// Whether ids beyond one are mapped where the machine allows it.
    pub ranges: bool,
    /// How layers are compressed.
    pub compression: Compression,
    /// What the image's config says.
    pub image: Image,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, or not of the right types.
    #[error("`{file}` cannot be read: {text}")]
    Toml {
        /// Which file.
        file: String,
        /// What the parser says, with line and column.
        text: String,
    },
    /// A key that is none.
    #[error("`{file}` has the unknown key `{key}`")]
    Unknown {
        /// Which file.
        file: String,
        /// The key with its table.
        key: String,
        /// The known key that is nearest.
        nearest: Option<String>,
    },
    /// A value that cannot be.
    #[error("`{key}` is `{value}`, {reason}")]
    Value {
        /// The setting or flag.
        key: String,
        /// What it is set to.
        value: String,
        /// What it should be.
        reason: &'static str,
    },
    /// A reference or target that is none.
    #[error("cannot use `{key}`")]
    Reference {
        /// The setting or flag.
        key: String,
        /// Why not.
        #[source]
        source: ImageError,
    },
    /// A service of the tests without an image.
    #[error("`{0}` is not set")]
    NoImage(String),
    /// A command of the tests that there is not.
    #[error("`--only` names `{asked}`, and the commands are `{known}`")]
    NoCommand {
        /// The name.
        asked: String,
        /// Those that there are.
        known: String,
    },
    /// Nothing says what to build on.
    #[error("no base image is named")]
    NoBase,
    /// `--locked` without a lock for this base.
    #[error("`--locked` was asked for, and `phial.lock` in the commit {0}")]
    Unlocked(String),
    /// A lock is written into a working tree.
    #[error("`{0}` is no working tree, and `phial.lock` is written into one")]
    Tree(String),
    /// The settings cannot be read from disk.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl UserError for ConfigError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::NoBase => Some("name one with `--base REF`, or with `base` under `[image]` in `phial.toml`".into()),
            Self::Unlocked(_) => Some("run `phial lock` and commit `phial.lock`".into()),
            Self::Reference { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// The default environments: what today's pipelines compile for.
const ENVS: [&str; 2] = ["staging", "prod"];

impl Plan {
    /// Puts file, lock and flags together. `name` is the app's name, for the default target.
    pub fn new(wish: FileConfig, lock: Option<&Lock>, flags: &Flags, name: &str) -> Result<Self, ConfigError> {
        let base_text = flags.base.clone().or_else(|| wish.image.base.clone()).ok_or(ConfigError::NoBase)?;
        let base = reference("base", &base_text)?;
        let pinned = pin(lock, &base_text, flags.locked)?;
        let envs = first(&flags.envs, wish.image.envs.as_deref(), &ENVS);
        for (nth, env) in envs.iter().enumerate() {
            check_env(env, &envs[..nth])?;
        }
        let script = wish.prepare.script.map_or(Script::BuiltIn, Script::Own);
        if let Script::Own(path) = &script {
            check_path("prepare.script", path)?;
        }
        let inputs = wish.prepare.inputs.unwrap_or_default();
        for path in &inputs {
            check_path("prepare.inputs", path)?;
        }
        let env = wish.prepare.env.unwrap_or_default();
        for key in env.keys() {
            check_variable("prepare.env", key)?;
        }
        Ok(Self {
            base,
            pinned,
            targets: targets(&wanted(&flags.to, wish.image.name.as_deref(), name))?,
            envs,
            script,
            inputs,
            env,
            pass: wish.prepare.pass.unwrap_or_default(),
            network: flags.network.or(wish.prepare.network).unwrap_or(Network::Host),
            clock: wish.prepare.clock.unwrap_or(Clock::Fixed),
            strict: wish.prepare.strict.unwrap_or(false),
            ranges: wish.prepare.ranges.unwrap_or(false),
            compression: flags.compression.or(wish.image.compression).unwrap_or(Compression::Gzip),
            image: wish.image,
        })
    }
}

impl Network {
    /// `host` or `none`: the name in settings, records and cache keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

impl Clock {
    /// `fixed` or `real`: the name in settings and cache keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Real => "real",
        }
    }
}

impl Plan {
    /// The digest of every setting that reaches bytes and of nothing else: where the image goes and how ids are mapped does not.
    pub fn digest(&self) -> phial_layers::Digest {
        let script = match &self.script {
            Script::BuiltIn => None,
            Script::Own(path) => Some(path),
        };
        let image = &self.image;
        let settings = serde_json::json!({
            "envs": self.envs,
            "script": script,
            "inputs": self.inputs,
            "env": self.env,
            "pass": self.pass,
            "network": self.network,
            "clock": self.clock,
            "strict": self.strict,
            "compression": self.compression,
            "image": {
                "entrypoint": image.entrypoint,
                "cmd": image.cmd,
                "user": image.user,
                "env": image.env,
                "labels": image.labels,
            },
        });
        phial_layers::Digest::of(&canonical_json(&settings))
    }
}

/// A reference, with the setting it came from in the error.
pub fn reference(key: &str, text: &str) -> Result<Reference, ConfigError> {
    text.parse().map_err(|source| ConfigError::Reference { key: key.into(), source })
}

fn wanted(flags: &[String], name: Option<&str>, app: &str) -> Vec<String> {
    match (flags, name) {
        ([], None) => vec![format!("oci:./{app}.oci")],
        ([], Some(name)) => vec![name.to_owned()],
        (flags, _) => flags.to_vec(),
    }
}

/// Targets, each named in the error if it is none.
pub fn targets(texts: &[String]) -> Result<Vec<Target>, ConfigError> {
    let parse = |text: &String| text.parse().map_err(|source| ConfigError::Reference { key: "to".into(), source });
    texts.iter().map(parse).collect()
}

fn first(flags: &[String], wish: Option<&[String]>, default: &[&str]) -> Vec<String> {
    match (flags, wish) {
        ([], None | Some([])) => default.iter().map(|env| (*env).to_owned()).collect(),
        ([], Some(envs)) => envs.to_vec(),
        (flags, _) => flags.to_vec(),
    }
}

fn pin(lock: Option<&Lock>, base: &str, locked: bool) -> Result<Option<phial_layers::Digest>, ConfigError> {
    match lock {
        Some(lock) if lock.base.name == base => Ok(Some(lock.base.digest.clone())),
        Some(lock) if locked => Err(ConfigError::Unlocked(format!("pins `{}`, not `{base}`", lock.base.name))),
        None if locked => Err(ConfigError::Unlocked("is not there".into())),
        _ => Ok(None),
    }
}

fn check_env(env: &str, before: &[String]) -> Result<(), ConfigError> {
    let value = |reason| ConfigError::Value { key: "env".into(), value: env.into(), reason };
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if env.is_empty() || !env.chars().all(letters) || !env.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(value("but an environment is a lower-case word such as `prod`"));
    }
    if before.iter().any(|other| other == env) {
        return Err(value("and it is named twice"));
    }
    Ok(())
}

fn check_path(key: &str, path: &str) -> Result<(), ConfigError> {
    let plain = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if path.is_empty() || !plain || path.contains('\0') {
        let reason = "but it must be a path inside the repository, without `..`";
        return Err(ConfigError::Value { key: key.into(), value: path.into(), reason });
    }
    Ok(())
}

fn check_variable(key: &str, name: &str) -> Result<(), ConfigError> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(first) || !name.chars().all(|c| first(c) || c.is_ascii_digit()) {
        let reason = "but a variable's name has letters, digits and `_` only";
        return Err(ConfigError::Value { key: key.into(), value: name.into(), reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(toml: &str, flags: &Flags) -> Result<Plan, ConfigError> {
        Plan::new(parse("phial.toml", toml)?, None, flags, "shop")
    }

    #[test]
    fn flags_stand_above_the_file_and_the_file_above_the_defaults() {
        let base = "[image]\nbase = \"r.example/elixir:1.18\"\nname = \"r.example/shop\"\nenvs = [\"prod\"]\n";
        let from_file = plan(base, &Flags::default()).unwrap();
        assert_eq!(from_file.envs, ["prod"]);
        assert_eq!(from_file.targets[0].to_string(), "r.example/shop");
        let flags = Flags { to: vec!["oci:out".into()], envs: vec!["dev".into()], ..Flags::default() };
        let from_flags = plan(base, &flags).unwrap();
        assert_eq!((from_flags.envs[0].as_str(), from_flags.targets[0].to_string().as_str()), ("dev", "oci:out"));
        let flags_alone = Flags { base: Some("oci:base".into()), ..Flags::default() };
        let defaults = plan("", &flags_alone).unwrap();
        assert_eq!(defaults.envs, ["staging", "prod"]);
        assert_eq!(defaults.targets[0].to_string(), "oci:./shop.oci");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let flags = Flags { base: Some("oci:base".into()), ..Flags::default() };
        for (toml, text) in [
            ("[image]\nenvs = [\"Prod\"]", "`env` is `Prod`"),
            ("[image]\nenvs = [\"prod\", \"prod\"]", "named twice"),
            ("[prepare]\nscript = \"../x\"", "`prepare.script` is `../x`"),
            ("[prepare]\ninputs = [\"/etc\"]", "`prepare.inputs` is `/etc`"),
            ("[prepare]\nenv = { \"A=B\" = \"c\" }", "`prepare.env` is `A=B`"),
            ("[image]\nname = \"Upper/Case\"", "cannot use `to`"),
            ("[image]\nnmae = \"x\"", "unknown key `image.nmae`"),
            ("[image\n", "line 1"),
            ("[image]\nenvs = 7", "phial.toml"),
        ] {
            let error = plan(toml, &flags).unwrap_err().to_string();
            assert!(error.contains(text), "{toml}: {error}");
        }
        assert!(matches!(plan("", &Flags::default()), Err(ConfigError::NoBase)));
        let locked = Flags { locked: true, ..flags };
        assert!(matches!(plan("", &locked), Err(ConfigError::Unlocked(_))));
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = parse("phial.toml", "[prepare]\nscirpt = \"x\"").unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean `prepare.script`?");
    }
}
