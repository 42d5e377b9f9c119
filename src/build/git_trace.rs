//! Whether a step asked git about the app's repository, which no image has. Mix projects take git's answer as a value, and its
//! error in place of that, so the step succeeds and its output does not say so.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use crate::error::IoError;
use crate::sandbox::{Bind, Root, Spec};
use crate::tree::TreeDir;

/// The variable that names the file to which git (2.22 and later) adds a line of JSON for each event.
const VARIABLE: &str = "GIT_TRACE2_EVENT";
/// That file in the sandbox; it is in no layer.
const AT: &str = "/run/phial/git-trace";
/// The most bytes of it that are read: git writes about two thousand each time it is started.
const MAX_TRACE: u64 = 16 << 20;
/// How git's error begins, in C.
const NO_REPOSITORY: &str = "not a git repository";

/// The file in which git says what it does in one step.
pub(super) struct GitTrace {
    /// The directory that holds it: of the scratch directory, or a chroot's.
    dir: PathBuf,
    /// Its path in there.
    file: PathBuf,
}

impl GitTrace {
    /// Gives the file to a step. `dir`, which must not exist, is its directory in the scratch directory. `None` if the settings
    /// have git write elsewhere.
    pub(super) fn add(spec: &mut Spec, dir: &Path) -> Result<Option<Self>, IoError> {
        if spec.env.contains_key(VARIABLE) {
            return Ok(None);
        }
        let (name, source) = ("events", dir.join("events"));
        fs::create_dir(dir).and_then(|()| fs::write(&source, "")).map_err(IoError::at("write", &source))?;
        spec.env.insert(VARIABLE.into(), AT.into());
        spec.binds.push(Bind { source, target: AT.into(), read_only: false });
        Ok(Some(match &spec.root {
            Root::Chroot { dir } => Self { dir: dir.clone(), file: AT.trim_start_matches('/').into() },
            _ => Self { dir: dir.to_owned(), file: name.into() },
        }))
    }

    /// Whether git found no repository in the step that has ended.
    pub(super) fn misses_repository(&self) -> Result<bool, IoError> {
        let file = TreeDir::open(&self.dir)?.file(&self.file)?;
        Ok(file.is_some_and(has_no_repository))
    }
}

fn has_no_repository(file: File) -> bool {
    let lines = BufReader::new(file.take(MAX_TRACE)).lines().map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok()).any(|event| {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        text("event") == "error" && text("msg").starts_with(NO_REPOSITORY)
    })
}
