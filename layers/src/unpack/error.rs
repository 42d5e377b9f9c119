//! Why a layer could not be unpacked: violations of the layer format, and errors of the system.

use std::fmt;
use std::io;

use crate::Compression;
use crate::escape::escaped;

/// A rule of the layer format that a layer violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Violation {
    /// The name of an entry has a `..`.
    EntryPath,
    /// An entry has no name, or makes the root something else than a directory.
    RootReplaced,
    /// A whiteout that names no sibling, or is a directory.
    WhiteoutName,
    /// A hard link to something that is not an earlier file inside the root.
    HardlinkTarget,
    /// A component over 255 bytes, a path or link target over 4095.
    NameTooLong,
    /// A parent is a file.
    NotADirectory,
    /// More than 40 symlinks in a path.
    SymlinkLoop,
    /// Paths so deep, one after the other, that opening their directories takes minutes.
    DeepPaths,
    /// An entry type that `layer.md` does not name.
    EntryType,
    /// A symlink without a target.
    SymlinkTarget,
    /// A wrong checksum or number in a header.
    TarHeader,
    /// An extended header that is malformed, over 1 MiB, or contradicts another.
    Pax,
    /// A sparse map that is malformed, leaves the file, or does not fit the data.
    Sparse,
    /// Extended attributes over 64 KiB each or 1 MiB per entry.
    XattrSize,
    /// More bytes than the limit.
    TooLarge,
    /// More entries than the limit.
    TooManyEntries,
    /// The end of the stream inside an entry, member or frame.
    Truncated,
    /// Bytes after the compressed stream.
    Trailing,
    /// A damaged compressed stream.
    Corrupt,
    /// A zstd frame that needs a window over 128 MiB.
    ZstdWindow,
    /// Skippable zstd frames over 64 MiB.
    ZstdSkippable,
    /// Another compression than the media type declares.
    Compression,
}

impl Violation {
    /// The name that scripts can match, such as `layer.hardlink-target`; it never changes.
    pub fn code(self) -> &'static str {
        match self {
            Self::EntryPath => "layer.entry-path",
            Self::RootReplaced => "layer.root-replaced",
            Self::WhiteoutName => "layer.whiteout-name",
            Self::HardlinkTarget => "layer.hardlink-target",
            Self::NameTooLong => "layer.name-too-long",
            Self::NotADirectory => "layer.not-a-directory",
            Self::SymlinkLoop => "layer.symlink-loop",
            Self::DeepPaths => "layer.deep-paths",
            Self::EntryType => "layer.entry-type",
            Self::SymlinkTarget => "layer.symlink-target",
            Self::TarHeader => "layer.tar-header",
            Self::Pax => "layer.pax",
            Self::Sparse => "layer.sparse",
            Self::XattrSize => "layer.xattr-size",
            Self::TooLarge => "layer.too-large",
            Self::TooManyEntries => "layer.too-many-entries",
            Self::Truncated => "layer.truncated",
            Self::Trailing => "layer.trailing",
            Self::Corrupt => "layer.corrupt",
            Self::ZstdWindow => "layer.zstd-window",
            Self::ZstdSkippable => "layer.zstd-skippable",
            Self::Compression => "layer.compression",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EntryPath => "its name contains `..`",
            Self::RootReplaced => "it would replace the root",
            Self::WhiteoutName => "it is not a valid whiteout",
            Self::HardlinkTarget => "its hard link target is not an earlier file of the layer",
            Self::NameTooLong => "its name or target is too long",
            Self::NotADirectory => "its parent is not a directory",
            Self::SymlinkLoop => "its path has too many symlinks",
            Self::DeepPaths => "it and those before it are too deep in directories",
            Self::EntryType => "its type is not part of the image specification",
            Self::SymlinkTarget => "its symlink target is empty",
            Self::TarHeader => "the tar header is malformed",
            Self::Pax => "the extended header is malformed or contradicts itself",
            Self::Sparse => "the map of the sparse file is malformed",
            Self::XattrSize => "its extended attributes are too large",
            Self::TooLarge => "the layer unpacks to more bytes than the limit",
            Self::TooManyEntries => "the layer has more entries than the limit",
            Self::Truncated => "the layer ends in the middle",
            Self::Trailing => "extra bytes follow the compressed stream",
            Self::Corrupt => "the compressed stream is corrupt",
            Self::ZstdWindow => "a zstd frame needs a window over 128 MiB",
            Self::ZstdSkippable => "the skippable zstd frames are too large",
            Self::Compression => "the blob is not compressed as declared",
        })
    }
}

