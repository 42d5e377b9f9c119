//! The user of an image's config as ids.

use super::RuntimeError;
use crate::error::Error;
use crate::rootfs::ImageFiles;
use crate::store::Tree;

/// The largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A user in an image.
pub(crate) struct User {
    /// User id and group id.
    pub(crate) ids: (u32, u32),
    /// The groups of `/etc/group` that list the user.
    pub(crate) groups: Vec<u32>,
    /// The home directory; `/` if `/etc/passwd` does not have the user.
    pub(crate) home: String,
}

/// Resolves the config's `User`: ids, or names in the image's `/etc/passwd` and `/etc/group` (image-spec, config.md).
/// `trees` are the image's, topmost first.
pub(crate) fn user(trees: &[Tree], user: &str) -> Result<User, Error> {
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let files = ImageFiles::open(trees)?;
    let passwd = read(&files, "etc/passwd")?;
    let by_number: Option<u32> = name.parse().ok();
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|line| line.len() >= 6 && (line[0] == name || by_number.is_some_and(|uid| line[2].parse() == Ok(uid))));
    let field = |at: usize| line.as_ref().and_then(|line| line[at].parse().ok());
    let uid = by_number.or_else(|| field(2)).ok_or_else(|| RuntimeError::UnknownUser(user.into()))?;
    let gid = match group {
        Some(group) => group_id(&files, group)?.ok_or_else(|| RuntimeError::UnknownUser(user.into()))?,
        None => field(3).unwrap_or(0),
    };
    let home = line.as_ref().map_or("/", |line| line[5]).to_owned();
    let groups = groups_of(&files, line.as_ref().map_or(name, |line| line[0]))?;
    Ok(User { ids: (uid, gid), groups, home })
}

/// The id of a group: a number, or a name in `/etc/group`.
fn group_id(files: &ImageFiles, group: &str) -> Result<Option<u32>, Error> {
    let groups = read(files, "etc/group")?;
    let named = groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line[0] == group);
    Ok(group.parse().ok().or_else(|| named.and_then(|line| line.get(2)?.parse().ok())))
}

/// The groups of which a user, given by name, is a member.
fn groups_of(files: &ImageFiles, name: &str) -> Result<Vec<u32>, Error> {
    let groups = read(files, "etc/group")?;
    let of_line = |line: &str| match line.split(':').collect::<Vec<_>>()[..] {
        [_, _, id, members] if members.split(',').any(|member| member == name) => id.parse().ok(),
        _ => None,
    };
    Ok(groups.lines().filter_map(of_line).collect())
}

/// The text of the regular file at `path`; empty if there is none.
fn read(files: &ImageFiles, path: &str) -> Result<String, Error> {
    let text = files.find(path)?.map(|file| file.read_text(MAX_FILE)).transpose()?;
    Ok(text.flatten().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// A tree with users and groups in `etc`.
    fn base(root: &Path) -> Tree {
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nlogs:x:9:\n").unwrap();
        Tree::bare(root)
    }

    #[test]
    fn a_user_is_an_id_or_a_name_with_or_without_a_group() {
        let dir = tempfile::tempdir().unwrap();
        let trees = [base(dir.path())];
        for (text, ids, home) in [
            ("", (0, 0), "/root"),
            ("app", (7, 8), "/home/app"),
            ("7", (7, 8), "/home/app"),
            ("app:logs", (7, 9), "/home/app"),
            ("app:5", (7, 5), "/home/app"),
            ("65532", (65532, 0), "/"),
            ("65532:65532", (65532, 65532), "/"),
        ] {
            let found = user(&trees, text).unwrap();
            assert_eq!((found.ids, found.home.as_str()), (ids, home), "{text}");
        }
        for text in ["nobody", "app:nobody", "-1"] {
            assert!(user(&trees, text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_files_are_those_that_the_image_shows() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        let lower = base(&lower);
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::write(upper.join("users"), "linked:x:3:4::/:\n").unwrap();
        symlink("../users", upper.join("etc/passwd")).unwrap();
        let kind = rustix::fs::FileType::CharacterDevice;
        let group = upper.join("etc/group");
        rustix::fs::mknodat(rustix::fs::CWD, &group, kind, rustix::fs::Mode::empty(), 0).unwrap();
        let trees = [Tree::bare(&upper), lower];
        assert_eq!(user(&trees, "linked").unwrap().ids, (3, 4));
        assert!(user(&trees, "app").is_err(), "a user of the file that is replaced");
        assert!(user(&trees, "linked:logs").is_err(), "a group of the file that is deleted");
    }
}
