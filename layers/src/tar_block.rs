//! The block structure of a tar: headers are one block, bodies are padded to whole blocks (POSIX.1-2001, pax, "ustar
//! Interchange Format").

/// The size of a block in bytes.
pub(crate) const BLOCK: usize = 512;

/// The number of zero bytes that follow a body of `size` bytes.
pub(crate) fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::padding;

    #[test]
    fn a_body_is_padded_to_a_whole_block() {
        for (size, expected) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511), (u64::MAX, 1)] {
            assert_eq!(padding(size), expected, "{size}");
        }
    }
}
