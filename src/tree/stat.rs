//! What an entry of a tree is.

use rustix::fs::{FileType, Stat, major, minor};

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A whiteout of overlayfs: a character device 0:0.
    Whiteout,
    /// A socket or a device.
    Special,
}

/// The metadata of an entry, of a link itself and not of what it points to.
#[derive(Clone, Copy, Debug)]
pub struct EntryStat(Stat);

impl EntryStat {
    pub(super) fn new(stat: Stat) -> Self {
        Self(stat)
    }

    /// The type.
    pub fn kind(&self) -> FileKind {
        match FileType::from_raw_mode(self.0.st_mode) {
            FileType::Directory => FileKind::Dir,
            FileType::RegularFile => FileKind::File,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Fifo,
            FileType::CharacterDevice if (major(self.0.st_rdev), minor(self.0.st_rdev)) == (0, 0) => FileKind::Whiteout,
            _ => FileKind::Special,
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind() == FileKind::Dir
    }

    /// Whether it is a regular file.
    pub fn is_regular_file(&self) -> bool {
        self.kind() == FileKind::File
    }

    /// Permissions with the setuid, setgid and sticky bits.
    pub fn mode(&self) -> u32 {
        self.0.st_mode & 0o7777
    }

    /// The same with other permissions.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.0.st_mode = (self.0.st_mode & !0o7777) | (mode & 0o7777);
        self
    }

    /// The owner's user id.
    pub fn uid(&self) -> u32 {
        self.0.st_uid
    }

    /// The owner's group id.
    pub fn gid(&self) -> u32 {
        self.0.st_gid
    }

    /// The number of the inode in its file system.
    pub fn inode(&self) -> u64 {
        self.0.st_ino
    }

    /// Bytes of a regular file.
    pub fn size(&self) -> u64 {
        u64::try_from(self.0.st_size).unwrap_or(0)
    }

    /// Modification time, in seconds and nanoseconds since 1970.
    pub fn mtime(&self) -> (i64, i64) {
        (number(self.0.st_mtime), number(self.0.st_mtime_nsec))
    }

    /// When the inode changed last, in seconds and nanoseconds since 1970. No program can set it.
    pub fn ctime(&self) -> (i64, i64) {
        (number(self.0.st_ctime), number(self.0.st_ctime_nsec))
    }
}

/// A field of a time, whose type differs between architectures.
fn number(field: impl TryInto<i64>) -> i64 {
    field.try_into().unwrap_or(0)
}
