//! The apps of the matrix, each as a repository of two commits: the second changes the source alone.

use std::fs;
use std::path::PathBuf;

use crate::harness::{HexRegistry, Repo, TestEnv, hex_registry, testdata};

/// So many modules: enough for the compiler to be busy with several at any time.
const MODULES: usize = 64;

/// One app.
pub(super) struct Subject {
    /// Its name.
    pub(super) name: &'static str,
    /// Its repository.
    pub(super) repo: Repo,
    /// The environment of its plain build.
    pub(super) env: TestEnv,
    /// What it fetches from, as long as it is held.
    pub(super) hex: Option<HexRegistry>,
}

impl Subject {
    fn over(name: &'static str, env: TestEnv, repo: Repo, hex: Option<HexRegistry>) -> Self {
        repo.git(["tag", "before"]);
        repo.write("NOTES.md", "What changes between the two commits is in no layer but the app's.\n");
        repo.commit("Only the source");
        Self { name, repo, env, hex }
    }

    /// An app of `testdata/apps` without packages.
    pub(super) fn plain(name: &'static str) -> Self {
        let env = TestEnv::new();
        let repo = env.app(name);
        Self::over(name, env, repo, None)
    }

    /// The app with packages of Hex, a git dependency, and NIFs in C and C++.
    pub(super) fn deps() -> Self {
        let (env, hex) = (TestEnv::new(), hex_registry());
        let repo = env.deps_app(&hex);
        Self::over("deps", env, repo, Some(hex))
    }

    /// The app of many modules, in which everything is left to chance.
    pub(super) fn stress() -> Self {
        let env = TestEnv::new();
        let repo = stress(&env, MODULES);
        Self::over("stress", env, repo, None)
    }

    /// The image that the last build of the app in its own environment left.
    pub(super) fn image(&self) -> (&TestEnv, String) {
        (&self.env, format!("oci:{}", self.env.path("out.oci")))
    }

    /// Its directory.
    pub(super) fn dir(&self) -> PathBuf {
        self.repo.dir().to_owned()
    }
}

/// `testdata/apps/stress` with so many modules, as a repository of one commit.
pub(crate) fn stress(env: &TestEnv, modules: usize) -> Repo {
    of_modules(env, "stress", modules)
}

/// `testdata/apps/generated` with so many modules: they take uneven time, warn in their bodies, and generate code.
pub(crate) fn generated(env: &TestEnv, modules: usize) -> Repo {
    of_modules(env, "generated", modules)
}

fn of_modules(env: &TestEnv, name: &str, modules: usize) -> Repo {
    let from = testdata("apps").join(name);
    let repo = Repo::copied(&from, &env.dir().join(name));
    let template = fs::read_to_string(from.join("module.ex.in")).expect("the template");
    for n in 1..=modules {
        repo.write(&format!("lib/{name}/m{n}.ex"), template.replace("@N@", &n.to_string()));
    }
    repo.commit("The first commit");
    repo
}
