//! Digests as types: a string is checked once, when it is parsed.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::escape::escaped;

/// The digest of a blob as the image specification writes it (`descriptor.md`): `sha256:` and 64 lower-case hex digits, or
/// `sha512:` and 128. No other algorithm, case or length passes, so a digest is safe in a path or a URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The digest of a layer's uncompressed tar (`config.md`, `rootfs.diff_ids`), in a type of its own: it is not that of a blob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

/// A string is not a digest. It is escaped for messages: it may come from a registry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a digest: `sha256:` and 64 lower-case hex digits are expected")]
pub struct DigestError {
    text: String,
}

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&Sha256::digest(bytes).into())
    }

    /// The digest with the SHA-256 `hash`.
    pub fn from_hash(hash: &[u8; 32]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hash {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        Self(text)
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        &self.0[..6]
    }

    /// The hex digits alone.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// `ALGORITHM:HEX`, as in manifests.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = match text.split_once(':') {
            Some(("sha256", hex)) if hex.len() == 64 => hex,
            Some(("sha512", hex)) if hex.len() == 128 => hex,
            _ => return Err(DigestError { text: escaped(text.as_bytes()) }),
        };
        if hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(DigestError { text: escaped(text.as_bytes()) })
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A writer that hashes and counts the bytes it passes on.
pub struct Sha256Writer<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Sha256Writer<W> {
    /// A writer that passes its bytes on to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    /// The inner writer, the digest of all bytes written, and their number.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_hash(&self.hash.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Sha256Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_printed_as_it_was_parsed() {
        let sha512 = format!("sha512:{}", "0123456789abcdef".repeat(8));
        for (text, algorithm) in [(EMPTY, "sha256"), (sha512.as_str(), "sha512")] {
            let digest: Digest = text.parse().unwrap();
            assert_eq!((digest.as_str(), digest.algorithm(), digest.hex()), (text, algorithm, &text[7..]));
            assert_eq!((digest.to_string(), format!("{digest:?}")), (text.to_owned(), text.to_owned()));
            assert_eq!(DiffId(digest.clone()).to_string(), text);
            assert_eq!(serde_json::to_value(&digest).unwrap(), text);
            assert_eq!(serde_json::from_value::<Digest>(text.into()).unwrap(), digest);
            assert_eq!(serde_json::from_value::<DiffId>(text.into()).unwrap(), DiffId(digest));
        }
    }

    #[test]
    fn another_algorithm_case_or_length_is_refused() {
        let hex = &EMPTY[7..];
        for bad in [
            String::new(),
            hex.to_owned(),
            "sha256:".to_owned(),
            "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
            "sha256:../../..".to_owned(),
            EMPTY.to_uppercase(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha384:{hex}"),
            format!("sha512:{hex}"),
            format!("sha256:{hex}{hex}"),
            format!("{EMPTY}0"),
            EMPTY[..70].to_owned(),
            format!("{} ", &EMPTY[..70]),
            format!("{}/", &EMPTY[..70]),
            format!("{}:", &EMPTY[..70]),
            format!("{}g", &EMPTY[..70]),
            format!("{}\u{e9}", &EMPTY[..69]),
        ] {
            let error = bad.parse::<Digest>().unwrap_err();
            let expected = format!("`{bad}` is not a digest: `sha256:` and 64 lower-case hex digits are expected");
            assert_eq!(error.to_string(), expected);
            assert!(serde_json::from_value::<Digest>(bad.into()).is_err());
        }
        for bad in [format!("{}\u{1b}", &EMPTY[..70]), "a\u{1b}[31m`".into()] {
            let error = bad.parse::<Digest>().unwrap_err().to_string();
            assert!(error.contains("\\u{1b}") && !error.contains(char::is_control), "{error}");
        }
        let error = "x".repeat(10_000).parse::<Digest>().unwrap_err();
        assert!(error.to_string().len() < 300, "a long text is cut");
    }

    #[test]
    fn bytes_are_hashed_as_sha256_prints_them() {
        assert_eq!(Digest::of(b"").as_str(), EMPTY);
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").as_str(), abc);
        let hash = std::array::from_fn(|i| u8::try_from(i * 8).unwrap());
        let hex = "0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8";
        assert_eq!(Digest::from_hash(&hash).hex(), hex);
    }

    /// Takes two bytes at a time, and counts the calls of `flush`.
    #[derive(Default)]
    struct Narrow {
        bytes: Vec<u8>,
        flushed: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(2);
            self.bytes.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.flushed += 1;
            Ok(())
        }
    }

    #[test]
    fn a_writer_hashes_what_the_inner_one_took() {
        let mut writer = Sha256Writer::new(Narrow::default());
        assert_eq!(writer.write(b"abc").unwrap(), 2);
        writer.write_all(b"c").unwrap();
        writer.flush().unwrap();
        let (inner, digest, size) = writer.finish();
        assert_eq!((inner.bytes.as_slice(), inner.flushed), (&b"abc"[..], 1));
        assert_eq!((digest, size), (Digest::of(b"abc"), 3));
    }
}
