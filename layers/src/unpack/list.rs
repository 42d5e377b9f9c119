//! The entries of a layer as they stand in its tar, without a file being written: for whoever compares layers.
//!
//! Contents are hashed while they stream by, so the memory does not grow with the size of a file.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};

use super::error::{Rule, UnpackError};
use super::header::{self, Kind};
use super::sparse::Sparse;
use super::stream::TarStream;
use super::{Limits, over};
use crate::{Compression, DiffId, Digest, EntryPath, Sha256Writer};

/// What kind of file an entry is.
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
    /// A character or block device: whether it is a block device, major and minor number.
    Device(bool, u32, u32),
}

/// One entry. Whiteouts are ordinary files here, with the names that the image specification gives them (`layer.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub name: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// The target of a link; else empty.
    pub link: Vec<u8>,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Modification time: seconds since 1970, and nanoseconds after them.
    pub mtime: (i64, u32),
    /// Extended attributes, but for those that `unpack` drops.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Size of a file with its holes, in bytes; else 0.
    pub size: u64,
    /// Digest of a file's content, holes read as zeros; none for other kinds.
    pub content: Option<Digest>,
    /// The content, where `keep` asked for it.
    pub bytes: Option<Vec<u8>>,
}

/// A layer that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The digest of the blob: the compressed bytes.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// How many entries the tar has.
    pub entries: u64,
}

/// Hands every entry of a layer to `take`, in the tar's order. `keep` says of a file's name and size whether its bytes are
/// wanted: they are held in memory then. Headers are read as strictly as `unpack` reads them; where names lead to is not
/// looked at, since nothing is written.
pub fn list(
    blob: impl Read + Send,
    compression: Compression,
    limits: &Limits,
    keep: &dyn Fn(&EntryPath, u64) -> bool,
    take: &mut dyn FnMut(Entry),
) -> Result<Listed, UnpackError> {
    let ((diff_id, entries), (digest, size)) = over(blob, compression, limits.max_bytes, |mut stream| {
        let (mut entries, mut last) = (0, Vec::new());
        while let Some(entry) = header::next(&mut stream).map_err(|error| error.after(&last))? {
            entries += 1;
            if entries > limits.max_entries {
                return Err(UnpackError::stream(Rule::TooManyEntries));
            }
            last.clone_from(&entry.name);
            take(read(entry, &mut stream, keep)?);
        }
        Ok((DiffId(stream.finish()?), entries))
    })?;
    Ok(Listed { diff_id, digest, size, entries })
}

fn read(
    entry: header::Entry,
    stream: &mut TarStream,
    keep: &dyn Fn(&EntryPath, u64) -> bool,
) -> Result<Entry, UnpackError> {
    let name = EntryPath::new(&entry.name);
    let size = entry.sparse.as_ref().map_or(entry.stored, |sparse| sparse.size);
    let is_file = entry.kind == Kind::File;
    let mut body = Body {
        hash: Sha256Writer::new(io::sink()),
        kept: (is_file && entry.sparse.is_none() && keep(&name, size)).then(Vec::new),
    };
    match &entry.sparse {
        Some(sparse) => body.sparse(sparse, stream)?,
        None => body.take(entry.stored, stream)?,
    }
    stream.skip(entry.padding)?;
    let (_, content, _) = body.hash.finish();
    let is_link = matches!(entry.kind, Kind::Symlink | Kind::Hardlink);
    Ok(Entry {
        name,
        kind: match entry.kind {
            Kind::File => EntryKind::File,
            Kind::Dir => EntryKind::Directory,
            Kind::Symlink => EntryKind::Symlink,
            Kind::Hardlink => EntryKind::Hardlink,
            Kind::Fifo => EntryKind::Fifo,
            Kind::Device => EntryKind::Device(entry.device.0, entry.device.1, entry.device.2),
        },
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

/// The content of one file on its way.
struct Body {
    hash: Sha256Writer<io::Sink>,
    kept: Option<Vec<u8>>,
}

impl Body {
    fn take(&mut self, n: u64, stream: &mut TarStream) -> Result<(), UnpackError> {
        stream.copy(n, |piece| {
            self.hash.write_all(piece).map_err(UnpackError::Read)?;
            if let Some(kept) = &mut self.kept {
                kept.extend_from_slice(piece);
            }
            Ok(())
        })
    }

    fn sparse(&mut self, sparse: &Sparse, stream: &mut TarStream) -> Result<(), UnpackError> {
        stream.spend(sparse.size)?;
        let mut at = 0;
        for (offset, length) in &sparse.map {
            self.zeros(offset - at)?;
            self.take(*length, stream)?;
            at = offset + length;
        }
        self.zeros(sparse.size - at)
    }

    fn zeros(&mut self, n: u64) -> Result<(), UnpackError> {
        io::copy(&mut io::repeat(0).take(n), &mut self.hash).map(drop).map_err(UnpackError::Read)
    }
}
