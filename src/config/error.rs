//! What can be wrong with `phial.toml`, `phial.lock` and the flags of the command line.

use crate::error::{ExitKind, IoError, UserError};
use crate::image::ImageError;

/// Characters of a line of settings that an error shows.
const EXCERPT: usize = 200;

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, or a value has the wrong type.
    #[error("`{file}` cannot be read: {text}")]
    Toml {
        /// Which file.
        file: String,
        /// The parser's message, with line and column.
        text: String,
        /// The line, and where the error is in it.
        excerpt: Vec<String>,
    },
    /// A key that Phial does not know.
    #[error("`{file}` has the unknown key `{key}`")]
    UnknownKey {
        /// Which file.
        file: String,
        /// The key with its table: `image.nmae`.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value that is not allowed.
    #[error("`{key}` is `{value}`, {reason}")]
    Value {
        /// The setting, flag or variable.
        key: String,
        /// Its value.
        value: String,
        /// Which values are allowed: the end of the sentence, from its conjunction on.
        reason: &'static str,
    },
    /// Settings that would pass a secret of the caller's to a step.
    #[error("`{key}` names `{name}`, a secret for {of} that no step gets because settings name it")]
    Secret {
        /// The key of the settings.
        key: String,
        /// The variable.
        name: String,
        /// What it gives access to.
        of: &'static str,
    },
    /// Untrusted settings name a variable of the caller's.
    #[error("{settings} asks for your variable `{name}` (`prepare.pass`)")]
    NotPassed {
        /// Whose settings.
        settings: &'static str,
        /// The variable.
        name: String,
    },
    /// Untrusted settings name an image of this machine as the base.
    #[error("{settings} names an image on this machine as its base: `{name}` (`image.base`)")]
    ForeignBase {
        /// Whose settings.
        settings: &'static str,
        /// The reference.
        name: String,
    },
    /// Untrusted settings name an image of this machine as a service.
    #[error("{settings} names an image on this machine as a service: `{name}` (`test.services.{service}.image`)")]
    ForeignService {
        /// Whose settings.
        settings: &'static str,
        /// The name of the service.
        service: String,
        /// The reference.
        name: String,
    },
    /// Untrusted settings name where the image goes.
    #[error("{settings} wants the image to be written to `{name}` (`image.name`)")]
    ForeignTarget {
        /// Whose settings.
        settings: &'static str,
        /// The target.
        name: String,
    },
    /// The root's settings name the app's directory, and have other keys.
    #[error("`image.root` is `{dir}`, but the `phial.toml` in the root has other keys, which are read for no app")]
    RootWithSettings {
        /// The directory of the app.
        dir: String,
        /// The settings that are read.
        file: String,
    },
    /// A name of an image or a target that cannot be parsed.
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
    /// `--only` names a test command that does not exist.
    #[error("`--only` names `{asked}`, but the commands are `{known}`")]
    UnknownCommand {
        /// The name after `--only`.
        asked: String,
        /// The names of all commands, between backticks.
        known: String,
    },
    /// Neither the flags nor the settings name a base image.
    #[error("no base image is named")]
    NoBase,
    /// `--locked`, and the lock file does not pin this base image.
    #[error("`--locked` requires a pinned base image, but `phial.lock` in the commit {0}")]
    NotLocked(String),
    /// `phial lock` was called on something else than a working tree.
    #[error("`{0}` is not a git working tree")]
    NoWorkingTree(String),
    /// A settings file cannot be read from disk.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl ConfigError {
    /// The error of the parser for `file`, whose content is `content`.
    pub(super) fn toml(file: &str, content: &str, error: &toml::de::Error) -> Self {
        let mut text = error.message().trim_end().to_owned();
        let mut excerpt = Vec::new();
        if let Some(span) = error.span() {
            let before = content.get(..span.start).unwrap_or(content);
            let (number, start) = (before.matches('\n').count() + 1, before.rfind('\n').map_or(0, |at| at + 1));
            let column = before[start..].chars().count();
            let line: String = content[start..].lines().next().unwrap_or_default().chars().take(EXCERPT).collect();
            text = format!("line {number}, column {}: {text}", column + 1);
            if column <= line.chars().count() {
                let gap: String = line.chars().take(column).map(|c| if c == '\t' { c } else { ' ' }).collect();
                excerpt = vec![line, format!("{gap}^")];
            }
        }
        Self::Toml { file: file.into(), text, excerpt }
    }
}

impl UserError for ConfigError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Usage
    }

    fn excerpt(&self) -> &[String] {
        if let Self::Toml { excerpt, .. } = self { excerpt } else { &[] }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::NoBase => Some("name one with `--base REF`, or with `base` under `[image]` in `phial.toml`".into()),
            Self::NotLocked(_) => Some("run `phial lock` and commit `phial.lock`".into()),
            Self::NoWorkingTree(_) => {
                Some("run `phial lock` in a clone of the repository, where it writes `phial.lock`".into())
            }
            Self::Secret { key, name, .. } => {
                Some(format!("remove it from `{key}`; to let steps see it in one call, add `--pass {name}`"))
            }
            Self::NotPassed { name, .. } => Some(format!("if its steps may see the value, add `--pass {name}`")),
            Self::ForeignBase { name, .. } => Some(format!("if its steps may see it, add `--base {name}`")),
            Self::ForeignService { .. } => {
                Some("if the tests may see it, name it in settings of your own: `--config FILE`".into())
            }
            Self::ForeignTarget { name, .. } => {
                Some(format!("say where the image goes: `--to {name}`, or another target"))
            }
            Self::RootWithSettings { file, .. } => Some(format!("move them to `{file}`")),
            Self::Reference { source, .. } => source.hint(),
            Self::Io(source) => source.hint(),
            // Their texts say what is allowed.
            Self::Toml { .. }
            | Self::Value { .. }
            | Self::UnknownKey { nearest: None, .. }
            | Self::UnknownCommand { .. } => None,
            Self::NoImage(_) => Some("give it the reference of an image".into()),
        }
    }
}
