//! The user of an image's config as ids.

use super::RuntimeError;
use crate::error::Error;
use crate::store::Tree;

/// The largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A user in an image.
pub(crate) struct User {
    /// User id and group id.
    pub(crate) ids: (u32, u32),
    /// The home directory; `/` if `/etc/passwd` does not have the user.
    pub(crate) home: String,
}

/// Resolves the config's `User`: ids, or names in the image's `/etc/passwd` and `/etc/group` (image-spec, config.md).
/// `trees` are the image's, topmost first.
pub(crate) fn user(trees: &[Tree], user: &str) -> Result<User, Error> {
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let passwd = read(trees, "etc/passwd")?;
    let by_number: Option<u32> = name.parse().ok();
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|line| line.len() >= 6 && (line[0] == name || by_number.is_some_and(|uid| line[2].parse() == Ok(uid))));
    let field = |at: usize| line.as_ref().and_then(|line| line[at].parse().ok());
    let uid = by_number.or_else(|| field(2)).ok_or_else(|| RuntimeError::UnknownUser(user.into()))?;
    let gid = match group {
        Some(group) => group_id(trees, group)?.ok_or_else(|| RuntimeError::UnknownUser(user.into()))?,
        None => field(3).unwrap_or(0),
    };
    let home = line.as_ref().map_or("/", |line| line[5]).to_owned();
    Ok(User { ids: (uid, gid), home })
}

/// The id of a group: a number, or a name in `/etc/group`.
fn group_id(trees: &[Tree], group: &str) -> Result<Option<u32>, Error> {
    let groups = read(trees, "etc/group")?;
    let named = groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line[0] == group);
    Ok(group.parse().ok().or_else(|| named.and_then(|line| line.get(2)?.parse().ok())))
}

/// The text of the topmost regular file at `path`; empty if there is none.
fn read(trees: &[Tree], path: &str) -> Result<String, Error> {
    for tree in trees {
        if let Some(text) = tree.root.open()?.read_text(path, MAX_FILE)? {
            return Ok(text);
        }
    }
    Ok(String::new())
}
