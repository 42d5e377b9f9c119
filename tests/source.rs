//! From a repository to a tree: real git servers, real repositories, and trees that no honest git writes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use phial::event::{Event, nobody};
use phial::host::Host;
use phial::source::{Access, Fetched, Mode, Place, SourceError, checkout, fetch, list, read_file, working_tree_root};

use git_http::GitServer;

#[path = "world/git_http.rs"]
mod git_http;

/// A secret that must appear nowhere.
const CANARY: &str = "s3cr3t-canary-7f";
const T: i64 = 1_700_000_000;

/// Directories of one test: repositories, a cache, checkouts.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("scratch") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A repository `name` with one commit of two files, and a tag `v1` on it.
    fn repo(&self, name: &str) -> PathBuf {
        let repo = self.path(name);
        git(self.dir.path(), &["init", "-q", "-b", "main", name]);
        write(&repo, "mix.exs", "defmodule A do\nend\n");
        write(&repo, "lib/a.ex", "1\n");
        commit(&repo, "first");
        git(&repo, &["tag", "-a", "-m", "one", "v1"]);
        repo
    }

    fn fetch(&self, place: &str, rev: &str) -> Result<Fetched, SourceError> {
        self.fetch_as(place, rev, &[])
    }

    fn fetch_as(&self, place: &str, rev: &str, env: &[(&str, &str)]) -> Result<Fetched, SourceError> {
        fetch(&place.parse()?, rev, &self.path("mirrors"), &access(env), &nobody)
    }

    fn tree(&self, fetched: &Fetched, name: &str) -> BTreeMap<String, String> {
        let dest = self.path(name);
        checkout(fetched, &dest, T, &nobody).expect("checked out");
        seen(&dest)
    }

    /// How many commits the mirrors hold together.
    fn commits_in_mirrors(&self) -> usize {
        let mirrors = fs::read_dir(self.path("mirrors")).expect("mirrors").flatten().map(|entry| entry.path());
        mirrors
            .filter(|path| path.is_dir())
            .map(|path| git(&path, &["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]))
            .map(|types| types.lines().filter(|kind| *kind == "commit").count())
            .sum()
    }
}

fn access(env: &[(&str, &str)]) -> Access {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Access::of(&Host { env, ..Host::read() })
}

/// Runs git as a fixed person, without anyone's configuration.
fn git(dir: &Path, args: &[&str]) -> String {
    git_with(dir, args, b"")
}

fn git_with(dir: &Path, args: &[&str], input: &[u8]) -> String {
    use std::io::Write as _;
    let mut command = Command::new("git");
    command.current_dir(dir).args(["-c", "safe.directory=*", "-c", "protocol.file.allow=always"]).args(args);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env_remove("GIT_DIR");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@example.org");
        command.env(format!("GIT_{who}_DATE"), "1600000000 +0200");
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("git");
    child.stdin.take().expect("piped").write_all(input).expect("git reads");
    let output = child.wait_with_output().expect("git ends");
    assert!(output.status.success(), "git {args:?}");
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

fn commit(repo: &Path, message: &str) -> String {
    git(repo, &["add", "-A"]);
    git(repo, &["commit", "-q", "--allow-empty", "-m", message]);
    git(repo, &["rev-parse", "HEAD"])
}

fn write(repo: &Path, name: &str, text: &str) {
    let path = repo.join(name);
    fs::create_dir_all(path.parent().expect("below")).expect("a directory");
    fs::write(path, text).expect("written");
}

/// Every entry below `dir` and `dir` itself: kind, mode, time and content.
fn seen(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry.expect("readable");
        let meta = entry.path().symlink_metadata().expect("there");
        let content = if meta.is_symlink() {
            fs::read_link(entry.path()).expect("a link").as_os_str().as_bytes().to_vec()
        } else if meta.is_file() {
            fs::read(entry.path()).expect("a file")
        } else {
            b"/".to_vec()
        };
        let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
        let name = entry.path().strip_prefix(dir).expect("below").as_os_str().as_bytes().escape_ascii().to_string();
        found.insert(name, format!("{mode:o} {} {}", meta.mtime(), content.escape_ascii()));
    }
    found
}

/// What was said aloud while `work` ran.
fn heard(work: impl FnOnce(&(dyn Fn(Event) + Sync))) -> String {
    let said = Mutex::new(String::new());
    work(&|event| {
        if let Event::Notice { text } = event {
            let mut said = said.lock().expect("no panic");
            said.push_str(&text);
            said.push('\n');
        }
    });
    said.into_inner().expect("no panic")
}

/// The whole chain of an error as a user may see it.
fn told(error: &SourceError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!("{cause} {cause:?}"));
    format!("{error} {error:?} {:?} {}", error.hint(), cause.unwrap_or_default())
}

#[test]
fn head_a_branch_a_tag_and_a_sha_of_a_server_are_fetched_without_their_history() {
    let world = World::new();
    let repo = world.repo("shop.git");
    let first = git(&repo, &["rev-parse", "HEAD"]);
    write(&repo, "lib/b.ex", "2\n");
    let second = commit(&repo, "second");
    git(&repo, &["branch", "feature/x"]);
    let server = GitServer::start(world.dir.path());
    let url = format!("{}/shop.git/.git", server.url);
    for rev in ["HEAD", "main", "refs/heads/main", "feature/x", &second] {
        let fetched = world.fetch(&url, rev).unwrap();
        assert_eq!(fetched.commit.sha, second, "{rev}");
        assert_eq!(fetched.commit.time, 1_600_000_000);
        assert_eq!(fetched.commit.origin.as_deref(), Some(url.as_str()));
        assert!(!fetched.commit.dirty);
    }
    assert_eq!(world.commits_in_mirrors(), 1);
    let tagged = world.fetch(&url, "v1").unwrap();
    assert_eq!(tagged.commit.sha, first);
    assert_eq!(world.commits_in_mirrors(), 2);
    assert_eq!(world.tree(&tagged, "t1").keys().collect::<Vec<_>>(), ["", "lib", "lib/a.ex", "mix.exs"]);
    assert!(world.tree(&world.fetch(&url, &second).unwrap(), "t2").contains_key("lib/b.ex"));
}

#[test]
fn a_commit_that_was_fetched_once_needs_no_server() {
    let world = World::new();
    let repo = world.repo("shop");
    let sha = git(&repo, &["rev-parse", "HEAD"]);
    let server = GitServer::start(world.dir.path());
    let url = format!("{}/shop/.git", server.url);
    let first = world.tree(&world.fetch(&url, "main").unwrap(), "t1");
    let asked = server.requests().len();
    assert!(asked >= 2, "{:?}", server.requests());
    let again = world.fetch(&url, &sha.to_uppercase()).unwrap();
    assert_eq!(server.requests().len(), asked);
    assert_eq!(world.tree(&again, "t2"), first);
    drop(server);
    assert_eq!(world.fetch(&url, &sha).unwrap().commit, again.commit);
    let error = world.fetch(&url, "main").unwrap_err();
    assert_eq!((error.exit_code(), error.hint().is_some()), (4, true), "{}", told(&error));
}

#[test]
fn a_later_fetch_adds_to_a_shallow_mirror() {
    let world = World::new();
    let repo = world.repo("shop");
    let server = GitServer::start(world.dir.path());
    let url = format!("{}/shop/.git", server.url);
    let one = world.fetch(&url, "main").unwrap();
    for n in 0..3 {
        write(&repo, "lib/a.ex", &format!("{n}\n"));
        commit(&repo, "more");
    }
    let two = world.fetch(&url, "main").unwrap();
    assert_eq!(read_file(&two, "lib/a.ex").unwrap().unwrap(), b"2\n");
    assert_eq!(read_file(&one, "lib/a.ex").unwrap().unwrap(), b"1\n");
    assert_eq!(world.commits_in_mirrors(), 2);
    assert_eq!(world.tree(&two, "t2").len(), 4);
}

#[test]
fn a_server_that_gives_no_single_sha_costs_its_history_or_a_clear_error() {
    let world = World::new();
    let repo = world.repo("shop");
    let old = git(&repo, &["rev-parse", "HEAD"]);
    git(&repo, &["tag", "-d", "v1"]);
    write(&repo, "lib/a.ex", "2\n");
    commit(&repo, "second");
    git(&repo, &["checkout", "-q", "--detach"]);
    write(&repo, "lib/a.ex", "3\n");
    let lost = commit(&repo, "on no branch");
    git(&repo, &["checkout", "-q", "main"]);
    let server = GitServer::start(world.dir.path());
    let url = format!("{}/shop/.git", server.url);

    let said = heard(|watch| {
        let place: Place = url.parse().unwrap();
        let fetched = fetch(&place, &old, &world.path("mirrors"), &access(&[]), watch).unwrap();
        assert_eq!(read_file(&fetched, "lib/a.ex").unwrap().unwrap(), b"1\n");
    });
    assert!(said.contains("its whole history is fetched"), "{said}");
    let asked = server.requests().len();
    world.fetch(&url, &old).unwrap();
    assert_eq!(server.requests().len(), asked);
    let error = world.fetch(&url, &lost).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(told(&error).contains("allowAnySHA1InWant"), "{}", told(&error));

    git(&repo, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let other = World::new();
    let fetched = other.fetch(&url, &lost).unwrap();
    assert_eq!((fetched.commit.sha.as_str(), other.commits_in_mirrors()), (lost.as_str(), 1));
    git(&repo, &["config", "uploadpack.allowAnySHA1InWant", "false"]);
    git(&repo, &["config", "uploadpack.allowReachableSHA1InWant", "true"]);
    let third = World::new();
    assert_eq!(third.fetch(&url, &old).unwrap().commit.sha, old);
    assert_eq!(third.commits_in_mirrors(), 1);
}

/// A repository in which git, asked in the usual way, would write other bytes than it holds.
fn tricky(world: &World) -> PathBuf {
    let repo = world.repo("tricky");
    write(
        &repo,
        ".gitattributes",
        "*.bat eol=crlf\n*.txt ident export-subst\n*.u16 working-tree-encoding=UTF-16\nno export-ignore\n*.x filter=canary\n",
    );
    write(&repo, "run.bat", "one\ntwo\n");
    write(&repo, "id.txt", "$Id$ $Format:%H$\n");
    write(&repo, "no", "kept\n");
    write(&repo, "a.x", "plain\n");
    write(&repo, "bin/tool", "#!/bin/sh\n");
    write(&repo, "bin-/z", "sorts before bin/\n");
    write(&repo, "bin.d/z", "too\n");
    fs::set_permissions(repo.join("bin/tool"), fs::Permissions::from_mode(0o750)).expect("a mode");
    std::os::unix::fs::symlink("../../etc/passwd", repo.join("bin/up")).expect("a link");
    std::os::unix::fs::symlink("nowhere", repo.join("dangling")).expect("a link");
    fs::write(repo.join(std::ffi::OsStr::from_bytes(b"caf\xe9\n")), "latin\n").expect("written");
    let crlf = git_with(&repo, &["hash-object", "-w", "--stdin", "--no-filters"], b"mixed\r\nends\n");
    git(&repo, &["add", "-A"]);
    git(&repo, &["update-index", "--add", "--cacheinfo", &format!("100644,{crlf},crlf.bat")]);
    git(&repo, &["commit", "-q", "-m", "tricky"]);
    repo
}

fn tricky_tree() -> BTreeMap<String, String> {
    let file = |name: &str, mode: &str, text: &str| (name.to_owned(), format!("{mode} {T} {}", text.escape_default()));
    let mut tree: BTreeMap<String, String> =
        ["", "bin", "bin-", "bin.d", "lib"].iter().map(|name| file(name, "755", "/")).collect();
    tree.extend([
        file("mix.exs", "644", "defmodule A do\nend\n"),
        file("lib/a.ex", "644", "1\n"),
        file(".gitattributes", "644", "*.bat eol=crlf\n*.txt ident export-subst\n*.u16 working-tree-encoding=UTF-16\nno export-ignore\n*.x filter=canary\n"),
        file("run.bat", "644", "one\ntwo\n"),
        file("crlf.bat", "644", "mixed\r\nends\n"),
        file("id.txt", "644", "$Id$ $Format:%H$\n"),
        file("no", "644", "kept\n"),
        file("a.x", "644", "plain\n"),
        file("bin/tool", "755", "#!/bin/sh\n"),
        file("bin-/z", "644", "sorts before bin/\n"),
        file("bin.d/z", "644", "too\n"),
        file("bin/up", "0", "../../etc/passwd"),
        file("dangling", "0", "nowhere"),
        file("caf\\xe9\\n", "644", "latin\n"),
    ]);
    tree
}

#[test]
fn a_tree_holds_the_bytes_of_its_blobs_with_normal_modes_and_one_time() {
    let world = World::new();
    let repo = tricky(&world);
    let server = GitServer::start(world.dir.path());
    let here = world.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    let there = world.fetch(&format!("{}/tricky/.git", server.url), "HEAD").unwrap();
    assert_eq!(world.tree(&here, "here"), tricky_tree());
    assert_eq!(world.tree(&there, "there"), tricky_tree());
    let entries = list(&here).unwrap();
    assert!(entries.is_sorted() && entries == list(&there).unwrap());
    let modes: Vec<_> = entries.iter().filter(|e| e.name.as_bytes().starts_with(b"bin/")).map(|e| e.mode).collect();
    assert_eq!(modes, [Mode::Executable, Mode::Symlink]);
}

/// Not a test by itself: the part of the next one that needs a process of its own.
#[test]
#[ignore = "run by a_umask_and_a_global_configuration_change_nothing"]
fn in_another_process() {
    let host = Host::read();
    let (place, world) = (host.var("TEST_PLACE").expect("a place"), World::new());
    let fetched = world.fetch(place, "HEAD").unwrap();
    assert_eq!(world.tree(&fetched, "tree"), tricky_tree());
}

#[test]
fn a_umask_and_a_global_configuration_change_nothing() {
    let world = World::new();
    let repo = tricky(&world);
    let server = GitServer::start(world.dir.path());
    let home = world.path("home");
    write(
        &home,
        ".gitconfig",
        &format!(
            "[core]\nautocrlf = true\nsymlinks = false\nfileMode = false\nhooksPath = {home}/hooks\nfsmonitor = {home}/run\n\
             attributesFile = {home}/attributes\n[url \"http://127.0.0.1:1/\"]\ninsteadOf = http://\n\
             [filter \"canary\"]\nsmudge = touch {home}/ran; cat\nrequired = true\n[http]\nproxy = http://127.0.0.1:1\n\
             [init]\ntemplateDir = {home}/template\n[transfer]\nfsckObjects = true\n",
            home = home.display()
        ),
    );
    write(&home, "attributes", "* text eol=crlf ident\n");
    write(&home, "run", "#!/bin/sh\ntouch $0.ran\n");
    for place in [format!("{}/tricky/.git", server.url), repo.to_str().unwrap().to_owned()] {
        for umask in ["0077", "0000", "0777"] {
            if umask == "0777" && rustix::process::geteuid().as_raw() != 0 {
                continue; // then not even the cache can be made
            }
            let this = std::env::current_exe().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", "umask $0; exec \"$@\"", umask]).arg(this);
            command.args(["--exact", "source::in_another_process", "--ignored"]);
            command.env("HOME", &home).env("XDG_CONFIG_HOME", &home).env("TEST_PLACE", &place);
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{place} {umask}: {text}");
        }
    }
    assert!(!home.join("ran").exists() && !home.join("run.ran").exists());
}

