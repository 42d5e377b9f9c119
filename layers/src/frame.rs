//! One block of a tar to one self-contained piece of a blob: a gzip member or a zstd frame. The bytes are a function of
//! the block alone: every piece is made by a fresh compressor, and every header field is fixed here.

use std::io;

use crate::Compression;

/// The header of RFC 1952 section 2.3: deflate, no flags, no time, no extra flags, system unknown (255).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const GZIP_LEVEL: i32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// How many bytes of tar make one piece. Part of the format: another size gives other digests.
pub(crate) const fn block_size(compression: Compression) -> usize {
    match compression {
        Compression::Zstd => 4 << 20,
        Compression::Gzip | Compression::None => 1 << 20,
    }
}

/// `block` compressed, to be joined to the pieces before it.
pub(crate) fn encode(compression: Compression, block: Vec<u8>) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(block),
        Compression::Gzip => gzip(&block),
        Compression::Zstd => zstd_frame(&block),
    }
}

fn gzip(block: &[u8]) -> io::Result<Vec<u8>> {
    let level = libdeflater::CompressionLvl::new(GZIP_LEVEL).map_err(|e| io::Error::other(format!("{e:?}")))?;
    let mut compressor = libdeflater::Compressor::new(level);
    let head = GZIP_HEADER.len();
    let mut member = vec![0; head + compressor.deflate_compress_bound(block.len()) + 8];
    member[..head].copy_from_slice(&GZIP_HEADER);
    let packed = compressor.deflate_compress(block, &mut member[head..]).map_err(io::Error::other)?;
    member.truncate(head + packed);
    member.extend_from_slice(&crc32fast::hash(block).to_le_bytes());
    let length = u32::try_from(block.len()).map_err(io::Error::other)?;
    member.extend_from_slice(&length.to_le_bytes());
    member.shrink_to_fit();
    Ok(member)
}

fn zstd_frame(block: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    compressor.include_checksum(false)?;
    compressor.include_contentsize(true)?;
    compressor.include_dictid(false)?;
    let mut frame = compressor.compress(block)?;
    frame.shrink_to_fit();
    Ok(frame)
}
