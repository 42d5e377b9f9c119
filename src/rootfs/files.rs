//! The files of a root filesystem that is not assembled, as a process in it sees them: whiteouts, opaque directories and
//! symbolic links count.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::view::{MergedDir, Node, TreePath, View};
use crate::error::IoError;
use crate::store::Tree;
use crate::tree::{EntryStat, FileKind};

/// The most symbolic links on the way to a file, as Linux follows.
const MAX_LINKS: usize = 40;

/// The trees of an image, topmost first, open for looking up files.
pub struct ImageFiles {
    view: View,
}

/// What is done with a link that a path ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastLink {
    Followed,
    Kept,
}

impl ImageFiles {
    /// Opens the trees of an image, topmost first.
    pub fn open(trees: &[Tree]) -> Result<Self, IoError> {
        Ok(Self { view: View::open(trees)? })
    }

    /// The file at `path`, whose links are followed. Nothing for a link that leads nowhere or in a circle.
    pub fn find(&self, path: impl AsRef<Path>) -> Result<Option<ImageFile<'_>>, IoError> {
        self.walk(path.as_ref(), LastLink::Followed)
    }

    /// The file at `path`: a link if its last component is one.
    pub fn entry(&self, path: impl AsRef<Path>) -> Result<Option<ImageFile<'_>>, IoError> {
        self.walk(path.as_ref(), LastLink::Kept)
    }

    /// Whether one of the directories of a `PATH` has a file of this name.
    pub fn has_program(&self, path: &str, name: &str) -> bool {
        path.split(':').any(|dir| matches!(self.find(Path::new(dir).join(name)), Ok(Some(_))))
    }

    /// Walks to `path` from the root.
    fn walk(&self, path: &Path, last: LastLink) -> Result<Option<ImageFile<'_>>, IoError> {
        let mut dirs = vec![self.view.root()?];
        let mut rest: Vec<PathBuf> = components(path);
        let (mut links, mut searched) = (0, vec![]);
        while let Some(component) = rest.pop() {
            match component.components().next() {
                Some(Component::RootDir) => dirs.truncate(1),
                Some(Component::ParentDir) => dirs.truncate((dirs.len() - 1).max(1)),
                Some(Component::Normal(name)) => {
                    let parent = &dirs[dirs.len() - 1];
                    searched.extend(parent.first().cloned());
                    let Some(node) = self.view.child(parent, name)? else { return Ok(None) };
                    match node {
                        Node::Whiteout => return Ok(None),
                        Node::Dir { merged, .. } => dirs.push(merged),
                        Node::Leaf(leaf)
                            if leaf.stat.kind() == FileKind::Symlink
                                && (last == LastLink::Followed || !rest.is_empty()) =>
                        {
                            links += 1;
                            let target = self.view.tree(&leaf).read_link(&leaf.path)?;
                            let Some(target) = target.filter(|_| links <= MAX_LINKS) else { return Ok(None) };
                            rest.extend(components(Path::new(&target)));
                        }
                        Node::Leaf(leaf) => {
                            return Ok(rest
                                .is_empty()
                                .then(|| ImageFile { leaf: Some(leaf), ..self.file(dirs, searched) }));
                        }
                    }
                }
                Some(Component::CurDir | Component::Prefix(_)) | None => {}
            }
        }
        Ok(Some(self.file(dirs, searched)))
    }

    fn file(&self, dirs: Vec<MergedDir>, searched: Vec<TreePath>) -> ImageFile<'_> {
        ImageFile { view: &self.view, dirs, searched, leaf: None }
    }
}

/// The components of a path, the last one first.
fn components(path: &Path) -> Vec<PathBuf> {
    path.components().rev().map(|component| PathBuf::from(AsRef::<OsStr>::as_ref(&component))).collect()
}

/// A file or a directory of an image.
pub struct ImageFile<'files> {
    view: &'files View,
    /// The directories from the root to this file.
    dirs: Vec<MergedDir>,
    /// The directories in which the names of the path and of its links were looked up, in that order.
    searched: Vec<TreePath>,
    /// `None` if the last of the directories is meant.
    leaf: Option<TreePath>,
}

/// Where a file or a directory of an image is, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct ImagePath<'file> {
    /// The tree that shows it, as an index: 0 is the topmost.
    pub tree: usize,
    /// Its path in that tree and in the image, without links.
    pub path: &'file Path,
    /// What it is.
    pub stat: EntryStat,
}

impl ImageFile<'_> {
    /// What it is.
    pub fn stat(&self) -> EntryStat {
        self.at().stat
    }

    /// The tree that shows it, as an index: 0 is the topmost.
    pub fn tree(&self) -> usize {
        self.at().tree
    }

    /// Where it is.
    pub fn path(&self) -> ImagePath<'_> {
        image_path(self.at())
    }

    /// The directories on the way to it and to what its links lead to, in the order in which they are searched.
    pub fn searched(&self) -> impl Iterator<Item = ImagePath<'_>> {
        self.searched.iter().map(image_path)
    }

    /// Its text; `None` if it is no regular file or not UTF-8. More than `limit` bytes are an error.
    pub fn read_text(&self, limit: u64) -> Result<Option<String>, IoError> {
        let at = self.at();
        self.view.tree(at).read_text(&at.path, limit)
    }

    fn at(&self) -> &TreePath {
        self.leaf.as_ref().unwrap_or_else(|| &self.dirs[self.dirs.len() - 1][0])
    }
}

