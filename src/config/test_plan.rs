//! How an image is tested: flags, settings and defaults combined.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::checks::{check_host, check_path, check_text, check_variable, check_variables, invalid, reference};
use super::error::ConfigError;
use super::limits::{TimeSetting, duration};
use super::test_settings::{CommandLine, CommandSetting, ServiceSettings, TestSettings};
use crate::image::Reference;

/// The flags of `phial test` that have precedence over `phial.toml`.
#[derive(Clone, Debug, Default)]
pub struct TestFlags {
    /// `-- COMMAND`: the program and its arguments.
    pub command: Vec<String>,
    /// `--only`: names of commands.
    pub only: Vec<String>,
    /// `--timeout`.
    pub timeout: Option<String>,
}

/// How an image is tested.
#[derive(Clone, Debug)]
pub struct TestPlan {
    /// What to run.
    pub commands: TestCommands,
    /// Limit of time of each command.
    pub timeout: Duration,
    /// Environment variables of the commands.
    pub env: BTreeMap<String, String>,
    /// Paths to copy out after the commands, relative to the app.
    pub artifacts: Vec<String>,
    /// The services by host name.
    pub services: BTreeMap<String, ServicePlan>,
}

/// Which commands test an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestCommands {
    /// `script/docker/ci.sh` if the image has it, else `mix test`.
    Default,
    /// The image's entrypoint with the argument `test`.
    Entrypoint,
    /// Those of the settings or the command line, in this order.
    Listed(Vec<NamedCommand>),
}

/// A command with the name that output and records show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCommand {
    /// The name.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
}

/// A program that runs while the tests run.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// The image that it runs in.
    pub image: Reference,
    /// Environment variables, added to those of the image.
    pub env: BTreeMap<String, String>,
    /// Overrides the image's entrypoint and command.
    pub command: Option<Vec<String>>,
    /// How to see that it is ready; `None` if it is ready when it has started.
    pub ready: Option<ReadyCheck>,
    /// Overrides the image's user.
    pub user: Option<String>,
    /// Absolute paths of directories that are kept in memory.
    pub tmpfs: Vec<String>,
    /// Limit of time to get ready.
    pub timeout: Duration,
}

/// How to see that a service is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyCheck {
    /// A command in its image exits with 0.
    Command(Vec<String>),
    /// A TCP port accepts connections.
    Port(u16),
}

/// The default limit of a command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3600);
/// The default limit of a service to get ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

impl TestPlan {
    /// Combines settings and flags.
    pub fn new(settings: &TestSettings, flags: &TestFlags) -> Result<Self, ConfigError> {
        let timeout = match (&flags.timeout, &settings.timeout) {
            (Some(text), _) => duration("timeout", &TimeSetting::Text(text.clone()))?,
            (None, Some(time)) => duration("test.timeout", time)?,
            (None, None) => COMMAND_TIMEOUT,
        };
        let env = settings.env.clone().unwrap_or_default();
        env.keys().try_for_each(|name| check_variable("test.env", name))?;
        check_variables("test.env", &env)?;
        let artifacts = settings.artifacts.clone().unwrap_or_default();
        artifacts.iter().try_for_each(|path| check_path("test.artifacts", path))?;
        let mut services = BTreeMap::new();
        for (name, service) in settings.services.iter().flatten() {
            check_host("test.services", name)?;
            services.insert(name.clone(), service_plan(name, service)?);
        }
        Ok(Self { commands: commands(settings, flags)?, timeout, env, artifacts, services })
    }
}

fn commands(settings: &TestSettings, flags: &TestFlags) -> Result<TestCommands, ConfigError> {
    let single = "test".to_owned();
    let has_entrypoint = settings.entrypoint.unwrap_or(false);
    if !flags.command.is_empty() {
        // The settings cannot name a command so: a release cannot require what was run by hand.
        let name = format!("-- {}", flags.command.join(" "));
        return listed(vec![NamedCommand { name, argv: flags.command.clone() }], &flags.only);
    }
    match (&settings.command, &settings.commands) {
        (Some(_), Some(_)) => Err(invalid("test.command", "set", "and so is `test.commands`: one of them must go")),
        (Some(_), _) | (_, Some(_)) if has_entrypoint => {
            Err(invalid("test.entrypoint", "set", "and so is a command: one of them must go"))
        }
        (Some(line), None) => {
            listed(vec![NamedCommand { name: single, argv: argv("test.command", line)? }], &flags.only)
        }
        (None, Some(list)) => listed(named_commands(list)?, &flags.only),
        (None, None) => {
            listed(vec![NamedCommand { name: single, argv: vec![] }], &flags.only)?;
            Ok(if has_entrypoint { TestCommands::Entrypoint } else { TestCommands::Default })
        }
    }
}