#[test]
fn an_entry_that_must_not_reach_a_disk_is_refused_and_nothing_is_written() {
    let world = World::new();
    let repo = world.repo("bad");
    let odb = git2::Repository::open(&repo).unwrap();
    let odb = odb.odb().unwrap();
    let blob = odb.write(git2::ObjectType::Blob, b"evil\n").unwrap();
    let nul = odb.write(git2::ObjectType::Blob, b"a\0b").unwrap();
    let raw = |entries: &[(&str, &str, git2::Oid)]| {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            bytes.extend_from_slice(id.as_bytes());
        }
        odb.write(git2::ObjectType::Tree, &bytes).unwrap()
    };
    let inner = raw(&[("100644", "passwd", blob)]);
    let cases: Vec<Vec<(&str, &str, git2::Oid)>> = vec![
        vec![("100644", ".git", blob)],
        vec![("40000", ".GIT", inner)],
        vec![("40000", "git~1", inner)],
        vec![("100644", ".git ", blob)],
        vec![("100644", ".g\u{200c}it", blob)],
        vec![("40000", "..", inner)],
        vec![("100644", ".", blob)],
        vec![("100644", "", blob)],
        vec![("100644", "a/b", blob)],
        vec![("100644", "/etc/x", blob)],
        vec![("120000", "link", blob), ("40000", "link", inner)],
        vec![("100644", "twice", blob), ("100644", "twice", blob)],
        vec![("120000", "nul", nul)],
        vec![("000000", "none", blob)],
        vec![("100644", "tree", inner)],
        vec![("40000", "blob", blob)],
    ];
    for (n, entries) in cases.iter().enumerate() {
        let tree = raw(entries);
        let sha = git(&repo, &["commit-tree", "-m", "bad", &tree.to_string()]);
        let fetched = world.fetch(repo.to_str().unwrap(), &sha).unwrap();
        let dest = world.path(&format!("out{n}/tree"));
        fs::create_dir_all(dest.parent().unwrap()).unwrap();
        let error = checkout(&fetched, &dest, T, &nobody).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{entries:?}: {}", told(&error));
        let left: Vec<_> = walkdir::WalkDir::new(dest.parent().unwrap())
            .into_iter()
            .flatten()
            .filter(|e| e.file_type().is_file())
            .collect();
        assert!(left.is_empty(), "{entries:?}: {left:?}");
    }
}

