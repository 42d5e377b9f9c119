//! Whether one tree would hide what another one holds, and whether two directories hold the same.

use std::io::{self, Read as _};
use std::path::Path;

use phial_layers::EntryPath;

use super::error::RootfsError;
use crate::error::IoError;
use crate::store::Tree;
use crate::tree::{Enter, EntryStat, FileKind, TreeDir};

/// The first file of `sources` that `changes` deletes or has with other content. Both are trees of layers; where one is below
/// the other, such a file is not what the command saw or wrote that made the changes.
pub fn overwritten(sources: &Tree, changes: &Tree) -> Result<Option<EntryPath>, RootfsError> {
    use std::os::unix::ffi::OsStrExt as _;
    let (sources, changes) = (sources.root.open()?, changes.root.open()?);
    let mut found = None;
    sources.walk(|entry| {
        if found.is_some() {
            return Ok::<_, RootfsError>(Enter::No);
        }
        let Some(new) = changes.stat(&entry.path)? else { return Ok(Enter::No) };
        let are_dirs = entry.stat.is_directory() && new.is_directory();
        if !are_dirs && !is_same((&sources, &entry.stat), (&changes, &new), &entry.path)? {
            found = Some(EntryPath::new(entry.path.as_os_str().as_bytes()));
        }
        Ok(if are_dirs { Enter::Yes } else { Enter::No })
    })?;
    Ok(found)
}

/// Whether two directories have the same entries: types, contents, targets of links and executable bits.
pub fn are_same(a: &TreeDir, b: &TreeDir) -> Result<bool, RootfsError> {
    let (mut are_same, mut in_a, mut in_b) = (true, 0_u64, 0_u64);
    a.walk(|entry| {
        in_a += 1;
        are_same = are_same
            && match b.stat(&entry.path)? {
                Some(other) if other.is_directory() => entry.stat.is_directory(),
                Some(other) => is_same((a, &entry.stat), (b, &other), &entry.path)?,
                None => false,
            };
        Ok::<_, RootfsError>(if are_same { Enter::Yes } else { Enter::No })
    })?;
    b.walk(|_| {
        in_b += 1;
        Ok::<_, RootfsError>(if are_same { Enter::Yes } else { Enter::No })
    })?;
    Ok(are_same && in_a == in_b)
}

/// Whether two files at one path are of one type and have the same content and executable bit.
pub(super) fn is_same(a: (&TreeDir, &EntryStat), b: (&TreeDir, &EntryStat), path: &Path) -> Result<bool, RootfsError> {
    let executable = |stat: &EntryStat| stat.mode() & 0o100;
    Ok(match (a.1.kind(), b.1.kind()) {
        (FileKind::Symlink, FileKind::Symlink) => a.0.read_link(path)? == b.0.read_link(path)?,
        (FileKind::File, FileKind::File) => executable(a.1) == executable(b.1) && same_bytes(a.0, path, b.0, path)?,
        (a, b) => a == b,
    })
}

/// Whether both are regular files with the same bytes.
pub(super) fn same_bytes(a_tree: &TreeDir, a_path: &Path, b_tree: &TreeDir, b_path: &Path) -> Result<bool, IoError> {
    let (Some(mut a), Some(mut b)) = (a_tree.file(a_path)?, b_tree.file(b_path)?) else { return Ok(false) };
    let mut compare = || -> io::Result<bool> {
        if a.metadata()?.len() != b.metadata()?.len() {
            return Ok(false);
        }
        let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            let n = a.read(&mut left)?;
            if n == 0 {
                return Ok(true);
            }
            b.read_exact(&mut right[..n])?;
            if left[..n] != right[..n] {
                return Ok(false);
            }
        }
    };
    compare().map_err(IoError::at("compare", a_path))
}
