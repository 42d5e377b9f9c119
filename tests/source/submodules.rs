//! Submodules: from real servers and from clones, at the SHA that the commit names, and nothing else that `.gitmodules` asks for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use phial::error::UserError as _;
use phial::event::discard;
use phial::host::Host;
use phial::source::{Access, Fetched, GitHost, Location, SourceError, fetch, fetch_submodules, list, read_file};

use super::{CANARY, SourceTest, access, commit, full_message, git, notices_of, write};
use crate::harness::busybox::busybox_base;
use crate::harness::git_http::GitServer;
use crate::harness::prebuilt::elixir_base;
use crate::harness::{TestEnv, run};

/// Adds a submodule to the index, as a commit may have it whatever git thinks of its URL.
fn add(repo: &Path, path: &str, url: &str, sha: &str) {
    let old = fs::read_to_string(repo.join(".gitmodules")).unwrap_or_default();
    let url = if url.is_empty() { String::new() } else { format!("\turl = {url}\n") };
    write(repo, ".gitmodules", &format!("{old}[submodule \"{path}\"]\n\tpath = {path}\n{url}"));
    git(repo, &["update-index", "--add", "--cacheinfo", &format!("160000,{sha},{path}")]);
    git(repo, &["add", ".gitmodules"]);
    git(repo, &["commit", "-q", "-m", "a submodule"]);
}

fn head(repo: &Path) -> String {
    git(repo, &["rev-parse", "HEAD"])
}

fn with_submodules(test: &SourceTest, location: &str, access: &Access) -> Result<Fetched, SourceError> {
    let location: Location = location.parse()?;
    let mut fetched = fetch(&location, "HEAD", &test.path("mirrors"), access, &discard)?;
    fetch_submodules(&mut fetched, &test.path("mirrors"), access, &discard)?;
    Ok(fetched)
}

/// An app with a submodule that has one itself. Returns the tree that an image of it has.
fn nested(test: &SourceTest) -> BTreeMap<String, String> {
    let (shop, util, deep) = (test.repo("shop"), test.repo("util"), test.repo("deep"));
    write(&deep, "lib/deep.ex", "deep\n");
    commit(&deep, "more");
    write(&util, "lib/old.ex", "at the SHA\n");
    commit(&util, "old");
    add(&util, "vendor/deep", "../deep", &head(&deep));
    let old = head(&util);
    write(&util, "lib/old.ex", "on the branch\n");
    git(&util, &["commit", "-q", "-m", "new", "lib/old.ex"]);
    write(&shop, "vendor/util.txt", "sorts between\n");
    commit(&shop, "more");
    add(&shop, "vendor/util", "../util.git/", &old);
    git(test.dir.path(), &["clone", "-q", "--bare", "util", "util.git"]);
    let expected = test.path("as-git");
    for (from, to) in [("shop", "as-git"), ("util", "as-git/vendor/util"), ("deep", "as-git/vendor/util/vendor/deep")] {
        let sha = if from == "util" { old.clone() } else { head(&test.path(from)) };
        let to = test.path(to);
        fs::create_dir_all(&to).expect("a directory");
        git(&test.path(from), &["--work-tree", to.to_str().expect("text"), "checkout", "-q", &sha, "--", "."]);
        git(&test.path(from), &["checkout", "-q", "-f", "main", "--", "."]);
    }
    files(&expected)
}

/// The files below a directory, with their content.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let found = walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let name = |path: &Path| path.strip_prefix(dir).expect("below").to_str().expect("text").to_owned();
    found.map(|entry| (name(entry.path()), fs::read_to_string(entry.path()).expect("text"))).collect()
}

fn checked_out(test: &SourceTest, fetched: &Fetched, name: &str) -> BTreeMap<String, String> {
    test.tree(fetched, name);
    files(&test.path(name))
}

