//! What is at the place of a layout or an archive before it is written: an image is written into a layout, over an archive of its
//! kind, or where nothing is.

use std::fs;
use std::io;
use std::path::Path;

use super::TEMPORARY;
use super::error::LayoutError;
use super::read::{Layout, check_docker_archive};
use crate::error::{IoError, chain};

/// The kinds of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// A tar of an OCI layout.
    Oci,
    /// A tar for `docker load`.
    Docker,
}

/// An error if something else than an archive of this kind is at `file`: an archive replaces one of its kind, an empty file or
/// nothing. A link is replaced like the file that it leads to.
pub(super) fn check_replaceable(file: &Path, kind: ArchiveKind) -> Result<(), LayoutError> {
    let occupied = |why: String| {
        let kind = match kind {
            ArchiveKind::Oci => "an OCI archive",
            ArchiveKind::Docker => "a Docker archive",
        };
        LayoutError::Occupied { path: file.to_owned(), kind, why }
    };
    let metadata = match (fs::symlink_metadata(file), fs::metadata(file)) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        (Ok(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(occupied("it is a link that leads to nothing".into()));
        }
        (Err(error), _) | (_, Err(error)) => return Err(LayoutError::io("look at", file)(error)),
        (_, Ok(metadata)) => metadata,
    };
    if !metadata.is_file() {
        return Err(occupied("it is not a regular file".into()));
    }
    if metadata.len() == 0 {
        return Ok(());
    }
    let is_archive = match kind {
        ArchiveKind::Oci => Layout::open_archive(file).and_then(|archive| archive.index().map(drop)),
        ArchiveKind::Docker => check_docker_archive(file),
    };
    is_archive.map_err(|error| match error {
        LayoutError::Io(IoError { action: "open", .. }) => error,
        LayoutError::NotALayout { why, .. } => occupied(why),
        other => occupied(chain(&other)),
    })
}

/// Checks the place of an archive, and that it can be written; nothing is left of the check.
pub fn check_archive_target(file: &Path, kind: ArchiveKind) -> Result<(), LayoutError> {
    check_replaceable(file, kind)?;
    check_writable(file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Checks the place of a layout directory, and that it can be written; nothing is left of the check.
pub fn check_layout_target(dir: &Path) -> Result<(), LayoutError> {
    match fs::metadata(dir) {
        Ok(data) if !data.is_dir() => return Err(LayoutError::not_a_directory(dir)),
        Ok(_) => check_layout_or_empty(dir).map(drop)?,
        Err(_) => {}
    }
    check_writable(dir)
}

/// Whether a directory is a layout: true, or empty but for temporary files of ours: false. One with other files is an error.
pub(super) fn check_layout_or_empty(dir: &Path) -> Result<bool, LayoutError> {
    if dir.join("oci-layout").symlink_metadata().is_ok() {
        return Layout::open_dir(dir).map(|_| true);
    }
    for entry in fs::read_dir(dir).map_err(LayoutError::io("list", dir))? {
        let name = entry.map_err(LayoutError::io("list", dir))?.file_name();
        if !name.to_string_lossy().starts_with(TEMPORARY) {
            let why = format!("it has no `oci-layout` file, but `{}`", name.to_string_lossy().escape_debug());
            let remedy = Some("name an empty or a new directory".into());
            return Err(LayoutError::NotALayout { path: dir.to_owned(), why, remedy });
        }
    }
    Ok(false)
}

/// Creates the directories above an archive.
pub(super) fn create_parents(parent: &Path) -> Result<(), LayoutError> {
    fs::create_dir_all(parent).map_err(LayoutError::io("create", parent))
}

/// Checks that files can be made in a directory, or in the nearest one above it that is there.
fn check_writable(dir: &Path) -> Result<(), LayoutError> {
    let is_there = |dir: &&Path| dir.as_os_str().is_empty() || fs::symlink_metadata(dir).is_ok();
    let nearest = dir.ancestors().find(is_there).filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if nearest.is_dir() {
        return tempfile::tempfile_in(nearest).map(drop).map_err(LayoutError::io("create a file in", nearest));
    }
    Err(LayoutError::io("create", dir)(io::ErrorKind::NotADirectory.into()))
}