#[test]
fn a_local_repository_is_found_from_anywhere_inside_it_and_read_in_place() {
    let world = World::new();
    let repo = world.repo("shop");
    git(&repo, &["remote", "add", "origin", &format!("https://me:{CANARY}@example.org/team/shop.git")]);
    let sha = git(&repo, &["rev-parse", "HEAD"]);
    git(&repo, &["worktree", "add", "-q", "../linked", "--detach", "v1"]);
    git(&repo, &["clone", "-q", "--bare", ".", "../bare.git"]);
    git(&repo, &["commit", "-q", "--allow-empty", "-m", "second"]);
    git(&repo, &["clone", "-q", "--depth", "1", &format!("file://{}", repo.display()), "../shallow"]);
    let second = git(&repo, &["rev-parse", "HEAD"]);
    let cases = [
        ("shop", &second, "shop", Some("shop")),
        ("shop/lib", &second, "shop", Some("shop")),
        ("shop/.git", &second, "shop", Some("shop")),
        ("linked/lib", &sha, "linked", Some("linked")),
        ("bare.git", &sha, "bare", None),
        ("shallow", &second, "shallow", Some("shallow")),
    ];
    for (path, sha, name, top) in cases {
        let place: Place = world.path(path).to_str().unwrap().parse().unwrap();
        let fetched = fetch(&place, "HEAD", &world.path("mirrors"), &access(&[]), &nobody).unwrap();
        assert_eq!((&fetched.commit.sha, fetched.commit.name.as_str()), (sha, name), "{path}");
        let top = top.map(|top| fs::canonicalize(world.path(top)).unwrap());
        assert_eq!(working_tree_root(&place).unwrap(), top, "{path}");
        assert_eq!(world.tree(&fetched, &format!("out-{}", path.replace('/', "-"))).len(), 4);
        let origin = matches!(path, "shop" | "shop/lib" | "shop/.git" | "linked/lib")
            .then_some("https://example.org/team/shop.git");
        assert_eq!(fetched.commit.origin.as_deref(), origin, "{path}");
    }
    let url = format!("file://{}", repo.display());
    for rev in ["main", "v1", "refs/tags/v1", &sha[..10], &sha] {
        let wanted = if rev == "main" { &second } else { &sha };
        assert_eq!(&world.fetch(&url, rev).unwrap().commit.sha, wanted, "{rev}");
    }
    assert!(!world.path("mirrors").exists());
}

