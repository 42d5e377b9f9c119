//! Errors that only a build has; those of other modules are passed on as they are.

use phial_layers::{Digest, EntryPath};

use crate::error::{Error, ExitKind, UserError};
use crate::image::shown;
use crate::recipe::{APP, Tool};
use crate::runtime::AccessDenied;
use crate::sandbox::{Exit, SandboxError};

/// Why a build stops.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The command of a step failed.
    #[error("the step `{step}` {}", exit.describe())]
    StepFailed {
        /// The step: `deps`, `build prod`.
        step: String,
        /// The command's exit code or signal.
        exit: Exit,
        /// The last lines of its output.
        output: Vec<String>,
        /// What to do, if the output says so.
        hint: Option<String>,
    },
    /// The command of a step failed, and a disk was full.
    #[error("the step `{step}` had no space left to write to, and {}", exit.describe())]
    StepOutOfSpace {
        /// The step.
        step: String,
        /// The command's exit code or signal.
        exit: Exit,
        /// The last lines of its output.
        output: Vec<String>,
        /// What to do.
        hint: Option<String>,
    },
    /// A step exceeded a limit and was ended.
    #[error("the step `{step}` was stopped")]
    StepStopped {
        /// The step.
        step: String,
        /// Which limit.
        #[source]
        source: SandboxError,
        /// The last lines of its output.
        output: Vec<String>,
    },
    /// The digest in `phial.lock` is not available.
    #[error("the base image `{pinned}` that `phial.lock` pins is not available")]
    Pinned {
        /// The digest in `phial.lock`.
        pinned: Digest,
        /// Why not.
        #[source]
        source: Error,
    },
    /// The deps step wrote over a file of the commit, so that the image's files would not be those that were compiled.
    #[error("the deps step changed `{}`, which is in the commit: the image would not have what was compiled", in_app(.0))]
    Overwritten(EntryPath),
    /// The base image has another version than the commit asks for.
    #[error("`{file}` asks for {tool} {wanted}, and the base image has {present}")]
    Version {
        /// The file of the commit.
        file: &'static str,
        /// Elixir or Erlang.
        tool: Tool,
        /// The version that it asks for.
        wanted: String,
        /// That of the base image.
        present: String,
    },
    /// The image's user does not reach the program of its command.
    #[error("the image cannot start: its user `{user}` may not {}", closed(denied))]
    Unreachable {
        /// The user in the image's config.
        user: String,
        /// What is in the way.
        denied: AccessDenied,
    },
    /// Mix does not take a version of Hex, or the server gives another one.
    #[error("`prepare.hex` is {wanted}, and Mix downloaded Hex {found}")]
    HexVersion {
        /// The version in the settings.
        wanted: String,
        /// The one that was downloaded.
        found: String,
    },
    /// A step has nothing to work on, such as an empty `/app`.
    #[error("the build has no `{0}`")]
    Missing(String),
}

fn closed(AccessDenied { program, path, mode, is_directory }: &AccessDenied) -> String {
    let (program, path) = (shown(program), shown(path));
    if *is_directory {
        format!("enter `{path}` (mode {mode:04o}), which is on the way to `{program}`")
    } else {
        format!("execute `{path}` (mode {mode:04o})")
    }
}

/// The path of a file of the app from the root of the repository.
fn in_app(path: &EntryPath) -> String {
    let shown = path.to_string();
    shown.strip_prefix(&format!("{APP}/")).map_or(shown.clone(), str::to_owned)
}

/// What an exit code means that a shell gives when it cannot start a command, or when the command was killed (POSIX, Shell Command
/// Language, 2.8.2).
fn code_of_shell(code: i32) -> Option<String> {
    let text = match code {
        126 => {
            "126 is the exit code of a shell that may not execute a file: a script needs the executable bit in the commit \
             (`git update-index --chmod=+x FILE`) and a first line such as `#!/bin/sh`"
        }
        127 => {
            "127 is the exit code of a shell that cannot start a command: the file is not there, the program that its first line \
             or its header names is not there, or its lines end as on Windows"
        }
        129..=159 => {
            let signal = Exit::Signal(code - 128).describe();
            return Some(format!("{code} is the exit code of a shell whose last command {signal}"));
        }
        _ => return None,
    };
    Some(text.to_owned())
}

impl UserError for BuildError {
    fn exit_kind(&self) -> ExitKind {
        match self {
            Self::StepFailed { .. } | Self::StepStopped { .. } => ExitKind::Failed,
            Self::Overwritten(_) | Self::Version { .. } | Self::Unreachable { .. } | Self::HexVersion { .. } => {
                ExitKind::Usage
            }
            Self::Pinned { source, .. } => source.exit_kind(),
            Self::Missing(_) | Self::StepOutOfSpace { .. } => ExitKind::Machine,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            // 128 + 9: as a shell reports it.
            Self::StepFailed { exit: Exit::Signal(9) | Exit::Code(137), .. } => {
                Some("the machine may be out of memory".into())
            }
            // 153: as a shell reports it.
            Self::StepFailed { exit: Exit::Signal(25) | Exit::Code(153), .. } => {
                Some("the step wrote a file that is larger than the limit (`ulimit -f`)".into())
            }
            Self::StepFailed { hint: Some(hint), .. } => Some(hint.clone()),
            Self::StepFailed { exit: Exit::Code(code), .. } => code_of_shell(*code),
            Self::StepOutOfSpace { hint, .. } => hint.clone(),
            Self::StepStopped { source: SandboxError::TimeLimit(_), .. } => {
                Some("a step that needs longer has the setting `prepare.timeout`".into())
            }
            Self::StepStopped { source: SandboxError::MemoryLimit(_), .. } => {
                Some("a step that needs more has the setting `prepare.max_memory`".into())
            }
            Self::StepStopped { .. } => Some("a step that writes more has the setting `prepare.max_output`".into()),
            Self::StepFailed { .. } | Self::Missing(_) => None,
            Self::Version { file, .. } => Some(format!(
                "name a base image with that version, or correct `{file}`, or leave `--strict-versions` out"
            )),
            Self::Unreachable { denied: AccessDenied { path, is_directory: true, .. }, .. } => Some(format!(
                "let every user enter it in the base image (`chmod 755 {}`), or install what is below it elsewhere, such as in \
                 `/usr/local`; or set `image.user` to a user who may",
                shown(path)
            )),
            Self::HexVersion { wanted, .. } => Some(format!(
                "the base image's Mix knows only the newest: name a base image that has Hex {wanted}"
            )),
            Self::Unreachable { .. } => Some(
                "let every user execute it (in a commit: `git update-index --chmod=+x FILE`), or set `image.user` to a user who may"
                    .into(),
            ),
            Self::Overwritten(path) => Some(format!(
                "remove `{}` from the commit, or name it in `prepare.inputs` and let the step leave it as it is",
                in_app(path)
            )),
            Self::Pinned { .. } => Some("to use the present digest, run `phial lock` and commit `phial.lock`".into()),
        }
    }

    fn output(&self) -> &[String] {
        match self {
            Self::StepFailed { output, .. }
            | Self::StepOutOfSpace { output, .. }
            | Self::StepStopped { output, .. } => output,
            _ => &[],
        }
    }
}
