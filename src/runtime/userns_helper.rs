//! Work on files whose owners are ids of a mapped range: taking the changes of a step, and removing its directories.
//!
//! With a single mapped id the caller owns all files and needs no help. With a range, `phial` executes itself in a user
//! namespace with the same map, where it may access them.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ExitKind, IoError};
use crate::rootfs::{self, DiffSource, TreeDiff};
use crate::sandbox::{self, Ids, OURSELVES};
use crate::store::Tree;
use crate::tree::{TreeRoot, remove_tree};

/// The first argument by which `main` recognizes a call of [`entry`].
pub const NAME: &str = "__inside";

/// What the process in the user namespace does, as JSON on its stdin.
#[derive(Serialize, Deserialize)]
enum Task {
    Diff { new: DiffSource, lowers: Vec<Tree>, dest: TreeRoot },
    Clear(PathBuf),
}

/// [`rootfs::diff`], in the user namespace if a range of ids is mapped.
pub(crate) fn diff(ids: Ids, new: &DiffSource, lowers: &[Tree], dest: &TreeRoot) -> Result<TreeDiff, Error> {
    if ids == Ids::Single {
        return Ok(rootfs::diff(new, lowers, dest)?);
    }
    let task = Task::Diff { new: new.clone(), lowers: lowers.to_vec(), dest: dest.clone() };
    let output = run_task(ids, &task, dest.as_path())?;
    let result: Result<TreeDiff, String> =
        serde_json::from_slice(&output).map_err(|e| failed(dest.as_path(), e.into()))?;
    result.map_err(|text| failed(dest.as_path(), io::Error::other(text)))
}

/// Removes a directory. What cannot be removed now is removed with the scratch directories of dead processes.
pub(crate) fn clear(ids: Ids, dir: &Path) {
    let _ = match ids {
        Ids::Single => remove_tree(dir).map_err(|e| failed(dir, e)),
        Ids::Ranges => run_task(ids, &Task::Clear(dir.to_owned()), dir).map(|_| ()),
    };
}

/// Whether this machine maps a range of ids for the caller.
pub(crate) fn try_ranges() -> Result<(), Error> {
    let nowhere = Path::new("");
    run_task(Ids::Ranges, &Task::Clear(nowhere.to_owned()), nowhere).map(|_| ())
}

fn run_task(ids: Ids, task: &Task, about: &Path) -> Result<Vec<u8>, Error> {
    let input = serde_json::to_vec(task).map_err(|e| failed(about, e.into()))?;
    Ok(sandbox::run_in_user_namespace(OURSELVES.as_ref(), ids, &[NAME], &input)?)
}

fn failed(path: &Path, source: io::Error) -> Error {
    IoError::at("take the changes of", path)(source).into()
}

/// Reads a task from stdin, does it, and writes the result to stdout as JSON. For `main`, when its first argument is [`NAME`].
pub fn entry() -> ExitCode {
    let mut input = vec![];
    let task = io::stdin().lock().read_to_end(&mut input).ok().and_then(|_| serde_json::from_slice(&input).ok());
    let result = match task {
        Some(Task::Diff { new, lowers, dest }) => {
            let diff = rootfs::diff(&new, &lowers, &dest).map_err(|e| match std::error::Error::source(&e) {
                Some(cause) => format!("{e}: {cause}"),
                None => e.to_string(),
            });
            serde_json::to_vec(&diff)
        }
        Some(Task::Clear(dir)) => serde_json::to_vec(&remove_tree(&dir).is_ok()),
        None => return ExitKind::Internal.into(),
    };
    match result.map(|bytes| io::stdout().lock().write_all(&bytes)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitKind::Internal.into(),
    }
}
