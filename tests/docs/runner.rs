//! Where the commands of the documents run: an app in a git repository, its base and its images in a registry on loopback, a
//! git server. Example names in the commands are replaced by these.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::markdown::Document;
use crate::harness::busybox::busybox_base;
use crate::harness::git_http::GitServer;
use crate::harness::prebuilt::{elixir_base, service_images};
use crate::harness::{Output, Registry, Repo, TestEnv, run, search_path, testdata};

/// The app that a document's commands are about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum App {
    /// `testdata/apps/hello` with the settings of the README's quick start, over the Elixir base.
    Elixir,
    /// A script over busybox: a build takes a tenth of a second. Its cache is its own.
    Shell,
}

/// One document's surroundings.
pub(super) struct Runner {
    env: TestEnv,
    registry: Registry,
    git: GitServer,
    repo: Repo,
    /// The digest of the image that is tagged `latest`.
    digest: String,
}

impl Runner {
    pub(super) fn new(app: App) -> Self {
        let env = if app == App::Elixir { TestEnv::new() } else { TestEnv::with_empty_cache() };
        let registry = Registry::start();
        let git = GitServer::start(&env.dir().join("served"));
        let repo = match app {
            App::Elixir => elixir_app(&env, &registry),
            App::Shell => shell_app(&env, &registry, &git.url),
        };
        let mut runner = Self { env, registry, git, repo, digest: String::new() };
        runner.seed(app);
        runner
    }

    /// What the documents take for granted: images in a registry and in layouts, two of them different.
    fn seed(&mut self, app: App) {
        let base = if app == App::Elixir { elixir_base() } else { busybox_base() };
        self.copy(&base, "team/elixir:1.18");
        let build = |to: &[&str]| {
            let to = to.iter().flat_map(|to| ["--to".to_owned(), (*to).to_owned()]);
            let args = ["build".to_owned(), "--progress".to_owned(), "quiet".to_owned()].into_iter().chain(to);
            let mut build = self.env.phial(args);
            build.current_dir(self.repo.dir());
            run(build).ok()
        };
        let shop = |tag: &str| self.registry.reference(&format!("team/shop:{tag}"));
        build(&[&shop("1.4"), "oci:./old.oci"]);
        self.repo.write("CHANGES", "something");
        self.repo.commit("The second commit");
        self.repo.git(["tag", "v1.4.2"]);
        let line = build(&[&shop("1.5"), &shop("latest"), "oci:./new.oci", "oci:./shop.oci"]);
        line.rsplit_once('@').expect("a digest").1.clone_into(&mut self.digest);
        let dir = self.repo.dir();
        let bare = self.env.dir().join("served/team/shop.git");
        self.repo.git(["clone".as_ref(), "-q".as_ref(), "--bare".as_ref(), ".".as_ref(), bare.as_os_str()]);
        for (name, text) in [("layer.tar.gz", "one"), ("other.tar", "two"), ("rootfs.tar.gz", "root")] {
            fs::write(dir.join("file"), text).expect("a file");
            let mut tar = Command::new("tar");
            tar.arg("--create").arg("--auto-compress").arg("--file").arg(dir.join(name)).arg("--directory").arg(dir);
            tar.arg("file");
            run(tar).ok();
        }
        fs::remove_file(dir.join("file")).expect("a file that is gone");
    }

    fn copy(&self, layout: &Path, to: &str) {
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--preserve-digests"]);
        copy.arg(format!("oci:{}", layout.display())).arg(format!("docker://{}", self.registry.reference(to)));
        run(copy).ok();
    }

    /// Tests the image with the settings in the document's first block of them: with services that must become ready.
    #[track_caller]
    pub(super) fn test_with_settings_of(&self, document: &Document) {
        self.copy(&service_images().join("postgres"), "team/postgres:17");
        let block = document.blocks.iter().find(|block| block.language == "toml").expect("settings in the document");
        self.repo.write("services.toml", self.substituted(&block.text));
        let ran = self.run("phial test registry.example/team/shop:latest --config services.toml --no-record");
        assert!(ran.stderr.contains("passed"), "{}", ran.stderr);
        ran.ok();
    }

    /// Runs a command as a shell in the app's repository would.
    pub(super) fn run(&self, command: &str) -> Output {
        let mut shell = Command::new("bash");
        shell.args(["-euc", &self.substituted(command)]).env_clear().stdin(Stdio::null()).current_dir(self.repo.dir());
        let bin = Path::new(env!("CARGO_BIN_EXE_phial")).parent().expect("its directory");
        shell.env("PATH", format!("{}:{}", bin.display(), search_path())).env("HOME", self.env.dir().join("home"));
        shell.env("PHIAL_CACHE_DIR", self.env.cache());
        run(shell)
    }

    /// The command with what is there in place of the names of examples.
    fn substituted(&self, command: &str) -> String {
        let mut text = command.replace("registry.example", &self.registry.host());
        text = text.replace("https://git.example", &self.git.url);
        // A shortened digest is replaced by that of the image, a key by that of a step.
        while let Some(at) = text.find('…') {
            let start = text[..at].rfind("sha256:").expect("a digest before `…`");
            text.replace_range(start..at + '…'.len_utf8(), &self.digest);
        }
        let key = r#"$(phial cache ls --json | jq -r 'map(select(.kind == "result"))[0].name[:20]')"#;
        text.replace("cache show 4f2a", &format!("cache show {key}"))
    }
}

/// The settings of the quick start, with a registry that is there and a command that the app has.
fn settings(registry: &Registry) -> String {
    let readme = Document::read("README.md");
    let block = readme.blocks.iter().find(|block| block.language == "toml").expect("settings in the README");
    let text = block.text.replace("registry.example", &registry.host());
    // The app of the tests is no Phoenix app: the Hex registry of the tests does not have Phoenix.
    text.replace(r#""phx.server""#, r#""run", "--no-halt""#)
}

fn elixir_app(env: &TestEnv, registry: &Registry) -> Repo {
    let repo = Repo::copied(&testdata("apps/hello"), &env.dir().join("shop"));
    repo.write("phial.toml", settings(registry));
    repo.script("script/docker/ci.sh", "#!/bin/sh\nexec mix test\n");
    fs::rename(repo.dir().join("test/hello_test.exs"), repo.dir().join("test/shop_test.exs")).expect("its tests");
    repo.commit("The first commit");
    repo
}

fn shell_app(env: &TestEnv, registry: &Registry, git: &str) -> Repo {
    let repo = env.shell_app();
    let own = fs::read_to_string(repo.dir().join("phial.toml")).expect("settings");
    let host = registry.host();
    let image = format!(
        "[image]\nname = \"{host}/team/shop:main\"\nbase = \"{host}/team/elixir:1.18\"\nsource = \"{git}/team/shop.git\"\n"
    );
    repo.write("phial.toml", own.replace("[image]\n", &image));
    repo.commit("Its settings");
    repo
}
