//! Another user of this machine, who runs Phial on files of their own.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Repo, run, search_path};

/// A user of this machine, with the program, a base and an app in a folder of their own.
pub(crate) struct User {
    pub(crate) uid: u32,
    dir: tempfile::TempDir,
}

impl User {
    /// With the app as `app` and the base as `base`.
    pub(crate) fn new(uid: u32, app: &Repo, base: &Path) -> Self {
        Self::with(uid, &[(base, "base"), (app.dir(), "app")])
    }

    /// One who is not root and has no range of ids, with copies of these files.
    pub(crate) fn unprivileged(files: &[(&Path, &str)]) -> Self {
        let own = rustix::process::getuid();
        Self::with(if own.is_root() { 4322 } else { own.as_raw() }, files)
    }

    /// One with copies of these files.
    pub(crate) fn with(uid: u32, files: &[(&Path, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("phial-user-").tempdir_in("/tmp").expect("a folder");
        for (from, to) in [&[(Path::new(env!("CARGO_BIN_EXE_phial")), "phial")], files].concat() {
            copy(from, &dir.path().join(to));
        }
        let mut own = Command::new("chown");
        own.args(["-R", &uid.to_string()]).arg(dir.path());
        run(own).ok();
        Self { uid, dir }
    }

    /// A path in the folder, as text.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).into_os_string().into_string().expect("UTF-8")
    }

    /// The prefix of a command that makes it run as this user.
    pub(crate) fn prefix(&self) -> Vec<String> {
        if rustix::process::getuid().as_raw() == self.uid {
            return vec!["env".into()];
        }
        let (uid, gid) = (format!("--reuid={}", self.uid), format!("--regid={}", self.uid));
        vec!["setpriv".into(), uid, gid, "--clear-groups".into(), "--inh-caps=-all".into()]
    }

    /// The command, as this user, in the folder.
    pub(crate) fn phial(&self, arguments: &[&str]) -> Command {
        let words = self.prefix();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.arg(self.path("phial")).args(arguments).env_clear().current_dir(self.dir.path());
        command.env("HOME", self.dir.path()).env("PATH", search_path()).env("PHIAL_CACHE_DIR", self.path("cache"));
        command
    }
}

/// Copies a file, or a directory with all below it, and makes the directories above.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
    let mut copy = Command::new("cp");
    copy.arg("-rL").arg(from).arg(to);
    run(copy).ok();
}
