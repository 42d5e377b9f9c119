//! A tree to the bytes of a layer. The bytes are a function of the tree's names, contents and records and of the
//! compression and time in the terms; of nothing else on the machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use tar::EntryType;

use crate::blocks::{Blocks, Halt, in_blocks};
use crate::escape::escaped;
use crate::scan::{Found, Scan, WHITEOUT, read_error, read_up_to};
use crate::tar_out::{self, Head};
use crate::{Compression, DiffId, Digest, EntryMetadata, EntryPath, Metadata};

/// The spec's name for "nothing of this directory below this layer" (image-spec, `layer.md`, opaque whiteouts).
pub(crate) const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

/// What the caller must say about a layer. There is no default: all but `workers` reach the digest.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// How the blob is compressed.
    pub compression: Compression,
    /// The one modification time of every entry, in seconds since 1970.
    pub mtime: i64,
    /// How many threads compress; never changes a byte.
    pub workers: NonZeroUsize,
}

/// A layer that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The digest of the blob: the bytes that went to `out`.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The size of the tar in bytes.
    pub tar_size: u64,
    /// How many entries the tar has, whiteouts included.
    pub entries: u64,
}

/// Why a tree could not be packed. `entry` is a path in the tree, escaped for messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A socket or a device.
    #[error("`{entry}` is a {kind}, which a layer cannot hold")]
    Special {
        /// Where it is.
        entry: String,
        /// What it is.
        kind: &'static str,
    },
    /// A real file named `.wh.*`: in a layer it would delete another.
    #[error("the name of `{entry}` is reserved for whiteouts")]
    ReservedName {
        /// Where it is.
        entry: String,
    },
    /// A path of more than 4095 bytes.
    #[error("the path of `{entry}` is too long for a layer")]
    NameTooLong {
        /// Its beginning.
        entry: String,
    },
    /// A file became longer, shorter or another while it was read.
    #[error("`{entry}` changed while it was read")]
    Changed {
        /// Where it is.
        entry: String,
    },
    /// An attribute name that the pax format cannot hold (empty, or with `=`).
    #[error("the extended attribute `{name}` of `{entry}` has a name that a tar cannot hold")]
    XattrName {
        /// Whose attribute it is.
        entry: String,
        /// Its name.
        name: String,
    },
    /// The tree could not be read.
    #[error("cannot read `{entry}`")]
    Read {
        /// Where it is; `/` is the root itself.
        entry: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The blob could not be written.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl PackError {
    /// A short name that stays the same from release to release.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Special { .. } => "layer.special-file",
            Self::ReservedName { .. } => "layer.reserved-name",
            Self::NameTooLong { .. } => "layer.name-too-long",
            Self::Changed { .. } => "layer.changed",
            Self::XattrName { .. } => "layer.xattr-name",
            Self::Read { .. } => "layer.read",
            Self::Write(_) => "layer.write",
            Self::Thread(_) => "layer.thread",
        }
    }

    /// What to do about it, if that can be said.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Special { .. } => "remove it at the end of the script, or make it when the container starts".into(),
            Self::ReservedName { .. } => {
                "names that begin with `.wh.` mean deletions in a layer; rename the file".into()
            }
            Self::Changed { .. } => "a process of the script still runs; wait for it before the script ends".into(),
            Self::Write(_) => "check the free space of the disk that takes the layer".into(),
            _ => return None,
        })
    }

    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Special { .. } | Self::ReservedName { .. } | Self::NameTooLong { .. } | Self::Changed { .. } => 3,
            Self::Read { .. } | Self::Write(_) | Self::Thread(_) => 6,
            Self::XattrName { .. } => 70,
        }
    }
}

/// Writes the layer of the tree at `root` to `out`; the root directory itself is no entry.
///
/// Entries are sorted by their full path bytes as they stand in the tar, a directory's opaque marker directly behind it;
/// hard links point to the name written first. The tar ends with two zero blocks and is not padded further. gzip: one
/// member per 1 MiB of tar; zstd: one frame per 4 MiB. Xattrs come from `records` alone, owners and modes first of all.
pub fn pack(
    root: &Path,
    records: &Metadata,
    terms: &PackOptions,
    out: &mut (dyn Write + Send),
) -> Result<Packed, PackError> {
    let scan = Scan::new(root)?;
    let (entries, sums) = in_blocks(terms, out, |blocks| Packing::new(records, terms.mtime, blocks).run(scan))?;
    Ok(Packed { diff_id: sums.diff_id, digest: sums.digest, size: sums.size, tar_size: sums.tar_size, entries })
}

