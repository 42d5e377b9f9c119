//! The tree of a commit as a sorted list, each name judged before anything is written.

use std::collections::BTreeSet;

use git2::{ObjectType, Oid, Repository};
use phial_layers::EntryPath;

use super::error::SourceError;
use super::{Fetched, Objects};

/// More entries than a repository has in earnest; a tree that repeats itself reaches billions in a few kilobytes.
const MAX_ENTRIES: usize = 1_000_000;
/// Directories below each other; each holds a descriptor open during the checkout.
const MAX_DEPTH: usize = 128;
/// libgit2 holds a blob in memory as a whole.
const MAX_BLOB: usize = 1 << 30;
/// The most that [`read_file`] returns.
const MAX_READ: usize = 1 << 20;

/// One entry of a commit that is not a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its path from the root of the repository.
    pub name: EntryPath,
    /// What it is.
    pub mode: Mode,
    /// SHA-1 of its blob (of the commit, for a submodule): 40 lower-case hex digits.
    pub id: String,
}

/// What an entry of a tree is: all that git records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// A regular file, 0644.
    File,
    /// A regular file, 0755.
    Executable,
    /// A symbolic link.
    Symlink,
    /// A commit of another repository: an empty directory here.
    Submodule,
}

/// All files, links and submodules of the commit, sorted by the bytes of their paths.
pub fn list(fetched: &Fetched) -> Result<Vec<Entry>, SourceError> {
    fetched.healed(fetched.objects.list(&fetched.repo(), fetched.oid))
}

/// The bytes of the regular file `path` of the commit. `None` if there is none. At most 1 MiB.
pub fn read_file(fetched: &Fetched, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
    fetched.healed(read(fetched, path))
}

fn read(fetched: &Fetched, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
    let objects = &fetched.objects;
    let repo = fetched.repo();
    let mut tree = objects.root(&repo, fetched.oid)?;
    let (dirs, file) = path.rsplit_once('/').unwrap_or(("", path));
    for dir in dirs.split('/').filter(|dir| !dir.is_empty()) {
        let entry = tree.get_name(dir).filter(|entry| entry.kind() == Some(ObjectType::Tree)).map(|entry| entry.id());
        let Some(id) = entry else { return Ok(None) };
        tree = repo.find_tree(id).map_err(|source| objects.unreadable(format!("directory `{dir}`"), source))?;
    }
    let Some(entry) = tree.get_name(file) else { return Ok(None) };
    if !matches!(mode_of(entry.filemode_raw()), Some(Mode::File | Mode::Executable)) {
        return Err(SourceError::Entry { path: path.to_owned(), why: "a regular file is expected here" });
    }
    objects.blob(&repo, entry.id(), path.as_bytes(), MAX_READ).map(Some)
}

impl Objects {
    /// The tree of the commit `oid`.
    fn root<'repo>(&self, repo: &'repo Repository, oid: Oid) -> Result<git2::Tree<'repo>, SourceError> {
        repo.find_commit(oid)
            .and_then(|commit| commit.tree())
            .map_err(|source| self.unreadable(format!("commit {oid}"), source))
    }

    /// See [`list`].
    pub(super) fn list(&self, repo: &Repository, oid: Oid) -> Result<Vec<Entry>, SourceError> {
        let root = self.root(repo, oid)?;
        let mut entries = Vec::new();
        self.walk(repo, &root, &mut Vec::new(), &mut entries)?;
        entries.sort();
        Ok(entries)
    }

    fn walk(
        &self,
        repo: &Repository,
        tree: &git2::Tree<'_>,
        path: &mut Vec<Vec<u8>>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), SourceError> {
        let mut names = BTreeSet::new();
        for entry in tree {
            let name = entry.name_bytes();
            path.push(name.to_owned());
            let full = path.join(&b'/');
            let refuse = |why| Err(SourceError::Entry { path: full.escape_ascii().to_string(), why });
            if let Some(why) = refused(name) {
                return refuse(why);
            }
            if !names.insert(name.to_owned()) {
                return refuse("its name occurs twice");
            }
            if path.len() > MAX_DEPTH || full.len() >= 4096 || entries.len() >= MAX_ENTRIES {
                return refuse("the tree is too deep or too large");
            }
            if entry.filemode_raw() == 0o040_000 {
                let what = || format!("directory `{}`", full.escape_ascii());
                let below = repo.find_tree(entry.id()).map_err(|source| self.unreadable(what(), source))?;
                self.walk(repo, &below, path, entries)?;
            } else {
                let Some(mode) = mode_of(entry.filemode_raw()) else { return refuse("git knows no such mode") };
                entries.push(Entry { name: EntryPath::new(&full), mode, id: entry.id().to_string() });
            }
            path.pop();
        }
        Ok(())
    }

    /// The bytes of a blob, checked against its name, at most `limit` of them.
    pub(super) fn blob(&self, repo: &Repository, id: Oid, path: &[u8], limit: usize) -> Result<Vec<u8>, SourceError> {
        let unreadable = |source| self.unreadable(format!("`{}`", path.escape_ascii()), source);
        let odb = repo.odb().map_err(unreadable)?;
        let (size, kind) = odb.read_header(id).map_err(unreadable)?;
        if kind != ObjectType::Blob || size > limit.min(MAX_BLOB) {
            let why = if kind == ObjectType::Blob { "it is too large" } else { "its object is not a blob" };
            return Err(SourceError::Entry { path: path.escape_ascii().to_string(), why });
        }
        Ok(odb.read(id).map_err(unreadable)?.data().to_owned())
    }
}

/// Old repositories hold 0100664 too; git looks at the owner's execute bit alone.
fn mode_of(raw: i32) -> Option<Mode> {
    match raw & 0o170_000 {
        0o100_000 if raw & 0o100 != 0 => Some(Mode::Executable),
        0o100_000 => Some(Mode::File),
        0o120_000 => Some(Mode::Symlink),
        0o160_000 => Some(Mode::Submodule),
        _ => None,
    }
}

/// Why a name in a tree must not reach a disk: what leaves the directory, and every spelling of `.git` that some file
/// system takes for it (CVE-2014-9390; `verify_path` and `is_hfs_dotgit` in git).
fn refused(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => return Some("its name is empty"),
        b"." | b".." => return Some("it leads out of its directory"),
        _ if name.len() > 255 => return Some("its name is longer than 255 bytes"),
        _ if name.contains(&b'/') || name.contains(&0) => return Some("its name holds `/` or NUL"),
        _ => {}
    }
    let text = String::from_utf8_lossy(name);
    let unseen = |c: &char| matches!(*c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let visible: String = text.chars().filter(|c| !unseen(c)).collect::<String>().to_lowercase();
    let stem = visible.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    matches!(stem, ".git" | "git~1").then_some("it could be taken for a repository's own directory")
}

#[cfg(test)]
mod tests {
    use super::refused;

    #[test]
    fn every_spelling_of_the_git_directory_is_refused_and_its_neighbours_are_not() {
        for bad in [
            "",
            ".",
            "..",
            ".git",
            ".GIT",
            ".Git ",
            ".git.",
            "git~1",
            "GIT~1",
            ".g\u{200c}it",
            ".git::$INDEX_ALLOCATION",
            "a/b",
        ] {
            assert!(refused(bad.as_bytes()).is_some(), "{bad}");
        }
        for good in [".gitignore", ".gitattributes", ".github", "git", "...", "..a", "git~10", "a\\b", "CON", "-x"] {
            assert_eq!(refused(good.as_bytes()), None, "{good}");
        }
        assert_eq!(refused(b"\xff\n"), None);
    }
}