#[test]
fn a_dirty_working_tree_is_built_from_its_commit_and_says_so() {
    let world = World::new();
    let repo = world.repo("shop");
    let place: Place = repo.to_str().unwrap().parse().unwrap();
    let look = |rev: &str| {
        let mut dirty = false;
        let said = heard(|watch| {
            let fetched = fetch(&place, rev, &world.path("mirrors"), &access(&[]), watch).unwrap();
            assert_eq!(read_file(&fetched, "lib/a.ex").unwrap().unwrap(), b"1\n");
            dirty = fetched.commit.dirty;
        });
        (dirty, said)
    };
    assert_eq!(look("HEAD"), (false, String::new()));
    write(&repo, "new.ex", "new\n");
    let (dirty, said) = look("HEAD");
    assert!(!dirty && said.contains("0 changed, 1 untracked, such as `new.ex`"), "{said}");
    write(&repo, "lib/a.ex", "changed\n");
    let (dirty, said) = look("main");
    assert!(dirty && said.contains("1 changed, 1 untracked, such as `lib/a.ex`"), "{said}");
    git(&repo, &["add", "-A"]);
    assert!(look("HEAD").0);
    git(&repo, &["commit", "-q", "-m", "second"]);
    assert_eq!(look("v1"), (false, String::new()));
}

