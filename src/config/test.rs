//! `[test]` of `phial.toml`: how an image is tested, as a wish and as a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, check_path, check_variable, reference};
use crate::image::Reference;

/// `[test]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Test {
    /// The one command.
    pub command: Option<Words>,
    /// Several, each with a name.
    pub commands: Option<Vec<Named>>,
    /// Whether the image's entrypoint is called with `test`.
    pub entrypoint: Option<bool>,
    /// How long each command may take.
    pub timeout: Option<Span>,
    /// Variables of the commands.
    pub env: Option<BTreeMap<String, String>>,
    /// Files and folders of the app to copy out.
    pub artifacts: Option<Vec<String>>,
    /// What runs beside the tests.
    pub services: Option<BTreeMap<String, ServiceConfig>>,
}

/// A command line: a text for `/bin/sh -c`, or words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a command is a text, or a list of words")]
pub enum Words {
    /// For the shell.
    Line(String),
    /// The program and its arguments.
    List(Vec<String>),
}

/// One of several commands; a text is its own name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a command is a text, or a table with `name` and `command`")]
pub enum Named {
    /// For the shell.
    Line(String),
    /// With a name of its own.
    Table {
        /// The name.
        name: String,
        /// The command.
        command: Words,
    },
}

/// A number of seconds, or a text such as `90s`, `10m`, `1h`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a time is a number of seconds, or a text such as `10m`")]
pub enum Span {
    /// Seconds.
    Seconds(u64),
    /// With a unit.
    Text(String),
}

/// `[test.services.NAME]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Where it comes from.
    pub image: Option<String>,
    /// Variables beside the image's.
    pub env: Option<BTreeMap<String, String>>,
    /// In place of what the image starts.
    pub command: Option<Words>,
    /// Ends with 0 when the service is ready.
    pub ready: Option<Words>,
    /// A port that answers when the service is ready.
    pub port: Option<u16>,
    /// In place of the image's user.
    pub user: Option<String>,
    /// Directories in memory.
    pub tmpfs: Option<Vec<String>>,
    /// How long it may take to be ready.
    pub timeout: Option<Span>,
}

/// What the command line asks of a test.
#[derive(Clone, Debug, Default)]
pub struct TestFlags {
    /// `-- COMMAND`.
    pub command: Vec<String>,
    /// `--only`.
    pub only: Vec<String>,
    /// `--timeout`.
    pub timeout: Option<String>,
}

/// How an image is tested.
#[derive(Clone, Debug)]
pub struct TestPlan {
    /// What to run, in this order.
    pub what: What,
    /// How long each command may take.
    pub timeout: Duration,
    /// Variables of the commands.
    pub env: BTreeMap<String, String>,
    /// Paths of the app to copy out.
    pub artifacts: Vec<String>,
    /// What runs beside them, by host name.
    pub services: BTreeMap<String, Service>,
}

/// Where the commands come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Nobody says: `script/docker/ci.sh` if it is in the image, else `mix test`.
    Usual,
    /// The image's entrypoint, with `test`.
    Entrypoint,
    /// These, each with its name.
    Commands(Vec<(String, Vec<String>)>),
}

/// Something that runs beside the tests.
#[derive(Clone, Debug)]
pub struct Service {
    /// Where it comes from.
    pub image: Reference,
    /// Variables beside the image's.
    pub env: BTreeMap<String, String>,
    /// In place of what the image starts.
    pub command: Option<Vec<String>>,
    /// When it is ready; at once if nobody says.
    pub ready: Option<Probe>,
    /// In place of the image's user.
    pub user: Option<String>,
    /// Directories in memory.
    pub tmpfs: Vec<String>,
    /// How long it may take to be ready.
    pub timeout: Duration,
}

/// How to see that a service is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A command in it ends with 0.
    Command(Vec<String>),
    /// A TCP port answers.
    Port(u16),
}

/// How long a command may take if nobody says.
const LONG: Duration = Duration::from_secs(3600);
/// How long a service may take to be ready if nobody says.
const SOON: Duration = Duration::from_secs(60);

impl Test {
    /// The names that records know the commands by.
    pub fn names(&self) -> Vec<String> {
        let name = |named: &Named| match named {
            Named::Line(name) | Named::Table { name, .. } => name.clone(),
        };
        self.commands.as_ref().map_or_else(|| vec!["test".to_owned()], |all| all.iter().map(name).collect())
    }
}

