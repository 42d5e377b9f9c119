//! The bytes of a layer to a tree, inside a root that nothing in the layer can leave.
//!
//! One thread reads, hashes and decompresses; this one hashes the tar and makes names in the tar's order; two fill small
//! files. The stream is read to its real end: what follows the tar's own end counts for the digest and is otherwise ignored.

mod error;
mod header;
mod inflate;
mod list;
mod pax;
mod place;
mod resolve;
mod sparse;
mod stream;
mod writers;

use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

pub use error::{Rule, UnpackError};
use inflate::BlobSums;
pub use list::{Entry, EntryKind, Listed, list};
use place::Tree;
use stream::TarStream;
use writers::Writers;

use crate::{Compression, DiffId, Digest, Metadata};

/// Chunks between the decompressor and the tar: 2 MiB.
const CHUNKS: usize = 8;

/// How much a layer may unpack to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed stream, and of sparse files with their holes.
    pub max_bytes: u64,
    /// Entries, whiteouts and skipped devices included.
    pub max_entries: u64,
}

impl Limits {
    /// Above any layer that is meant: 50 GiB, five million entries.
    pub const GENEROUS: Self = Self { max_bytes: 50 << 30, max_entries: 5_000_000 };
}

/// A layer that was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The digest of the blob: the compressed bytes.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// How many entries the tar has.
    pub entries: u64,
    /// How many of them were devices, which are never made.
    pub skipped_devices: u64,
    /// What the tree on disk does not say. Keys are real paths: no component is a symlink.
    pub records: Metadata,
}

/// Unpacks a layer into `root`, an existing empty directory, for use as an overlay's lower directory: whiteouts are
/// character devices 0:0, opaque directories have `user.overlay.opaque`.
///
/// Directories that no entry names are 0755 with time 0. Modes on disk lack setuid and setgid and have what the caller needs
/// to read and enter; owners and extended attributes are in the records alone (`*.overlay.*`, `security.{selinux,ima,evm}`
/// are dropped). After an error the directory holds a part of the tree, for the caller to remove.
pub fn unpack(
    blob: impl Read + Send,
    compression: Compression,
    root: &Path,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let (jobs, shared) = writers::queue();
    let ((unpacked, written), (digest, size)) = over(blob, compression, limits.max_bytes, |stream| {
        thread::scope(|scope| {
            let writers = Writers::start(scope, jobs, &shared)?;
            let taken = take(root, stream, &writers, limits);
            let written = writers.finish();
            Ok((taken?, written))
        })
    })?;
    written?;
    Ok(Unpacked { digest, size, ..unpacked })
}

/// Lets `act` read the tar inside `blob`; the sums are those of the whole blob, which is read to its end.
fn over<T>(
    blob: impl Read + Send,
    compression: Compression,
    max_bytes: u64,
    act: impl FnOnce(TarStream) -> Result<T, UnpackError>,
) -> Result<(T, BlobSums), UnpackError> {
    thread::scope(|scope| {
        let (full_in, full) = mpsc::sync_channel(CHUNKS);
        let (empty, empty_out) = mpsc::channel();
        let chunks = inflate::Chunks { full: full_in, empty: empty_out };
        let pump = thread::Builder::new()
            .name("phial-inflate".into())
            .spawn_scoped(scope, move || inflate::pump(blob, compression, &chunks))
            .map_err(UnpackError::Thread)?;
        let acted = act(TarStream::new(full, empty, max_bytes));
        let pumped = pump.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // What looks cut off may have been: then the blob's own error is the reason.
        let (acted, sums) = if matches!(&acted, Err(UnpackError::Stream { rule: Rule::Truncated, .. })) {
            let sums = pumped?;
            (acted?, sums)
        } else {
            (acted?, pumped?)
        };
        let sums = sums.ok_or_else(|| UnpackError::stream(Rule::Truncated))?;
        Ok((acted, sums))
    })
}

/// All entries of `stream`; digest and size of the blob are the other thread's to fill in.
fn take(root: &Path, mut stream: TarStream, writers: &Writers<'_>, limits: &Limits) -> Result<Unpacked, UnpackError> {
    let mut tree = Tree::new(root, writers)?;
    let mut entries = 0;
    let mut last = Vec::new();
    while let Some(entry) = header::next(&mut stream).map_err(|error| error.after(&last))? {
        entries += 1;
        if entries > limits.max_entries {
            return Err(UnpackError::stream(Rule::TooManyEntries));
        }
        tree.put(&entry, &mut stream)?;
        last = entry.name;
    }
    let diff_id = DiffId(stream.finish()?);
    writers.wait()?;
    let skipped_devices = tree.skipped;
    let records = tree.finish()?;
    Ok(Unpacked { digest: diff_id.0.clone(), diff_id, size: 0, entries, skipped_devices, records })
}
