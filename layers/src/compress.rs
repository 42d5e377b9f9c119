//! A ready tar to a blob: what a base image is made of has its own times and owners, and keeps them to the byte.

use std::io::{self, BufRead, Read, Write};

use flate2::bufread::MultiGzDecoder;

use crate::blocks::in_blocks;
use crate::{Compression, DiffId, PackError, PackOptions, Packed};

/// Writes the blob of `tar` to `out`, in the same blocks as [`pack`](crate::pack) does. `terms.mtime` is not looked at, and
/// neither is the tar: `entries` of the result is 0.
pub fn compress(mut tar: impl Read, terms: &PackOptions, out: &mut (dyn Write + Send)) -> Result<Packed, PackError> {
    let ((), sums) = in_blocks(terms, out, |blocks| {
        loop {
            let n = match tar.read(blocks.room()) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(PackError::Read { entry: "the tar".into(), source }.into()),
            };
            blocks.advance(n)?;
        }
    })?;
    let diff_id = DiffId(sums.diff_id.0);
    Ok(Packed { diff_id, digest: sums.digest, size: sums.size, tar_size: sums.tar_size, entries: 0 })
}

/// The tar in a file that is compressed in one of the ways that layers are.
pub fn decompressed<'a>(
    file: impl BufRead + Send + 'a,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(file)?),
    })
}