#[test]
fn submodules_and_lfs_pointers_are_named_and_not_fetched() {
    let world = World::new();
    let (repo, module) = (world.repo("shop"), world.repo("module"));
    git(&repo, &["submodule", "--quiet", "add", module.to_str().unwrap(), "vendor/module"]);
    write(&repo, "priv/big.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    commit(&repo, "more");
    let fetched = world.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    let said = heard(|watch| checkout(&fetched, &world.path("tree"), T, watch).unwrap());
    assert!(said.contains("empty directories: `vendor/module`"), "{said}");
    assert!(said.contains("pointers of Git LFS: `priv/big.bin`"), "{said}");
    let tree = seen(&world.path("tree"));
    assert_eq!(tree["vendor/module"], format!("755 {T} /"));
    assert!(!tree.contains_key("vendor/module/mix.exs"));
}

#[test]
fn a_file_of_the_commit_is_read_without_a_checkout() {
    let world = World::new();
    let repo = world.repo("shop");
    std::os::unix::fs::symlink("mix.exs", repo.join("link")).unwrap();
    write(&repo, "big", &"x".repeat((1 << 20) + 1));
    commit(&repo, "more");
    let fetched = world.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    assert_eq!(read_file(&fetched, "lib/a.ex").unwrap().unwrap(), b"1\n");
    for none in ["phial.toml", "lib/b.ex", "mix.exs/x", "../mix.exs", ""] {
        assert_eq!(read_file(&fetched, none).unwrap(), None, "{none}");
    }
    for bad in ["link", "lib", "big"] {
        assert_eq!(read_file(&fetched, bad).unwrap_err().exit_code(), 3, "{bad}");
    }
}

#[test]
fn what_is_no_revision_is_refused_before_any_connection() {
    let world = World::new();
    world.repo("shop");
    let server = GitServer::start(world.dir.path());
    let url = format!("{}/shop/.git", server.url);
    let long = "x".repeat(1 << 20);
    for rev in [
        "",
        "-x",
        "--upload-pack=touch /tmp/x",
        "a..b",
        "HEAD@{1}",
        "@",
        "a b",
        "a\nb",
        "a\0b",
        "v1^{}",
        "HEAD~1",
        "a:b",
        "x.lock",
        "refs/heads/../x",
        &long,
        &"a".repeat(64),
    ] {
        let error = world.fetch(&url, rev).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{rev}");
        assert!(!told(&error).contains(char::is_control) && told(&error).len() < 2000, "{rev:?}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn what_is_no_source_is_refused_and_shows_no_user_information() {
    for place in [
        "",
        "-oProxyCommand=x",
        "--upload-pack=x",
        "ssh://-oX/y",
        "ssh://-x@host/y",
        "git@-host:y",
        "git@host:-y",
        "ext::sh -c x",
        "fd::3",
        "git://host/x",
        "ftp://host/x",
        "http://example.org/x",
        "http://127.0.0.1.example.org/x",
        "https:///x",
        "https://host",
        "https://host/",
        "https://ho st/x",
        "https://host/a b",
        "https://host/x\r\n",
        "https://host:99999/x",
        "file://host/x",
        "https://[::1/x",
        "https://a\\b/x",
    ] {
        let error = place.parse::<Place>().unwrap_err();
        assert_eq!((error.exit_code(), error.hint().is_some()), (2, true), "{place}");
    }
    let error = format!("gopher://me:{CANARY}@host/x").parse::<Place>().unwrap_err();
    assert!(!told(&error).contains(CANARY), "{}", told(&error));
}

#[test]
fn a_revision_or_repository_that_is_not_there_is_a_clear_error() {
    let world = World::new();
    world.repo("shop");
    let server = GitServer::start(world.dir.path());
    let url = format!("{}/shop/.git", server.url);
    for rev in ["nope", "refs/heads/nope", "0123456789012345678901234567890123456789", "0123456"] {
        for place in [&url, world.path("shop").to_str().unwrap()] {
            let error = world.fetch(place, rev).unwrap_err();
            assert_eq!((error.exit_code(), error.hint().is_some()), (3, true), "{rev}: {}", told(&error));
            assert!(told(&error).contains("looked for"), "{}", told(&error));
        }
    }
    assert_eq!(world.fetch(world.path("nowhere").to_str().unwrap(), "HEAD").unwrap_err().exit_code(), 3);
    assert_eq!(world.fetch("/", "HEAD").unwrap_err().exit_code(), 3);
    assert_eq!(world.fetch(&format!("{}/nowhere", server.url), "HEAD").unwrap_err().exit_code(), 3);
}

#[test]
fn a_place_shows_its_url_without_user_information() {
    for (text, shown) in [
        ("https://me:pw@Example.org:8443/a/b.git", "https://example.org:8443/a/b.git"),
        ("https://token@example.org/a", "https://example.org/a"),
        ("git@example.org:team/shop.git", "example.org:team/shop.git"),
        ("ssh://git@example.org:2222/a", "ssh://example.org:2222/a"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://localhost/a", "http://localhost/a"),
        ("./a:b", "./a:b"),
        ("dir/sub", "dir/sub"),
        ("file:///srv/x y", "/srv/x y"),
    ] {
        let place: Place = text.parse().unwrap();
        assert_eq!((place.to_string(), format!("{place:?}")), (shown.to_owned(), shown.to_owned()));
    }
}

#[test]
fn an_empty_repository_and_one_of_sha256_are_clear_errors() {
    let world = World::new();
    git(world.dir.path(), &["init", "-q", "empty"]);
    git(world.dir.path(), &["init", "-q", "--object-format=sha256", "other"]);
    let server = GitServer::start(world.dir.path());
    for place in [world.path("empty").to_str().unwrap(), &format!("{}/empty/.git", server.url)] {
        let error = world.fetch(place, "HEAD").unwrap_err();
        assert!(matches!(error, SourceError::Empty { .. }), "{}", told(&error));
    }
    let error = world.fetch(world.path("other").to_str().unwrap(), "HEAD").unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.hint().unwrap().contains("SHA-256"), "{}", told(&error));
}

#[test]
fn credentials_of_every_kind_open_a_private_server_and_are_never_shown() {
    let world = World::new();
    world.repo("shop");
    let (token, pair) = (base64("x-access-token"), base64("me"));
    let (by_token, by_name) =
        (GitServer::start_private(world.dir.path(), &token), GitServer::start_private(world.dir.path(), &pair));
    let home = world.path("home");
    write(
        &home,
        ".gitconfig",
        &format!(
            "[credential]\nhelper = \"!f() {{ test $1 = get && echo username=me && echo password={CANARY}; }}; f\"\n"
        ),
    );
    let (path, home) = (Host::read().var("PATH").unwrap().to_owned(), home.to_str().unwrap().to_owned());
    let asked = |server: &GitServer| format!("{}/shop/.git", server.url);
    let in_url = asked(&by_name).replace("http://", &format!("http://me:{CANARY}@"));
    let helper = [("PATH", path.as_str()), ("HOME", home.as_str())];
    let good: [(_, _, &[_]); 4] = [
        ("token", asked(&by_token), &[("GIT_TOKEN", CANARY)]),
        ("token and name", asked(&by_name), &[("GIT_TOKEN", CANARY), ("GIT_USERNAME", "me")]),
        ("url", in_url, &[("GIT_TOKEN", "wrong")]),
        ("helper", asked(&by_name), &helper),
    ];
    for (kind, url, env) in &good {
        let fresh = World::new();
        let fetched = fresh.fetch_as(url, "main", env).map_err(|error| told(&error)).expect(kind);
        assert!(!format!("{fetched:?}").contains(CANARY), "{kind}");
        let mut files =
            walkdir::WalkDir::new(fresh.dir.path()).into_iter().flatten().filter(|e| e.file_type().is_file());
        assert!(!files.any(|file| String::from_utf8_lossy(&fs::read(file.path()).unwrap()).contains(CANARY)), "{kind}");
    }
    let wrong = format!("{CANARY}-wrong");
    let bad: [(&str, &[(&str, &str)]); 4] = [
        ("none were found", &[]),
        ("`GIT_TOKEN` refused", &[("GIT_TOKEN", &wrong), ("GITHUB_TOKEN", CANARY), ("CI_JOB_TOKEN", CANARY)]),
        (
            "`GIT_TOKEN`, `CI_JOB_TOKEN` refused",
            &[("GIT_TOKEN", &wrong), ("CI_JOB_TOKEN", &wrong), ("CI_SERVER_HOST", "127.0.0.1")],
        ),
        ("`GIT_TOKEN`, `git credential` refused", &[("GIT_TOKEN", &wrong), helper[0], helper[1]]),
    ];
    for (what, env) in bad {
        let fresh = World::new();
        let error = fresh.fetch_as(&asked(&by_token), "main", env).unwrap_err();
        assert_eq!(error.exit_code(), 5, "{}", told(&error));
        assert!(told(&error).contains(what) && !told(&error).contains(CANARY), "{what}: {}", told(&error));
    }
    assert!(!format!("{:?}", access(&[("GIT_TOKEN", CANARY)])).contains(CANARY));
}

fn base64(user: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{CANARY}")))
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_server() {
    let world = World::new();
    world.repo("shop");
    let thief = GitServer::start_private(world.dir.path(), "Basic none");
    for to in [thief.url.replace("127.0.0.1", "localhost"), thief.url.clone()] {
        for wanted in [None, Some(base64("me")), Some(base64("x-access-token"))] {
            let front = GitServer::start_redirect(&to, wanted.as_deref());
            let url = format!("{}/shop/.git", front.url.replace("http://", &format!("http://me:{CANARY}@")));
            let error = world.fetch_as(&url, "main", &[("GIT_TOKEN", CANARY)]).unwrap_err();
            assert!(!told(&error).contains(CANARY), "{}", told(&error));
            assert!(matches!(error, SourceError::Redirected { .. }) && error.exit_code() == 5, "{}", told(&error));
        }
    }
    let seen = thief.requests();
    assert!(!seen.is_empty() && seen.iter().all(|request| request.authorization.is_none()), "{seen:?}");
}

#[test]
fn a_redirect_to_an_open_repository_is_followed() {
    let world = World::new();
    world.repo("shop");
    let server = GitServer::start(world.dir.path());
    let front = GitServer::start_redirect(&server.url, None);
    let fetched = world.fetch(&format!("{}/shop/.git", front.url), "v1").unwrap();
    assert_eq!(world.tree(&fetched, "tree").len(), 4);
    assert!(server.requests().iter().any(|request| request.line.starts_with("POST ")));
}

#[test]
fn a_broken_mirror_is_set_aside_and_made_again() {
    let world = World::new();
    let repo = world.repo("shop");
    let sha = git(&repo, &["rev-parse", "HEAD"]);
    let server = GitServer::start(world.dir.path());
    let url = format!("{}/shop/.git", server.url);
    let good = world.tree(&world.fetch(&url, &sha).unwrap(), "good");
    let mirror = fs::read_dir(world.path("mirrors"))
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "git"))
        .unwrap();
    let packs = mirror.join("objects/pack");
    let damage: [(&str, &dyn Fn()); 4] = [
        ("packs lost", &|| fs::remove_dir_all(&packs).unwrap()),
        ("no HEAD", &|| fs::remove_file(mirror.join("HEAD")).unwrap()),
        ("packs cut", &|| {
            for pack in fs::read_dir(&packs).unwrap().flatten() {
                let half = pack.metadata().unwrap().len() / 2;
                fs::set_permissions(pack.path(), fs::Permissions::from_mode(0o600)).unwrap();
                fs::File::options().write(true).open(pack.path()).unwrap().set_len(half).unwrap();
            }
        }),
        ("half made", &|| {
            fs::remove_dir_all(&mirror).unwrap();
            fs::create_dir(&mirror).unwrap();
        }),
    ];
    for (n, (what, damage)) in damage.iter().enumerate() {
        damage();
        let said = heard(|watch| {
            let fetched = fetch(&url.parse().unwrap(), &sha, &world.path("mirrors"), &access(&[]), watch);
            let fetched = fetched.map_err(|error| told(&error)).expect(what);
            assert_eq!(world.tree(&fetched, &format!("again{n}")), good, "{what}");
        });
        assert!(said.contains("is made again"), "{what}: {said}");
    }
    // a wrong bit in a blob is seen when it is read; the run after that starts afresh
    let pack = fs::read_dir(&packs)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "pack"))
        .unwrap();
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let end = bytes.len() - 24;
    bytes[end] ^= 0x55;
    fs::write(&pack, bytes).unwrap();
    let failed = world.fetch(&url, &sha).and_then(|fetched| checkout(&fetched, &world.path("flip"), T, &nobody));
    assert_eq!(failed.unwrap_err().exit_code(), 4);
    assert_eq!(world.tree(&world.fetch(&url, &sha).unwrap(), "after"), good);
}

