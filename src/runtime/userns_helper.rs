//! The two things that must be done by whoever owns the ids of a range: moving what a step wrote, and removing the rest.
//!
//! With one mapped id the caller owns everything and does them itself. With a range they are done by executing ourselves
//! afresh in a user namespace with the same map, under a hidden name.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::error::{Error, IoError};
use crate::rootfs::{self, DiffSource, TreeDiff};
use crate::sandbox::{self, Ids, OURSELVES};
use crate::store::{Tree, remove_tree};

/// The name under which `main` finds [`entry`].
pub const NAME: &str = "__inside";

#[derive(Serialize, Deserialize)]
enum Task {
    Diff { new: DiffSource, lowers: Vec<Tree>, dest: PathBuf },
    Clear(PathBuf),
}

/// [`rootfs::diff`], done by whoever may.
pub(crate) fn diff(ids: Ids, new: &DiffSource, lowers: &[Tree], dest: &Path) -> Result<TreeDiff, Error> {
    if ids == Ids::Single {
        return Ok(rootfs::diff(new, lowers, dest)?);
    }
    let task = Task::Diff { new: new.clone(), lowers: lowers.to_vec(), dest: dest.to_owned() };
    let answer = ask(ids, &task, dest)?;
    let answer: Result<TreeDiff, String> = serde_json::from_slice(&answer).map_err(|e| broken(dest, e.into()))?;
    answer.map_err(|text| broken(dest, io::Error::other(text)))
}

/// Removes what nobody needs any more; what stays is swept by a later run.
pub(crate) fn clear(ids: Ids, dir: &Path) {
    let _ = match ids {
        Ids::Single => remove_tree(dir).map_err(|e| broken(dir, e)),
        Ids::Ranges => ask(ids, &Task::Clear(dir.to_owned()), dir).map(|_| ()),
    };
}

/// Whether this machine maps a range of ids for the caller.
pub(crate) fn try_ranges() -> Result<(), Error> {
    let nothing = Path::new("");
    ask(Ids::Ranges, &Task::Clear(nothing.to_owned()), nothing).map(|_| ())
}

fn ask(ids: Ids, task: &Task, about: &Path) -> Result<Vec<u8>, Error> {
    let input = serde_json::to_vec(task).map_err(|e| broken(about, e.into()))?;
    Ok(sandbox::inside_ids(OURSELVES.as_ref(), ids, &[NAME], &input)?)
}

fn broken(path: &Path, source: io::Error) -> Error {
    IoError::at("take the changes of", path)(source).into()
}

/// Does one task from stdin and answers on stdout. For `main`, when it is called by [`NAME`].
pub fn entry() -> ExitCode {
    let mut input = vec![];
    let task = io::stdin().lock().read_to_end(&mut input).ok().and_then(|_| serde_json::from_slice(&input).ok());
    let answer = match task {
        Some(Task::Diff { new, lowers, dest }) => {
            let diff = rootfs::diff(&new, &lowers, &dest).map_err(|e| match std::error::Error::source(&e) {
                Some(cause) => format!("{e}: {cause}"),
                None => e.to_string(),
            });
            serde_json::to_vec(&diff)
        }
        Some(Task::Clear(dir)) => serde_json::to_vec(&remove_tree(&dir).is_ok()),
        None => return ExitCode::from(70),
    };
    match answer.map(|bytes| io::stdout().lock().write_all(&bytes)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::from(70),
    }
}