#[test]
fn submodules_and_theirs_are_fetched_at_their_shas_beside_the_repository() {
    let test = SourceTest::new();
    let expected = nested(&test);
    assert_eq!(expected["vendor/util/lib/old.ex"], "at the SHA\n");
    assert_eq!(expected["vendor/util/vendor/deep/lib/deep.ex"], "deep\n");
    let server = GitServer::start(test.dir.path());
    let url = format!("{}/shop", server.url);
    let fetched = with_submodules(&test, &url, &access(&[])).map_err(|error| full_message(&error)).unwrap();
    assert_eq!(checked_out(&test, &fetched, "there"), expected);
    assert!(list(&fetched).unwrap().is_sorted());
    assert_eq!(read_file(&fetched, "vendor/util/vendor/deep/lib/deep.ex").unwrap().unwrap(), b"deep\n");
    // Commits that were fetched once need no server.
    let asked = server.requests().len();
    let again = with_submodules(&test, &url, &access(&[])).unwrap();
    assert_eq!(checked_out(&test, &again, "again"), expected);
    let for_head = server.requests().len() - asked;
    assert!(for_head <= 2, "{:?}", server.requests());
    // A clone without its submodules takes them from the servers that its origin names.
    git(test.dir.path(), &["clone", "-q", &url, "clone"]);
    let clone = test.path("clone").to_str().unwrap().to_owned();
    let here = with_submodules(&test, &clone, &access(&[])).map_err(|error| full_message(&error)).unwrap();
    assert_eq!(checked_out(&test, &here, "here"), expected);
}

#[test]
fn a_clone_that_has_its_submodules_needs_no_server() {
    let test = SourceTest::new();
    let expected = nested(&test);
    let server = GitServer::start(test.dir.path());
    git(test.dir.path(), &["clone", "-q", "--recurse-submodules", &format!("{}/shop", server.url), "clone"]);
    git(&test.path("clone"), &["worktree", "add", "-q", "--detach", "../linked"]);
    drop(server);
    for (nth, location) in ["clone", "clone/lib", "linked"].into_iter().enumerate() {
        let location = test.path(location).to_str().unwrap().to_owned();
        let here = with_submodules(&test, &location, &access(&[])).map_err(|error| full_message(&error)).unwrap();
        assert_eq!(checked_out(&test, &here, &format!("here{nth}")), expected, "{location}");
    }
    assert!(!test.path("mirrors").exists());
    // What git keeps is enough, and what is not there is asked for.
    fs::remove_dir_all(test.path("clone/vendor/util")).unwrap();
    let clone = test.path("clone").to_str().unwrap().to_owned();
    assert_eq!(checked_out(&test, &with_submodules(&test, &clone, &access(&[])).unwrap(), "kept"), expected);
    fs::remove_dir_all(test.path("clone/.git/modules/vendor/util")).unwrap();
    let error = with_submodules(&test, &clone, &access(&[])).unwrap_err();
    assert!(error.to_string().contains("cannot fetch the submodule `vendor/util`"), "{}", full_message(&error));
    assert!(error.hint().unwrap().contains("`submodules = false`"), "{}", full_message(&error));
    assert_eq!(error.exit_kind().code(), 4);
}

#[test]
fn what_gitmodules_may_not_ask_for_is_refused_by_the_name_of_the_submodule() {
    let test = SourceTest::new();
    let (shop, util) = (test.repo("shop"), test.repo("util"));
    let first = head(&shop);
    let here = util.to_str().unwrap().to_owned();
    let file = format!("file://{here}");
    let touched = test.path("touched");
    let ext = format!("ext::touch {}", touched.display());
    let server = GitServer::start(test.dir.path());
    for url in [
        "",
        &ext,
        "--upload-pack=x",
        &here,
        &file,
        "../../../../util",
        "./../../..",
        "http://git.example/x",
        "git://127.0.0.1/x",
        "ssh://-oProxyCommand=x/y",
        &format!("http://me:{CANARY}@git.example/util"),
    ] {
        git(&shop, &["reset", "-q", "--hard", &first]);
        add(&shop, "vendor/util", url, &head(&util));
        for location in [shop.to_str().unwrap(), &format!("{}/shop", server.url)] {
            let error = with_submodules(&test, location, &access(&[])).unwrap_err();
            let text = full_message(&error);
            assert_eq!(error.exit_kind().code(), 3, "{url}: {text}");
            assert!(text.contains("submodule `vendor/util`") && !text.contains(CANARY), "{url}: {text}");
            assert!(error.hint().unwrap().contains("`.gitmodules`"), "{url}: {text}");
        }
    }
    assert!(!touched.exists());
    let error = {
        git(&shop, &["reset", "-q", "--hard", &first]);
        add(&shop, "vendor/util", "../util", "0123456789012345678901234567890123456789");
        with_submodules(&test, &format!("{}/shop", server.url), &access(&[])).unwrap_err()
    };
    assert_eq!(error.exit_kind().code(), 3);
    assert!(full_message(&error).contains("has no revision `0123456789"), "{}", full_message(&error));
}