#[test]
fn many_fetches_at_once_into_one_mirror_all_succeed() {
    let world = World::new();
    world.repo("shop");
    let server = GitServer::start(world.dir.path());
    let url = format!("{}/shop/.git", server.url);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (world, url) = (&world, &url);
            scope.spawn(move || {
                let rev = ["main", "v1", "HEAD"][n % 3];
                assert_eq!(world.tree(&world.fetch(url, rev).unwrap(), &format!("t{n}")).len(), 4);
            });
        }
    });
    assert_eq!(world.commits_in_mirrors(), 1);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let world = World::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place: Place = format!("http://{}/x", silent.local_addr().unwrap()).parse().unwrap();
    let access = access(&[]).with_patience(Duration::from_secs(1));
    let error = fetch(&place, "main", &world.path("mirrors"), &access, &nobody).unwrap_err();
    assert!(matches!(error, SourceError::Stalled { seconds: 1, .. }) && error.exit_code() == 4, "{}", told(&error));
}

#[test]
fn a_repository_of_another_user_is_read() {
    if rustix::process::geteuid().as_raw() != 0 {
        return; // only root can give a repository away
    }
    let world = World::new();
    let repo = world.repo("shop");
    for entry in walkdir::WalkDir::new(&repo).into_iter().flatten() {
        std::os::unix::fs::lchown(entry.path(), Some(65534), Some(65534)).unwrap();
    }
    let fetched = world.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    assert_eq!(world.tree(&fetched, "tree").len(), 4);
    assert!(!fetched.commit.dirty);
}