/// What the disk says of an entry.
struct Item<'a> {
    kind: EntryType,
    link: &'a [u8],
    size: u64,
    mode: u32,
}

struct Packing<'a> {
    records: &'a Metadata,
    mtime: i64,
    blocks: &'a mut Blocks,
    header: Vec<u8>,
    links: BTreeMap<(u64, u64), Vec<u8>>,
    entries: u64,
}

impl<'a> Packing<'a> {
    fn new(records: &'a Metadata, mtime: i64, blocks: &'a mut Blocks) -> Self {
        Self { records, mtime, blocks, header: Vec::new(), links: BTreeMap::new(), entries: 0 }
    }

    fn run(mut self, mut scan: Scan) -> Result<u64, Halt> {
        while let Some(found) = scan.next()? {
            self.entry(scan.path(), found)?;
        }
        self.blocks.zeros(1024)?;
        Ok(self.entries)
    }

    fn entry(&mut self, path: &[u8], found: Found) -> Result<(), Halt> {
        match found {
            Found::Dir { mode, opaque } => {
                let path = [path, b"/"].concat();
                self.put(&path, &Item { kind: EntryType::Directory, link: b"", size: 0, mode })?;
                if opaque {
                    self.marker(&[&path, OPAQUE_MARKER].concat())?;
                }
            }
            Found::File { file, stat } => {
                let mode = stat.st_mode & 0o7777;
                if stat.st_nlink > 1 {
                    let inode = (stat.st_dev, stat.st_ino);
                    if let Some(first) = self.links.get(&inode).cloned() {
                        return self.put(path, &Item { kind: EntryType::Link, link: &first, size: 0, mode });
                    }
                    self.links.insert(inode, path.to_vec());
                }
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                self.put(path, &Item { kind: EntryType::Regular, link: b"", size, mode })?;
                self.body(path, file, size)?;
            }
            Found::Symlink { target } => {
                self.put(path, &Item { kind: EntryType::Symlink, link: &target, size: 0, mode: 0o777 })?;
            }
            Found::Fifo { mode } => self.put(path, &Item { kind: EntryType::Fifo, link: b"", size: 0, mode })?,
            Found::Whiteout => {
                let cut = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
                self.marker(&[&path[..cut], WHITEOUT, &path[cut..]].concat())?;
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &[u8], item: &Item<'_>) -> Result<(), Halt> {
        let &Item { kind, link, size, mode } = item;
        let default = EntryMetadata::default();
        let found = if self.records.0.is_empty() { None } else { self.records.0.get(&EntryPath::new(path)) };
        let record = found.unwrap_or(&default);
        if let Some(name) = record.xattrs.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(PackError::XattrName { entry: escaped(path), name: escaped(name.as_bytes()) }.into());
        }
        let mode = if kind == EntryType::Symlink { mode } else { record.mode.unwrap_or(mode) & 0o7777 };
        let xattrs = (kind != EntryType::Link).then_some(&record.xattrs); // the inode has them from its first name
        let (uid, gid, mtime) = (record.uid, record.gid, self.mtime);
        self.write(&Head { path, kind, link, size, mode, uid, gid, mtime, xattrs })
    }

    fn marker(&mut self, path: &[u8]) -> Result<(), Halt> {
        let (kind, mtime) = (EntryType::Regular, self.mtime);
        self.write(&Head { path, kind, link: b"", size: 0, mode: 0o644, uid: 0, gid: 0, mtime, xattrs: None })
    }

    fn write(&mut self, head: &Head<'_>) -> Result<(), Halt> {
        self.entries += 1;
        self.header.clear();
        tar_out::put(&mut self.header, head);
        Ok(self.blocks.write(&self.header)?)
    }

    /// Exactly `size` bytes of `file`; the read that ends it asks for one more, to see that it really ends.
    fn body(&mut self, path: &[u8], mut file: File, size: u64) -> Result<(), Halt> {
        let changed = || PackError::Changed { entry: escaped(path) };
        let mut left = size;
        let mut ended = false;
        while left > 0 {
            let room = self.blocks.room();
            let want = usize::try_from(left + 1).map_or(room.len(), |want| want.min(room.len()));
            let n = read_up_to(&mut file, &mut room[..want]).map_err(|e| read_error(path, e))?;
            if n == 0 || n as u64 > left {
                return Err(changed().into());
            }
            left -= n as u64;
            ended = left == 0 && n < want;
            self.blocks.advance(n)?;
        }
        if !ended && read_up_to(&mut file, &mut [0]).map_err(|e| read_error(path, e))? > 0 {
            return Err(changed().into());
        }
        Ok(self.blocks.zeros(tar_out::padding(size))?)
    }
}