/// Those commands that `--only` names; all if it names none.
fn listed(all: Vec<NamedCommand>, only: &[String]) -> Result<TestCommands, ConfigError> {
    if let Some(unknown) = only.iter().find(|only| !all.iter().any(|command| command.name == **only)) {
        let names: Vec<&str> = all.iter().map(|command| command.name.as_str()).collect();
        return Err(ConfigError::UnknownCommand { asked: unknown.clone(), known: names.join("`, `") });
    }
    let is_wanted = |command: &NamedCommand| only.is_empty() || only.contains(&command.name);
    Ok(TestCommands::Listed(all.into_iter().filter(is_wanted).collect()))
}

fn named_commands(settings: &[CommandSetting]) -> Result<Vec<NamedCommand>, ConfigError> {
    let key = "test.commands";
    if settings.is_empty() {
        return Err(invalid(key, "[]", "and a test has at least one command"));
    }
    let mut all = Vec::new();
    let mut names = BTreeSet::new();
    for setting in settings {
        let (name, line) = match setting {
            CommandSetting::Shell(line) => (line.clone(), CommandLine::Shell(line.clone())),
            CommandSetting::Named { name, command } => (name.clone(), command.clone()),
        };
        if name.trim().is_empty() || name.starts_with('-') || name.chars().any(char::is_control) {
            let reason = "but a name is a line of text without a hyphen before it";
            return Err(invalid(key, &name.escape_debug().to_string(), reason));
        }
        if !names.insert(name.clone()) {
            return Err(invalid(key, &name, "and it is named twice"));
        }
        all.push(NamedCommand { name, argv: argv(key, &line)? });
    }
    Ok(all)
}

fn service_plan(name: &str, settings: &ServiceSettings) -> Result<ServicePlan, ConfigError> {
    let key = |last: &str| format!("test.services.{name}.{last}");
    let image = settings.image.as_ref().ok_or_else(|| ConfigError::NoImage(key("image")))?;
    let env = settings.env.clone().unwrap_or_default();
    env.keys().try_for_each(|variable| check_variable(&key("env"), variable))?;
    check_variables(&key("env"), &env)?;
    let command = |last: &str, line: &Option<CommandLine>| line.as_ref().map(|line| argv(&key(last), line)).transpose();
    let tmpfs = settings.tmpfs.clone().unwrap_or_default();
    if let Some(path) = tmpfs.iter().find(|path| !path.starts_with('/') || path.len() < 2 || path.contains("..")) {
        return Err(invalid(&key("tmpfs"), path, "but it must be an absolute path other than `/`, without `..`"));
    }
    tmpfs.iter().try_for_each(|path| check_text(&key("tmpfs"), path))?;
    Ok(ServicePlan {
        image: reference(&key("image"), image)?,
        env,
        command: command("command", &settings.command)?,
        ready: command("ready", &settings.ready)?.map(ReadyCheck::Command).or(settings.port.map(ReadyCheck::Port)),
        user: settings.user.clone(),
        tmpfs,
        timeout: settings.timeout.as_ref().map_or(Ok(READY_TIMEOUT), |time| duration(&key("timeout"), time))?,
    })
}

