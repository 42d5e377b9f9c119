//! The submodules of a commit, fetched at the SHAs that its tree names.
//!
//! What `.gitmodules` says comes with the commit: it can name servers, which get no credentials of the caller's unless the caller
//! names them, and no place of this machine. Objects that a clone on this machine has already are taken from there.

use git2::Oid;

use super::access::Access;
use super::error::SourceError;
use super::fetched::{Fetched, RepositoryState, Submodule};
use super::gitmodules::{self, SubmoduleSection};
use super::local::LocalRepository;
use super::location::{Location, LocationKind, without_user};
use super::mirror;
use super::revision::Revision;
use super::tree::{CommitEntry, EntryMode, own_file};
use crate::event::{Watch, notice};

/// The most submodules of a commit, those of submodules included.
const MAX_SUBMODULES: usize = 500;
/// The deepest nesting of submodules.
const MAX_DEPTH: usize = 20;
/// Where a commit says what its submodules are.
const FILE: &str = ".gitmodules";

/// What fetching submodules needs.
struct Fetching<'a> {
    mirrors: &'a std::path::Path,
    access: Access,
    watch: Watch<'a>,
    count: usize,
}

/// Fetches the submodules of a commit and theirs, and returns how many there are.
///
/// The server of the repository gets the same credentials as for the commit; others get those of the caller only if `access` names
/// them.
pub fn fetch_submodules(
    fetched: &mut Fetched,
    mirrors: &std::path::Path,
    access: &Access,
    watch: Watch<'_>,
) -> Result<usize, SourceError> {
    // Who builds a clone on this machine has named its origin.
    let own_server = fetched.commit.origin.as_ref().and_then(Location::git_host).filter(|_| !fetched.git_dir.is_mirror);
    let mut fetching = Fetching { mirrors, access: access.and(own_server), watch, count: 0 };
    fetching.add(fetched, b"", 0)?;
    Ok(fetching.count)
}

impl Fetching<'_> {
    /// Fetches the submodules of `of`, which is at `prefix`: empty, or the path of a directory with `/` at its end.
    fn add(&mut self, of: &mut Fetched, prefix: &[u8], depth: usize) -> Result<(), SourceError> {
        let entries = of.quarantine_if_broken(of.git_dir.list(&of.repo(), of.oid))?;
        let links: Vec<CommitEntry> = entries.into_iter().filter(|entry| entry.mode == EntryMode::Submodule).collect();
        if links.is_empty() {
            return Ok(());
        }
        let text = own_file(of, FILE)?.unwrap_or_default();
        let text = String::from_utf8(text).ok();
        let modules = text.and_then(|text| gitmodules::parse(&text)).ok_or_else(|| SourceError::Entry {
            path: format!("{}{FILE}", prefix.escape_ascii()),
            why: "it is not in the format of git-config(1)",
        })?;
        for link in links {
            let path = [prefix, link.name.as_bytes()].concat();
            let shown_path = path.escape_ascii().to_string();
            self.count += 1;
            if self.count > MAX_SUBMODULES || depth >= MAX_DEPTH {
                return Err(SourceError::Entry { path: shown_path, why: "the commit has too many submodules" });
            }
            let is_of_link = |module: &&SubmoduleSection| {
                module.path.as_ref().is_some_and(|path| path.trim_end_matches('/').as_bytes() == link.name.as_bytes())
            };
            let module = modules.iter().find(is_of_link);
            if module.is_some_and(|module| module.update.as_deref() == Some("none")) {
                notice(
                    self.watch,
                    format!("the submodule `{shown_path}` is left out, as `update = none` in `{FILE}` says"),
                );
                continue;
            }
            let mut child = self.fetch(of, &link, module, &shown_path)?;
            self.add(&mut child, &[&path[..], b"/"].concat(), depth + 1)?;
            of.submodules.push(Submodule { path: link.name, fetched: child });
        }
        Ok(())
    }

    /// The commit of one submodule: from this machine, or from its URL.
    fn fetch(
        &self,
        of: &Fetched,
        link: &CommitEntry,
        module: Option<&SubmoduleSection>,
        path: &str,
    ) -> Result<Fetched, SourceError> {
        let refused = |url: &str, why| SourceError::SubmoduleUrl { path: path.to_owned(), url: without_user(url), why };
        let Some((module, url)) = module.and_then(|module| Some((module, module.url.as_deref()?))) else {
            return Err(refused("", "`.gitmodules` has no URL for it"));
        };
        let location = location(of.commit.origin.as_ref(), url);
        if let Some(child) =
            of.clone.as_ref().and_then(|clone| on_this_machine(clone, link, module, location.as_ref().ok()))
        {
            return Ok(child);
        }
        let location = location.map_err(|why| refused(url, why))?;
        let LocationKind::Remote(remote) = &location.0 else { return Err(refused(url, LOCAL)) };
        let wrapped = |source| SourceError::Submodule { path: path.to_owned(), source: Box::new(source) };
        let sha = Revision::Sha(link.id.clone());
        let (git_dir, oid) = mirror::fetch(remote, &sha, self.mirrors, &self.access, self.watch).map_err(wrapped)?;
        let name = location.name();
        let state = RepositoryState { origin: Some(location), is_checked_out: false, name, clone: None };
        let repo = git_dir.open()?;
        Fetched::new(git_dir, repo, oid, state).map_err(wrapped)
    }
}

const LOCAL: &str = "it is a path, and a commit names no repository of this machine";

/// Where a URL of `.gitmodules` leads, for a repository that comes from `origin`.
fn location(origin: Option<&Location>, url: &str) -> Result<Location, &'static str> {
    if url.starts_with("./") || url.starts_with("../") {
        let origin = origin.ok_or("it is relative to the remote `origin`, which is not on a server")?;
        return origin.relative(url).ok_or("it leads out of the server of the remote `origin`");
    }
    let location: Location = url.parse().map_err(|error| match error {
        SourceError::Location { why, .. } => why,
        _ => "it is not a URL",
    })?;
    match &location.0 {
        LocationKind::Local(_) => Err(LOCAL),
        LocationKind::Remote(_) => Ok(origin.map_or_else(|| location.clone(), |origin| location.with_login_of(origin))),
    }
}

/// The commit of a submodule, if a repository beside that of its commit has all that its checkout needs.
fn on_this_machine(
    clone: &LocalRepository,
    link: &CommitEntry,
    module: &SubmoduleSection,
    location: Option<&Location>,
) -> Option<Fetched> {
    let oid = Oid::from_str(&link.id).ok()?;
    clone.submodules(&module.name, link.name.as_bytes()).into_iter().find_map(|found| {
        let git_dir = found.git_dir(&found.git_dir);
        let repo = found.open(&git_dir).ok()?;
        git_dir.check(oid).ok()?;
        let name = location.map_or_else(|| module.name.clone(), Location::name);
        let state = RepositoryState { origin: location.cloned(), is_checked_out: false, name, clone: Some(found) };
        Fetched::new(git_dir, repo, oid, state).ok()
    })
}
