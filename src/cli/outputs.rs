//! Files and directories that a command writes beside its result: what cannot be written is an error before anything is done.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use crate::error::IoError;

/// Makes the directories above a file that is written at the end, and checks that it can be. Nothing is left of the check.
pub(super) fn check_file(path: &Path) -> Result<(), IoError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::metadata(path) {
        Ok(data) if data.is_dir() => Err(IoError::at("write", path)(io::ErrorKind::IsADirectory.into())),
        Ok(data) if data.is_file() => {
            OpenOptions::new().append(true).open(path).map(drop).map_err(IoError::at("write", path))
        }
        Ok(_) => Ok(()), // a pipe or a device: to open it may wait for who reads it
        Err(_) => check_directory(parent),
    }
}

/// Makes a directory that is written into at the end, and checks that it can be.
pub(super) fn check_directory(path: &Path) -> Result<(), IoError> {
    fs::create_dir_all(path).map_err(IoError::at("create", path))?;
    tempfile::tempfile_in(path).map(drop).map_err(IoError::at("write in", path))
}
