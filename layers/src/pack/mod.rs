//! A tree to the bytes of a layer. They are a function of the tree's names and contents, its metadata, and the compression
//! and time in the options.
//!
//! The format, which the golden digests of the tests pin: entries are sorted by their full path bytes in the tar; an opaque
//! whiteout directly follows its directory; hard links point to the name that was written first. The tar ends with two zero
//! blocks and is not padded further. A gzip blob has one member per 1 MiB of tar, a zstd blob one frame per 4 MiB.

pub(crate) mod blocks;
mod error;
mod frame;
mod header;
mod walk;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;

use tar::EntryType;

use self::blocks::{BlockWriter, FillError, compress_blocks};
pub use self::error::PackError;
use self::header::Header;
use self::walk::{TreeEntry, TreeWalk};
use crate::escape::escaped;
use crate::tar_block::{BLOCK, padding};
use crate::{Compression, DiffId, Digest, EntryMetadata, EntryPath, Metadata, whiteout};

/// How a layer is packed. There is no default: all but `workers` affect the digest.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// The compression of the blob.
    pub compression: Compression,
    /// The modification time of every entry, in seconds since 1970.
    pub mtime: i64,
    /// The number of threads that compress; it changes no byte.
    pub workers: NonZeroUsize,
}

/// A layer that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The size of the tar in bytes.
    pub tar_size: u64,
    /// The number of entries in the tar, whiteouts included.
    pub entries: u64,
}

/// A tar that was compressed into a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressedTar {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The size of the tar in bytes.
    pub tar_size: u64,
}

/// Writes the layer of the tree at `root` to `out`. The root directory itself has no entry. Extended attributes come from
/// `metadata` alone; owners and modes come from it where it has the entry.
pub fn pack(
    root: &Path,
    metadata: &Metadata,
    options: &PackOptions,
    out: &mut (dyn Write + Send),
) -> Result<Packed, PackError> {
    let walk = TreeWalk::new(root)?;
    let write = |blocks: &mut BlockWriter| TarWriter::new(metadata, options.mtime, blocks).write_tree(walk);
    let (entries, CompressedTar { diff_id, digest, size, tar_size }) = compress_blocks(options, out, write)?;
    Ok(Packed { diff_id, digest, size, tar_size, entries })
}

/// What the disk tells about an entry.
struct OnDisk<'a> {
    kind: EntryType,
    link: &'a [u8],
    size: u64,
    mode: u32,
}

struct TarWriter<'a> {
    metadata: &'a Metadata,
    mtime: i64,
    blocks: &'a mut BlockWriter,
    /// The first path of each inode with several links, by device and inode number.
    first_paths: BTreeMap<(u64, u64), Vec<u8>>,
    entries: u64,
}

impl<'a> TarWriter<'a> {
    fn new(metadata: &'a Metadata, mtime: i64, blocks: &'a mut BlockWriter) -> Self {
        Self { metadata, mtime, blocks, first_paths: BTreeMap::new(), entries: 0 }
    }

    /// Writes all entries and the end of the tar; returns the number of entries.
    fn write_tree(mut self, mut walk: TreeWalk) -> Result<u64, FillError> {
        while let Some(entry) = walk.next()? {
            self.entry(walk.path(), entry)?;
        }
        self.blocks.zeros(2 * BLOCK as u64)?;
        Ok(self.entries)
    }

    fn entry(&mut self, path: &[u8], entry: TreeEntry) -> Result<(), FillError> {
        match entry {
            TreeEntry::Dir { mode, opaque } => {
                let path = [path, b"/"].concat();
                self.header(&path, &OnDisk { kind: EntryType::Directory, link: b"", size: 0, mode })?;
                if opaque {
                    self.whiteout(&[&path, whiteout::OPAQUE_MARKER].concat())?;
                }
            }
            TreeEntry::File { file, stat } => {
                let mode = stat.st_mode & 0o7777;
                if stat.st_nlink > 1 {
                    let inode = (stat.st_dev, stat.st_ino);
                    if let Some(first) = self.first_paths.get(&inode).cloned() {
                        return self.header(path, &OnDisk { kind: EntryType::Link, link: &first, size: 0, mode });
                    }
                    self.first_paths.insert(inode, path.to_vec());
                }
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                self.header(path, &OnDisk { kind: EntryType::Regular, link: b"", size, mode })?;
                self.body(path, &file, size)?;
            }
            TreeEntry::Symlink { target } => {
                self.header(path, &OnDisk { kind: EntryType::Symlink, link: &target, size: 0, mode: 0o777 })?;
            }
            TreeEntry::Fifo { mode } => {
                self.header(path, &OnDisk { kind: EntryType::Fifo, link: b"", size: 0, mode })?;
            }
            TreeEntry::Whiteout => {
                let name = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
                self.whiteout(&[&path[..name], whiteout::PREFIX, &path[name..]].concat())?;
            }
        }
        Ok(())
    }

    /// Writes the header of an entry, with its metadata.
    fn header(&mut self, path: &[u8], on_disk: &OnDisk<'_>) -> Result<(), FillError> {
        let &OnDisk { kind, link, size, mode } = on_disk;
        let default = EntryMetadata::default();
        let found = if self.metadata.0.is_empty() { None } else { self.metadata.0.get(&EntryPath::new(path)) };
        let metadata = found.unwrap_or(&default);
        if let Some(name) = metadata.xattrs.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(PackError::XattrName { entry: escaped(path), name: escaped(name.as_bytes()) }.into());
        }
        let mode = if kind == EntryType::Symlink { mode } else { metadata.mode.unwrap_or(mode) & 0o7777 };
        // The first name of an inode carries its attributes.
        let xattrs = (kind != EntryType::Link).then_some(&metadata.xattrs);
        let (uid, gid, mtime) = (metadata.uid, metadata.gid, self.mtime);
        self.write_header(&Header { path, kind, link, size, mode, uid, gid, mtime, xattrs })
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), FillError> {
        let (kind, mtime) = (EntryType::Regular, self.mtime);
        self.write_header(&Header { path, kind, link: b"", size: 0, mode: 0o644, uid: 0, gid: 0, mtime, xattrs: None })
    }

    fn write_header(&mut self, header: &Header<'_>) -> Result<(), FillError> {
        self.entries += 1;
        Ok(self.blocks.write(&header.encode())?)
    }

    /// Writes the content of `file`, which has exactly `size` bytes, and the padding.
    fn body(&mut self, path: &[u8], file: &File, size: u64) -> Result<(), FillError> {
        let changed = || PackError::Changed { entry: escaped(path) };
        let read = |buffer: &mut [u8]| {
            rustix::io::retry_on_intr(|| rustix::io::read(file, &mut *buffer)).map_err(|e| PackError::read(path, e))
        };
        let mut left = size;
        while left > 0 {
            let buffer = self.blocks.unfilled();
            let max = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let n = read(&mut buffer[..max])?;
            if n == 0 {
                return Err(changed().into());
            }
            left -= n as u64;
            self.blocks.advance(n)?;
        }
        if read(&mut [0])? > 0 {
            return Err(changed().into());
        }
        Ok(self.blocks.zeros(padding(size))?)
    }
}
