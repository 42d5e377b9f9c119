//! An existing tar to a layer blob and back, without a look at its entries: the tar of a base image keeps its own times and
//! owners, byte for byte.

use std::io::{self, BufRead, Read, Write};

use flate2::bufread::MultiGzDecoder;

use crate::pack::blocks::compress_blocks;
use crate::{CompressedTar, Compression, PackError, PackOptions};

/// Compresses `tar` into `out`, in the same blocks as [`pack`](crate::pack). `options.mtime` has no effect.
pub fn compress(
    mut tar: impl Read,
    options: &PackOptions,
    out: &mut (dyn Write + Send),
) -> Result<CompressedTar, PackError> {
    let ((), compressed) = compress_blocks(options, out, |blocks| {
        loop {
            let n = match tar.read(blocks.unfilled()) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(PackError::Read { entry: "the tar".into(), source }.into()),
            };
            blocks.advance(n)?;
        }
    })?;
    Ok(compressed)
}

/// The tar inside `blob`, a whole blob with the given compression. Members or frames after the first are read too.
pub fn decompressed<'a>(
    blob: impl BufRead + Send + 'a,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(blob),
        Compression::Gzip => Box::new(MultiGzDecoder::new(blob)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(blob)?),
    })
}
