//! The bytes of a layer to a tree inside a root that no entry can leave.
//!
//! One thread reads, hashes and decompresses the blob; the calling thread hashes the tar and creates names in its order; two
//! more write small files. Bytes after the end of the tar are read too: they count for the digests.

mod decompress;
mod error;
mod file_writers;
mod header;
mod list;
mod pax;
mod resolver;
mod sparse;
mod stream;
mod tree_builder;

use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use decompress::BlobRead;
pub use error::{UnpackError, Violation};
use file_writers::FileWriters;
pub use list::{EntryKind, LayerEntry, Listed, list};
use stream::TarStream;
use tree_builder::TreeBuilder;

use crate::{Compression, DiffId, Digest, Metadata};

/// The number of chunks between the decompressor and the reader of the tar: 2 MiB.
const QUEUED_CHUNKS: usize = 8;

/// How large an unpacked layer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the tar, and of sparse files with their holes.
    pub max_bytes: u64,
    /// Entries, whiteouts and skipped devices included.
    pub max_entries: u64,
}

impl Limits {
    /// More than any real layer has: 50 GiB, five million entries.
    pub const GENEROUS: Self = Self { max_bytes: 50 << 30, max_entries: 5_000_000 };
}

/// A layer that was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The number of entries in the tar.
    pub entries: u64,
    /// The number of devices among them, which are not created.
    pub skipped_devices: u64,
    /// What the tree on disk does not hold. No component of a path in it is a symlink.
    pub metadata: Metadata,
}

/// Unpacks a layer into `root`, an existing empty directory, as a lower directory of overlayfs: whiteouts are character
/// devices 0:0, opaque directories have `user.overlay.opaque`.
///
/// Directories without an entry are 0755 with time 0. Modes on disk lack setuid and setgid, and let the caller read and
/// enter; owners and extended attributes are in [`Unpacked::metadata`] alone (`*.overlay.*` and `security.{selinux,ima,evm}`
/// are dropped). After an error the directory contains a part of the tree, which the caller removes.
pub fn unpack(
    blob: impl Read + Send,
    compression: Compression,
    root: &Path,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let (jobs, queue) = file_writers::queue();
    let ((built, written), blob) = with_tar(blob, compression, limits.max_bytes, |stream| {
        thread::scope(|scope| {
            let writers = FileWriters::start(scope, jobs, &queue)?;
            let built = build_tree(root, stream, &writers, limits);
            let written = writers.finish();
            Ok((built?, written))
        })
    })?;
    written?;
    let BuiltTree { diff_id, entries, skipped_devices, metadata } = built;
    Ok(Unpacked { diff_id, digest: blob.digest, size: blob.size, entries, skipped_devices, metadata })
}

/// Runs `read` on the tar inside `blob`, which is read to its end.
fn with_tar<T>(
    blob: impl Read + Send,
    compression: Compression,
    max_bytes: u64,
    read: impl FnOnce(TarStream) -> Result<T, UnpackError>,
) -> Result<(T, BlobRead), UnpackError> {
    thread::scope(|scope| {
        let (filled, chunks) = mpsc::sync_channel(QUEUED_CHUNKS);
        let (used, buffers) = mpsc::channel();
        let sender = decompress::Chunks { filled, used: buffers };
        let decompressor = thread::Builder::new()
            .name("phial-inflate".into())
            .spawn_scoped(scope, move || decompress::decompress(blob, compression, &sender))
            .map_err(UnpackError::Thread)?;
        let result = read(TarStream::new(chunks, used, max_bytes));
        let decompressed = decompressor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A tar that seems truncated may be one whose blob failed; then the error of the blob is the cause.
        let (value, blob) = if matches!(&result, Err(UnpackError::Stream { violation: Violation::Truncated, .. })) {
            let blob = decompressed?;
            (result?, blob)
        } else {
            (result?, decompressed?)
        };
        Ok((value, blob.ok_or_else(|| UnpackError::stream(Violation::Truncated))?))
    })
}

/// A tar that was unpacked.
struct BuiltTree {
    diff_id: DiffId,
    entries: u64,
    skipped_devices: u64,
    metadata: Metadata,
}

fn build_tree(
    root: &Path,
    mut stream: TarStream,
    writers: &FileWriters<'_>,
    limits: &Limits,
) -> Result<BuiltTree, UnpackError> {
    let mut tree = TreeBuilder::new(root, writers)?;
    let mut entries = 0;
    let mut previous = Vec::new();
    while let Some(entry) = header::next(&mut stream).map_err(|error| error.after(&previous))? {
        entries += 1;
        if entries > limits.max_entries {
            return Err(UnpackError::stream(Violation::TooManyEntries));
        }
        tree.add(&entry, &mut stream)?;
        previous = entry.name;
    }
    let diff_id = DiffId(stream.finish()?);
    writers.wait()?;
    let skipped_devices = tree.skipped_devices;
    Ok(BuiltTree { diff_id, entries, skipped_devices, metadata: tree.finish()? })
}
