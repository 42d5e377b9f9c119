//! How an image is built: flags, settings, lock file and defaults combined.

use std::collections::BTreeMap;

use phial_layers::{Compression, Digest};

use super::caller::{SettingsOrigin, check_pass};
use super::checks::{
    check_env, check_name, check_path, check_text, check_variable, check_variables, check_version, invalid, reference,
    targets,
};
use super::error::ConfigError;
use super::file::{ClockSetting, FileConfig, ImageSettings, NetworkAccess, PrepareSettings};
use super::limits::{LimitSettings, step_limits};
use super::lock::LockFile;
use crate::image::{Reference, Target, canonical_json, shown};
use crate::recipe::{AppDir, Recipe, Script};
use crate::sandbox::UsageLimits;

/// The environments that an app is compiled for by default.
pub const ENVS: [&str; 2] = ["staging", "prod"];

/// The flags of `phial build` that have precedence over `phial.toml`.
#[derive(Clone, Debug, Default)]
pub struct BuildFlags {
    /// `--base`.
    pub base: Option<String>,
    /// `--to`, in order.
    pub to: Vec<String>,
    /// `--env`, in order.
    pub envs: Vec<String>,
    /// `--network`.
    pub network: Option<NetworkAccess>,
    /// `--compression`.
    pub compression: Option<Compression>,
    /// `--locked`.
    pub locked: bool,
    /// `--pass`, in order.
    pub pass: Vec<String>,
}

/// How one image is built.
#[derive(Clone, Debug)]
pub struct BuildPlan {
    /// The base image.
    pub base: Reference,
    /// The digest of the base image in `phial.lock`, if that pins it.
    pub pinned: Option<Digest>,
    /// Where the image is written to.
    pub targets: Vec<Target>,
    /// What belongs to the commit besides its own objects.
    pub source: SourcePlan,
    /// How the steps run.
    pub prepare: PreparePlan,
    /// The contents of the image's config.
    pub image: ImageSettings,
}

/// What belongs to a commit besides its own objects.
#[derive(Clone, Copy, Debug)]
pub struct SourcePlan {
    /// Whether its submodules are fetched.
    pub submodules: bool,
    /// Whether its files of Git LFS have their objects, and not their pointers.
    pub lfs: bool,
}

/// How the steps of a build run, whatever the base image and the targets are.
#[derive(Clone, Debug)]
pub struct PreparePlan {
    /// The script, the environments, and what the steps see.
    pub recipe: Recipe,
    /// Who wrote the settings.
    pub origin: SettingsOrigin,
    /// Names of the caller's variables that the settings pass to the steps besides the built-in list.
    pub pass: Vec<String>,
    /// Those that the caller passes. They are not among the settings that [`BuildPlan::digest`] covers.
    pub passed_by_flag: Vec<String>,
    /// Whether steps reach the network.
    pub network: NetworkAccess,
    /// The time that steps see while they compile.
    pub clock: ClockSetting,
    /// Whether everything is compiled twice, the second time knowing all atoms that the first time created.
    pub strict: bool,
    /// Whether a range of ids is mapped where the machine allows it.
    pub ranges: bool,
    /// What a step may use. It changes no byte of an image.
    pub limits: UsageLimits,
    /// How layers are compressed.
    pub compression: Compression,
}

impl BuildPlan {
    /// Combines settings, lock file and flags. `app` is the app's name, for the default target `oci:./APP.oci`.
    pub fn new(
        settings: FileConfig,
        origin: SettingsOrigin,
        lock: Option<&LockFile>,
        flags: &BuildFlags,
        app: &str,
    ) -> Result<Self, ConfigError> {
        let base_text = flags.base.clone().or_else(|| settings.image.base.clone()).ok_or(ConfigError::NoBase)?;
        let base = reference("base", &base_text)?;
        let pinned = pinned(lock, &base_text, flags.locked)?;
        let prepare = PreparePlan::new(&settings, flags, origin)?;
        let source = SourcePlan {
            submodules: settings.source.submodules.unwrap_or(true),
            lfs: settings.source.lfs.unwrap_or(true),
        };
        let image = settings.image;
        check_image(&image)?;
        let targets = targets(&target_names(&flags.to, image.name.as_deref(), app))?;
        Ok(Self { base, pinned, targets, source, prepare, image })
    }

