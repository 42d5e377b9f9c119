//! How the working tree of a clone on this machine differs from the commit that is built.

use super::fetched::Fetched;
use super::local::{self, LocalRepository};
use super::revision::Revision;
use super::working_tree::WorkingTreeStatus;
use crate::event::{Watch, discard, notice};

impl Fetched {
    /// Tells how files of the working tree that `is_wanted` differ from the commit, if it is the one that is checked out, and
    /// returns whether tracked ones do. To be called once the commit is listed: libgit2 compares whole trees, of any size.
    pub fn report_changes(&self, is_wanted: &dyn Fn(&[u8]) -> bool, watch: Watch<'_>) -> bool {
        let clone = self.clone.as_ref().filter(|clone| self.is_checked_out && clone.top.is_some());
        let Some(clone) = clone else { return false };
        let Some(mut status) = clone.status() else {
            notice(watch, "the commit is built without comparing it with the working tree, which cannot be read");
            return false;
        };
        add_changes(self, clone, b"", &mut status);
        let status = status.only(is_wanted);
        for text in status.summary(&self.commit.sha) {
            notice(watch, text);
        }
        status.is_dirty()
    }
}

/// Adds how the working trees of the submodules of `of` in `clone` differ from their commits. `prefix` is
/// the path of `of` in the whole: empty, or with `/` at its end.
fn add_changes(of: &Fetched, clone: &LocalRepository, prefix: &[u8], status: &mut WorkingTreeStatus) {
    for submodule in &of.submodules {
        let name = submodule.path.as_bytes();
        // One that is not checked out is no change, as for git.
        let Some(found) = clone.checked_out_submodule(name) else { continue };
        let path = [prefix, name].concat();
        let git_dir = found.git_dir(&found.git_dir);
        let head = found.open(&git_dir).and_then(|repo| local::resolve(&git_dir, &repo, &Revision::Head, &discard));
        if !matches!(head, Ok(oid) if oid == submodule.fetched.oid) {
            status.add_changed(path);
            continue;
        }
        let below = [&path[..], b"/"].concat();
        match found.status() {
            Some(own) => status.add_all(&below, own),
            None => status.add_changed(path),
        }
        add_changes(&submodule.fetched, &found, &below, status);
    }
}
