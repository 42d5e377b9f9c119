//! Why a tree could not be packed.

use std::io;

use crate::escape::escaped;

/// Why a tree could not be packed. `entry` is a path in the tree, escaped for messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A socket or a device.
    #[error("`{entry}` is a {kind}, which a layer cannot hold")]
    Special {
        /// Its path.
        entry: String,
        /// `socket`, `block device` and so on.
        kind: &'static str,
    },
    /// A file named `.wh.*`: in a layer it would be a whiteout.
    #[error("the name of `{entry}` is reserved for whiteouts")]
    ReservedName {
        /// Its path.
        entry: String,
    },
    /// A path of more than 4095 bytes.
    #[error("the path of `{entry}` is too long for a layer")]
    NameTooLong {
        /// Its beginning.
        entry: String,
    },
    /// A file changed its size or type while it was read.
    #[error("`{entry}` changed while it was read")]
    Changed {
        /// Its path.
        entry: String,
    },
    /// A name of an extended attribute that a pax record cannot hold: empty, or with `=` or NUL.
    #[error("the extended attribute `{name}` of `{entry}` has a name that a tar cannot hold")]
    XattrName {
        /// The path of the file.
        entry: String,
        /// The name of the attribute.
        name: String,
    },
    /// The tree could not be read.
    #[error("cannot read `{entry}`")]
    Read {
        /// Its path; `/` is the root of the tree.
        entry: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The blob could not be written.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl PackError {
    /// A name of the error that scripts can match; it never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Special { .. } => "layer.special-file",
            Self::ReservedName { .. } => "layer.reserved-name",
            Self::NameTooLong { .. } => "layer.name-too-long",
            Self::Changed { .. } => "layer.changed",
            Self::XattrName { .. } => "layer.xattr-name",
            Self::Read { .. } => "layer.read",
            Self::Write(_) => "layer.write",
            Self::Thread(_) => "layer.thread",
        }
    }

    /// What the user can do, if anything.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Special { .. } => "remove it at the end of the script, or make it when the container starts".into(),
            Self::ReservedName { .. } => {
                "names that begin with `.wh.` mean deletions in a layer; rename the file".into()
            }
            Self::Changed { .. } => "a process of the script still runs; wait for it before the script ends".into(),
            Self::Write(_) => "check the free space of the disk that takes the layer".into(),
            _ => return None,
        })
    }

    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Special { .. } | Self::ReservedName { .. } | Self::NameTooLong { .. } | Self::Changed { .. } => 3,
            Self::Read { .. } | Self::Write(_) | Self::Thread(_) => 6,
            Self::XattrName { .. } => 70,
        }
    }

    pub(super) fn read(path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Read { entry: escaped(path), source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_a_code_an_exit_code_and_perhaps_a_hint() {
        let (entry, name) = (|| "f".to_owned(), "n".to_owned());
        let io = || io::Error::from(io::ErrorKind::StorageFull);
        for (error, code, exit_code, hint) in [
            (PackError::Special { entry: entry(), kind: "socket" }, "layer.special-file", 3, Some("remove it")),
            (
                PackError::ReservedName { entry: entry() },
                "layer.reserved-name",
                3,
                Some("names that begin with `.wh.`"),
            ),
            (PackError::NameTooLong { entry: entry() }, "layer.name-too-long", 3, None),
            (PackError::Changed { entry: entry() }, "layer.changed", 3, Some("a process of the script still runs")),
            (PackError::XattrName { entry: entry(), name }, "layer.xattr-name", 70, None),
            (PackError::read(b"f", Errno::ACCESS), "layer.read", 6, None),
            (PackError::Write(io()), "layer.write", 6, Some("check the free space")),
            (PackError::Thread(io()), "layer.thread", 6, None),
        ] {
            assert_eq!((error.code(), error.exit_code()), (code, exit_code));
            let begins = error.hint().zip(hint).map(|(text, start)| text.starts_with(start));
            assert_eq!((error.hint().is_some(), begins.unwrap_or(true)), (hint.is_some(), true), "{code}");
        }
        assert_eq!(PackError::read(b"a\n", Errno::ACCESS).to_string(), "cannot read `a\\n`");
    }

    use rustix::io::Errno;
}