impl TestPlan {
    /// Puts settings and flags together.
    pub fn new(wish: &Test, flags: &TestFlags) -> Result<Self, ConfigError> {
        let timeout = match (&flags.timeout, &wish.timeout) {
            (Some(text), _) => span("timeout", &Span::Text(text.clone()))?,
            (None, Some(wanted)) => span("test.timeout", wanted)?,
            (None, None) => LONG,
        };
        let env = wish.env.clone().unwrap_or_default();
        for name in env.keys() {
            check_variable("test.env", name)?;
        }
        let artifacts = wish.artifacts.clone().unwrap_or_default();
        for path in &artifacts {
            check_path("test.artifacts", path)?;
        }
        let mut services = BTreeMap::new();
        for (name, wanted) in wish.services.iter().flatten() {
            check_host(name)?;
            services.insert(name.clone(), service(name, wanted)?);
        }
        Ok(Self { what: what(wish, flags)?, timeout, env, artifacts, services })
    }
}

fn what(wish: &Test, flags: &TestFlags) -> Result<What, ConfigError> {
    let only_of = |all: Vec<(String, Vec<String>)>| {
        if let Some(unknown) = flags.only.iter().find(|only| !all.iter().any(|(name, _)| name == *only)) {
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            return Err(ConfigError::NoCommand { asked: unknown.clone(), known: names.join("`, `") });
        }
        let wanted = |name: &String| flags.only.is_empty() || flags.only.contains(name);
        Ok(all.into_iter().filter(|(name, _)| wanted(name)).collect::<Vec<_>>())
    };
    let one = "test".to_owned();
    let entrypoint = wish.entrypoint.unwrap_or(false);
    if !flags.command.is_empty() {
        // No settings can name a command so: what happened to be run is not what a release requires.
        let name = format!("-- {}", flags.command.join(" "));
        return Ok(What::Commands(only_of(vec![(name, flags.command.clone())])?));
    }
    let value = |key: &str, reason| ConfigError::Value { key: key.into(), value: "set".into(), reason };
    match (&wish.command, &wish.commands) {
        (Some(_), Some(_)) => Err(value("test.command", "and so is `test.commands`: one of them must go")),
        (Some(_), _) | (_, Some(_)) if entrypoint => {
            Err(value("test.entrypoint", "and so is a command: one of them must go"))
        }
        (Some(words), None) => Ok(What::Commands(only_of(vec![(one, argv("test.command", words)?)])?)),
        (None, Some(named)) => Ok(What::Commands(only_of(commands(named)?)?)),
        (None, None) => {
            only_of(vec![(one, vec![])])?;
            Ok(if entrypoint { What::Entrypoint } else { What::Usual })
        }
    }
}

fn commands(named: &[Named]) -> Result<Vec<(String, Vec<String>)>, ConfigError> {
    let key = "test.commands";
    let value = |value: &str, reason| ConfigError::Value { key: key.into(), value: value.into(), reason };
    if named.is_empty() {
        return Err(value("[]", "and a test has at least one command"));
    }
    let mut all = Vec::new();
    let mut names = BTreeSet::new();
    for one in named {
        let (name, words) = match one {
            Named::Line(line) => (line.clone(), Words::Line(line.clone())),
            Named::Table { name, command } => (name.clone(), command.clone()),
        };
        if name.trim().is_empty() || name.starts_with('-') || name.chars().any(char::is_control) {
            return Err(value(
                &name.escape_debug().to_string(),
                "but a name is a line of text without a hyphen before it",
            ));
        }
        if !names.insert(name.clone()) {
            return Err(value(&name, "and it is named twice"));
        }
        all.push((name, argv(key, &words)?));
    }
    Ok(all)
}

fn service(name: &str, wish: &ServiceConfig) -> Result<Service, ConfigError> {
    let key = |last: &str| format!("test.services.{name}.{last}");
    let image = wish.image.as_ref().ok_or_else(|| ConfigError::NoImage(key("image")))?;
    let env = wish.env.clone().unwrap_or_default();
    for variable in env.keys() {
        check_variable(&key("env"), variable)?;
    }
    let command = |last: &str, words: &Option<Words>| words.as_ref().map(|words| argv(&key(last), words)).transpose();
    let tmpfs = wish.tmpfs.clone().unwrap_or_default();
    if let Some(path) = tmpfs.iter().find(|path| !path.starts_with('/') || path.len() < 2 || path.contains("..")) {
        let reason = "but it must be an absolute path other than `/`, without `..`";
        return Err(ConfigError::Value { key: key("tmpfs"), value: path.clone(), reason });
    }
    Ok(Service {
        image: reference(&key("image"), image)?,
        env,
        command: command("command", &wish.command)?,
        ready: command("ready", &wish.ready)?.map(Probe::Command).or(wish.port.map(Probe::Port)),
        user: wish.user.clone(),
        tmpfs,
        timeout: wish.timeout.as_ref().map_or(Ok(SOON), |wanted| span(&key("timeout"), wanted))?,
    })
}

