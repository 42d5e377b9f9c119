//! The files of a commit (or of an image's app) with their symbolic links, and where a path leads in them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// As many links are followed for one path as Linux follows (`MAXSYMLINKS`).
pub(super) const MAX_LINKS: usize = 40;

/// A file of the app's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path in the repository.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: SourceKind,
}

/// What a file of the app's source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A regular file.
    File,
    /// A regular file with the executable bit.
    Executable,
    /// A symbolic link to this target.
    Link(Vec<u8>),
    /// A submodule, which is an empty directory.
    Submodule,
}

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// To something that is no directory and no link.
    File,
    /// To a directory.
    Dir,
    /// To nothing.
    Missing,
    /// Out of the commit: a link is absolute, has too many `..`, or leads to itself.
    Outside,
}

/// A path after all links.
pub(super) struct ResolvedPath {
    pub(super) found: Found,
    /// The path without links.
    pub(super) path: Vec<u8>,
    /// The links on the way.
    pub(super) links: BTreeSet<Vec<u8>>,
}

/// The files by path.
pub(super) struct SourceTree<'a> {
    files: BTreeMap<&'a [u8], &'a SourceKind>,
}

impl<'a> SourceTree<'a> {
    pub(super) fn new(files: &'a [SourceFile]) -> Self {
        Self { files: files.iter().map(|file| (file.path.as_slice(), &file.kind)).collect() }
    }

    /// The file at exactly this path, which may be a link.
    pub(super) fn kind(&self, path: &[u8]) -> Option<&'a SourceKind> {
        self.files.get(path).copied()
    }

    /// The files below a directory (empty for the root), sorted: path and kind.
    pub(super) fn below(&self, dir: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a SourceKind)> {
        let prefix = if dir.is_empty() { vec![] } else { [dir, b"/"].concat() };
        let range = self.files.range::<[u8], _>((Bound::Included(prefix.as_slice()), Bound::Unbounded));
        let files: Vec<_> = range.take_while(|(path, _)| path.starts_with(&prefix)).map(|(p, k)| (*p, *k)).collect();
        files.into_iter()
    }

    /// Whether a path leads to a file or a directory.
    pub(super) fn exists(&self, path: &[u8]) -> bool {
        matches!(self.resolve(path).found, Found::File | Found::Dir)
    }

    /// Follows a path with all its links.
    pub(super) fn resolve(&self, path: &[u8]) -> ResolvedPath {
        let mut rest: VecDeque<Vec<u8>> = parts(path).collect();
        let mut real: Vec<Vec<u8>> = vec![];
        let mut links = BTreeSet::new();
        let mut followed = 0;
        let mut found = Found::Dir;
        while let Some(part) = rest.pop_front() {
            if part == b".." {
                if real.pop().is_none() {
                    return ResolvedPath { found: Found::Outside, path: vec![], links };
                }
                found = Found::Dir;
                continue;
            }
            real.push(part);
            let at = real.join(&b'/');
            found = match self.kind(&at) {
                Some(SourceKind::Link(target)) => {
                    followed += 1;
                    links.insert(at);
                    if followed > MAX_LINKS || target.starts_with(b"/") {
                        return ResolvedPath { found: Found::Outside, path: vec![], links };
                    }
                    real.pop();
                    for part in parts(target).collect::<Vec<_>>().into_iter().rev() {
                        rest.push_front(part);
                    }
                    Found::Dir
                }
                Some(SourceKind::Submodule) => Found::Dir,
                Some(_) if rest.is_empty() => Found::File,
                None if self.is_dir(&at) => Found::Dir,
                Some(_) | None => return ResolvedPath { found: Found::Missing, path: at, links },
            };
        }
        ResolvedPath { found, path: real.join(&b'/'), links }
    }

    fn is_dir(&self, path: &[u8]) -> bool {
        let prefix = [path, b"/"].concat();
        let mut range = self.files.range::<[u8], _>((Bound::Included(prefix.as_slice()), Bound::Unbounded));
        range.next().is_some_and(|(path, _)| path.starts_with(&prefix))
    }
}

/// The components of a path, without those that mean nothing.
fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Files by path; a name that ends with `*` is executable, with `/` a submodule, `a -> b` is a link.
    pub(in crate::recipe) fn files(paths: &[&str]) -> Vec<SourceFile> {
        let file = |text: &&str| {
            let (path, kind) = match text.split_once(" -> ") {
                Some((path, target)) => (path, SourceKind::Link(target.into())),
                None => match (text.strip_suffix('*'), text.strip_suffix('/')) {
                    (Some(path), _) => (path, SourceKind::Executable),
                    (_, Some(path)) => (path, SourceKind::Submodule),
                    _ => (*text, SourceKind::File),
                },
            };
            SourceFile { path: path.into(), kind }
        };
        paths.iter().map(file).collect()
    }

    #[test]
    fn a_path_is_followed_through_links_of_every_kind() {
        let files = files(&[
            "infra/settings/config.exs",
            "infra/alias -> ./settings/",
            "config -> infra/alias",
            "apps/x -> ../libs/x",
            "libs/x/mix.exs -> ../../build/mix.exs",
            "build/mix.exs",
            "a -> b",
            "b -> a",
            "out -> ../elsewhere",
            "absolute -> /etc/passwd",
            "nowhere -> gone",
            "root -> .",
        ]);
        let tree = SourceTree::new(&files);
        let links = |resolved: &ResolvedPath| {
            resolved.links.iter().map(|link| String::from_utf8(link.clone()).unwrap()).collect::<Vec<_>>().join(" ")
        };
        for (path, found, real, on_the_way) in [
            ("config/config.exs", Found::File, "infra/settings/config.exs", "config infra/alias"),
            ("config", Found::Dir, "infra/settings", "config infra/alias"),
            ("apps/x/mix.exs", Found::File, "build/mix.exs", "apps/x libs/x/mix.exs"),
            ("root/root/build/mix.exs", Found::File, "build/mix.exs", "root"),
            ("", Found::Dir, "", ""),
            ("a", Found::Outside, "", "a b"),
            ("out/x", Found::Outside, "", "out"),
            ("absolute", Found::Outside, "", "absolute"),
            ("nowhere", Found::Missing, "gone", "nowhere"),
            ("build/mix.exs/x", Found::Missing, "build/mix.exs", ""),
            ("gone", Found::Missing, "gone", ""),
        ] {
            let resolved = tree.resolve(path.as_bytes());
            assert_eq!((resolved.found, resolved.path.as_slice()), (found, real.as_bytes()), "{path}");
            assert_eq!(links(&resolved), on_the_way, "{path}");
        }
    }
}