/// Why a layer could not be unpacked. `entry` is the name in the tar, escaped for messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// An entry violates a rule.
    #[error("the layer's entry `{entry}` is refused: {violation}")]
    Entry {
        /// The rule that it violates.
        violation: Violation,
        /// The entry's name.
        entry: String,
    },
    /// A header violates a rule before the name of its entry is known.
    #[error("the layer's entry after `{previous}` is refused: {violation}")]
    Header {
        /// The rule that it violates.
        violation: Violation,
        /// The name of the entry before it; empty for the first.
        previous: String,
    },
    /// The stream violates a rule.
    #[error("the layer is refused: {violation}")]
    Stream {
        /// The rule that it violates.
        violation: Violation,
        /// The decompressor's error, if it reported one.
        #[source]
        source: Option<io::Error>,
    },
    /// The first bytes of the blob are not those of the declared compression.
    #[error("the layer is declared as {declared}, but its bytes are not")]
    Declared {
        /// `gzip`, `zstd` or `a plain tar`.
        declared: &'static str,
    },
    /// The blob could not be read.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// The tree could not be written.
    #[error("cannot write `{entry}`")]
    Write {
        /// The entry's name.
        entry: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The directory to unpack into cannot be opened.
    #[error("cannot unpack into the directory")]
    Root(#[source] io::Error),
    /// The directory to unpack into is not empty.
    #[error("the directory to unpack into is not empty")]
    RootNotEmpty,
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl UnpackError {
    /// A name of the error that scripts can match; it never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Entry { violation, .. } | Self::Header { violation, .. } | Self::Stream { violation, .. } => {
                violation.code()
            }
            Self::Declared { .. } => Violation::Compression.code(),
            Self::Read(_) => "layer.read",
            Self::Write { .. } => "layer.write",
            Self::Root(_) => "layer.root",
            Self::RootNotEmpty => "layer.root-not-empty",
            Self::Thread(_) => "layer.thread",
        }
    }

    /// What the user can do, if anything.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Entry { violation: Violation::TooLarge | Violation::TooManyEntries, .. }
            | Self::Stream { violation: Violation::TooLarge | Violation::TooManyEntries, .. } => {
                "raise the limit if the image is trusted".into()
            }
            Self::Entry { .. } | Self::Header { .. } => {
                "no image builder in common use writes such a layer; find out where it comes from".into()
            }
            Self::Stream { .. } => "fetch the layer again and compare its digest".into(),
            Self::Declared { .. } => "the media type in the manifest is wrong; the image must be built again".into(),
            Self::Write { .. } => "check the free space and inodes of the disk that takes the tree".into(),
            _ => return None,
        })
    }

    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Entry { .. } | Self::Header { .. } | Self::Stream { .. } | Self::Declared { .. } => 3,
            Self::Read(_) => 4,
            Self::Write { .. } | Self::Root(_) | Self::Thread(_) => 6,
            Self::RootNotEmpty => 70,
        }
    }

    pub(super) fn entry(violation: Violation, name: &[u8]) -> Self {
        Self::Entry { violation, entry: escaped(name) }
    }

    /// Adds the name of the previous entry to an error in a header.
    pub(super) fn after(self, previous: &[u8]) -> Self {
        use Violation::{Pax, Sparse, TarHeader, XattrSize};
        match self {
            Self::Stream { violation: violation @ (TarHeader | Pax | Sparse | XattrSize), .. } => {
                Self::Header { violation, previous: escaped(previous) }
            }
            other => other,
        }
    }

    pub(super) fn stream(violation: Violation) -> Self {
        Self::Stream { violation, source: None }
    }

    pub(super) fn write(name: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Write { entry: escaped(name), source: source.into() }
    }

    pub(super) fn declared(compression: Compression) -> Self {
        Self::Declared {
            declared: match compression {
                Compression::Gzip => "gzip",
                Compression::Zstd => "zstd",
                Compression::None => "a plain tar",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_a_code_an_exit_code_and_perhaps_a_hint() {
        let io = || io::Error::from(io::ErrorKind::StorageFull);
        let header = UnpackError::stream(Violation::Pax).after(b"f");
        for (error, code, exit_code, hint) in [
            (UnpackError::entry(Violation::EntryPath, b"f"), "layer.entry-path", 3, Some("no image builder")),
            (UnpackError::entry(Violation::TooLarge, b"f"), "layer.too-large", 3, Some("raise the limit")),
            (header, "layer.pax", 3, Some("no image builder")),
            (UnpackError::stream(Violation::TooManyEntries), "layer.too-many-entries", 3, Some("raise the limit")),
            (UnpackError::stream(Violation::Corrupt), "layer.corrupt", 3, Some("fetch the layer again")),
            (UnpackError::declared(Compression::Zstd), "layer.compression", 3, Some("the media type")),
            (UnpackError::Read(io()), "layer.read", 4, None),
            (UnpackError::write(b"f", io()), "layer.write", 6, Some("check the free space")),
            (UnpackError::Root(io()), "layer.root", 6, None),
            (UnpackError::Thread(io()), "layer.thread", 6, None),
            (UnpackError::RootNotEmpty, "layer.root-not-empty", 70, None),
        ] {
            assert_eq!((error.code(), error.exit_code()), (code, exit_code));
            let begins = error.hint().zip(hint).map(|(text, start)| text.starts_with(start));
            assert_eq!((error.hint().is_some(), begins.unwrap_or(true)), (hint.is_some(), true), "{code}");
        }
    }

    #[test]
    fn only_errors_in_a_header_get_the_name_of_the_previous_entry() {
        for violation in [Violation::TarHeader, Violation::Pax, Violation::Sparse, Violation::XattrSize] {
            let text = UnpackError::stream(violation).after(b"f`").to_string();
            assert_eq!(text, format!("the layer's entry after `f\\u{{60}}` is refused: {violation}"));
        }
        let text = UnpackError::stream(Violation::Truncated).after(b"f").to_string();
        assert_eq!(text, "the layer is refused: the layer ends in the middle");
    }

    #[test]
    fn the_declared_compression_is_named() {
        for (compression, name) in
            [(Compression::None, "a plain tar"), (Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")]
        {
            let text = UnpackError::declared(compression).to_string();
            assert_eq!(text, format!("the layer is declared as {name}, but its bytes are not"));
        }
    }
}