#[test]
fn a_commit_with_too_many_submodules_is_refused() {
    let test = SourceTest::new();
    let shop = test.repo("shop");
    let sha = head(&shop);
    let names: Vec<String> = (0..501).map(|n| format!("m{n}")).collect();
    let modules: Vec<String> =
        names.iter().map(|name| format!("[submodule \"{name}\"]\npath = {name}\nupdate = none\n")).collect();
    write(&shop, ".gitmodules", &modules.concat());
    let links: Vec<String> = names.iter().map(|name| format!("160000 {sha}\t{name}\n")).collect();
    super::git_with(&shop, &["update-index", "--index-info"], links.concat().as_bytes());
    git(&shop, &["add", ".gitmodules"]);
    git(&shop, &["commit", "-q", "-m", "many"]);
    let error = with_submodules(&test, shop.to_str().unwrap(), &access(&[])).unwrap_err();
    assert_eq!(error.exit_kind().code(), 3);
    assert!(error.to_string().contains("too many submodules"), "{}", full_message(&error));
}

#[test]
fn a_server_gets_the_callers_credentials_only_if_he_names_it_or_the_repository_is_there() {
    use base64::Engine as _;
    let test = SourceTest::new();
    let (shop, util) = (test.repo("shop"), test.repo("util"));
    let login =
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{CANARY}")));
    let own = GitServer::start_private(test.dir.path(), &login);
    let other = GitServer::start_private(test.dir.path(), &login);
    let url = format!("{}/shop", own.url);
    let host = |url: &str| url.trim_start_matches("http://").parse::<GitHost>().unwrap();
    let access = |hosts: &[&str]| {
        let hosts: Vec<GitHost> = hosts.iter().map(|url| host(url)).collect();
        let env = [("GIT_TOKEN".to_owned(), CANARY.to_owned())].into();
        Access::of(&Host { env, ..Host::read() }, &hosts)
    };
    add(&shop, "one", "../util", &head(&util));
    with_submodules(&test, &url, &access(&[&own.url])).map_err(|error| full_message(&error)).unwrap();
    // A login in the URL of the repository is one for its server.
    let with_login = format!("{}/shop", own.url.replace("http://", &format!("http://x-access-token:{CANARY}@")));
    let fresh = SourceTest::new();
    with_submodules(&fresh, &with_login, &access(&[])).map_err(|error| full_message(&error)).unwrap();

    add(&shop, "two", &format!("{}/util", other.url), &head(&util));
    let error = with_submodules(&test, &url, &access(&[&own.url])).unwrap_err();
    assert_eq!(error.exit_kind().code(), 5, "{}", full_message(&error));
    let flag = format!("`--git-host {}`", other.url.trim_start_matches("http://"));
    assert!(error.hint().unwrap().contains(&flag), "{}", full_message(&error));
    assert!(!full_message(&error).contains(CANARY));
    let fresh = SourceTest::new();
    assert!(with_submodules(&fresh, &with_login, &access(&[])).is_err());
    assert!(other.requests().iter().all(|request| request.authorization.is_none()), "{:?}", other.requests());
    with_submodules(&test, &url, &access(&[&own.url, &other.url])).map_err(|error| full_message(&error)).unwrap();
}

#[test]
fn changes_in_a_submodule_are_changes_of_the_working_tree() {
    let test = SourceTest::new();
    nested(&test);
    let server = GitServer::start(test.dir.path());
    git(test.dir.path(), &["clone", "-q", "--recurse-submodules", &format!("{}/shop", server.url), "clone"]);
    let clone = test.path("clone");
    let changes = || {
        notices_of(|watch| {
            let fetched = with_submodules(&test, clone.to_str().unwrap(), &access(&[])).unwrap();
            fetched.report_changes(&|_| true, watch);
        })
    };
    assert_eq!(changes(), "");
    let deep = "vendor/util/vendor/deep";
    write(&clone.join(deep), "lib/deep.ex", "changed\n");
    assert!(
        changes().contains("1 changed, 0 untracked, such as `vendor/util/vendor/deep/lib/deep.ex`"),
        "{}",
        changes()
    );
    git(&clone.join(deep), &["checkout", "-q", "."]);
    git(&clone.join("vendor/util"), &["checkout", "-q", "origin/main"]);
    assert!(changes().contains("1 changed, 0 untracked, such as `vendor/util`"), "{}", changes());
}

