//! Where two commands that ran over the same trees disagree: files of which an image can have only one's.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use phial_layers::EntryPath;

use super::error::RootfsError;
use super::overwritten::is_same;
use super::view::{MergedDir, Node, View};
use crate::store::Tree;

/// The files and directories that two commands need and that the changes of one take from the other, sorted: it wrote
/// or saw them otherwise, and the changes replace or delete them. A new file of one of them is none, nor is what is at or below
/// the paths `apart`.
///
/// Both ran over `lowers` (topmost first), and `second` lies on `first`. The two are results of [`diff`](super::diff()).
pub fn disagreements(
    first: &Tree,
    second: &Tree,
    lowers: &[Tree],
    apart: &[PathBuf],
) -> Result<Vec<EntryPath>, RootfsError> {
    let view = |tree: &Tree| View::open(std::slice::from_ref(tree));
    let (first, second, lower) = (view(first)?, view(second)?, View::open(lowers)?);
    let root = MergedDirs { first: first.root()?, second: second.root()?, lower: lower.root()? };
    let mut walk = DisagreementWalk { first: &first, second: &second, lower: &lower, apart, found: vec![] };
    walk.dirs(Path::new(""), &root)?;
    Ok(walk.found)
}

struct DisagreementWalk<'a> {
    first: &'a View,
    second: &'a View,
    lower: &'a View,
    apart: &'a [PathBuf],
    found: Vec<EntryPath>,
}

/// One directory in the changes of both commands and in the trees below; empty where there is none.
struct MergedDirs {
    first: MergedDir,
    second: MergedDir,
    lower: MergedDir,
}

/// What one name stands for there.
struct Nodes {
    first: Option<Node>,
    second: Option<Node>,
    lower: Option<Node>,
}

impl DisagreementWalk<'_> {
    fn dirs(&mut self, path: &Path, dirs: &MergedDirs) -> Result<(), RootfsError> {
        let (mut first, mut second) = (self.first.list(&dirs.first)?, self.second.list(&dirs.second)?);
        let mut names: Vec<OsString> = first.keys().chain(second.keys()).cloned().collect();
        names.sort();
        names.dedup();
        for name in names {
            let path = path.join(&name);
            if !self.apart.contains(&path) {
                let lower = self.lower.child(&dirs.lower, &name)?.filter(|node| !matches!(node, Node::Whiteout));
                let nodes = Nodes { first: first.remove(&name), second: second.remove(&name), lower };
                self.nodes(&path, &nodes)?;
            }
        }
        Ok(())
    }

    fn nodes(&mut self, path: &Path, nodes: &Nodes) -> Result<(), RootfsError> {
        // What a command did not change is for it as it is below.
        let lower = nodes.lower.as_ref().map(|node| (self.lower, node));
        let first = nodes.first.as_ref().map(|node| (self.first, node));
        let (in_image, needed) = match &nodes.second {
            Some(second) => (Some((self.second, second)), first.or(lower)),
            None => (first, lower),
        };
        let (Some((image_view, in_image)), Some((view, needed))) = (in_image, needed) else { return Ok(()) };
        let agree = match (needed, in_image) {
            (Node::Dir { .. }, Node::Dir { .. }) => {
                let merged = |node: &Option<Node>| match node {
                    Some(Node::Dir { merged, .. }) => merged.clone(),
                    _ => MergedDir::new(),
                };
                let [first, second, lower] = [&nodes.first, &nodes.second, &nodes.lower].map(merged);
                return self.dirs(path, &MergedDirs { first, second, lower });
            }
            // What the second did not change of the directory is deleted with it.
            (Node::Whiteout, Node::Dir { .. }) => !matches!(nodes.lower, Some(Node::Dir { .. })),
            (Node::Whiteout, _) => true,
            (Node::Leaf(a), Node::Leaf(b)) => is_same((view.tree(a), &a.stat), (image_view.tree(b), &b.stat), path)?,
            _ => false,
        };
        if !agree {
            self.found.push(EntryPath::new(path.as_os_str().as_bytes()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    type Files = [(&'static str, &'static str)];

    /// A tree of files by path and text: `-` for a whiteout, `/` for an empty directory, `@` for a link.
    fn tree(dir: &Path, name: &str, files: &[(&str, &str)]) -> Tree {
        let root = dir.join(name);
        fs::create_dir(&root).unwrap();
        let tree = Tree::bare(&root);
        for (path, text) in files {
            let at = root.join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            match *text {
                "-" => tree.root.open().unwrap().create_whiteout(path).unwrap(),
                "/" => fs::create_dir(at).unwrap(),
                "@" => symlink("elsewhere", at).unwrap(),
                text => fs::write(at, text).unwrap(),
            }
        }
        tree
    }

    #[test]
    fn what_one_command_takes_from_the_other_is_found_whichever_it_is() {
        let lower = [("same", "1"), ("kept", "1"), ("dir/a", "1"), ("dir/b", "1"), ("link", "@")];
        // Changes of the first command and of the second, and what they disagree about.
        let cases: [(&Files, &Files, &[&str]); 16] = [
            (&[("new", "1")], &[("other", "2")], &[]),
            (&[("new/a", "1")], &[("new/b", "2")], &[]),
            (&[("new/a", "1")], &[("new/a", "2"), ("new/b", "2")], &["new/a"]),
            (&[("new/a", "1")], &[("new", "@")], &["new"]),
            (&[("new", "1")], &[("new", "1")], &[]),
            (&[("same", "2")], &[("same", "2")], &[]),
            (&[("same", "2")], &[], &["same"]),
            (&[("same", "-")], &[], &["same"]),
            (&[("same", "-")], &[("same", "-")], &[]),
            (&[("same", "-"), ("dir/a", "3")], &[("same", "2"), ("dir/a", "-")], &["dir/a"]),
            (&[("dir", "-")], &[], &["dir"]),
            (&[("dir", "-")], &[("dir/a", "2")], &["dir"]),
            (&[("dir", "text")], &[("new", "2")], &["dir"]),
            (&[("dir/new", "1")], &[("dir/b", "2")], &["dir/b"]),
            (&[("same/now-a-directory", "1"), ("link", "-")], &[], &["link", "same"]),
            (&[("apart/a", "1"), ("apart/b", "1")], &[("apart/a", "2")], &[]),
        ];
        for (nth, (one, other, expected)) in cases.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let lowers = [tree(dir.path(), "lower", &lower)];
            let (first, second) = (tree(dir.path(), "first", one), tree(dir.path(), "second", other));
            let apart = [PathBuf::from("apart")];
            let found = disagreements(&first, &second, &lowers, &apart).unwrap();
            let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(shown, expected, "case {nth}");
            if other.is_empty() {
                let found = disagreements(&second, &first, &lowers, &apart).unwrap();
                assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "case {nth} swapped");
            }
        }
    }
}
