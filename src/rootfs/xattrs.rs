//! Extended attributes of a file, as far as they belong in a layer.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::IoError;
use crate::tree::TreeDir;

/// The extended attributes `user.*` (without overlayfs's own `user.overlay.*`) and `security.capability` of the entry at
/// `path`. A file capability that the kernel bound to a user namespace (revision 3) is converted to revision 2.
pub(super) fn read(tree: &TreeDir, path: &Path) -> Result<BTreeMap<String, Vec<u8>>, IoError> {
    let mut xattrs = BTreeMap::new();
    for name in tree.xattr_names(path)? {
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

/// `struct vfs_ns_cap_data` as `struct vfs_cap_data`, without the root id (linux/capability.h).
fn plain_capability(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value.truncate(20);
        value[3] = 2;
    }
    value
}
