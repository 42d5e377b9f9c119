//! `[test]` of `phial.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::limits::TimeSetting;

/// `[test]`: the commands that test an image, and the services that run next to them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TestSettings {
    /// One command, recorded under the name `test`.
    pub command: Option<CommandLine>,
    /// Several commands, each with a name.
    pub commands: Option<Vec<CommandSetting>>,
    /// Whether to call the image's entrypoint with the argument `test`.
    pub entrypoint: Option<bool>,
    /// Limit of time of each command.
    pub timeout: Option<TimeSetting>,
    /// Environment variables of the commands.
    pub env: Option<BTreeMap<String, String>>,
    /// Files and directories of the app to copy out after the commands, relative to the app.
    pub artifacts: Option<Vec<String>>,
    /// Services by host name.
    pub services: Option<BTreeMap<String, ServiceSettings>>,
}

/// A command line: a text for `/bin/sh -c`, or a list of words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a command is a text, or a list of words")]
pub enum CommandLine {
    /// For the shell.
    Shell(String),
    /// The program and its arguments.
    Words(Vec<String>),
}

/// One of several commands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a command is a text, or a table with `name` and `command`")]
pub enum CommandSetting {
    /// For the shell; the text is its name too.
    Shell(String),
    /// With a separate name.
    Named {
        /// The name in output and records.
        name: String,
        /// The command.
        command: CommandLine,
    },
}

/// `[test.services.NAME]`: a program that runs while the tests run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// The image that it runs in.
    pub image: Option<String>,
    /// Environment variables, added to those of the image.
    pub env: Option<BTreeMap<String, String>>,
    /// Overrides the image's entrypoint and command.
    pub command: Option<CommandLine>,
    /// A command in the image that exits with 0 when the service is ready.
    pub ready: Option<CommandLine>,
    /// A TCP port that accepts connections when the service is ready.
    pub port: Option<u16>,
    /// Overrides the image's user.
    pub user: Option<String>,
    /// Absolute paths of directories that are kept in memory.
    pub tmpfs: Option<Vec<String>>,
    /// Limit of time to get ready.
    pub timeout: Option<TimeSetting>,
}

impl TestSettings {
    /// The names of the commands in test records.
    pub fn names(&self) -> Vec<String> {
        let name = |command: &CommandSetting| match command {
            CommandSetting::Shell(name) | CommandSetting::Named { name, .. } => name.clone(),
        };
        self.commands.as_ref().map_or_else(|| vec!["test".to_owned()], |all| all.iter().map(name).collect())
    }
}
