//! Whether the user of an image reaches the program that its command starts. In a sandbox of one id all files belong to this
//! user; the owners of an image are in the metadata of its layers only.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use phial_layers::{EntryMetadata, EntryPath};
use serde::{Deserialize, Serialize};

use super::{RuntimeError, User, environment, user};
use crate::error::{Error, IoError};
use crate::image::{DEFAULT_PATH, Image};
use crate::rootfs::{ImageFiles, ImagePath};
use crate::store::Tree;

/// What closes the way to a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessDenied {
    /// The program, by its path before links are followed.
    pub program: String,
    /// The absolute path of a directory on the way, or of the program itself.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// What first denies the user of an image the program of its command, or one of `other_programs`, which
/// this starts by name. None for what the image does not have: it may be mounted. `trees` are the image's, topmost first.
pub(crate) fn access_denied(
    image: &Image,
    trees: &[Tree],
    other_programs: &[&str],
) -> Result<Option<AccessDenied>, Error> {
    let config = &image.config.config;
    let Some(command) = config.entrypoint.first().or(config.cmd.first()) else { return Ok(None) };
    let who = match user(trees, &config.user) {
        Err(error) if matches!(error.downcast_ref(), Some(RuntimeError::UnknownUser(_))) => return Ok(None),
        who => who?,
    };
    let (files, env) = (ImageFiles::open(trees)?, environment(image));
    let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let search = ProgramSearch { files: &files, trees, who: &who, path, cwd: &config.working_dir };
    for program in [command.as_str()].iter().chain(other_programs) {
        if let Some(denied) = search.access_denied(program)? {
            return Ok(Some(denied));
        }
    }
    Ok(None)
}

/// Where a program is looked for, and for which user.
struct ProgramSearch<'a> {
    files: &'a ImageFiles,
    trees: &'a [Tree],
    who: &'a User,
    /// The directories in which a program without a slash in its name is looked for.
    path: &'a str,
    cwd: &'a str,
}