fn image_path(at: &TreePath) -> ImagePath<'_> {
    ImagePath { tree: at.tree, path: &at.path, stat: at.stat }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two trees: the upper one deletes, hides and replaces what the lower one has.
    fn image(dir: &Path) -> Vec<Tree> {
        let (upper, lower) = (dir.join("upper"), dir.join("lower"));
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for path in ["etc/passwd", "etc/deleted", "srv/hidden", "opt/replaced/file", "usr/lib/os-release", "usr/bin/sh"]
        {
            write(lower.join(path), path);
        }
        write(upper.join("etc/group"), "group");
        write(upper.join("srv/shown"), "shown");
        write(upper.join("opt/replaced"), "a file");
        let opaque = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(upper.join("srv"), "user.overlay.opaque", b"y", opaque).unwrap();
        let kind = rustix::fs::FileType::CharacterDevice;
        let deleted = upper.join("etc/deleted");
        rustix::fs::mknodat(rustix::fs::CWD, &deleted, kind, rustix::fs::Mode::empty(), 0).unwrap();
        for (target, link) in [
            ("usr/bin", "bin"),
            ("../usr/lib/os-release", "etc/os-release"),
            ("/../../../etc/passwd", "etc/outside"),
            ("circle", "etc/circle"),
            ("deleted", "etc/dangling"),
        ] {
            symlink(target, upper.join(link)).unwrap();
        }
        vec![Tree::bare(&upper), Tree::bare(&lower)]
    }

    #[test]
    fn a_file_is_found_as_a_process_in_the_image_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let trees = image(dir.path());
        let files = ImageFiles::open(&trees).unwrap();
        let text = |path: &str| files.find(path).unwrap().and_then(|file| file.read_text(100).unwrap());
        for (path, expected) in [
            ("etc/passwd", Some("etc/passwd")),
            ("/etc/passwd", Some("etc/passwd")),
            ("etc/group", Some("group")),
            ("etc/deleted", None),
            ("etc/dangling", None),
            ("etc/circle", None),
            ("srv/shown", Some("shown")),
            ("srv/hidden", None),
            ("opt/replaced", Some("a file")),
            ("opt/replaced/file", None),
            ("etc/os-release", Some("usr/lib/os-release")),
            ("etc/outside", Some("etc/passwd")),
            ("bin/sh", Some("usr/bin/sh")),
            ("bin/../../etc/group", Some("group")),
            ("bin/../lib/os-release", Some("usr/lib/os-release")),
            ("etc", None),
            ("absent/file", None),
        ] {
            assert_eq!(text(path).as_deref(), expected, "{path}");
        }
        assert!(files.find("etc").unwrap().is_some_and(|file| file.stat().is_directory()));
        assert!(files.find("/").unwrap().is_some_and(|file| file.stat().is_directory()));
        assert!(files.has_program("/sbin:/bin", "sh"));
        assert!(!files.has_program("/etc", "deleted"));
    }

    #[test]
    fn an_entry_is_the_link_itself_in_the_topmost_tree() {
        let dir = tempfile::tempdir().unwrap();
        let trees = image(dir.path());
        let files = ImageFiles::open(&trees).unwrap();
        let entry = |path: &str| files.entry(path).unwrap().map(|file| (file.tree(), file.stat().kind()));
        assert_eq!(entry("etc/os-release"), Some((0, FileKind::Symlink)));
        assert_eq!(entry("bin/sh"), Some((1, FileKind::File)));
        assert_eq!(entry("etc/deleted"), None);
        assert_eq!(entry("etc"), Some((0, FileKind::Dir)));
    }

    #[test]
    fn a_name_is_what_the_list_of_its_directory_says() {
        let dir = tempfile::tempdir().unwrap();
        let trees = image(dir.path());
        let view = View::open(&trees).unwrap();
        let mut dirs = vec![view.root().unwrap()];
        let mut seen = 0;
        while let Some(parent) = dirs.pop() {
            for (name, listed) in view.list(&parent).unwrap() {
                let child = view.child(&parent, &name).unwrap();
                let shown = |node: &Node| match node {
                    Node::Dir { merged, opaque } => {
                        format!("{:?} {opaque}", merged.iter().map(|at| at.tree).collect::<Vec<_>>())
                    }
                    Node::Leaf(at) => format!("{} {:?}", at.tree, at.path),
                    Node::Whiteout => "whiteout".to_owned(),
                };
                assert_eq!(child.as_ref().map(shown), Some(shown(&listed)), "{name:?}");
                seen += 1;
                if let Node::Dir { merged, .. } = listed {
                    dirs.push(merged);
                }
            }
        }
        assert!(seen > 15, "{seen}");
    }
}