    /// The digest of every setting that changes bytes of the image. Targets and the mapping of ids do not.
    pub fn digest(&self) -> Digest {
        let PreparePlan { recipe, pass, network, clock, strict, compression, .. } = &self.prepare;
        let script = match &recipe.script {
            Script::BuiltIn => None,
            Script::InRepository(path) => Some(path),
        };
        let image = &self.image;
        let mut settings = serde_json::json!({
            "envs": recipe.envs,
            "script": script,
            "inputs": recipe.inputs,
            "env": recipe.env,
            "pass": pass,
            "network": network,
            "clock": clock,
            "strict": strict,
            "compression": compression,
            "image": {
                "entrypoint": image.entrypoint,
                "cmd": image.cmd,
                "user": image.user,
                "env": image.env,
                "labels": image.labels,
            },
        });
        if let Some(lockfile) = &recipe.lockfile {
            settings["lockfile"] = lockfile.as_str().into(); // without it, the digest is that of earlier versions
        }
        if let Some(version) = &recipe.hex {
            settings["hex"] = version.as_str().into();
        }
        if !recipe.app.is_root() {
            settings["root"] = recipe.app.path().into();
        }
        if !recipe.include.is_empty() {
            settings["include"] = recipe.include.clone().into();
        }
        if !self.source.lfs {
            settings["lfs"] = false.into();
        }
        if !self.source.submodules {
            settings["submodules"] = false.into();
        }
        Digest::of(&canonical_json(&settings))
    }
}

impl PreparePlan {
    /// Combines settings and flags.
    pub fn new(settings: &FileConfig, flags: &BuildFlags, origin: SettingsOrigin) -> Result<Self, ConfigError> {
        let PrepareSettings { script, inputs, lockfile, hex, network, clock, strict, env, pass, ranges, .. } =
            settings.prepare.clone();
        let limits = LimitSettings {
            timeout: settings.prepare.timeout.as_ref(),
            max_output: settings.prepare.max_output.as_ref(),
            max_processes: settings.prepare.max_processes,
            max_memory: settings.prepare.max_memory.as_ref(),
        };
        let recipe = Recipe {
            app: AppDir::new(settings.image.root.as_deref().unwrap_or_default()),
            include: settings.image.include.clone().unwrap_or_default(),
            script: script.map_or(Script::BuiltIn, Script::InRepository),
            envs: first_non_empty(&flags.envs, settings.image.envs.as_deref(), &ENVS),
            inputs: inputs.unwrap_or_default(),
            lockfile,
            hex,
            env: env.unwrap_or_default(),
        };
        check(&recipe)?;
        let pass = pass.unwrap_or_default();
        check_pass("prepare.pass", &pass)?;
        flags.pass.iter().try_for_each(|name| check_name("pass", name))?;
        Ok(Self {
            recipe,
            origin,
            pass,
            passed_by_flag: flags.pass.clone(),
            network: flags.network.or(network).unwrap_or(NetworkAccess::Host),
            clock: clock.unwrap_or(ClockSetting::Fixed),
            strict: strict.unwrap_or(false),
            ranges: ranges.unwrap_or(false),
            limits: step_limits(limits)?,
            compression: flags.compression.or(settings.image.compression).unwrap_or(Compression::Gzip),
        })
    }
}

fn check(recipe: &Recipe) -> Result<(), ConfigError> {
    for (nth, env) in recipe.envs.iter().enumerate() {
        check_env(env, &recipe.envs[..nth])?;
    }
    if let Script::InRepository(path) = &recipe.script {
        check_path("prepare.script", path)?;
    }
    recipe.inputs.iter().try_for_each(|path| check_path("prepare.inputs", path))?;
    recipe.lockfile.iter().try_for_each(|path| check_path("prepare.lockfile", path))?;
    recipe.hex.iter().try_for_each(|version| check_version("prepare.hex", version))?;
    recipe.include.iter().try_for_each(|path| check_path("image.include", path))?;
    recipe.env.keys().try_for_each(|name| check_variable("prepare.env", name))?;
    check_variables("prepare.env", &recipe.env)
}

