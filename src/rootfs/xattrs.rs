//! Extended attributes of a file, as far as they belong in a layer, and what an access control list (ACL) means without them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use phial_layers::EntryPath;

use super::error::RootfsError;
use crate::error::IoError;
use crate::tree::{EntryStat, TreeDir};

/// The attributes that hold ACLs: that of a file or directory, and that of what is made in a directory.
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Types of an ACL's entries (`linux/posix_acl.h`).
const GROUP_OWNER: u16 = 0x04;
const MASK: u16 = 0x10;

/// What the extended attributes of an entry say.
pub(super) struct Xattrs {
    /// Those that belong in a layer: `user.*` (without overlayfs's own `user.overlay.*`) and `security.capability`. A file capability
    /// that the kernel bound to a user namespace (revision 3) is converted to revision 2.
    pub(super) kept: BTreeMap<String, Vec<u8>>,
    /// What its ACL means for the mode.
    pub(super) acl: Option<Acl>,
}

/// An ACL that is left out.
pub(super) struct Acl {
    /// The permissions of the group that owns the file, if the ACL has a mask: then the mode has the mask in their place,
    /// which is what the ACL gives to anybody that it names (acl(5)).
    group: Option<u16>,
}

impl Acl {
    /// `stat` with the permissions that the entry has without its ACL.
    pub(super) fn removed_from(&self, stat: EntryStat) -> EntryStat {
        let mode = self.group.map_or(stat.mode(), |group| (stat.mode() & !0o070) | (u32::from(group) << 3));
        stat.with_mode(mode)
    }
}

/// Reads the extended attributes of the entry at `path`.
pub(super) fn read(tree: &TreeDir, path: &Path) -> Result<Xattrs, RootfsError> {
    let (mut kept, mut acl) = (BTreeMap::new(), None);
    for name in tree.xattr_names(path)? {
        let name = match name.into_string() {
            Ok(name) => name,
            Err(name) if name.as_bytes().starts_with(b"user.") => return Err(not_utf8(path, name)),
            Err(_) => continue,
        };
        let is_kept =
            (name.starts_with("user.") || name == "security.capability") && !name.starts_with("user.overlay.");
        if !is_kept && name != ACCESS && name != DEFAULT {
            continue;
        }
        let Some(value) = tree.xattr(path, &name)? else { continue };
        match name.as_str() {
            ACCESS => acl = Some(Acl { group: group_permissions(&value) }),
            DEFAULT => acl = acl.or(Some(Acl { group: None })),
            "security.capability" => drop(kept.insert(name, plain_capability(value))),
            _ => drop(kept.insert(name, value)),
        }
    }
    Ok(Xattrs { kept, acl })
}

fn not_utf8(path: &Path, name: OsString) -> RootfsError {
    RootfsError::XattrName { path: EntryPath::new(path.as_os_str().as_bytes()), name: name.into_vec() }
}

/// Removes the ACL of a file, whose mode stays.
pub(super) fn remove_acl(tree: &TreeDir, path: &Path) -> Result<(), IoError> {
    tree.remove_xattr(path, ACCESS)
}

/// The permissions of the group that owns the file, by an ACL that has a mask: its entry, as far as the mask allows it.
fn group_permissions(acl: &[u8]) -> Option<u16> {
    // A version of four bytes, then entries of type, permissions (two bytes each) and id (four), all little-endian.
    let entries = acl.get(4..)?.chunks_exact(8);
    let number = |entry: &[u8], at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
    let find = |kind| entries.clone().find(|entry| number(entry, 0) == kind).map(|entry| number(entry, 2) & 0o7);
    Some(find(GROUP_OWNER)? & find(MASK)?)
}

/// `struct vfs_ns_cap_data` as `struct vfs_cap_data`, without the root id (linux/capability.h).
fn plain_capability(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value.truncate(20);
        value[3] = 2;
    }
    value
}