impl ProgramSearch<'_> {
    /// What denies the program, if each directory that has it is denied.
    fn access_denied(&self, program: &str) -> Result<Option<AccessDenied>, IoError> {
        let root = Path::new("/").join(self.cwd);
        let dirs = if program.contains('/') { vec![""] } else { self.path.split(':').collect() };
        let mut first = None;
        for dir in dirs {
            let program = root.join(dir).join(program);
            let Some(file) = self.files.find(&program)?.filter(|file| file.stat().is_regular_file()) else { continue };
            let closed = file.searched().chain([file.path()]).find(|at| !self.may_execute(at));
            let Some(at) = closed else { return Ok(None) };
            first = first.or_else(|| {
                Some(AccessDenied {
                    program: program.display().to_string(),
                    path: Path::new("/").join(at.path).display().to_string(),
                    mode: self.mode(&at),
                    is_directory: at.stat.is_directory(),
                })
            });
        }
        Ok(first)
    }

    /// What the tree records of an entry beside its files.
    fn metadata(&self, at: &ImagePath<'_>) -> EntryMetadata {
        self.trees[at.tree].metadata.of(&EntryPath::new(at.path.as_os_str().as_bytes()))
    }

    fn mode(&self, at: &ImagePath<'_>) -> u32 {
        self.metadata(at).mode.unwrap_or_else(|| at.stat.mode())
    }

    /// Whether the user may enter a directory or execute a file (`path_resolution(7)`). Access control lists are not read:
    /// what has one is taken for open. So is the root directory, which each runtime makes in its own way.
    fn may_execute(&self, at: &ImagePath<'_>) -> bool {
        let metadata = self.metadata(at);
        let (uid, gid) = self.who.ids;
        let is_entered = at.path.as_os_str().is_empty() || (uid == 0 && at.stat.is_directory());
        if is_entered || metadata.xattrs.contains_key("system.posix_acl_access") {
            return true;
        }
        let bits = if uid == 0 {
            0o111
        } else if metadata.uid == uid {
            0o100
        } else if metadata.gid == gid || self.who.groups.contains(&metadata.gid) {
            0o010
        } else {
            0o001
        };
        self.mode(at) & bits != 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use phial_layers::EntryMetadata;

    use super::*;
    use crate::image::{ImageOptions, Platform, assemble};

    fn image(user: &str, path: &str, command: &str) -> Image {
        let options = ImageOptions {
            created: 0,
            entrypoint: None,
            cmd: Some(vec![command.to_owned()]),
            env: [("PATH".to_owned(), path.to_owned())].into(),
            working_dir: Some("/app".into()),
            user: Some(user.into()),
            labels: [].into(),
            annotations: [].into(),
        };
        assemble(&Image::scratch(&Platform::host()), &[], &options)
    }

    /// `/root` (0700) with a program, `/opt/tools` (0750 for the group 7) with another, `/usr/bin` with links to both and a file.
    fn tree(root: &Path) -> Tree {
        let write = |path: &str, mode: u32| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("root/tools/bin/mix", 0o755);
        write("opt/tools/elixir", 0o755);
        write("usr/bin/true", 0o755);
        write("usr/bin/own", 0o700);
        write("app/text", 0o644);
        write("etc/passwd", 0o644);
        fs::write(root.join("etc/passwd"), "app:x:5:5::/:/bin/sh\n").unwrap();
        write("etc/group", 0o644);
        fs::write(root.join("etc/group"), "tools:x:7:other,app\n").unwrap();
        symlink("/root/tools/bin/mix", root.join("usr/bin/mix")).unwrap();
        symlink("opt", root.join("away")).unwrap();
        fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700)).unwrap();
        let mut tree = Tree::bare(root);
        let tools = EntryMetadata { gid: 7, mode: Some(0o750), ..EntryMetadata::default() };
        tree.metadata.0.insert(EntryPath::new(b"opt/tools"), tools);
        let own = EntryMetadata { uid: 5, ..EntryMetadata::default() };
        tree.metadata.0.insert(EntryPath::new(b"usr/bin/own"), own);
        tree
    }

    #[test]
    fn each_directory_on_the_way_must_be_open_to_the_user() {
        let dir = tempfile::tempdir().unwrap();
        let trees = [tree(dir.path())];
        let found = |user: &str, path: &str, command: &str| {
            let found = access_denied(&image(user, path, command), &trees, &[]).unwrap();
            found.map(|found| (found.path, found.mode, found.is_directory))
        };
        let root = Some(("/root".to_owned(), 0o700, true));
        for (user, path, command, expected) in [
            ("9:9", "/usr/bin", "mix", root.clone()),
            ("9:9", "/root/tools/bin", "mix", root.clone()),
            ("9:9", "/usr/bin", "/usr/bin/mix", root.clone()),
            ("9:9", "/usr/bin", "../usr/bin/mix", root),
            ("0", "/usr/bin", "mix", None),
            ("9:9", "/usr/bin", "true", None),
            ("9:9", "/root/tools/bin:/usr/bin", "true", None),
            ("9:9", "/opt/tools", "elixir", Some(("/opt/tools".to_owned(), 0o750, true))),
            ("9:9", "/away/tools", "elixir", Some(("/opt/tools".to_owned(), 0o750, true))),
            ("9:7", "/opt/tools", "elixir", None),
            ("app", "/opt/tools", "elixir", None),
            ("app", "/usr/bin", "own", None),
            ("9:9", "/usr/bin", "own", Some(("/usr/bin/own".to_owned(), 0o700, false))),
            ("0", "/usr/bin", "./text", Some(("/app/text".to_owned(), 0o644, false))),
            ("9:9", "/usr/bin:/root", "absent", None),
            ("nobody", "/usr/bin", "mix", None),
        ] {
            assert_eq!(found(user, path, command), expected, "{user} {path} {command}");
        }
        let mix = access_denied(&image("9:9", "/usr/bin", "true"), &trees, &["mix"]).unwrap().unwrap();
        assert_eq!((mix.program.as_str(), mix.path.as_str()), ("/usr/bin/mix", "/root"));
    }
}
