//! Why a layer could not be unpacked: rules that the bytes break, and what the machine refused.

use std::fmt;
use std::io;

use crate::Compression;
use crate::escape::escaped;

/// A rule that a layer must keep. Each has a code that stays the same from release to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rule {
    /// No `..` in the name of an entry.
    EntryPath,
    /// The root is a directory and stays one; an entry has a name.
    RootReplaced,
    /// A whiteout names one entry beside it.
    WhiteoutName,
    /// A hard link points to a file that is there already, inside the root.
    HardlinkTarget,
    /// No component of a name over 255 bytes, no path or target over 4095.
    NameTooLong,
    /// A file cannot be a parent.
    NotADirectory,
    /// Symlinks on the way to an entry end somewhere.
    SymlinkLoop,
    /// Only the kinds of entry that the image specification names.
    EntryType,
    /// A symlink has a target.
    SymlinkTarget,
    /// Sums and numbers of a header are right.
    TarHeader,
    /// Extended headers are well-formed, of bounded size, and say one thing.
    Pax,
    /// The map of a sparse file lies within the file and agrees with the data.
    Sparse,
    /// Extended attributes of at most 64 KiB each and 1 MiB together.
    XattrSize,
    /// The layer stays within the limits of the caller.
    TooLarge,
    /// The layer has no more entries than the caller allows.
    TooManyEntries,
    /// The layer does not end in the middle.
    Truncated,
    /// Nothing follows the compressed stream.
    Trailing,
    /// The compressed stream is sound.
    Corrupt,
    /// Zstd frames need no window over 128 MiB.
    ZstdWindow,
    /// Zstd frames to be skipped are of bounded size.
    ZstdSkippable,
    /// The blob is compressed as its media type says.
    Compression,
}

impl Rule {
    /// The stable code, such as `layer.hardlink-target`.
    pub fn code(self) -> &'static str {
        match self {
            Self::EntryPath => "layer.entry-path",
            Self::RootReplaced => "layer.root-replaced",
            Self::WhiteoutName => "layer.whiteout-name",
            Self::HardlinkTarget => "layer.hardlink-target",
            Self::NameTooLong => "layer.name-too-long",
            Self::NotADirectory => "layer.not-a-directory",
            Self::SymlinkLoop => "layer.symlink-loop",
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

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EntryPath => "its name has a `..`",
            Self::RootReplaced => "it would replace the root",
            Self::WhiteoutName => "it is no whiteout of an entry beside it",
            Self::HardlinkTarget => "it is a hard link to what is no earlier file of the layer",
            Self::NameTooLong => "its name or target is too long",
            Self::NotADirectory => "its parent is not a directory",
            Self::SymlinkLoop => "the symlinks on its way do not end",
            Self::EntryType => "entries of its type are unknown to the image specification",
            Self::SymlinkTarget => "it is a symlink to nothing",
            Self::TarHeader => "the tar header is malformed",
            Self::Pax => "the extended header is malformed or contradicts itself",
            Self::Sparse => "the map of the sparse file is malformed",
            Self::XattrSize => "its extended attributes are too large",
            Self::TooLarge => "the layer unpacks to more bytes than the limit",
            Self::TooManyEntries => "the layer has more entries than the limit",
            Self::Truncated => "the layer ends in the middle",
            Self::Trailing => "other bytes follow the compressed stream",
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
    /// An entry breaks a rule.
    #[error("the layer's entry `{entry}` is refused: {rule}")]
    Entry {
        /// The rule.
        rule: Rule,
        /// The entry's name.
        entry: String,
    },
    /// The headers of an entry break a rule before its name is known.
    #[error("the layer's entry after `{entry}` is refused: {rule}")]
    After {
        /// The rule.
        rule: Rule,
        /// The name of the entry before it; empty for the first.
        entry: String,
    },
    /// The stream breaks a rule.
    #[error("the layer is refused: {rule}")]
    Stream {
        /// The rule.
        rule: Rule,
        /// What the decompressor said, where one did.
        #[source]
        source: Option<io::Error>,
    },
    /// The first bytes of the blob are not those of the declared compression.
    #[error("the layer is declared {declared} and its bytes are not")]
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
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory to unpack into cannot be opened.
    #[error("cannot unpack into the directory")]
    Root(#[source] io::Error),
    /// The directory to unpack into holds something already.
    #[error("the directory to unpack into is not empty")]
    RootNotEmpty,
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl UnpackError {
    /// A short name that stays the same from release to release.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Entry { rule, .. } | Self::After { rule, .. } | Self::Stream { rule, .. } => rule.code(),
            Self::Declared { .. } => Rule::Compression.code(),
            Self::Read(_) => "layer.read",
            Self::Write { .. } => "layer.write",
            Self::Root(_) => "layer.root",
            Self::RootNotEmpty => "layer.root-not-empty",
            Self::Thread(_) => "layer.thread",
        }
    }

    /// What to do about it, if that can be said.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Entry { rule: Rule::TooLarge | Rule::TooManyEntries, .. }
            | Self::Stream { rule: Rule::TooLarge | Rule::TooManyEntries, .. } => {
                "raise the limit if the image is trusted".into()
            }
            Self::Entry { .. } | Self::After { .. } => {
                "no image builder in common use writes such a layer; find out where it comes from".into()
            }
            Self::Stream { .. } => "fetch the layer again and compare its digest".into(),
            Self::Declared { .. } => "the media type in the manifest is wrong; the image must be made again".into(),
            Self::Write { .. } => "check the free space and inodes of the disk that takes the tree".into(),
            _ => return None,
        })
    }

    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Entry { .. } | Self::After { .. } | Self::Stream { .. } | Self::Declared { .. } => 3,
            Self::Read(_) => 4,
            Self::Write { .. } | Self::Root(_) | Self::Thread(_) => 6,
            Self::RootNotEmpty => 70,
        }
    }

    pub(super) fn entry(rule: Rule, name: &[u8]) -> Self {
        Self::Entry { rule, entry: escaped(name) }
    }

    /// Says where in the layer a header is bad.
    pub(super) fn after(self, name: &[u8]) -> Self {
        match self {
            Self::Stream { rule: rule @ (Rule::TarHeader | Rule::Pax | Rule::Sparse | Rule::XattrSize), .. } => {
                Self::After { rule, entry: escaped(name) }
            }
            other => other,
        }
    }

    pub(super) fn stream(rule: Rule) -> Self {
        Self::Stream { rule, source: None }
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
