//! What a command or a service writes: whole in a file, as far as that makes sense, and its last lines in memory.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoError};
use crate::runtime::OutputTail;

/// So much of an output is kept in its file, in bytes.
const MOST: u64 = 256 << 20;

/// Where an output goes.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    tail: OutputTail,
}

impl Log {
    /// In a new file.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(IoError::at("create", path))?;
        Ok(Self { path: path.to_owned(), file, written: 0, tail: OutputTail::default() })
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        let room = usize::try_from(MOST - self.written).unwrap_or(usize::MAX);
        let part = &bytes[..bytes.len().min(room)];
        // A full disk takes the log and nothing else: the last lines are in memory.
        if self.file.write_all(part).is_ok() {
            self.written += part.len() as u64;
        }
    }

    /// The file, and the last lines.
    pub(super) fn end(self) -> (PathBuf, Vec<String>) {
        (self.path, self.tail.lines())
    }
}

/// A name as a file's name: what it has of plain letters.
pub(super) fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.chars().take(80).map(plain).collect();
    format!("{name}.log")
}