#[test]
fn a_checkout_into_a_directory_that_is_not_empty_is_refused() {
    let world = World::new();
    let repo = world.repo("shop");
    let fetched = world.fetch(repo.to_str().unwrap(), "HEAD").unwrap();
    write(&world.path("full"), "mine", "kept\n");
    assert_eq!(checkout(&fetched, &world.path("full"), T, &nobody).unwrap_err().exit_code(), 6);
    assert_eq!(seen(&world.path("full")).len(), 2);
    let elsewhere = world.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, world.path("link")).unwrap();
    assert_eq!(checkout(&fetched, &world.path("link"), T, &nobody).unwrap_err().exit_code(), 6);
    assert_eq!(seen(&elsewhere).len(), 1);
}

#[test]
fn a_server_whose_certificate_nobody_vouches_for_is_refused() {
    let world = World::new();
    let (key, cert) = (world.path("key.pem"), world.path("cert.pem"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=127.0.0.1"]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]).arg(&key).arg("-out").arg(&cert);
    assert!(command.stderr(Stdio::null()).status().unwrap().success());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}"), "-key"]).arg(&key);
    let server =
        server.arg("-cert").arg(&cert).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut server = server.unwrap();
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let fetched = world.fetch_as(&format!("https://127.0.0.1:{port}/x"), "main", &[("GIT_TOKEN", CANARY)]);
    server.kill().unwrap();
    server.wait().unwrap();
    let error = fetched.unwrap_err();
    assert!(matches!(error, SourceError::Untrusted { .. }) && error.exit_code() == 5, "{}", told(&error));
    assert!(error.hint().unwrap().contains("SSL_CERT_FILE"), "{}", told(&error));
}
