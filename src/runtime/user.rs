//! The user that a program of an image runs as.

use std::fs;
use std::path::Path;

use super::RuntimeError;
use crate::store::Tree;

/// A user of an image.
pub(crate) struct User {
    /// User and group.
    pub(crate) ids: (u32, u32),
    /// The home directory.
    pub(crate) home: String,
}

/// What the config's `User` means: numbers, or names of the image's `/etc/passwd` and `/etc/group` (image-spec, config.md).
pub(crate) fn user(trees: &[Tree], user: &str) -> Result<User, RuntimeError> {
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let passwd = read(trees, "etc/passwd");
    let by_number: Option<u32> = name.parse().ok();
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|line| line.len() >= 6 && (line[0] == name || by_number.is_some_and(|uid| line[2].parse() == Ok(uid))));
    let of_line = |at: usize| line.as_ref().and_then(|line| line[at].parse().ok());
    let uid = by_number.or_else(|| of_line(2)).ok_or_else(|| RuntimeError::UnknownUser(user.into()))?;
    let gid = match group {
        Some(group) => number_of(trees, group).ok_or_else(|| RuntimeError::UnknownUser(user.into()))?,
        None => of_line(3).unwrap_or(0),
    };
    let home = line.as_ref().map_or("/", |line| line[5]).to_owned();
    Ok(User { ids: (uid, gid), home })
}

fn number_of(trees: &[Tree], group: &str) -> Option<u32> {
    let groups = read(trees, "etc/group");
    let named = groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line[0] == group);
    group.parse().ok().or_else(|| named.and_then(|line| line.get(2)?.parse().ok()))
}

/// A small regular file of the image, or nothing.
fn read(trees: &[Tree], path: &str) -> String {
    let regular = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() < 1 << 20);
    let found = trees.iter().map(|tree| tree.root.join(path)).find(|path| regular(path));
    found.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
}
