//! Extended attributes of a file, as far as they belong in a layer.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr};

/// The extended attributes `user.*` (without overlayfs's own `user.overlay.*`) and `security.capability` of `path`. A
/// file capability that the kernel bound to a user namespace (revision 3) is converted to revision 2.
pub(super) fn read(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut names = [0_u8; 4096];
    let n = match llistxattr(path, &mut names) {
        Ok(n) => n,
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => 0,
        Err(e) => return Err(e.into()),
    };
    let mut xattrs = BTreeMap::new();
    for name in names[..n].split(|b| *b == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        if !(name.starts_with("user.") || name == "security.capability") || name.starts_with("user.overlay.") {
            continue;
        }
        let mut value = vec![0; 1 << 16];
        let n = lgetxattr(path, name, &mut value)?;
        value.truncate(n);
        xattrs.insert(name.to_owned(), if name == "security.capability" { plain_capability(value) } else { value });
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
