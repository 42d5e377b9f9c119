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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::{DiffId, Digest};

    /// Every second read is interrupted; the others return at most 1000 bytes.
    struct Slow<'a> {
        bytes: &'a [u8],
        interrupted: bool,
    }

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let n = out.len().min(1000);
            self.bytes.read(&mut out[..n])
        }
    }

    fn options(compression: Compression) -> PackOptions {
        PackOptions { compression, mtime: 0, workers: NonZeroUsize::MIN }
    }

    #[test]
    fn a_tar_is_the_same_after_compression() {
        let tar: Vec<u8> = (0..5_000_000_u32).map(|n| (n >> 9).to_le_bytes()[0]).collect();
        for (compression, max) in
            [(Compression::None, tar.len()), (Compression::Gzip, 90_000), (Compression::Zstd, 90_000)]
        {
            let mut blob = Vec::new();
            let slow = Slow { bytes: &tar, interrupted: false };
            let compressed = compress(slow, &options(compression), &mut blob).unwrap();
            assert_eq!((compressed.diff_id, compressed.tar_size), (DiffId(Digest::of(&tar)), tar.len() as u64));
            assert_eq!((compressed.digest, compressed.size), (Digest::of(&blob), blob.len() as u64));
            assert!(blob.len() <= max, "{compression}: {}", blob.len());
            assert_eq!(Compression::sniff(&blob), compression);
            let mut again = Vec::new();
            decompressed(&blob[..], compression).unwrap().read_to_end(&mut again).unwrap();
            assert!(again == tar, "{compression}");
        }
    }

    #[test]
    fn a_tar_that_cannot_be_read_is_the_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let error = compress(Broken, &options(Compression::Gzip), &mut io::sink()).unwrap_err();
        assert_eq!((error.code(), error.to_string()), ("layer.read", "cannot read `the tar`".to_owned()));
    }
}