/// What is written into the image's config must be such that the image can be read and started.
fn check_image(image: &ImageSettings) -> Result<(), ConfigError> {
    check_variables("image.env", image.env.as_ref().unwrap_or(&BTreeMap::new()))?;
    for (key, words) in [("image.entrypoint", &image.entrypoint), ("image.cmd", &image.cmd)] {
        let words = words.as_deref().unwrap_or_default();
        if words.first().is_some_and(String::is_empty) && (key != "image.cmd" || image.entrypoint.is_none()) {
            return Err(invalid(key, "", "but its first word is a program"));
        }
        words.iter().try_for_each(|word| check_text(key, word))?;
    }
    for (key, text) in [("image.user", &image.user), ("image.source", &image.source)] {
        if let Some(text) = text.as_ref().filter(|text| text.contains(char::is_control)) {
            return Err(invalid(key, &shown(text), "but it is one line without control characters"));
        }
    }
    Ok(())
}

fn target_names(flags: &[String], name: Option<&str>, app: &str) -> Vec<String> {
    match (flags, name) {
        ([], None) => vec![format!("oci:./{app}.oci")],
        ([], Some(name)) => vec![name.to_owned()],
        (flags, _) => flags.to_vec(),
    }
}

fn first_non_empty(flags: &[String], settings: Option<&[String]>, default: &[&str]) -> Vec<String> {
    match (flags, settings) {
        ([], None | Some([])) => default.iter().map(|env| (*env).to_owned()).collect(),
        ([], Some(envs)) => envs.to_vec(),
        (flags, _) => flags.to_vec(),
    }
}

