//! The entries of a commit as a sorted list. Names that must not be written to disk are errors.

use std::collections::BTreeSet;

use git2::{ObjectType, Oid, Repository};
use phial_layers::EntryPath;

use super::error::SourceError;
use super::fetched::Fetched;
use super::filter::Filter;
use super::git_dir::{GitDir, MAX_READ, NOT_REGULAR};

/// The most entries of a commit, directories included: trees that contain each other repeatedly have billions in a few kilobytes.
pub(super) const MAX_ENTRIES: usize = 1_000_000;
/// The deepest nesting of directories: each is an open descriptor during the checkout.
pub(super) const MAX_DEPTH: usize = 128;
/// The largest blob, in bytes: libgit2 reads it into memory.
const MAX_BLOB: usize = 1 << 30;
/// The largest object of a directory, in bytes: a million entries.
const MAX_TREE: usize = 64 << 20;
/// The longest target of a symbolic link, in bytes (`PATH_MAX`).
const MAX_TARGET: usize = 4095;

/// One entry of a commit that is not a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitEntry {
    /// Its path from the root of the repository.
    pub name: EntryPath,
    /// Its type.
    pub mode: EntryMode,
    /// SHA-1 of its blob (of the commit, for a submodule): 40 lower-case hex digits.
    pub id: String,
    /// How its file differs from its blob.
    pub filter: Filter,
}

/// The type of an entry of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryMode {
    /// A regular file, 0644.
    File,
    /// A regular file, 0755.
    Executable,
    /// A symbolic link.
    Symlink,
    /// A commit of another repository, which is not fetched. Checked out as an empty directory.
    Submodule,
}

/// The content of the regular file `path` of the commit; `None` if it does not exist. At most 1 MiB.
pub fn read_file(fetched: &Fetched, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
    let (holder, below) = fetched.holder(path.as_bytes());
    own_file(holder, &String::from_utf8_lossy(below))
}

/// As [`read_file`], without the submodules.
pub(super) fn own_file(fetched: &Fetched, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
    fetched.quarantine_if_broken(read(fetched, path))
}

/// Whether the commit has something at `path`, or a link above it, which may lead there.
pub fn exists(fetched: &Fetched, path: &str) -> Result<bool, SourceError> {
    let (fetched, path) = fetched.holder(path.as_bytes());
    let path = &*String::from_utf8_lossy(path);
    let find = || {
        let (git_dir, repo) = (&fetched.git_dir, fetched.repo());
        let mut tree = git_dir.root(&repo, fetched.oid)?;
        for (nth, name) in path.split('/').enumerate() {
            let Some((kind, id)) = tree.get_name(name).map(|entry| (entry.kind(), entry.id())) else {
                return Ok(false);
            };
            if nth == path.matches('/').count() || kind != Some(ObjectType::Tree) {
                return Ok(true);
            }
            tree = git_dir.tree(&repo, id, name.as_bytes())?;
        }
        Ok(false)
    };
    fetched.quarantine_if_broken(find())
}

/// The target of a symbolic link of the commit.
pub fn link_target(fetched: &Fetched, link: &CommitEntry) -> Result<Vec<u8>, SourceError> {
    let name = link.name.as_bytes();
    let fetched = fetched.holder(name).0;
    let git_dir = &fetched.git_dir;
    let unreadable = |source| git_dir.unreadable(format!("`{}`", name.escape_ascii()), source);
    let read = Oid::from_str(&link.id).map_err(unreadable);
    fetched.quarantine_if_broken(read.and_then(|id| git_dir.blob(&fetched.repo(), id, name, MAX_TARGET)))
}

fn read(fetched: &Fetched, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
    let git_dir = &fetched.git_dir;
    let repo = fetched.repo();
    let mut tree = git_dir.root(&repo, fetched.oid)?;
    let (dirs, file) = path.rsplit_once('/').unwrap_or(("", path));
    for dir in dirs.split('/').filter(|dir| !dir.is_empty()) {
        let entry = tree.get_name(dir).filter(|entry| entry.kind() == Some(ObjectType::Tree)).map(|entry| entry.id());
        let Some(id) = entry else { return Ok(None) };
        tree = git_dir.tree(&repo, id, dir.as_bytes())?;
    }
    let Some(entry) = tree.get_name(file) else { return Ok(None) };
    if !matches!(mode_of(entry.filemode_raw()), Some(EntryMode::File | EntryMode::Executable)) {
        return Err(SourceError::File { path: path.to_owned(), why: NOT_REGULAR });
    }
    git_dir.blob(&repo, entry.id(), path.as_bytes(), MAX_READ).map(Some)
}

/// What a walk of a tree has found.
#[derive(Default)]
struct Walked {
    entries: Vec<CommitEntry>,
    /// The number of entries and of directories.
    count: usize,
}

