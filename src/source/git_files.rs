//! Files of a git directory on this machine that libgit2 opens whatever they are: it waits for the writer of a FIFO for ever, and
//! no signal of another thread ends that.

use std::collections::BTreeSet;
use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::error::SourceError;
use super::local::{LocalRepository, path_in};

/// What libgit2 reads of a git directory to find a commit and its objects (gitrepository-layout(5)).
const READ: [&str; 7] = ["HEAD", "commondir", "config", "packed-refs", "shallow", "refs", "objects"];
/// How deep git follows object directories that name others.
const MAX_ALTERNATES: usize = 5;

impl LocalRepository {
    /// An error if one of its files is a FIFO or a device, or a link to one. The user's files beside them, such as what `config`
    /// includes, are read within a time limit instead.
    pub(super) fn check_files(&self) -> Result<(), SourceError> {
        let mut objects = BTreeSet::new();
        for dir in self.git_dirs() {
            READ.iter().try_for_each(|name| check(dir.join(name)))?;
            objects.insert(dir.join("objects"));
        }
        let mut next: Vec<PathBuf> = objects.iter().cloned().collect();
        for _ in 0..MAX_ALTERNATES {
            next = next.iter().flat_map(|dir| alternates(dir)).filter(|dir| objects.insert(dir.clone())).collect();
            next.iter().cloned().try_for_each(check)?;
        }
        Ok(())
    }
}

/// The object directories that one names.
fn alternates(objects: &Path) -> Vec<PathBuf> {
    let text = path_in(&objects.join("info/alternates")).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| objects.join(line)).collect()
}

/// Checks what is at `start` and below it. What is not there, or cannot be listed, is the concern of who reads it.
fn check(start: PathBuf) -> Result<(), SourceError> {
    let blocks = |kind: FileType| kind.is_fifo() || kind.is_char_device() || kind.is_block_device();
    let mut paths = vec![start];
    while let Some(path) = paths.pop() {
        let Ok(data) = fs::metadata(&path) else { continue };
        if blocks(data.file_type()) {
            return Err(SourceError::NotAFile { path });
        }
        if !data.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            match entry.file_type() {
                // Most files are what they are: only directories and links are looked at again.
                Ok(kind) if kind.is_file() => {}
                Ok(kind) if kind.is_symlink() && entry.path().is_dir() => {} // not walked: it may lead anywhere
                _ => paths.push(entry.path()),
            }
        }
    }
    Ok(())
}
