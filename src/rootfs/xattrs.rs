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

/// The extended attributes `user.*` (without overlayfs's own `user.overlay.*`) and `security.capability` of the entry at
/// `path`. A file capability that the kernel bound to a user namespace (revision 3) is converted to revision 2.
pub(super) fn read(tree: &TreeDir, path: &Path) -> Result<BTreeMap<String, Vec<u8>>, RootfsError> {
    let mut xattrs = BTreeMap::new();
    for name in tree.xattr_names(path)? {
        let name = match name.into_string() {
            Ok(name) => name,
            Err(name) if name.as_bytes().starts_with(b"user.") => return Err(not_utf8(path, name)),
            Err(_) => continue,
        };
        if !(name.starts_with("user.") || name == "security.capability") || name.starts_with("user.overlay.") {
            continue;
        }
        if let Some(value) = tree.xattr(path, &name)? {
            let value = if name == "security.capability" { plain_capability(value) } else { value };
            xattrs.insert(name, value);
        }
    }
    Ok(xattrs)
}

fn not_utf8(path: &Path, name: OsString) -> RootfsError {
    RootfsError::XattrName { path: EntryPath::new(path.as_os_str().as_bytes()), name: name.into_vec() }
}

/// `stat` of an entry with the permissions that it has for its group if its ACL is left out; `None` if it has no ACL.
///
/// Of a file with an ACL, the mode has the mask for the group: what the ACL gives to anybody that it names (acl(5)).
pub(super) fn without_acl(tree: &TreeDir, path: &Path, stat: &EntryStat) -> Result<Option<EntryStat>, IoError> {
    let access = tree.xattr(path, ACCESS)?;
    let has_default = stat.is_directory() && tree.xattr(path, DEFAULT)?.is_some();
    let group = access.as_deref().and_then(group_permissions);
    let mode = group.map_or(stat.mode(), |group| (stat.mode() & !0o070) | (u32::from(group) << 3));
    Ok((access.is_some() || has_default).then(|| stat.with_mode(mode)))
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
