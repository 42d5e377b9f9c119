//! Compresses one block of a tar to one gzip member or one zstd frame. The bytes are a function of the block alone: every
//! block gets a fresh compressor, and every header field is constant.

use std::io;

use crate::Compression;

/// RFC 1952, section 2.3: deflate, no flags, no time, no extra flags, unknown system (255).
const GZIP_HEADER: [u8; 10] = {
    let [id1, id2, deflate] = Compression::GZIP_MAGIC;
    [id1, id2, deflate, 0, 0, 0, 0, 0, 0, 0xff]
};
const GZIP_LEVEL: i32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// The number of tar bytes in one block. It is part of the format: another size gives other digests.
pub(super) const fn block_size(compression: Compression) -> usize {
    match compression {
        Compression::Zstd => 4 << 20,
        Compression::Gzip | Compression::None => 1 << 20,
    }
}

/// The member or frame of `block`. Those of all blocks, one after the other, are the blob.
pub(super) fn compress_block(compression: Compression, block: Vec<u8>) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(block),
        Compression::Gzip => gzip_member(&block),
        Compression::Zstd => zstd_frame(&block),
    }
}

fn gzip_member(block: &[u8]) -> io::Result<Vec<u8>> {
    let level = libdeflater::CompressionLvl::new(GZIP_LEVEL).map_err(|e| io::Error::other(format!("{e:?}")))?;
    let mut compressor = libdeflater::Compressor::new(level);
    let head = GZIP_HEADER.len();
    let mut member = vec![0; head + compressor.deflate_compress_bound(block.len()) + 8];
    member[..head].copy_from_slice(&GZIP_HEADER);
    let deflated = compressor.deflate_compress(block, &mut member[head..]).map_err(io::Error::other)?;
    member.truncate(head + deflated);
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