fn argv(key: &str, words: &Words) -> Result<Vec<String>, ConfigError> {
    let empty = || ConfigError::Value { key: key.into(), value: String::new(), reason: "but it must name a program" };
    match words {
        Words::Line(line) if line.trim().is_empty() => Err(empty()),
        Words::Line(line) => Ok(["/bin/sh", "-c", line].map(str::to_owned).to_vec()),
        Words::List(words) if words.first().is_none_or(String::is_empty) => Err(empty()),
        Words::List(words) => Ok(words.clone()),
    }
}

fn span(key: &str, wanted: &Span) -> Result<Duration, ConfigError> {
    let seconds = match wanted {
        Span::Seconds(seconds) => Some(*seconds),
        Span::Text(text) => {
            let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
            let unit = match unit {
                "" | "s" => Some(1),
                "m" => Some(60),
                "h" => Some(3600),
                _ => None,
            };
            number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit))
        }
    };
    let value = match wanted {
        Span::Seconds(seconds) => seconds.to_string(),
        Span::Text(text) => text.clone(),
    };
    let reason = "but a time is a number of seconds above 0, or a text such as `90s`, `10m`, `1h`";
    let seconds = seconds.filter(|seconds| (1..=u64::from(u32::MAX)).contains(seconds));
    seconds.map(Duration::from_secs).ok_or(ConfigError::Value { key: key.into(), value, reason })
}

/// A host name of one label (RFC 1123).
fn check_host(name: &str) -> Result<(), ConfigError> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(letters) || name.starts_with('-') || name.ends_with('-')
    {
        let reason = "but a service's name is a host name: lower-case letters, digits, `-`";
        return Err(ConfigError::Value { key: "test.services".into(), value: name.into(), reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn plan(toml: &str, flags: &TestFlags) -> Result<TestPlan, ConfigError> {
        TestPlan::new(&parse("phial.toml", toml)?.test, flags)
    }

    #[test]
    fn commands_come_from_the_line_the_settings_or_what_is_usual() {
        let what = |toml: &str, flags: &TestFlags| plan(toml, flags).unwrap().what;
        let none = TestFlags::default();
        let commands = |list: &[(&str, &[&str])]| {
            let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            What::Commands(list.iter().map(|(name, words)| ((*name).to_owned(), owned(words))).collect())
        };
        assert_eq!(what("", &none), What::Usual);
        assert_eq!(what("[test]\nentrypoint = true", &none), What::Entrypoint);
        let sh = ["/bin/sh", "-c", "mix test"];
        assert_eq!(what("[test]\ncommand = 'mix test'", &none), commands(&[("test", &sh)]));
        assert_eq!(what("[test]\ncommand = ['mix', 'x y']", &none), commands(&[("test", &["mix", "x y"])]));
        let several = "[test]\ncommands = ['mix test', { name = 'lint', command = ['credo'] }]";
        assert_eq!(what(several, &none), commands(&[("mix test", &sh), ("lint", &["credo"])]));
        let only = TestFlags { only: vec!["lint".into()], ..none.clone() };
        assert_eq!(what(several, &only), commands(&[("lint", &["credo"])]));
        let given = TestFlags { command: vec!["mix".into(), "x".into()], ..none };
        assert_eq!(what(several, &given), commands(&[("-- mix x", &["mix", "x"])]));
    }

    #[test]
    fn times_have_units() {
        let seconds = |text: &str| span("t", &Span::Text(text.into())).map(|span| span.as_secs()).ok();
        assert_eq!(["90", "90s", "10m", "1h"].map(seconds), [Some(90), Some(90), Some(600), Some(3600)]);
        assert_eq!(["0", "", "m", "-1", "1d", "99999999999h"].map(seconds), [None; 6]);
        assert_eq!(plan("[test]\ntimeout = 5", &TestFlags::default()).unwrap().timeout.as_secs(), 5);
    }

    #[test]
    fn a_service_has_an_image_and_a_name_that_is_a_host() {
        let text = "[test.services.db]\nimage = 'oci:db'\nready = 'pg_isready'\nport = 5432\ntmpfs = ['/data']";
        let plan = plan(text, &TestFlags::default()).unwrap();
        let service = &plan.services["db"];
        let probe = ["/bin/sh", "-c", "pg_isready"].map(str::to_owned).to_vec();
        assert_eq!(service.ready, Some(Probe::Command(probe)));
        assert_eq!(service.timeout, SOON);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
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
        assert_eq!(error.to_string(), "`--only` names `credo`, and the commands are `a`, `b`");
    }
}
