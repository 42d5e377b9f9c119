//! Lists the entries of a layer as its tar has them, without writing files: for comparing layers.
//!
//! Contents are hashed while they are read, so memory does not grow with the size of a file.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};

use super::error::{UnpackError, Violation};
use super::header::{self, TarEntry};
use super::sparse::{Segment, SparseMap};
use super::stream::TarStream;
use super::{Limits, with_tar};
use crate::{Compression, DiffId, Digest, EntryPath, Sha256Writer};

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of an earlier file.
    Hardlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
}

/// One entry of a layer. Whiteouts are regular files with the names that `layer.md` gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerEntry {
    /// Its path.
    pub path: EntryPath,
    /// Its type.
    pub kind: EntryKind,
    /// The target of a link; empty for other types.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Modification time: seconds since 1970, and nanoseconds after them.
    pub mtime: (i64, u32),
    /// Extended attributes, without those that [`unpack`](crate::unpack) drops.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The size of a file in bytes, with its holes; 0 for other types.
    pub size: u64,
    /// The digest of a file's content, holes read as zeros; none for other types.
    pub content: Option<Digest>,
    /// The content of a file that `keep` selected.
    pub bytes: Option<Vec<u8>>,
}

/// A layer that was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The number of entries in the tar.
    pub entries: u64,
}

/// Passes every entry of a layer to `visit`, in the tar's order. `keep` gets the path and size of a file and selects those
/// whose content is held in memory; sparse files are never held. Headers are checked as by [`unpack`](crate::unpack), paths
/// and links are not, since nothing is written.
pub fn list(
    blob: impl Read + Send,
    compression: Compression,
    limits: &Limits,
    keep: &dyn Fn(&EntryPath, u64) -> bool,
    visit: &mut dyn FnMut(LayerEntry),
) -> Result<Listed, UnpackError> {
    let ((diff_id, entries), blob) = with_tar(blob, compression, limits.max_bytes, |mut stream| {
        let (mut entries, mut previous) = (0, Vec::new());
        while let Some(entry) = header::next(&mut stream).map_err(|error| error.after(&previous))? {
            entries += 1;
            if entries > limits.max_entries {
                return Err(UnpackError::stream(Violation::TooManyEntries));
            }
            previous.clone_from(&entry.name);
            visit(read(entry, &mut stream, keep)?);
        }
        Ok((DiffId(stream.finish()?), entries))
    })?;
    Ok(Listed { diff_id, digest: blob.digest, size: blob.size, entries })
}

fn read(
    entry: TarEntry,
    stream: &mut TarStream,
    keep: &dyn Fn(&EntryPath, u64) -> bool,
) -> Result<LayerEntry, UnpackError> {
    let path = EntryPath::new(&entry.name);
    let size = entry.sparse.as_ref().map_or(entry.stored, |sparse| sparse.size);
    let is_file = entry.kind == EntryKind::File;
    let mut body = Body {
        hash: Sha256Writer::new(io::sink()),
        kept: (is_file && entry.sparse.is_none() && keep(&path, size)).then(Vec::new),
    };
    match &entry.sparse {
        Some(sparse) => body.read_sparse(sparse, stream)?,
        None => body.read(entry.stored, stream)?,
    }
    stream.skip(entry.padding)?;
    let (_, content, _) = body.hash.finish();
    let is_link = matches!(entry.kind, EntryKind::Symlink | EntryKind::Hardlink);
    Ok(LayerEntry {
        path,
        kind: entry.kind,
        link: if is_link { entry.link } else { Vec::new() },
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs,
        size: if is_file { size } else { 0 },
        content: is_file.then_some(content),
        bytes: body.kept,
    })
}

/// The content of a file while it is read.
struct Body {
    hash: Sha256Writer<io::Sink>,
    kept: Option<Vec<u8>>,
}

impl Body {
    fn read(&mut self, n: u64, stream: &mut TarStream) -> Result<(), UnpackError> {
        stream.copy(n, |chunk| {
            self.hash.write_all(chunk).map_err(UnpackError::Read)?;
            if let Some(kept) = &mut self.kept {
                kept.extend_from_slice(chunk);
            }
            Ok(())
        })
    }

    fn read_sparse(&mut self, sparse: &SparseMap, stream: &mut TarStream) -> Result<(), UnpackError> {
        stream.charge(sparse.size)?;
        let mut end = 0;
        for &Segment { offset, length } in &sparse.segments {
            self.zeros(offset - end)?;
            self.read(length, stream)?;
            end = offset + length;
        }
        self.zeros(sparse.size - end)
    }

    fn zeros(&mut self, n: u64) -> Result<(), UnpackError> {
        io::copy(&mut io::repeat(0).take(n), &mut self.hash).map(drop).map_err(UnpackError::Read)
    }
}
