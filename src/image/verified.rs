//! Streams that are checked against a descriptor: the last bytes of a blob are read only if its digest is right.

use std::io::{self, Read};

use phial_layers::Digest;

use super::blob_error::{BlobError, Hasher};
use super::manifest::Descriptor;

/// Reads `inner` and checks size and digest *before* it returns the last bytes. At most one byte more than the stated
/// size is ever read.
pub struct Verified<R> {
    inner: R,
    digest: Digest,
    size: u64,
    seen: u64,
    hash: Option<Hasher>,
    passed: bool,
}

impl<R: Read> Verified<R> {
    /// A stream that fails unless `inner` has the digest and size of `descriptor`.
    pub fn new(inner: R, descriptor: &Descriptor) -> Self {
        let digest = descriptor.digest.clone();
        Self { inner, size: descriptor.size, seen: 0, hash: Some(Hasher::new(&digest)), passed: false, digest }
    }

    fn check_end(&mut self) -> io::Result<()> {
        if self.passed {
            return Ok(());
        }
        let Some(hash) = self.hash.take() else {
            return Err(io::ErrorKind::InvalidData.into()); // a read after an error
        };
        if read_some(&mut self.inner, &mut [0])? > 0 {
            return Err(refused(BlobError::Long { digest: self.digest.clone(), expected: self.size }));
        }
        let actual = hash.finish();
        self.passed = actual == self.digest.as_str();
        if self.passed { Ok(()) } else { Err(refused(BlobError::Digest { expected: self.digest.clone(), actual })) }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = self.size - self.seen;
        if left == 0 {
            return self.check_end().map(|()| 0);
        }
        let Some(hash) = self.hash.as_mut() else {
            return Err(io::ErrorKind::InvalidData.into()); // a read after an error
        };
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let n = read_some(&mut self.inner, &mut buffer[..most])?;
        if n == 0 {
            self.hash = None;
            let (digest, expected, actual) = (self.digest.clone(), self.size, self.seen);
            return Err(refused(BlobError::Short { digest, expected, actual }));
        }
        hash.update(&buffer[..n]);
        self.seen += n as u64;
        if self.seen == self.size {
            self.check_end()?;
        }
        Ok(n)
    }
}

fn refused(error: BlobError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn read_some(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA512_OF_HELLO: &str = "sha512:9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca7\
                                   2323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043";

    fn read(bytes: &[u8], digest: &Digest, size: u64) -> Result<Vec<u8>, String> {
        let descriptor = Descriptor::new("x", digest.clone(), size);
        let mut out = Vec::new();
        Verified::new(bytes, &descriptor).read_to_end(&mut out).map_err(|e| e.to_string())?;
        Ok(out)
    }

    #[test]
    fn a_blob_passes_only_with_its_own_bytes_and_size() {
        let digest = Digest::of(b"hello");
        assert_eq!(read(b"hello", &digest, 5).unwrap(), b"hello");
        assert_eq!(read(b"", &Digest::of(b""), 0).unwrap(), b"");
        for (bytes, size, reason) in [
            (&b"hellO"[..], 5, "the bytes are `sha256:"),
            (b"hell", 5, "ends after 4 of 5"),
            (b"hello!", 5, "more than the 5"),
            (b"hello", 4, "more than the 4"),
            (b"hello", 6, "ends after 5 of 6"),
            (b"hello", 0, "more than the 0"),
        ] {
            let error = read(bytes, &digest, size).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn sha512_is_checked_in_its_own_algorithm() {
        let digest: Digest = SHA512_OF_HELLO.parse().unwrap();
        assert_eq!(read(b"hello", &digest, 5).unwrap(), b"hello");
        assert!(read(b"hellO", &digest, 5).unwrap_err().contains("sha512:"));
    }

    #[test]
    fn reading_only_the_stated_bytes_still_reports_a_mismatch() {
        let descriptor = Descriptor::new("x", Digest::of(b"hello"), 5);
        let mut bytes = [0; 5];
        let mut stream = Verified::new(&b"hellO"[..], &descriptor);
        assert!(stream.read_exact(&mut bytes).is_err());
        assert!(stream.read(&mut bytes).is_err(), "an error must not be followed by a clean end");
    }

    /// Gives one byte at a time, and is interrupted before each.
    struct Slow<'a>(&'a [u8], bool);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(&mut buffer[..1]) }
        }
    }

    #[test]
    fn a_slow_source_is_read_to_its_end_and_not_beyond() {
        let descriptor = Descriptor::of("x", b"hello");
        let mut stream = Verified::new(Slow(b"hello", false), &descriptor);
        let mut out = [0; 8];
        assert_eq!(stream.read(&mut []).unwrap(), 0);
        let read: Vec<usize> = (0..6).map(|_| stream.read(&mut out).unwrap()).collect();
        assert_eq!(read, [1, 1, 1, 1, 1, 0]);
        assert_eq!(stream.read(&mut out).unwrap(), 0, "the end is the end");
        let mut failing = Verified::new(io::empty().chain(Failing), &descriptor);
        assert_eq!(failing.read(&mut out).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    struct Failing;

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}