/// The words of a command line; a text is for the shell.
fn argv(key: &str, line: &CommandLine) -> Result<Vec<String>, ConfigError> {
    let empty = || invalid(key, "", "but it must name a program");
    let words = match line {
        CommandLine::Shell(text) => std::slice::from_ref(text),
        CommandLine::Words(words) => words,
    };
    words.iter().try_for_each(|word| check_text(key, word))?;
    match line {
        CommandLine::Shell(text) if text.trim().is_empty() => Err(empty()),
        CommandLine::Shell(text) => Ok(["/bin/sh", "-c", text].map(str::to_owned).to_vec()),
        CommandLine::Words(words) if words.first().is_none_or(String::is_empty) => Err(empty()),
        CommandLine::Words(words) => Ok(words.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn plan(toml: &str, flags: &TestFlags) -> Result<TestPlan, ConfigError> {
        TestPlan::new(&parse("phial.toml", toml)?.test, flags)
    }

    #[test]
    fn commands_come_from_the_flags_the_settings_or_the_default() {
        let planned = |toml: &str, flags: &TestFlags| plan(toml, flags).unwrap().commands;
        let none = TestFlags::default();
        let commands = |list: &[(&str, &[&str])]| {
            let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            let command = |(name, words): &(&str, &[&str])| NamedCommand { name: (*name).into(), argv: owned(words) };
            TestCommands::Listed(list.iter().map(command).collect())
        };
        assert_eq!(planned("", &none), TestCommands::Default);
        assert_eq!(planned("[test]\nentrypoint = true", &none), TestCommands::Entrypoint);
        let sh = ["/bin/sh", "-c", "mix test"];
        assert_eq!(planned("[test]\ncommand = 'mix test'", &none), commands(&[("test", &sh)]));
        assert_eq!(planned("[test]\ncommand = ['mix', 'x y']", &none), commands(&[("test", &["mix", "x y"])]));
        let several = "[test]\ncommands = ['mix test', { name = 'lint', command = ['credo'] }]";
        assert_eq!(planned(several, &none), commands(&[("mix test", &sh), ("lint", &["credo"])]));
        let only = TestFlags { only: vec!["lint".into()], ..none.clone() };
        assert_eq!(planned(several, &only), commands(&[("lint", &["credo"])]));
        let by_hand = TestFlags { command: vec!["mix".into(), "x".into()], ..none };
        assert_eq!(planned(several, &by_hand), commands(&[("-- mix x", &["mix", "x"])]));
    }

    #[test]
    fn times_have_units() {
        let seconds = |text: &str| duration("t", &TimeSetting::Text(text.into())).map(|time| time.as_secs()).ok();
        assert_eq!(["90", "90s", "10m", "1h"].map(seconds), [Some(90), Some(90), Some(600), Some(3600)]);
        assert_eq!(["0", "0s", "", "m", "-1", "10M", "99999999999h"].map(seconds), [None; 7]);
        assert_eq!(plan("[test]\ntimeout = 5", &TestFlags::default()).unwrap().timeout.as_secs(), 5);
    }

    #[test]
    fn a_service_has_an_image_and_a_name_that_is_a_host() {
        let text = "[test.services.db]\nimage = 'oci:db'\nready = 'pg_isready'\nport = 5432\ntmpfs = ['/data']";
        let plan = plan(text, &TestFlags::default()).unwrap();
        let service = &plan.services["db"];
        let probe = ["/bin/sh", "-c", "pg_isready"].map(str::to_owned).to_vec();
        assert_eq!(service.ready, Some(ReadyCheck::Command(probe)));
        assert_eq!(service.timeout, READY_TIMEOUT);
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_key() {
        for (toml, text) in [
            ("[test]\ncomand = 'x'", "unknown key `test.comand`"),
            ("[test]\ncommand = 7", "a command is a text, or a list of words"),
            ("[test]\ncommand = ''", "`test.command` is ``"),
            ("[test]\ncommand = 'a'\ncommands = ['b']", "`test.commands`"),
            ("[test]\ncommands = []", "at least one command"),
            ("[test]\ncommands = ['-- mix test']", "without a hyphen before it"),
            ("[test]\ncommands = ['a', 'a']", "named twice"),
            ("[test]\nentrypoint = true\ncommand = 'a'", "`test.entrypoint`"),
            ("[test]\nartifacts = ['/etc']", "`test.artifacts` is `/etc`"),
            ("[test]\nenv = { 'A B' = '' }", "`test.env` is `A B`"),
            ("[test.services.db]\nport = 1", "`test.services.db.image` is not set"),
            ("[test.services.db]\nimage = 'Up/Case'", "`test.services.db.image`"),
            ("[test.services.db]\nimage = 'oci:x'\nimag = 1", "unknown key `test.services.db.imag`"),
            ("[test.services.db]\nimage = 'oci:x'\ntmpfs = ['data']", "`test.services.db.tmpfs` is `data`"),
            ("[test.services.Db_1]\nimage = 'oci:x'", "`test.services` is `Db_1`"),
        ] {
            let error = plan(toml, &TestFlags::default()).unwrap_err().to_string();
            assert!(error.contains(text), "{toml}: {error}");
        }
        let only = TestFlags { only: vec!["credo".into()], ..TestFlags::default() };
        let error = plan("[test]\ncommands = ['a', 'b']", &only).unwrap_err();
        assert_eq!(error.to_string(), "`--only` names `credo`, but the commands are `a`, `b`");
    }
}