impl GitDir {
    /// The tree of the commit `oid`.
    fn root<'repo>(&self, repo: &'repo Repository, oid: Oid) -> Result<git2::Tree<'repo>, SourceError> {
        self.commit_of(repo, oid)?;
        let id = repo.find_commit(oid).map(|commit| commit.tree_id());
        self.tree(repo, id.map_err(|source| self.unreadable(format!("commit {oid}"), source))?, b"/")
    }

    /// The directory `id`, at `path` for messages, if its object is not too large to be held as a whole: one of two gigabytes is
    /// two megabytes in a pack.
    fn tree<'repo>(&self, repo: &'repo Repository, id: Oid, path: &[u8]) -> Result<git2::Tree<'repo>, SourceError> {
        let unreadable = |source| self.unreadable(format!("directory `{}`", path.escape_ascii()), source);
        let (size, _) = repo.odb().and_then(|odb| odb.read_header(id)).map_err(unreadable)?;
        if size > MAX_TREE {
            let why = "a directory's object of more than 64 MiB is not read";
            return Err(SourceError::Entry { path: path.escape_ascii().to_string(), why });
        }
        repo.find_tree(id).map_err(unreadable)
    }

    /// All files, links and submodules of the commit `oid`, sorted by path, without their filters.
    pub(super) fn list(&self, repo: &Repository, oid: Oid) -> Result<Vec<CommitEntry>, SourceError> {
        let root = self.root(repo, oid)?;
        let mut walked = Walked::default();
        self.walk(repo, &root, &mut Vec::new(), &mut walked)?;
        walked.entries.sort();
        Ok(walked.entries)
    }

    fn walk(
        &self,
        repo: &Repository,
        tree: &git2::Tree<'_>,
        path: &mut Vec<Vec<u8>>,
        walked: &mut Walked,
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
            if path.len() > MAX_DEPTH || full.len() >= 4096 || walked.count >= MAX_ENTRIES {
                return refuse("the tree is too deep or too large");
            }
            walked.count += 1;
            if entry.filemode_raw() == 0o040_000 {
                let below = self.tree(repo, entry.id(), &full)?;
                self.walk(repo, &below, path, walked)?;
            } else {
                let Some(mode) = mode_of(entry.filemode_raw()) else { return refuse("its mode is unknown to git") };
                let (name, id) = (EntryPath::new(&full), entry.id().to_string());
                walked.entries.push(CommitEntry { name, mode, id, filter: Filter::None });
            }
            path.pop();
        }
        Ok(())
    }

    /// The content of a blob, checked against its SHA; an error if it has more than `limit` bytes.
    pub(super) fn blob(&self, repo: &Repository, id: Oid, path: &[u8], limit: usize) -> Result<Vec<u8>, SourceError> {
        self.with_blob(repo, (id, path), limit, |bytes| Ok(bytes.to_owned()))
    }

    /// What `use_bytes` makes of the content of a blob, as [`GitDir::blob`]: libgit2's copy of it is the only one.
    pub(super) fn with_blob<T>(
        &self,
        repo: &Repository,
        (id, path): (Oid, &[u8]),
        limit: usize,
        use_bytes: impl FnOnce(&[u8]) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let unreadable = |source| self.unreadable(format!("`{}`", path.escape_ascii()), source);
        let odb = repo.odb().map_err(unreadable)?;
        let (size, kind) = odb.read_header(id).map_err(unreadable)?;
        if kind != ObjectType::Blob || size > limit.min(MAX_BLOB) {
            let why = if kind == ObjectType::Blob { "it is too large" } else { "its object is not a blob" };
            return Err(SourceError::Entry { path: path.escape_ascii().to_string(), why });
        }
        use_bytes(odb.read(id).map_err(unreadable)?.data())
    }
}

/// The type of an entry by its mode. Like git, only checks the owner's execute bit: old repositories have 0100664 too.
fn mode_of(raw: i32) -> Option<EntryMode> {
    match raw & 0o170_000 {
        0o100_000 if raw & 0o100 != 0 => Some(EntryMode::Executable),
        0o100_000 => Some(EntryMode::File),
        0o120_000 => Some(EntryMode::Symlink),
        0o160_000 => Some(EntryMode::Submodule),
        _ => None,
    }
}

/// Why a name must not be written to disk: it leads out of its directory, or some file system takes it for `.git`
/// (CVE-2014-9390; `verify_path` and `is_hfs_dotgit` in git).
fn refused(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => return Some("its name is empty"),
        b"." | b".." => return Some("it leads out of its directory"),
        _ if name.len() > 255 => return Some("its name is longer than 255 bytes"),
        _ if name.contains(&b'/') || name.contains(&0) => return Some("its name holds `/` or NUL"),
        _ => {}
    }
    let text = String::from_utf8_lossy(name);
    // What HFS+ leaves out of a name.
    let unseen = |c: &char| matches!(*c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let visible: String = text.chars().filter(|c| !unseen(c)).collect::<String>().to_lowercase();
    let stem = visible.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    matches!(stem, ".git" | "git~1").then_some("a file system may take it for `.git`")
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