/// The digest that the lock file has for the base image `base`.
fn pinned(lock: Option<&LockFile>, base: &str, locked: bool) -> Result<Option<Digest>, ConfigError> {
    match lock {
        Some(lock) if lock.base.name == base => Ok(Some(lock.base.digest.clone())),
        Some(lock) if locked => Err(ConfigError::NotLocked(format!("pins `{}`, not `{base}`", lock.base.name))),
        None if locked => Err(ConfigError::NotLocked("does not exist".into())),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::error::UserError as _;
    use crate::image::{Image, ImageOptions, Platform, assemble};

    fn plan(toml: &str, flags: &BuildFlags) -> Result<BuildPlan, ConfigError> {
        BuildPlan::new(parse("phial.toml", toml)?, SettingsOrigin::Caller, None, flags, "shop")
    }

    #[test]
    fn flags_have_precedence_over_the_file_and_the_file_over_the_defaults() {
        let base = "[image]\nbase = \"r.example/elixir:1.18\"\nname = \"r.example/shop\"\nenvs = [\"prod\"]\n";
        let from_file = plan(base, &BuildFlags::default()).unwrap();
        assert_eq!(from_file.prepare.recipe.envs, ["prod"]);
        assert_eq!(from_file.targets[0].to_string(), "r.example/shop");
        let flags = BuildFlags { to: vec!["oci:out".into()], envs: vec!["dev".into()], ..BuildFlags::default() };
        let from_flags = plan(base, &flags).unwrap();
        assert_eq!(from_flags.prepare.recipe.envs[0], "dev");
        assert_eq!(from_flags.targets[0].to_string(), "oci:out");
        let flags_alone = BuildFlags { base: Some("oci:base".into()), ..BuildFlags::default() };
        let defaults = plan("", &flags_alone).unwrap();
        assert_eq!(defaults.prepare.recipe.envs, ["staging", "prod"]);
        assert_eq!(defaults.targets[0].to_string(), "oci:./shop.oci");
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_key() {
        let flags = BuildFlags { base: Some("oci:base".into()), ..BuildFlags::default() };
        for (toml, text) in [
            ("[image]\nenvs = [\"Prod\"]", "`env` is `Prod`"),
            ("[image]\nenvs = [\"prod\", \"prod\"]", "named twice"),
            ("[prepare]\nscript = \"../x\"", "`prepare.script` is `../x`"),
            ("[prepare]\ninputs = [\"/etc\"]", "`prepare.inputs` is `/etc`"),
            ("[prepare]\nlockfile = \"../x.lock\"", "`prepare.lockfile` is `../x.lock`"),
            ("[prepare]\nhex = \"~> 2.0\"", "`prepare.hex` is `~> 2.0`"),
            ("[prepare]\nhex = \"--force\"", "`prepare.hex` is `--force`"),
            ("[prepare]\nenv = { \"A=B\" = \"c\" }", "`prepare.env` is `A=B`"),
            ("[image]\nname = \"Upper/Case\"", "cannot use `to`"),
            ("[image]\nnmae = \"x\"", "unknown key `image.nmae`"),
            ("[image\n", "line 1"),
            ("[image]\nenvs = 7", "phial.toml"),
        ] {
            let error = plan(toml, &flags).unwrap_err().to_string();
            assert!(error.contains(text), "{toml}: {error}");
        }
        assert!(matches!(plan("", &BuildFlags::default()), Err(ConfigError::NoBase)));
        let locked = BuildFlags { locked: true, ..flags };
        assert!(matches!(plan("", &locked), Err(ConfigError::NotLocked(_))));
    }

    #[test]
    fn whatever_settings_are_accepted_their_image_is_read_again() {
        let pieces =
            ["", "a", "=", "A=B", "\n", "\r\n", "\t", "\0", "\u{1b}[0m", "\u{2028}", "größer", "-----BEGIN\nx\n", " "];
        let texts: Vec<String> = pieces.iter().flat_map(|one| pieces.map(|two| format!("{one}{two}"))).collect();
        let flags = BuildFlags { base: Some("oci:base".into()), ..BuildFlags::default() };
        let mut accepted = 0;
        for name in &texts {
            for value in &texts {
                let one = |text: &String| Some(vec![text.clone()]);
                let image = ImageSettings {
                    env: Some(BTreeMap::from([(name.clone(), value.clone())])),
                    labels: Some(BTreeMap::from([(name.clone(), value.clone())])),
                    cmd: one(value),
                    entrypoint: one(name),
                    user: Some(value.clone()),
                    ..ImageSettings::default()
                };
                let settings = FileConfig { image, ..FileConfig::default() };
                let Ok(plan) = BuildPlan::new(settings, SettingsOrigin::Caller, None, &flags, "shop") else { continue };
                let options = ImageOptions {
                    created: 0,
                    entrypoint: plan.image.entrypoint,
                    cmd: plan.image.cmd,
                    env: plan.image.env.unwrap_or_default(),
                    working_dir: None,
                    user: plan.image.user,
                    labels: plan.image.labels.unwrap_or_default(),
                    annotations: BTreeMap::new(),
                };
                let written = assemble(&Image::scratch(&Platform::host()), &[], &options);
                let read = Image::read(written.manifest_bytes, None, written.config_bytes);
                let read = read.unwrap_or_else(|error| panic!("{name:?}={value:?}: {error}"));
                assert_eq!(read.config.config.env, [format!("{name}={value}")]);
                assert!(!name.contains(['=', '\n', '\0']) && !value.contains('\0') && !name.is_empty());
                accepted += 1;
            }
        }
        assert!(accepted > 500, "{accepted}");
    }

    #[test]
    fn values_of_several_lines_are_accepted_and_a_nul_is_not() {
        let flags = BuildFlags { base: Some("oci:base".into()), ..BuildFlags::default() };
        for key in ["image.env", "prepare.env"] {
            let (table, name) = key.split_once('.').unwrap();
            assert!(plan(&format!("[{table}]\n{name} = {{ KEY = \"a\\nb\" }}"), &flags).is_ok(), "{key}");
            let error = plan(&format!("[{table}]\n{name} = {{ KEY = \"a\\u0000b\" }}"), &flags).unwrap_err();
            assert_eq!(error.to_string(), format!("`{key}.KEY` is `a text with a NUL`, which no process can be given"));
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = parse("phial.toml", "[prepare]\nscirpt = \"x\"").unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean `prepare.script`?");
    }
}
