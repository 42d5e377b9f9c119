//! The output of a command or a service: in a file, up to a limit, and its last lines in memory.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoError};
use crate::runtime::OutputTail;

/// Bytes of an output that its file keeps.
const MAX_BYTES: u64 = 256 << 20;

/// An output that is being written.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    tail: OutputTail,
}

impl Log {
    /// Creates the file.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(IoError::at("create", path))?;
        Ok(Self { path: path.to_owned(), file, written: 0, tail: OutputTail::default() })
    }

    /// Appends a piece of the output.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        let room = usize::try_from(MAX_BYTES - self.written).unwrap_or(usize::MAX);
        let part = &bytes[..bytes.len().min(room)];
        // A full disk costs the log and not the test: the last lines are in memory.
        if self.file.write_all(part).is_ok() {
            self.written += part.len() as u64;
        }
    }

    /// The path of the file, and the last lines.
    pub(super) fn close(self) -> (PathBuf, Vec<String>) {
        (self.path, self.tail.lines())
    }
}

/// The file name of the log of `name`: its letters, digits and `._-`, every other character as `-`, at most 80 of them.
pub(super) fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.chars().take(80).map(plain).collect();
    format!("{name}.log")
}