#[test]
fn an_image_has_the_files_of_submodules_unless_the_settings_leave_them_out() {
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let base = format!("oci:{}", busybox_base().display());
    let util = env.path("util");
    fs::create_dir(&util).unwrap();
    git(util.as_ref(), &["init", "-q", "-b", "main"]);
    write(util.as_ref(), "assets/logo.txt", "a logo\n");
    commit(util.as_ref(), "a logo");
    let settings = fs::read_to_string(repo.dir().join("phial.toml")).unwrap_or_default();
    git(repo.dir(), &["submodule", "--quiet", "add", &util, "vendor/util"]);
    repo.commit("a submodule");
    let build = || run(env.phial(["build", repo.source(), "--base", &base, "--to", "oci:out"]));
    let cat = || run(env.phial(["run", "oci:out", "--", "cat", "/app/vendor/util/assets/logo.txt"]));
    for _ in 0..2 {
        build().ok();
        assert_eq!(cat().ok(), "a logo");
    }
    repo.write("phial.toml", format!("{settings}\n[source]\nsubmodules = false\n"));
    repo.commit("without");
    for _ in 0..2 {
        let built = build();
        assert!(
            built.stderr.contains("these submodules are not fetched, the image has empty directories: `vendor/util`")
        );
        assert_eq!(built.code, Some(0));
        let listed = run(env.phial(["run", "oci:out", "--", "ls", "-A", "/app/vendor/util"])).ok();
        assert_eq!(listed, "");
    }
    // One that cannot be fetched is an error before anything runs.
    repo.write("phial.toml", &settings);
    repo.write(".gitmodules", "");
    repo.commit("without a URL");
    let stderr = build().failed(3);
    assert!(stderr.contains("cannot fetch the submodule `vendor/util`: `.gitmodules` has no URL for it"), "{stderr}");
    assert!(stderr.contains("hint: ") && stderr.contains("`submodules = false`"), "{stderr}");
}

#[test]
fn a_path_dependency_in_a_submodule_is_compiled_and_in_the_key_of_the_dependencies() {
    let env = TestEnv::new();
    let repo = env.app("hello");
    let base = format!("oci:{}", elixir_base().display());
    let util = env.path("util");
    let util_dir = Path::new(&util);
    fs::create_dir(util_dir).unwrap();
    git(util_dir, &["init", "-q", "-b", "main"]);
    let project = "[app: :util, version: \"0.1.0\", deps: []]";
    write(
        util_dir,
        "mix.exs",
        &format!("defmodule Util.MixProject do\n  use Mix.Project\n  def project, do: {project}\nend\n"),
    );
    write(util_dir, "lib/util.ex", "defmodule Util do\n  def word, do: \"from the submodule\"\nend\n");
    commit(util_dir, "a library");
    git(repo.dir(), &["submodule", "--quiet", "add", &util, "vendor/util"]);
    let mix = fs::read_to_string(repo.dir().join("mix.exs")).unwrap();
    repo.write("mix.exs", mix.replace("deps: []", "deps: [{:util, path: \"vendor/util\"}]"));
    repo.commit("a path dependency");
    let word_in_image = || {
        run(env.phial(["build", repo.source(), "--base", &base, "--to", "oci:out", "--env", "prod"])).ok();
        let mix = ["mix", "run", "--no-compile", "--no-start", "-e", "IO.puts(Util.word())"];
        run(env.phial([&["run", "oci:out", "--"][..], &mix].concat())).ok()
    };
    assert!(word_in_image().contains("from the submodule"));
    write(&repo.dir().join("vendor/util"), "lib/util.ex", "defmodule Util do\n  def word, do: \"changed\"\nend\n");
    commit(&repo.dir().join("vendor/util"), "another word");
    repo.commit("the submodule moves");
    assert!(word_in_image().contains("changed"));
}
